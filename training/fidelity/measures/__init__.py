"""The metrics of the fidelity report, one kind per module."""
