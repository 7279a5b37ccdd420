"""The build's report: figures, statistics and the page."""
