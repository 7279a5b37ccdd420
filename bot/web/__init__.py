"""The web page: chat and blind quiz."""
