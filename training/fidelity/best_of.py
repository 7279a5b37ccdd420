"""Replies as `reply.candidates` produces them: the best of several, chosen by the daemon's own ranking."""

from collections.abc import Sequence

from doppel.engine import Sampling
from doppel.persona.ranking import ReplyCandidate, best_candidate
from training.fidelity.adapted_model import AdaptedModel, Continuations
from training.fidelity.generate import Completion, EvaluationReply, generate
from training.fidelity.stages import StartProgress, no_progress

CANDIDATES = 4
"""Replies to choose from; `reply.candidates` allows twice as many."""


def choose_best_replies(
    adapted: AdaptedModel, first: Sequence[Completion], sampling: Sampling, start: StartProgress = no_progress
) -> list[EvaluationReply]:
    """For each completion, the best of it and `CANDIDATES - 1` more to the same context.

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
    chosen = []
    for exchange, completions, base, alone in zip(exchanges, choices, base_scores, unprompted_scores, strict=True):
        candidates = [
            ReplyCandidate(completion.reply.bubbles, completion.log_probabilities, in_base.tolist(), without.tolist())
            for completion, in_base, without in zip(completions, base, alone, strict=True)
        ]
        recent = [bubble for turn in exchange.context if turn.is_mine for bubble in turn.bubbles]
        chosen.append(completions[best_candidate(candidates, recent)].reply)
    return chosen
