"""Decides which messages are left out: empty ones, forwards, near-duplicates, repeats."""
