"""What `reply.candidates` gains: the best of several replies, chosen as the daemon chooses, against the first one."""

from collections.abc import Sequence

from doppel.engine import Sampling
from doppel.figures import Figure
from doppel.likeness import Candidate, best
from training.fidelity.relevance import fits
from training.fidelity.replies import Draft, Reply, drafts
from training.fidelity.stages import Begin, silent
from training.fidelity.subject import Question, Subject
from training.fidelity.twosample import auc_between

COUNT = 4
"""Replies of which the best is taken; `reply.candidates` allows twice as many."""


def candidates(
    subject: Subject,
    first: Sequence[Draft],
    past: Sequence[Reply],
    actual: Sequence[Reply],
    *,
    sampling: Sampling,
    begin: Begin = silent,
) -> list[Figure]:
    """Figures 3 and 6 of a report for the best of `COUNT` replies; what one reply gets is the floor.

    Args:
        subject: the adapter.
        first: its replies, one to each situation.
        past: as many of the owner's to earlier situations, the ceiling of figure 3.
        actual: the owner's to the same situations, the ceiling of figure 6.
        sampling: with which `first` was written.
        begin: hears how much there is to do, and then how much was.
    """
    if not first:
        return []
    chosen = best_of(subject, first, sampling, begin)
    one = [draft.reply for draft in first]
    value, floor, ceiling = fits(subject, (chosen, one, actual), begin)
    return [
        Figure(
            name="candidates_two_sample_auc",
            value=auc_between(chosen, actual),
            floor=auc_between(one, actual),
            ceiling=auc_between(past, actual),
            lower_is_better=True,
        ),
        Figure(name="candidates_relevance", value=value, floor=floor, ceiling=ceiling, unit="share"),
    ]


def best_of(subject: Subject, first: Sequence[Draft], sampling: Sampling, begin: Begin = silent) -> list[Reply]:
    """For every draft the best of it and `COUNT - 1` more to the same situation."""
    situations = [one.reply.situation for one in first]
    more = drafts(subject, situations * (COUNT - 1), sampling, begin(len(situations) * (COUNT - 1)), seed=1)
    sides = [[one, *more[place :: len(first)]] for place, one in enumerate(first)]
    transcript = subject.transcript
    questions = [
        Question(transcript.prompt(one.header, one.context), [draft.ids for draft in side])
        for one, side in zip(situations, sides, strict=True)
    ]
    with subject.base_alone():
        base = subject.tokens(questions, begin(sum(one.size for one in questions)))
    chosen = []
    for situation, side, anybodys in zip(situations, sides, base, strict=True):
        judged = [
            Candidate(draft.reply.bubbles, draft.log_probabilities, theirs.tolist())
            for draft, theirs in zip(side, anybodys, strict=True)
        ]
        recent = [bubble for turn in situation.context if turn.is_mine for bubble in turn.bubbles]
        chosen.append(side[best(judged, recent)].reply)
    return chosen
