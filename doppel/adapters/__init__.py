"""Adapter folders: published versions with their manifest, import, checkpoints and export."""
