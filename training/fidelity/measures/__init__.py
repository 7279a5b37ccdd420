"""The measures of the fidelity report, one a module."""
