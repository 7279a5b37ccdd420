"""Base models: located, downloaded or converted, identified by their weights, and loaded."""
