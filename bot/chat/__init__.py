"""Decides when to answer what: from a committed message to a delivered reply."""
