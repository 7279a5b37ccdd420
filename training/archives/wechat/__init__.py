"""WeChat: the CSV and JSON files of its exporters."""
