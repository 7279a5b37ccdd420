"""From exports to a published adapter, offline. Knows export formats and the trainer; knows no bot."""
