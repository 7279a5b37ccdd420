"""Reads message archives: one reader for each export format, and the discovery of archives."""
