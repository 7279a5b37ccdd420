"""Tables of messages and posts that no service exports: what people's own scripts and scrapers write."""
