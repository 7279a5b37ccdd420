"""Counts messages in a sliding hour, so that one person or group cannot keep the engine busy for everybody."""

from collections import deque

WINDOW_SECONDS = 3600.0

_MAX_KEYS = 10_000


class RateWindow:
    """How many messages of a sender, or in a chat, the last hour has seen. Kept in memory: a restart forgets it.

    Args:
        limit: messages in an hour that are answered; 0: any number.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._times: dict[tuple[str, ...], deque[float]] = {}

    def allows(self, now: float, *keys: tuple[str, ...]) -> bool:
        """Counts one more message for each key, unless the limit of one is reached; then returns False.

        Args:
            now: seconds by the monotonic clock.
            keys: what is limited, each by itself, such as the sender and the chat.
        """
        if not self._limit:
            return True
        if len(self._times) > _MAX_KEYS:
            recent = now - WINDOW_SECONDS
            self._times = {key: times for key, times in self._times.items() if times and times[-1] > recent}
        windows = [self._times.setdefault(key, deque()) for key in keys]
        for times in windows:
            while times and times[0] <= now - WINDOW_SECONDS:
                times.popleft()
        if any(len(times) >= self._limit for times in windows):
            return False
        for times in windows:
            times.append(now)
        return True
