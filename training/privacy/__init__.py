"""Keeps private data out of the data set: excluded messages, secrets, forgotten people."""
