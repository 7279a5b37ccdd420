"""What is cut from a session when messages in it are not to be learned from.

Taking one message out of the middle would set an answer behind a question that it does not answer. So nothing ever
is: what is kept of a session is one or more unbroken stretches of it, each with words of the owner's.

Repeats (`repeats`) go where they stand at an end: own turns before the first that says something new, with
what precedes them, and those after the last, with what follows them. A turn between two that stay is context of the
later one, so it stays, a repeat or not; so does a repeat within a turn that says something new as well. When every own
turn is a repeat the whole session goes. The cap on repeats therefore bounds what may go, not what stays.

Messages of a person who is forgotten go wherever they stand. They break the session, and the owner's words right
after them, which may answer them, go too.
"""

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import TypeVar

from training.cleaning.rules import Reason
from training.dataset.sessions import Line

Item = TypeVar("Item")


def trimmed(
    lines: list[Line], verdict: Callable[[Line], Reason | None]
) -> tuple[list[Line], list[tuple[Line, Reason]]]:
    """A session without the repeats at its ends, and what went, with the reasons.

    Args:
        lines: the session; empty is returned when every own turn in it is a repeat.
        verdict: why one of the owner's messages is not worth learning; None when it is.
    """
    own: list[tuple[int, int, bool]] = []
    start = 0
    for is_mine, group in groupby(lines, key=lambda line: line.is_mine):
        turn = list(group)
        if is_mine:
            own.append((start, start + len(turn), any(verdict(line) is None for line in turn)))
        start += len(turn)
    if all(is_new for _, _, is_new in own):
        return lines, []
    news = [number for number, (_, _, is_new) in enumerate(own) if is_new]
    if not news:
        first = last = 0
    else:
        first = own[news[0] - 1][1] if news[0] else 0
        last = own[news[-1] + 1][0] if news[-1] + 1 < len(own) else len(lines)
    gone = [*lines[:first], *lines[last:]]
    reasons: list[tuple[Line, Reason]] = [
        (line, (verdict(line) if line.is_mine else None) or "no turn of yours") for line in gone
    ]
    return lines[first:last], reasons


def broken_at(
    items: Sequence[Item], is_gone: Callable[[Item], bool], is_mine: Callable[[Item], bool]
) -> list[tuple[int, int]]:
    """Where the stretches between the items that go begin and end, without the owner's words right after one."""
    stretches: list[tuple[int, int]] = []
    start = 0
    after_gone = False
    for number, item in enumerate(items):
        if is_gone(item) or (after_gone and is_mine(item)):
            if start < number:
                stretches.append((start, number))
            start = number + 1
            after_gone = True
        else:
            after_gone = False
    if start < len(items):
        stretches.append((start, len(items)))
    return stretches
