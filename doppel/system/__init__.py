"""Files, locks and memory of this machine."""
