"""Pages and figures for people: script-free HTML, charts, metrics with intervals, the blind quiz."""
