"""The blind quiz as HTML: how it begins, one question, the score with its interval, and what was what.

Escapes all that anybody wrote. Knows the quiz and nothing of pages or servers; `quiz.css` gives it its looks.
"""

from collections.abc import Iterator, Sequence
from html import escape

from doppel.i18n import tr
from doppel.reports.metrics import Interval
from doppel.reports.quiz import QuizQuestion, QuizResult, QuizSession, summarize
from doppel.transcript import Turn


def nothing() -> str:
    """There is nothing to ask, and which command changes that."""
    return _centred(f"<p>{_marked(tr('Nothing to ask yet: `doppel quiz --page` makes the questions.'))}</p>")


def beginning(name: str, count: int) -> str:
    """What the persona `name`'s friends are about to be asked, in `count` questions."""
    asked = tr(
        "You read what somebody said to {name}, and a reply. Did {name} write it, or was it generated? "
        "{count} questions; what was what shows at the end.",
        name=name,
        count=count,
    )
    private = tr("These are real messages of real people: keep them to yourself.")
    return _centred(
        f"<h1>{escape(tr('Real or generated?'))}</h1><p>{escape(asked)}</p><p class='faint'>{escape(private)}</p>"
    )


def question(name: str, asked: QuizQuestion, number: int, count: int) -> str:
    """One question: the conversation, and the reply that is to be judged.

    Args:
        name: of the persona.
        asked: the question.
        number: of the question, from 1.
        count: of all questions.
    """
    label = escape(tr("Question {number} of {count}", number=number, count=count))
    progress = (
        f'<div class="progress" role="progressbar" aria-label="{label}" aria-valuemin="0" aria-valuemax="{count}" '
        f'aria-valuenow="{number}"><span>{number} / {count}</span><div><i style="width:{100 * number / count:.0f}%">'
        "</i></div></div>"
    )
    said = "".join(part for turn in asked.context for part in _turn(turn, name))
    reply = "".join(f'<div class="bubble asked">{escape(bubble)}</div>' for bubble in asked.bubbles)
    who = escape(tr("{name}, or not?", name=name))
    return (
        f'{progress}<div class="scroll"><div class="messages">{said}<p class="who right">{who}</p>{reply}</div></div>'
    )


def ending(name: str, quiz: QuizResult, session: QuizSession, verdicts: Sequence[bool], trouble: str) -> str:
    """The score, and every judged reply with what it was.

    Args:
        name: of the persona.
        quiz: the score; of at least one answer.
        session: what was asked.
        verdicts: which replies were called real.
        trouble: why the score could not be kept; nothing where it was.
    """
    kept = tr("The score joins the report of this version.") if not trouble else tr("Not kept: {why}", why=trouble)
    judged = zip(session.questions, verdicts, strict=False)
    return (
        f'<div class="ending"><div class="score">{quiz.correct}<small> / {quiz.judged}</small></div>'
        f'<p class="verdict">{escape(_verdict(quiz.share))}</p>{_interval(quiz.share)}'
        f"<p>{escape(summarize(quiz))}</p>"
        f'<p class="{"trouble" if trouble else "faint"}">{escape(kept)}</p>'
        f"<ul>{''.join(_judged(one, verdict, name) for one, verdict in judged)}</ul></div>"
    )


def stopped() -> str:
    """Somebody stopped before the first answer."""
    return _centred(f"<p>{escape(tr('No answers, so no result is saved.'))}</p>")


def _centred(body: str) -> str:
    return f'<div class="centred"><div>{body}</div></div>'


def _marked(text: str) -> str:
    """Escaped, with what stands between backquotes as code."""
    return "".join(f"<code>{part}</code>" if place % 2 else part for place, part in enumerate(escape(text).split("`")))


def _turn(turn: Turn, name: str) -> Iterator[str]:
    side = "right" if turn.is_mine else "left"
    yield f'<p class="who {side}">{escape(name if turn.is_mine else turn.speaker)}</p>'
    for bubble in turn.bubbles:
        yield f'<div class="bubble {side}">{escape(bubble)}</div>'


def _verdict(share: Interval) -> str:
    if share.low > 0.5:
        return tr("Better than guessing")
    if share.high < 0.5:
        return tr("Worse than guessing: fooled")
    return tr("It could be guessing")


def _interval(share: Interval) -> str:
    """The share of right answers between 0 and 100 %, its interval, and where guessing lies."""
    low, width = 100 * share.low, 100 * (share.high - share.low)
    label = escape(tr("Right answers, with the 95 % interval"))
    return (
        f'<div class="interval" role="img" aria-label="{label}"><b style="left:{low:.1f}%;width:{width:.1f}%"></b>'
        f'<i style="left:{100 * share.value:.1f}%"></i><s></s></div>'
        f'<div class="scale"><span>0 %</span><span>{escape(tr("50 %: guessing"))}</span><span>100 %</span></div>'
    )


def _judged(asked: QuizQuestion, verdict: bool, name: str) -> str:
    right = verdict == asked.is_real
    was = tr("real") if asked.is_real else tr("generated")
    mark, class_ = ("✓", "right") if right else ("✗", "wrong")
    title = escape(tr("judged rightly") if right else tr("judged wrongly"))
    heard = asked.context[-1]
    return (
        f'<li class="{class_}"><span class="mark" role="img" aria-label="{title}" title="{title}">{mark}</span><div>'
        f'<p class="faint">{escape(heard.speaker)}: {escape(" / ".join(heard.bubbles))}</p>'
        f"<p>{escape(name)}: {escape(' / '.join(asked.bubbles))}</p></div>"
        f'<span class="was {"real" if asked.is_real else "generated"}">{escape(was)}</span></li>'
    )
