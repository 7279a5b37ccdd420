"""The Twitter / X archive."""
