"""Identifies the owner and the contacts in the archives."""
