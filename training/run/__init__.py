"""One training, from its plan to a published adapter."""
