"""Relevance: does a reply answer its own context, rather than any?

The base model, which knows no person, judges whether a reply is likelier after its own context than after another
exchange's (pointwise mutual information). The owner's replies give the ceiling, chance the floor. Also counts replies
that fall out of character.
"""

import re
from collections.abc import Sequence

from doppel.reports.metrics import Interval, Metric
from doppel.transcript import ME, Transcript, Turn
from training.fidelity.adapted_model import AdaptedModel, Continuations, reply_ids
from training.fidelity.generate import EvaluationReply
from training.fidelity.served import Exchange
from training.fidelity.stages import StartProgress, no_progress
from training.fidelity.statistics import mean

_OUT_OF_CHARACTER = re.compile(
    r"\bas an? (?:ai|artificial|language model|assistant)"
    r"|\bi(?:'| a)m an? (?:ai|language model|virtual assistant|bot)\b"
    r"|\blanguage model\b|\bi cannot assist\b|\bhow can i (?:help|assist) you\b|\bopenai\b|\bchatgpt\b"
    r"|作为(?:一个|一名)?(?:ai|人工智能|语言模型|助手)|我是(?:一个|一名)?(?:ai|人工智能|语言模型|智能助手)"
    r"|有什么(?:我)?可以帮(?:助|到)?(?:你|您)",
    re.IGNORECASE,
)


def relevance_metrics(
    adapted: AdaptedModel,
    adapter: Sequence[EvaluationReply],
    prompted: Sequence[EvaluationReply],
    actual: Sequence[EvaluationReply],
    best: Sequence[EvaluationReply] = (),
    *,
    start: StartProgress = no_progress,
) -> list[Metric]:
    """Metric 6 of a report: how often a reply fits its own context better than another, and is out of character.

    Args:
        adapted: the model whose base judges.
        adapter: the adapter's replies.
        prompted: the base's with a prompt, to the same exchanges.
        actual: the owner's.
        best: the best of several of the adapter's, to the same exchanges, if there are any.
        start: shows the progress, in tokens.
    """
    sides = [replies for replies in (adapter, prompted, actual, best) if replies]
    estimate, base, ceiling, *best_of = relevance(adapted, sides, start)
    return [
        Metric(name="relevance", estimate=estimate, floor=Interval.exact(0.5), ceiling=ceiling, unit="share"),
        Metric(name="relevance_prompted", estimate=base, unit="share"),
        *(
            Metric(name="candidates_relevance", estimate=share, floor=estimate, ceiling=ceiling, unit="share")
            for share in best_of
        ),
        Metric(
            name="out_of_character",
            estimate=_out_of_character_share(adapter),
            floor=_out_of_character_share(prompted),
            lower_is_better=True,
            unit="share",
        ),
    ]


def relevance(
    adapted: AdaptedModel, sides: Sequence[Sequence[EvaluationReply]], start: StartProgress = no_progress
) -> list[Interval]:
    """For each side, all of them replies to the same exchanges: the share that fits its own context better."""
    indices = [index for index in range(len(sides[0])) if all(replies[index].bubbles for replies in sides)]
    if len(indices) < 2:
        return [Interval.unknown()] * len(sides)
    half = len(indices) // 2
    swapped = dict(zip(indices, [*indices[half:], *indices[:half]], strict=True))
    requests = []
    for index in indices:  # each context is computed once, for the replies to it and for the swapped ones
        replies = [side[position] for side in sides for position in (index, swapped[index])]
        requests.append(_continuations(adapted.transcript, sides[0][index].exchange, replies))
    on_progress = start(sum(request.token_count for request in requests))
    with adapted.adapter_disabled():
        scores = dict(zip(indices, adapted.log_probabilities(requests, on_progress), strict=True))
    swapped_into = {target: index for index, target in swapped.items()}
    groups = [sides[0][index].exchange.session_id for index in indices]
    shares = []
    for side in range(len(sides)):
        wins = []
        for index in indices:
            own, foreign = scores[index][2 * side], scores[swapped_into[index]][2 * side + 1]
            wins.append(float(own > foreign) + 0.5 * float(own == foreign))
        shares.append(mean(wins, groups))
    return shares


def _continuations(transcript: Transcript, exchange: Exchange, replies: Sequence[EvaluationReply]) -> Continuations:
    return Continuations(
        transcript.prompt(exchange.header, exchange.context),
        [reply_ids(transcript, Turn(ME, reply.bubbles)) for reply in replies],
    )


def _out_of_character_share(replies: Sequence[EvaluationReply]) -> Interval:
    non_empty = [reply for reply in replies if reply.bubbles]
    return mean(
        [float(bool(_OUT_OF_CHARACTER.search(reply.text))) for reply in non_empty],
        [reply.exchange.session_id for reply in non_empty],
    )
