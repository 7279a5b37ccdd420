"""Meta's downloads: Messenger and Instagram."""
