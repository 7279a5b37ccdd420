"""The long-running daemon: platforms, conversations, schedules, delivery. Knows no export format and no trainer."""
