"""Base models: found or converted once, identified by their weights, loaded whole or quantised."""
