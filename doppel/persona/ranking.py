"""Chooses among several candidate replies the one that is most like the owner and most relevant.

    score = sum over tokens of (log p base - log p base without the conversation)
          + likeness · sum over tokens of (log p adapter - log p base)
          + novelty weight · novelty

A reply that is as likely without the conversation answers nothing. What the base model expects as well, anybody could
have written; what only the adapter expects is the owner's. Novelty is the share of a reply's character trigrams that
none of its recent messages has. Sums, as means favour short replies. The weights were chosen on validation messages
(docs/decisions/0014-fidelity.md).
"""

import unicodedata
from collections.abc import Sequence

import msgspec

_NGRAM = 3


class CandidateWeights(msgspec.Struct, frozen=True):
    """What counts in a choice, in nats.

    Attributes:
        likeness: of the adapter's log-likelihood gain over the base; a higher one prefers caricatures.
        novelty: what a completely new reply is worth more than one made of recent messages.
    """

    likeness: float
    novelty: float


WEIGHTS = CandidateWeights(likeness=0.1, novelty=0.5)
"""Chosen by benchmarks/candidates.py."""


class ReplyCandidate(msgspec.Struct, frozen=True):
    """A candidate reply, with the log-probabilities of its tokens in nats; empty where they are unknown.

    Attributes:
        bubbles: its text.
        adapter: log-probabilities under the persona's adapter, given the conversation.
        base: log-probabilities under the base model, given the conversation.
        unprompted: log-probabilities under the base model, without the conversation.
    """

    bubbles: tuple[str, ...]
    adapter: Sequence[float] = ()
    base: Sequence[float] = ()
    unprompted: Sequence[float] = ()


def best_candidate(
    candidates: Sequence[ReplyCandidate], recent: Sequence[str], weights: CandidateWeights = WEIGHTS
) -> int:
    """Index of the best candidate; the first of equal ones.

    An empty reply loses to any other, and one that only repeats recent messages to any that does not.

    Args:
        candidates: at least one.
        recent: the persona's recent bubbles in this chat.
        weights: what counts.
    """
    recent_texts = {_normalized(bubble) for bubble in recent}
    recent_ngrams = {ngram for text in recent_texts for ngram in _ngrams(text)}

    def rank(index: int) -> tuple[bool, bool, float]:
        candidate = candidates[index]
        is_new = any(_normalized(bubble) not in recent_texts for bubble in candidate.bubbles)
        likeness = log_likelihood_gain(candidate.adapter, candidate.base)
        score = weights.likeness * likeness + weights.novelty * _novelty(candidate.bubbles, recent_ngrams)
        if candidate.unprompted:
            score += log_likelihood_gain(candidate.base, candidate.unprompted)
        return bool(candidate.bubbles), is_new, score

    return max(range(len(candidates)), key=rank)


def log_likelihood_gain(first: Sequence[float], second: Sequence[float]) -> float:
    """How much more likely a text is under the first log-probabilities than under the second, in nats; 0 if unknown.

    Raises:
        ValueError: they differ in length.
    """
    return sum(here - there for here, there in zip(first, second, strict=True))


def novelty(bubbles: Sequence[str], recent: Sequence[str]) -> float:
    """Share of a reply's character trigrams that no recent bubble has: 0 (nothing new) to 1."""
    return _novelty(bubbles, {ngram for bubble in recent for ngram in _ngrams(_normalized(bubble))})


def _novelty(bubbles: Sequence[str], seen: set[str]) -> float:
    ngrams = {ngram for bubble in bubbles for ngram in _ngrams(_normalized(bubble))}
    return len(ngrams - seen) / len(ngrams) if ngrams else 0.0


def _normalized(text: str) -> str:
    """Letters and digits only, without case and width; a text without any, such as emoji, is kept as it is."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return "".join(character for character in folded if character.isalnum()) or folded.strip()


def _ngrams(text: str) -> set[str]:
    """Character trigrams, padded by a blank on both sides so that a short text has some too."""
    padded = f" {text} "
    return {padded[start : start + _NGRAM] for start in range(max(1, len(padded) - _NGRAM + 1))}
