"""Which reply is theirs? The adapter chooses among the owner's reply and others of about the same length.

One distractor is the owner's own from elsewhere, two are other people's: to find the reply, voice and situation both
count. Judged by the adapter's likelihood, by how much more than the base it likes a reply, by how much more it likes
it than without the context, and by a combination that is fitted on other conversations than those it is tried on.
"""

import random
from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from doppel.reports.metrics import Interval, Metric
from doppel.transcript import ME, Header, Transcript, Turn
from training.fidelity.judge import Question, Subject
from training.fidelity.stages import Begin, silent
from training.fidelity.statistics import mean
from training.fidelity.texts import HeldOut, Situation, evenly, texts_of_others

OTHERS = 2
_SHORTEST, _LONGEST = 12, 68
"""Characters of a reply: a shorter one could be anybody's ("ok" has no author), a longer one gives itself away."""
_NEAREST = 12
_OTHERS_POOL = 150
"""Different replies of others: those that stand in several questions are read once without context."""
_FOLDS = 5
_PENALTY = 1e-2
_TOGETHER = 8
"""Replies without context that share their beginning."""
Array = NDArray[np.float64]


class Choice(msgspec.Struct, frozen=True):
    """One question. The first of `candidates` is the reply, the second the owner's from elsewhere, then others'."""

    situation: Situation
    candidates: list[Turn]


def choice(subject: Subject, held: HeldOut, count: int, begin: Begin = silent, seed: int = 0) -> list[Metric]:
    """Figure 2 of a report: shares of questions answered right.

    Args:
        subject: the adapter.
        held: what it has not seen.
        count: questions at most.
        begin: hears how many tokens are to be read, and then how many were.
        seed: of the choice of distractors.
    """
    choices = make_choices(held, count, seed)
    if not choices:
        return []
    scores = _scores(subject, choices, begin)
    groups = [one.situation.session for one in choices]
    asked = float(len(choices))
    return [
        *_figures("choice", scores, groups),
        *_figures("choice_others", scores[[0, *range(2, 2 + OTHERS)]], groups),
        Metric(name="choice_questions", estimate=Interval(asked, asked, asked), unit="count"),
    ]


class _Scores(msgspec.Struct, frozen=True):
    """log p of every candidate, each (questions, candidates): by whom, and with the context or alone; and its bytes."""

    adapter: Array
    adapter_alone: Array
    base: Array
    base_alone: Array
    sizes: Array

    def __getitem__(self, candidates: list[int]) -> "_Scores":
        """Those of some of the candidates."""
        return _Scores(*(one[:, candidates] for one in msgspec.structs.astuple(self)))


def _figures(name: str, scores: _Scores, groups: Sequence[str]) -> list[Metric]:
    """The combined way under `name` itself, above what the base gets in the same way; the simple ways above chance."""
    adapter, base, sizes = scores.adapter, scores.base, scores.sizes
    context, base_context = adapter - scores.adapter_alone, base - scores.base_alone
    mine = combined(np.stack([context, adapter / sizes, base / sizes], axis=-1), groups)
    anybodys = combined(np.stack([base_context, base / sizes], axis=-1), groups)
    chance = Interval(*[1 / adapter.shape[1]] * 3)
    simple = {
        "adapter": (adapter, chance),
        "difference": (adapter - base, chance),
        "context": (context, _share(base_context, groups)),
        "base": (base, chance),
    }
    return [
        Metric(name=name, estimate=_share(mine, groups), floor=_share(anybodys, groups), unit="share"),
        *(
            Metric(name=f"{name}_{way}", estimate=_share(values, groups), floor=floor, unit="share")
            for way, (values, floor) in simple.items()
        ),
    ]


def make_choices(held: HeldOut, count: int, seed: int = 0) -> list[Choice]:
    """Questions with distractors of about the reply's length, all different from it and from each other."""
    rng = random.Random(seed)
    asked = evenly([one for one in held.situations if _SHORTEST <= len(one.text) <= _LONGEST], count)
    own = _by_length([(one.text, one.session, one.reply) for one in asked])
    others = _by_length(
        [
            (text, session.id, Turn(ME, turn.bubbles))
            for session in held.future
            for turn, text in zip(
                (turn for turn in session.turns if not turn.is_mine), texts_of_others([session]), strict=True
            )
            if _SHORTEST <= len(text) <= 2 * _LONGEST
        ]
    )
    others = evenly(others, _OTHERS_POOL)  # in order of length: all lengths stay
    choices = []
    for situation in asked:
        taken = {situation.text.casefold()}
        found = [_draw(own, situation, taken, rng), *(_draw(others, situation, taken, rng) for _ in range(OTHERS))]
        if None not in found:
            choices.append(Choice(situation, [situation.reply, *(turn for turn in found if turn is not None)]))
    return choices


def combined(features: Array, groups: Sequence[str]) -> Array:
    """Scores (questions, candidates) of a conditional logit, each from a fit on the other folds of conversations.

    McFadden, Conditional logit analysis of qualitative choice behavior, 1974. The first candidate is the right one.

    Args:
        features: (questions, candidates, features).
        groups: conversation of each question.
    """
    spread = features.reshape(-1, features.shape[-1]).std(0)
    scaled = (features - features.mean(1, keepdims=True)) / np.where(spread > 0, spread, 1)
    names = sorted(set(groups))
    fold_of = {name: place % _FOLDS for place, name in enumerate(names)}
    folds = np.array([fold_of[group] for group in groups])
    scores = np.zeros(features.shape[:2])
    for fold in range(_FOLDS):
        inside = folds == fold
        if inside.any() and not inside.all():
            scores[inside] = scaled[inside] @ _fit(scaled[~inside])
        elif inside.all():  # one conversation: nothing to learn the weights from
            scores = scaled[:, :, 0]
    return scores


def _fit(features: Array) -> Array:
    """Weights of a conditional logit with a quadratic penalty."""

    def loss(weights: Array) -> tuple[float, Array]:
        logits = features @ weights
        logits -= logits.max(1, keepdims=True)
        chances = np.exp(logits)
        chances /= chances.sum(1, keepdims=True)
        value = -np.log(chances[:, 0] + 1e-300).mean() + _PENALTY * weights @ weights
        expected = (chances[:, :, None] * features).sum(1)
        return float(value), (expected - features[:, 0]).mean(0) + 2 * _PENALTY * weights

    weights: Array = minimize(loss, np.zeros(features.shape[-1]), jac=True, method="L-BFGS-B").x
    return weights


def _scores(subject: Subject, choices: Sequence[Choice], begin: Begin) -> _Scores:
    transcript = subject.transcript
    told = [_question(transcript, one.situation.header, one.situation.context, one.candidates) for one in choices]
    texts = {turn.bubbles: turn for one in choices for turn in one.candidates}  # many stand in several questions
    turns = list(texts.values())
    untold = [
        _question(transcript, Header(), (), turns[start : start + _TOGETHER])
        for start in range(0, len(turns), _TOGETHER)
    ]
    advance = begin(2 * sum(one.size for one in [*told, *untold]))

    def read() -> tuple[Array, Array]:
        within = np.array(subject.answer(told, advance))
        found = np.concatenate(subject.answer(untold, advance)).tolist()
        alone = dict(zip(texts, found, strict=True))
        return within, np.array([[alone[turn.bubbles] for turn in one.candidates] for one in choices])

    adapter = read()
    with subject.base_alone():
        base = read()
    sizes = [[sum(len(bubble.encode()) for bubble in turn.bubbles) for turn in one.candidates] for one in choices]
    return _Scores(*adapter, *base, np.array(sizes, dtype=np.float64))


def _question(transcript: Transcript, header: Header, context: Sequence[Turn], candidates: Sequence[Turn]) -> Question:
    prompt = transcript.prompt(header, context)
    answers = [transcript.encode(header, (*context, turn)).ids[len(prompt) :] for turn in candidates]
    return Question(prompt, answers)


Pool = list[tuple[int, str, str, Turn]]


def _by_length(entries: Sequence[tuple[str, str, Turn]]) -> Pool:
    return sorted(((len(text), text, session, turn) for text, session, turn in entries), key=lambda entry: entry[:3])


def _draw(pool: Pool, situation: Situation, taken: set[str], rng: random.Random) -> Turn | None:
    """One of the nearest in length from another conversation, and its text is taken."""
    wanted = len(situation.text)
    usable = [
        entry
        for entry in pool
        if entry[2] != situation.session
        and entry[1].casefold() not in taken
        and 0.6 * wanted <= entry[0] <= 1.6 * wanted + 4
    ]
    if not usable:
        return None
    nearest = sorted(usable, key=lambda entry: abs(entry[0] - wanted))[:_NEAREST]
    _, text, _, turn = rng.choice(nearest)
    taken.add(text.casefold())
    return turn


def _share(scores: Array, groups: Sequence[str]) -> Interval:
    """Share of questions whose first candidate has the best score; ties count by chance."""
    best = scores.max(1, keepdims=True)
    tied = (scores == best).sum(1)
    right = np.where(scores[:, 0] == best[:, 0], 1 / tied, 0.0)
    return mean(right.tolist(), groups)
