"""Multiple choice: the adapter picks the owner's reply among replies of similar length.

One distractor is the owner's own reply from another conversation, two are other people's, so that both voice and
context matter. The adapter judges by its likelihood, by the gain over the base, by the gain over the same reply without
context, and by a combination of these that is fitted on other conversations than the ones it is tested on.
"""

import math
import random
from collections.abc import Sequence
from itertools import groupby

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from doppel.reports.metrics import Interval, Metric
from doppel.transcript import ME, Header, Transcript, Turn
from training.fidelity.adapted_model import AdaptedModel, Continuations, reply_ids
from training.fidelity.served import Exchange, served_windows
from training.fidelity.stages import StartProgress, no_progress
from training.fidelity.statistics import share
from training.fidelity.texts import EvaluationData, other_texts
from training.lora.examples import sample_evenly

OTHER_DISTRACTORS = 2
_MIN_LENGTH, _MAX_LENGTH = 12, 68
"""Characters of a reply: a shorter one could be anybody's ("ok" has no author), a longer one gives itself away."""
_NEAREST = 12  # distractors are drawn among so many of the nearest length
_OTHER_POOL_SIZE = 150
"""Different replies of others: one that occurs in several questions is read only once without context."""
_FOLDS = 5
_L2_PENALTY = 1e-2
_OPTIONS_PER_REQUEST = 8  # replies without context that share their beginning
Array = NDArray[np.float64]


class ChoiceQuestion(msgspec.Struct, frozen=True):
    """A question. The first option is the owner's reply, the second the owner's from elsewhere, the rest others'."""

    exchange: Exchange
    options: list[Turn]


def choice_metrics(
    adapted: AdaptedModel, data: EvaluationData, count: int, start: StartProgress = no_progress, seed: int = 0
) -> list[Metric]:
    """Metric 2 of a report: the share of questions answered correctly. Empty when there are no distractors.

    Args:
        adapted: the adapter.
        data: what to ask about.
        count: maximum number of questions.
        start: shows the progress, in tokens.
        seed: of the choice of distractors.
    """
    questions = make_questions(data, count, seed)
    if not questions:
        return []
    scores = _score(adapted, questions, start)
    groups = [question.exchange.session_id for question in questions]
    return [
        *_accuracy_metrics("choice", scores, groups),
        *_accuracy_metrics("choice_others", scores[[0, *range(2, 2 + OTHER_DISTRACTORS)]], groups),
        Metric(name="choice_questions", estimate=Interval.exact(float(len(questions))), unit="count"),
    ]


class _Scores(msgspec.Struct, frozen=True):
    """Each (questions, options): log p by model, with context and alone, and the length in bytes."""

    adapter: Array
    adapter_alone: Array
    base: Array
    base_alone: Array
    sizes: Array

    def __getitem__(self, options: list[int]) -> "_Scores":
        """The scores of some of the options."""
        return _Scores(*(scores[:, options] for scores in msgspec.structs.astuple(self)))


def _accuracy_metrics(name: str, scores: _Scores, groups: Sequence[str]) -> list[Metric]:
    """The combined score under `name`, with the base's as floor; then the simple scores, most with chance as floor."""
    adapter, base, sizes = scores.adapter, scores.base, scores.sizes
    context_gain, base_context_gain = adapter - scores.adapter_alone, base - scores.base_alone
    combined = combine(np.stack([context_gain, adapter / sizes, base / sizes], axis=-1), groups)
    base_combined = combine(np.stack([base_context_gain, base / sizes], axis=-1), groups)
    chance = Interval.exact(1 / adapter.shape[1])
    simple = {
        "adapter": (adapter, chance),
        "difference": (adapter - base, chance),
        "context": (context_gain, _accuracy(base_context_gain, groups)),
        "base": (base, chance),
    }
    return [
        Metric(name=name, estimate=_accuracy(combined, groups), floor=_accuracy(base_combined, groups), unit="share"),
        *(
            Metric(name=f"{name}_{suffix}", estimate=_accuracy(values, groups), floor=floor, unit="share")
            for suffix, (values, floor) in simple.items()
        ),
    ]


def make_questions(data: EvaluationData, count: int, seed: int = 0) -> list[ChoiceQuestion]:
    """Questions with distractors of about the reply's length, all different from it and from each other."""
    rng = random.Random(seed)
    usable = [exchange for exchange in data.exchanges if _MIN_LENGTH <= len(exchange.text) <= _MAX_LENGTH]
    exchanges = _sample_together(usable, count)
    own = _by_length([(exchange.text, exchange.session_id, exchange.reply) for exchange in exchanges])
    others = _by_length(
        [
            (text, session.id, Turn(ME, turn.bubbles))
            for session in data.test
            for turn, text in zip(
                (turn for turn in session.turns if not turn.is_mine), other_texts([session]), strict=True
            )
            if _MIN_LENGTH <= len(text) <= 2 * _MAX_LENGTH
        ]
    )
    others = sample_evenly(others, _OTHER_POOL_SIZE)  # sorted by length, so that all lengths stay
    questions = []
    for exchange in exchanges:
        used = {exchange.text.casefold()}
        pools = [own, *[others] * OTHER_DISTRACTORS]
        distractors = [_draw_distractor(pool, exchange, used, rng) for pool in pools]
        if None not in distractors:
            options = [exchange.reply, *(turn for turn in distractors if turn is not None)]
            questions.append(ChoiceQuestion(exchange, options))
    return questions


def _sample_together(exchanges: Sequence[Exchange], count: int) -> list[Exchange]:
    """At most `count` exchanges, evenly spaced; those whose prompts begin alike together, which costs little more."""
    together = [
        list(group) for _, group in groupby(exchanges, lambda exchange: (exchange.session_id, exchange.left_out))
    ]
    share = min(1.0, count / max(1, len(exchanges)))
    chosen = sample_evenly(together, math.ceil(share * len(together)))
    return [exchange for group in chosen for exchange in group][:count]


def combine(features: Array, groups: Sequence[str]) -> Array:
    """Scores (questions, options) of a conditional logit, each from a fit on the other folds of conversations.

    McFadden, Conditional logit analysis of qualitative choice behavior, 1974. The first option is the right one.

    Args:
        features: (questions, options, features).
        groups: the conversation of each question.
    """
    spread = features.reshape(-1, features.shape[-1]).std(0)
    scaled = (features - features.mean(1, keepdims=True)) / np.where(spread > 0, spread, 1)
    fold_of = {name: index % _FOLDS for index, name in enumerate(sorted(set(groups)))}
    folds = np.array([fold_of[group] for group in groups])
    scores = np.zeros(features.shape[:2])
    for fold in range(_FOLDS):
        test = folds == fold
        if test.any() and not test.all():
            scores[test] = scaled[test] @ _fit(scaled[~test])
        elif test.all():  # a single conversation: there is nothing to fit on
            scores = scaled[:, :, 0]
    return scores


def _fit(features: Array) -> Array:
    """Weights of a conditional logit with an L2 penalty."""

    def loss(weights: Array) -> tuple[float, Array]:
        logits = features @ weights
        logits -= logits.max(1, keepdims=True)
        probabilities = np.exp(logits)
        probabilities /= probabilities.sum(1, keepdims=True)
        value = -np.log(probabilities[:, 0] + 1e-300).mean() + _L2_PENALTY * weights @ weights
        expected = (probabilities[:, :, None] * features).sum(1)
        return float(value), (expected - features[:, 0]).mean(0) + 2 * _L2_PENALTY * weights

    weights: Array = minimize(loss, np.zeros(features.shape[-1]), jac=True, method="L-BFGS-B").x
    return weights


def _score(adapted: AdaptedModel, questions: Sequence[ChoiceQuestion], start: StartProgress) -> _Scores:
    transcript = adapted.transcript
    in_context = _questions_by_window(questions, transcript)
    distinct = {turn.bubbles: turn for question in questions for turn in question.options}
    turns = list(distinct.values())
    alone = [
        Continuations(
            transcript.prompt(Header(), ()),
            [reply_ids(transcript, turn) for turn in turns[index : index + _OPTIONS_PER_REQUEST]],
        )
        for index in range(0, len(turns), _OPTIONS_PER_REQUEST)
    ]
    on_progress = start(2 * sum(request.token_count for request in [*in_context, *alone]))

    def read() -> tuple[Array, Array]:
        with_context = np.concatenate(adapted.log_probabilities(in_context, on_progress)).reshape(len(questions), -1)
        scores = np.concatenate(adapted.log_probabilities(alone, on_progress)).tolist()
        score_of = dict(zip(distinct, scores, strict=True))
        without = np.array([[score_of[turn.bubbles] for turn in question.options] for question in questions])
        return with_context, without

    adapter = read()
    with adapted.adapter_disabled():
        base = read()
    sizes = [
        [sum(len(bubble.encode()) for bubble in turn.bubbles) for turn in question.options] for question in questions
    ]
    return _Scores(*adapter, *base, np.array(sizes, dtype=np.float64))


def _questions_by_window(questions: Sequence[ChoiceQuestion], transcript: Transcript) -> list[Continuations]:
    """One request for all questions whose prompts begin alike, with the options of each in order."""
    rest = iter(questions)
    requests = []
    for window in served_windows([question.exchange for question in questions], transcript):
        options, lengths = [], []
        for length in window.prompt_lengths:
            question = next(rest)
            options += [reply_ids(transcript, turn) for turn in question.options]
            lengths += [length] * len(question.options)
        requests.append(Continuations(window.example.ids[: window.prompt_lengths[-1]], options, lengths))
    return requests


Pool = list[tuple[int, str, str, Turn]]
"""Possible distractors: length, text, session id and turn."""


def _by_length(entries: Sequence[tuple[str, str, Turn]]) -> Pool:
    return sorted(((len(text), text, session, turn) for text, session, turn in entries), key=lambda entry: entry[:3])


def _draw_distractor(pool: Pool, exchange: Exchange, used: set[str], rng: random.Random) -> Turn | None:
    """A reply of similar length from another conversation, whose text is then marked as used."""
    length = len(exchange.text)
    usable = [
        entry
        for entry in pool
        if entry[2] != exchange.session_id
        and entry[1].casefold() not in used
        and 0.6 * length <= entry[0] <= 1.6 * length + 4
    ]
    if not usable:
        return None
    nearest = sorted(usable, key=lambda entry: abs(entry[0] - length))[:_NEAREST]
    _, text, _, turn = rng.choice(nearest)
    used.add(text.casefold())
    return turn


def _accuracy(scores: Array, groups: Sequence[str]) -> Interval:
    """Share of questions whose first option has the highest score; ties count by chance."""
    highest = scores.max(1, keepdims=True)
    tied = (scores == highest).sum(1)
    correct = np.where(scores[:, 0] == highest[:, 0], 1 / tied, 0.0)
    return share(correct.tolist(), groups)
