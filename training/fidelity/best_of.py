"""Replies as `reply.candidates` produces them: the best of several, chosen by the daemon's own ranking."""

from collections.abc import Sequence

import msgspec

from doppel.engine import Sampling
from doppel.persona.ranking import ReplyCandidate, best_candidate
from training.fidelity.adapted_model import AdaptedModel, Continuations
from training.fidelity.generate import Completion, EvaluationReply, generate
from training.fidelity.stages import StartProgress, no_progress

CANDIDATES = 4
"""Replies to choose from; `reply.candidates` allows twice as many."""


class Candidates(msgspec.Struct, frozen=True):
    """Replies to one exchange, what the daemon's ranking knows of each, and the owner's recent bubbles in this chat."""

    replies: list[EvaluationReply]
    ranked: list[ReplyCandidate]
    recent: list[str]


def choose_best_replies(
    adapted: AdaptedModel, first: Sequence[Completion], sampling: Sampling, start: StartProgress = no_progress
) -> list[EvaluationReply]:
    """For each completion, the best of it and `CANDIDATES - 1` more to the same context; see `write_candidates`."""
    return [
        choice.replies[best_candidate(choice.ranked, choice.recent)]
        for choice in write_candidates(adapted, first, sampling, start)
    ]


def write_candidates(
    adapted: AdaptedModel, first: Sequence[Completion], sampling: Sampling, start: StartProgress = no_progress
) -> list[Candidates]:
    """For each completion, it and `CANDIDATES - 1` more to the same context.

    Args:
        adapted: the adapter.
        first: its replies, one to each exchange.
        sampling: the settings they were sampled with.
        start: shows the progress, first of replies, then of tokens.
    """
    exchanges = [completion.reply.exchange for completion in first]
    more = generate(adapted, exchanges * (CANDIDATES - 1), sampling, start(len(exchanges) * (CANDIDATES - 1)), seed=1)
    choices = [[completion, *more[index :: len(first)]] for index, completion in enumerate(first)]
    transcript = adapted.transcript
    in_context = [
        Continuations(
            transcript.prompt(exchange.header, exchange.context), [completion.ids for completion in completions]
        )
        for exchange, completions in zip(exchanges, choices, strict=True)
    ]
    unprompted = [
        Continuations(transcript.prompt(exchange.header, ()), request.options)
        for exchange, request in zip(exchanges, in_context, strict=True)
    ]
    requests = [*in_context, *unprompted]
    with adapted.adapter_disabled():
        scores = adapted.token_log_probabilities(requests, start(sum(request.token_count for request in requests)))
    base_scores, unprompted_scores = scores[: len(in_context)], scores[len(in_context) :]
    return [
        Candidates(
            [completion.reply for completion in completions],
            [
                ReplyCandidate(completion.reply.bubbles, completion.log_probabilities, given.tolist(), alone.tolist())
                for completion, given, alone in zip(completions, base, unprompted, strict=True)
            ],
            [bubble for turn in exchange.context if turn.is_mine for bubble in turn.bubbles],
        )
        for exchange, completions, base, unprompted in zip(
            exchanges, choices, base_scores, unprompted_scores, strict=True
        )
    ]
