"""Notices a message that cannot be received because of a bug: delivered again for ever, it would block the rest."""

MAX_DELIVERIES = 3
"""Deliveries of one event that may fail before it is skipped."""


class RepeatedFailures:
    """Counts how often each event could not be received. Events that never come again are few: a run ends with each."""

    def __init__(self) -> None:
        self._failures: dict[str, int] = {}

    def is_last(self, event_id: str) -> bool:
        """Counts a failure that says nothing about the disk; whether the event is to be skipped now."""
        self._failures[event_id] = self._failures.get(event_id, 0) + 1
        if self._failures[event_id] < MAX_DELIVERIES:
            return False
        del self._failures[event_id]
        return True
