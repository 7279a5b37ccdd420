"""Relevance: does a reply answer its own context, rather than any?

Two judges say whether a reply fits its own context better than another exchange's: a matcher that learned from the
archive's other conversations, and the base model (pointwise mutual information), which wrote the replies itself and
favours them. The owner's replies give the ceiling, chance the floor. Also counts replies that fall out of character.
"""

import re
from collections.abc import Sequence

import numpy as np

from doppel.reports.metrics import Interval, Metric
from training.fidelity.adapted_model import AdaptedModel, reply_continuations
from training.fidelity.generate import EvaluationReply
from training.fidelity.measures.matcher import MAX_PAIRS, MIN_PAIRS, ReplyMatcher, context_text
from training.fidelity.stages import StartProgress, no_progress
from training.fidelity.statistics import share
from training.fidelity.texts import EvaluationData, owner_exchanges
from training.lora.examples import sample_evenly

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
    data: EvaluationData,
    adapter: Sequence[EvaluationReply],
    prompted: Sequence[EvaluationReply],
    actual: Sequence[EvaluationReply],
    *,
    best: Sequence[EvaluationReply] = (),
    start: StartProgress = no_progress,
) -> list[Metric]:
    """Metric 6 of a report: how often a reply fits its own context better than another, and is out of character.

    Args:
        adapted: the model whose base judges.
        data: what the matcher learns from.
        adapter: the adapter's replies.
        prompted: the base's with a prompt, to the same exchanges.
        actual: the owner's.
        best: the best of several of the adapter's, to the same exchanges, if there are any.
        start: shows the progress, in tokens.
    """
    sides = [replies for replies in (adapter, prompted, actual, best) if replies]
    matcher = train_matcher(data)
    judged = [("relevance_self_judged", "candidates_relevance_self_judged", relevance(adapted, sides, start))]
    if matcher is not None:
        judged.insert(0, ("relevance", "candidates_relevance", [matched_share(matcher, replies) for replies in sides]))
    metrics = []
    for name, candidates_name, (estimate, base, ceiling, *best_of) in judged:
        metrics += [
            Metric(name=name, estimate=estimate, floor=Interval.exact(0.5), ceiling=ceiling, unit="share"),
            Metric(name=f"{name}_prompted", estimate=base, unit="share"),
            *(
                Metric(name=candidates_name, estimate=best_share, floor=estimate, ceiling=ceiling, unit="share")
                for best_share in best_of
            ),
        ]
    out_of_character = Metric(
        name="out_of_character",
        estimate=_out_of_character_share(adapter),
        floor=_out_of_character_share(prompted),
        lower_is_better=True,
        unit="share",
    )
    return [*metrics, out_of_character]


def train_matcher(data: EvaluationData) -> ReplyMatcher | None:
    """A matcher that learned from the training split; None if there is too little of it."""
    exchanges = [exchange for session in data.train for exchange in owner_exchanges(session)]
    if len(exchanges) < MIN_PAIRS:
        return None
    chosen = sample_evenly(exchanges, MAX_PAIRS)
    return ReplyMatcher([context_text(exchange.context) for exchange in chosen], [exchange.text for exchange in chosen])


def matched_share(matcher: ReplyMatcher, replies: Sequence[EvaluationReply]) -> Interval:
    """The share of replies that fit their own context better than another conversation's, by a matcher."""
    judged = [reply for reply in replies if reply.bubbles]
    if len(judged) < 2:
        return Interval.unknown()
    contexts = [context_text(reply.exchange.context) for reply in judged]
    texts, half = [reply.text for reply in judged], len(judged) // 2
    own, foreign = matcher.scores(contexts, texts), matcher.scores([*contexts[half:], *contexts[:half]], texts)
    outcomes = np.where(own == foreign, 0.5, own > foreign)
    return share(outcomes.tolist(), [reply.exchange.session_id for reply in judged])


def relevance(
    adapted: AdaptedModel, sides: Sequence[Sequence[EvaluationReply]], start: StartProgress = no_progress
) -> list[Interval]:
    """For each side, all of them replies to the same exchanges: the share that the base finds in place."""
    indices = [index for index in range(len(sides[0])) if all(replies[index].bubbles for replies in sides)]
    if len(indices) < 2:
        return [Interval.unknown()] * len(sides)
    half = len(indices) // 2
    swapped = dict(zip(indices, [*indices[half:], *indices[:half]], strict=True))
    requests = []
    for index in indices:  # each context is computed once, for the replies to it and for the swapped ones
        replies = [side[position].bubbles for side in sides for position in (index, swapped[index])]
        requests.append(reply_continuations(adapted.transcript, sides[0][index].exchange, replies))
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
        shares.append(share(wins, groups))
    return shares


def _out_of_character_share(replies: Sequence[EvaluationReply]) -> Interval:
    non_empty = [reply for reply in replies if reply.bubbles]
    return share(
        [bool(_OUT_OF_CHARACTER.search(reply.text)) for reply in non_empty],
        [reply.exchange.session_id for reply in non_empty],
    )
