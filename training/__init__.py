"""From exports to a published adapter, offline."""
