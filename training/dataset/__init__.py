"""From archives to a data set on disk: read, cleaned, cut into sessions, split by time."""
