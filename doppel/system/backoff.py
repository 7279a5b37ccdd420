"""How long to wait after a failure before the next attempt."""

from random import Random


class Backoff:
    """Exponential backoff with jitter: waits double from `first` to `longest` seconds, each reduced by up to half.

    The jitter keeps clients that failed together from retrying together.
    """

    def __init__(self, random: Random, first: float = 1.0, longest: float = 60.0) -> None:
        self._random = random
        self._first = first
        self._longest = longest
        self._failures = 0

    def next(self) -> float:
        """Seconds to wait after one more failure in a row."""
        ceiling = min(self._longest, self._first * 2.0 ** min(self._failures, 32))
        self._failures += 1
        return ceiling * self._random.uniform(0.5, 1.0)

    def reset(self) -> None:
        """An attempt succeeded: the next failure counts as the first."""
        self._failures = 0
