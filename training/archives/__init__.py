"""One reader for each export format. A reader yields messages and judges nothing."""
