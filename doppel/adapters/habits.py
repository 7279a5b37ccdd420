"""The owner's habits, measured on their messages: how fast they type, how bubbles follow, how long an answer takes."""

from pathlib import Path

import msgspec

from doppel.adapters.timing import BubbleGap, ReplyDelay

FILE = "habits.json"


class Habits(msgspec.Struct, frozen=True, kw_only=True):
    """Timing measured on the owner's own messages; the defaults are for exports without times.

    Attributes:
        seconds_per_character: median of gap / length over the bubbles of a burst.
        bubble_gap_seconds: deciles (10 %, ..., 90 %) of the gap between the bubbles of a burst, in seconds.
        bubbles_per_turn: mean number of bubbles in a turn of the owner's.
        reply_delay: how long an answer takes; None if the archive has too few, or no times.
        bubble_gap: how bubbles follow one another; None as before.
    """

    seconds_per_character: float = 0.12
    bubble_gap_seconds: tuple[float, ...] = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 11.0, 17.0)
    bubbles_per_turn: float = 1.5
    reply_delay: ReplyDelay | None = None
    bubble_gap: BubbleGap | None = None

    def typing_seconds(self, text: str) -> float:
        """How long the owner takes to type this bubble, in seconds, between 0.4 and 8."""
        return min(8.0, max(0.4, len(text) * self.seconds_per_character))


def read_habits(folder: Path) -> Habits:
    """The habits stored in a data set or adapter folder; the defaults if it has none."""
    try:
        return msgspec.json.decode((folder / FILE).read_bytes(), type=Habits)
    except FileNotFoundError:
        return Habits()


def write_habits(folder: Path, habits: Habits) -> None:
    """Writes habits.json into a data set or adapter folder. Raises OSError."""
    (folder / FILE).write_bytes(msgspec.json.format(msgspec.json.encode(habits), indent=2))
