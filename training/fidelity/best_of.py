"""Replies as `reply.candidates` has them: the best of several, chosen as the daemon chooses."""

from collections.abc import Sequence

from doppel.engine import Sampling
from doppel.persona.ranking import Candidate, best
from training.fidelity.generate import Draft, Reply, drafts
from training.fidelity.judge import Question, Subject
from training.fidelity.stages import Begin, silent

COUNT = 4
"""Replies of which the best is taken; `reply.candidates` allows twice as many."""


def best_of(subject: Subject, first: Sequence[Draft], sampling: Sampling, begin: Begin = silent) -> list[Reply]:
    """For every draft the best of it and `COUNT - 1` more to the same situation.

    Args:
        subject: the adapter.
        first: its replies, one to each situation.
        sampling: with which they were written.
        begin: hears how much there is to do, and then how much was: replies, then tokens.
    """
    situations = [one.reply.situation for one in first]
    more = drafts(subject, situations * (COUNT - 1), sampling, begin(len(situations) * (COUNT - 1)), seed=1)
    sides = [[one, *more[place :: len(first)]] for place, one in enumerate(first)]
    transcript = subject.transcript
    questions = [
        Question(transcript.prompt(one.header, one.context), [draft.ids for draft in side])
        for one, side in zip(situations, sides, strict=True)
    ]
    unprompted = [
        Question(transcript.prompt(one.header, ()), question.answers)
        for one, question in zip(situations, questions, strict=True)
    ]
    with subject.base_alone():
        both = subject.tokens([*questions, *unprompted], begin(sum(one.size for one in (*questions, *unprompted))))
    base, alone = both[: len(questions)], both[len(questions) :]
    chosen = []
    for situation, side, anybodys, nothings in zip(situations, sides, base, alone, strict=True):
        judged = [
            Candidate(draft.reply.bubbles, draft.log_probabilities, theirs.tolist(), nothing.tolist())
            for draft, theirs, nothing in zip(side, anybodys, nothings, strict=True)
        ]
        recent = [bubble for turn in situation.context if turn.is_mine for bubble in turn.bubbles]
        chosen.append(side[best(judged, recent)].reply)
    return chosen
