"""WeChat: the tables and JSON files of its exporters."""
