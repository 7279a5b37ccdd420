"""Commands of the training side: `doppel build`, `doppel train`."""
