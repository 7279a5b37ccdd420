"""Which messages are left out: empty ones, near-duplicates, repeats."""
