"""When something that failed is tried again: one policy for replies, bubbles and posts.

What is busy or away is waited out and not counted, until the message is too old to be of use (`reply.stale_after`; for
a post an hour). What fails because of the message or prompt itself is counted, and given up after a few attempts.
"""

from random import Random

from bot.platforms import SendFailed
from doppel.engine import EngineBusy, EngineUnavailable
from doppel.system.backoff import Backoff

LONGEST_WAIT = 5.0
"""Seconds between two attempts while the engine is busy or away: the first reply comes this soon after its return."""

LONGEST_SEND_WAIT = 30.0
"""The same for a bubble that a platform does not take; a platform may ask for a longer wait."""


def is_counted(error: Exception, *, has_served_others: bool) -> bool:
    """Whether a failure to generate counts as an attempt.

    Args:
        error: what was raised.
        has_served_others: whether the engine has generated something since the attempt before. Then it is not away: it
            fails at this prompt, unless it is full.
    """
    if isinstance(error, EngineBusy):
        return False
    return not isinstance(error, EngineUnavailable) or has_served_others


class RetryTimer:
    """The waits between attempts at one thing."""

    def __init__(self, random: Random, longest: float = LONGEST_WAIT) -> None:
        self._longest = longest
        self._backoff = Backoff(random, first=0.5, longest=longest)

    def seconds(self, error: Exception) -> float:
        """How long to wait after this failure: what the other side asks for, or longer each time."""
        wait = self._backoff.next()
        asked = error.retry_after if isinstance(error, EngineUnavailable | SendFailed) else None
        if asked is None:
            return wait
        # An engine's wait is only advice; a platform that is not obeyed blocks the bot.
        return asked if isinstance(error, SendFailed) else min(max(asked, wait), 6 * self._longest)

    def reset(self) -> None:
        """An attempt succeeded: the next failure counts as the first."""
        self._backoff.reset()
