"""Right voice, right situation: does a reply answer what was said, rather than anything?

The base model, which knows no person, says how much likelier a reply is after its own context than after another
one (pointwise mutual information). The owner's real replies give the ceiling, replies swapped between contexts the
floor. Also counts what no person says of themselves.
"""

import math
import re
from collections.abc import Sequence

from doppel.reports.metrics import Interval, Metric
from doppel.transcript import ME, Transcript, Turn
from training.fidelity.generate import Reply
from training.fidelity.judge import Question, Subject
from training.fidelity.stages import Begin, silent
from training.fidelity.statistics import mean
from training.fidelity.texts import Situation

_OUT_OF_CHARACTER = re.compile(
    r"\bas an? (?:ai|artificial|language model|assistant)"
    r"|\bi(?:'| a)m an? (?:ai|language model|virtual assistant|bot)\b"
    r"|\blanguage model\b|\bi cannot assist\b|\bhow can i (?:help|assist) you\b|\bopenai\b|\bchatgpt\b"
    r"|作为(?:一个|一名)?(?:ai|人工智能|语言模型|助手)|我是(?:一个|一名)?(?:ai|人工智能|语言模型|智能助手)"
    r"|有什么(?:我)?可以帮(?:助|到)?(?:你|您)",
    re.IGNORECASE,
)


def relevance(
    subject: Subject,
    written: Sequence[Reply],
    prompted: Sequence[Reply],
    actual: Sequence[Reply],
    chosen: Sequence[Reply] = (),
    *,
    begin: Begin = silent,
) -> list[Metric]:
    """Figure 6 of a report: how often a reply fits its own context better than another, and slips out of character.

    Args:
        subject: whose base judges.
        written: the adapter's replies.
        prompted: the base's, with a prompt, to the same situations.
        actual: the owner's.
        chosen: the best of several of the adapter's, to the same situations, if there are.
        begin: hears how many tokens are to be read, and then how many were.
    """
    sides = [side for side in (written, prompted, actual, chosen) if side]
    value, base, ceiling, *best = fits(subject, sides, begin)
    return [
        Metric(name="relevance", estimate=value, floor=Interval(0.5, 0.5, 0.5), ceiling=ceiling, unit="share"),
        Metric(name="relevance_prompted", estimate=base, unit="share"),
        *(
            Metric(name="candidates_relevance", estimate=one, floor=value, ceiling=ceiling, unit="share")
            for one in best
        ),
        Metric(
            name="out_of_character",
            estimate=_slips(written),
            floor=_slips(prompted),
            lower_is_better=True,
            unit="share",
        ),
    ]


def fits(subject: Subject, sides: Sequence[Sequence[Reply]], begin: Begin = silent) -> list[Interval]:
    """Of each side, all to the same situations: the share that fits its own context better than one far away."""
    places = [place for place in range(len(sides[0])) if all(side[place].bubbles for side in sides)]
    if len(places) < 2:
        return [Interval(math.nan, math.nan, math.nan)] * len(sides)
    half = len(places) // 2
    away = dict(zip(places, [*places[half:], *places[:half]], strict=True))
    questions = []
    for place in places:  # each context is read once, for the replies to it and for those from far away
        replies = [side[at] for side in sides for at in (place, away[place])]
        questions.append(_question(subject.transcript, sides[0][place].situation, replies))
    advance = begin(sum(one.size for one in questions))
    with subject.base_alone():
        values = dict(zip(places, subject.answer(questions, advance), strict=True))
    back = {there: here for here, there in away.items()}
    groups = [sides[0][place].situation.session for place in places]
    estimates = []
    for number in range(len(sides)):
        wins = []
        for place in places:
            here, elsewhere = values[place][2 * number], values[back[place]][2 * number + 1]
            wins.append(float(here > elsewhere) + 0.5 * float(here == elsewhere))
        estimates.append(mean(wins, groups))
    return estimates


def _question(transcript: Transcript, context: Situation, replies: Sequence[Reply]) -> Question:
    prompt = transcript.prompt(context.header, context.context)
    turns = [Turn(ME, reply.bubbles) for reply in replies]
    answers = [transcript.encode(context.header, (*context.context, turn)).ids[len(prompt) :] for turn in turns]
    return Question(prompt, answers)


def _slips(replies: Sequence[Reply]) -> Interval:
    said = [one for one in replies if one.bubbles]
    return mean(
        [float(bool(_OUT_OF_CHARACTER.search(one.text))) for one in said], [one.situation.session for one in said]
    )
