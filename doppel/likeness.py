"""Which of several candidate replies is most like the owner: how much more the adapter expects it than the base does.

    score = mean over tokens of (log p adapter - log p base) + NOVELTY · novelty

What the base expects as well is anybody's; what only the adapter expects is the owner's. Novelty is the share of a
reply's runs of three characters that no recent message of its own has. Knows numbers and texts, no model.
"""

import unicodedata
from collections.abc import Sequence
from statistics import fmean

import msgspec

NOVELTY = 0.5
"""Nats a token that an all new reply is worth more than one made of what was said before."""

_RUN = 3


class Candidate(msgspec.Struct, frozen=True):
    """A reply that might be given, and what both models think of its tokens (nats; empty: the engine cannot say)."""

    bubbles: tuple[str, ...]
    adapter: Sequence[float] = ()
    base: Sequence[float] = ()


def best(candidates: Sequence[Candidate], recent: Sequence[str]) -> int:
    """Number of the best candidate, of equals the first.

    One that says nothing loses to any that speaks, and one that only repeats recent messages to any that does not.

    Args:
        candidates: at least one.
        recent: what the persona said lately in this chat, a bubble each.
    """
    said = {_plain(one) for one in recent}
    runs = {run for one in said for run in _runs(one)}

    def rank(number: int) -> tuple[bool, bool, float]:
        one = candidates[number]
        is_new = any(_plain(bubble) not in said for bubble in one.bubbles)
        return bool(one.bubbles), is_new, likeness(one.adapter, one.base) + NOVELTY * _novelty(one.bubbles, runs)

    return max(range(len(candidates)), key=rank)


def likeness(adapter: Sequence[float], base: Sequence[float]) -> float:
    """Mean of how much more the adapter expects a token than the base; 0 where nothing is known.

    Raises:
        ValueError: they are not of the same tokens.
    """
    gains = [mine - anybodys for mine, anybodys in zip(adapter, base, strict=True)]
    return fmean(gains) if gains else 0.0


def novelty(bubbles: Sequence[str], recent: Sequence[str]) -> float:
    """Share of a reply's runs of three characters that no recent message has: 0 (all said before) to 1."""
    return _novelty(bubbles, {run for one in recent for run in _runs(_plain(one))})


def _novelty(bubbles: Sequence[str], seen: set[str]) -> float:
    runs = {run for bubble in bubbles for run in _runs(_plain(bubble))}
    return len(runs - seen) / len(runs) if runs else 0.0


def _plain(text: str) -> str:
    """Without what does not make a message another one: case, width, spaces and signs; all signs stay as they are."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return "".join(sign for sign in folded if sign.isalnum()) or folded.strip()


def _runs(text: str) -> set[str]:
    """Runs of three characters, the edges counted in; so a short text has some too."""
    padded = f" {text} "
    return {padded[place : place + _RUN] for place in range(max(1, len(padded) - _RUN + 1))}
