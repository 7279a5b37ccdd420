"""The long-running daemon: platforms, conversations, schedules, delivery."""
