"""Right voice, right situation: does a reply answer what was said, rather than anything?

The base model, which knows no person, says how much likelier a reply is after its own context than after another
one (pointwise mutual information). The owner's real replies give the ceiling, replies swapped between contexts the
floor. Also counts what no person says of themselves.
"""

import re
from collections.abc import Callable, Sequence

from doppel.transcript import ME, Transcript, Turn
from training.fidelity.figures import Figure
from training.fidelity.heldout import Situation
from training.fidelity.intervals import Estimate, mean
from training.fidelity.replies import Reply
from training.fidelity.subject import Question, Subject

_OUT_OF_CHARACTER = re.compile(
    r"\bas an? (?:ai|artificial|language model|assistant)"
    r"|\bi(?:'| a)m an? (?:ai|language model|virtual assistant|bot)\b"
    r"|\blanguage model\b|\bi cannot assist\b|\bhow can i (?:help|assist) you\b|\bopenai\b|\bchatgpt\b"
    r"|作为(?:一个|一名)?(?:ai|人工智能|语言模型|助手)|我是(?:一个|一名)?(?:ai|人工智能|语言模型|智能助手)"
    r"|有什么(?:我)?可以帮(?:助|到)?(?:你|您)",
    re.IGNORECASE,
)
Advance = Callable[[int], None]


def relevance(
    subject: Subject,
    written: Sequence[Reply],
    prompted: Sequence[Reply],
    actual: Sequence[Reply],
    advance: Advance = lambda _: None,
) -> list[Figure]:
    """Figure 6 of a report: how often a reply fits its own context better than another, and slips out of character."""
    with subject.base_alone():
        value, floor, ceiling = (_fits(subject, replies, advance) for replies in (written, prompted, actual))
    return [
        Figure(name="relevance", value=value, floor=Estimate(0.5, 0.5, 0.5), ceiling=ceiling, unit="share"),
        Figure(name="relevance_prompted", value=floor, unit="share"),
        Figure(
            name="out_of_character", value=_slips(written), floor=_slips(prompted), lower_is_better=True, unit="share"
        ),
    ]


def information(
    subject: Subject, replies: Sequence[Reply], contexts: Sequence[Situation], advance: Advance
) -> list[float]:
    """log p(reply | context) in nats by whatever is in force; the contexts need not be the replies' own."""
    questions = [
        _question(subject.transcript, context, reply) for reply, context in zip(replies, contexts, strict=True)
    ]
    return [float(values[0]) for values in subject.answer(questions, advance)]


def _fits(subject: Subject, replies: Sequence[Reply], advance: Advance) -> Estimate:
    said = [one for one in replies if one.bubbles]
    if len(said) < 2:
        return Estimate(float("nan"), float("nan"), float("nan"))
    own = [one.situation for one in said]
    half = len(own) // 2
    others = [*own[half:], *own[:half]]  # far away in time, and never the same
    fitting, elsewhere = information(subject, said, own, advance), information(subject, said, others, advance)
    wins = [float(here > there) + 0.5 * (here == there) for here, there in zip(fitting, elsewhere, strict=True)]
    return mean(wins, [one.session for one in own])


def _question(transcript: Transcript, context: Situation, reply: Reply) -> Question:
    prompt = transcript.prompt(context.header, context.context)
    turn = Turn(ME, reply.bubbles)
    return Question(prompt, [transcript.encode(context.header, (*context.context, turn)).ids[len(prompt) :]])


def _slips(replies: Sequence[Reply]) -> Estimate:
    said = [one for one in replies if one.bubbles]
    return mean(
        [float(bool(_OUT_OF_CHARACTER.search(one.text))) for one in said], [one.situation.session for one in said]
    )
