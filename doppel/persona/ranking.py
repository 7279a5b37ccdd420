"""Which of several candidate replies is most like the owner, and answers what was said.

    score = sum over tokens of (log p base - log p base without what was said before)
          + LIKENESS · sum over tokens of (log p adapter - log p base)
          + NOVELTY · novelty

What is as likely after nothing at all answers nothing. What the base expects as well is anybody's; what only the
adapter expects is the owner's. Novelty is the share of a reply's runs of three characters that no recent message of
its own has. Sums rather than means, as a mean favours short replies; the weights were chosen on replies to the sample
persona's unseen messages (docs/decisions/0014-fidelity.md). Knows numbers and texts, no model.
"""

import unicodedata
from collections.abc import Sequence

import msgspec

LIKENESS = 0.1
"""Nats that one nat of the adapter's over the base is worth; more of it takes caricatures."""
NOVELTY = 0.5
"""Nats that an all new reply is worth more than one made of what was said before."""

_RUN = 3


class Candidate(msgspec.Struct, frozen=True):
    """A reply that might be given, and what the models think of each of its tokens, in nats; empty: it is not known.

    Attributes:
        bubbles: what it says.
        adapter: the persona's adapter, after what was said.
        base: the base model, after what was said.
        unprompted: the base model, after nothing.
    """

    bubbles: tuple[str, ...]
    adapter: Sequence[float] = ()
    base: Sequence[float] = ()
    unprompted: Sequence[float] = ()


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
        score = LIKENESS * gain(one.adapter, one.base) + NOVELTY * _novelty(one.bubbles, runs)
        if one.unprompted:
            score += gain(one.base, one.unprompted)
        return bool(one.bubbles), is_new, score

    return max(range(len(candidates)), key=rank)


def gain(here: Sequence[float], there: Sequence[float]) -> float:
    """How much more a text is expected here than there, in nats; 0 where nothing is known.

    Raises:
        ValueError: they are not of the same tokens.
    """
    return sum(one - other for one, other in zip(here, there, strict=True))


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
