"""Discord: its own data package, and DiscordChatExporter's files."""
