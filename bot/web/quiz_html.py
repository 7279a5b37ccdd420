"""Renders the blind quiz as HTML: start, one question, the result. Escapes everything people wrote."""

from collections.abc import Iterator, Sequence
from html import escape

from doppel.i18n import tr
from doppel.reports.metrics import Interval
from doppel.reports.quiz import QuizQuestion, QuizResult, QuizSession, summarize
from doppel.transcript import Turn


def no_questions() -> str:
    """There are no questions; names the command that creates them."""
    return _centred(f"<p>{_with_code(tr('No questions yet. Run `doppel quiz --page` to create them.'))}</p>")


def start_screen(persona: str, count: int) -> str:
    """Explains the quiz, which has `count` questions."""
    explanation = tr(
        "You will see messages sent to {name}, and one reply. Did {name} write it, or was it generated? "
        "{count} questions; the answers come at the end.",
        name=persona,
        count=count,
    )
    privacy = tr("These are private messages of real people. Please do not share them.")
    return _centred(
        f"<h1>{escape(tr('Real or generated?'))}</h1><p>{escape(explanation)}</p><p class='faint'>{escape(privacy)}</p>"
    )


def question_screen(persona: str, question: QuizQuestion, number: int, count: int) -> str:
    """The conversation and the reply to judge; question `number` of `count`, from 1."""
    label = escape(tr("Question {number} of {count}", number=number, count=count))
    progress = (
        f'<div class="progress" role="progressbar" aria-label="{label}" aria-valuemin="0" aria-valuemax="{count}" '
        f'aria-valuenow="{number}"><span>{number} / {count}</span><div><i style="width:{100 * number / count:.0f}%">'
        "</i></div></div>"
    )
    context = "".join(part for turn in question.context for part in _render_turn(turn, persona))
    reply = "".join(f'<div class="bubble asked">{escape(bubble)}</div>' for bubble in question.bubbles)
    speaker = escape(tr("Is this {name}?", name=persona))
    return (
        f'{progress}<div class="scroll"><div class="messages">{context}<p class="who right">{speaker}</p>{reply}</div>'
        "</div>"
    )


def result_screen(
    persona: str, result: QuizResult, session: QuizSession, answers: Sequence[bool], error: str | None
) -> str:
    """The score, and the solution of every answered question.

    Args:
        persona: name of the persona.
        result: the score, of at least one answer.
        session: the questions.
        answers: True where the person answered "real".
        error: why the result could not be saved; None if it was.
    """
    saved = tr("Your result is saved.") if error is None else tr("Not saved: {error}", error=error)
    answered = zip(session.questions, answers, strict=False)
    return (
        f'<div class="ending"><div class="score">{result.correct}<small> / {result.judged}</small></div>'
        f'<p class="verdict">{escape(_verdict(result.share))}</p>{_render_interval(result.share)}'
        f"<p>{escape(summarize(result))}</p>"
        f'<p class="{"faint" if error is None else "error"}">{escape(saved)}</p>'
        f"<ul>{''.join(_render_solution(question, answer, persona) for question, answer in answered)}</ul></div>"
    )


def stopped_screen() -> str:
    """Shown to a person who stopped before the first answer."""
    return _centred(f"<p>{escape(tr('No answers, so no result is saved.'))}</p>")


def _centred(body: str) -> str:
    return f'<div class="centred"><div>{body}</div></div>'


def _with_code(text: str) -> str:
    """Escaped text whose parts between backquotes are shown as code."""
    parts = escape(text).split("`")
    return "".join(f"<code>{part}</code>" if index % 2 else part for index, part in enumerate(parts))


def _render_turn(turn: Turn, persona: str) -> Iterator[str]:
    side = "right" if turn.is_mine else "left"
    yield f'<p class="who {side}">{escape(persona if turn.is_mine else turn.speaker)}</p>'
    for bubble in turn.bubbles:
        yield f'<div class="bubble {side}">{escape(bubble)}</div>'


def _verdict(share: Interval) -> str:
    if share.low > 0.5:
        return tr("Better than guessing")
    if share.high < 0.5:
        return tr("Worse than guessing: fooled")
    return tr("It could be guessing")


def _render_interval(share: Interval) -> str:
    """A scale from 0 to 100 % with the share of correct answers, its interval, and guessing at 50 %."""
    low, width = 100 * share.low, 100 * (share.high - share.low)
    label = escape(tr("Correct answers with the 95 % confidence interval"))
    return (
        f'<div class="interval" role="img" aria-label="{label}"><b style="left:{low:.1f}%;width:{width:.1f}%"></b>'
        f'<i style="left:{100 * share.value:.1f}%"></i><s></s></div>'
        f'<div class="scale"><span>0 %</span><span>{escape(tr("50 %: guessing"))}</span><span>100 %</span></div>'
    )


def _render_solution(question: QuizQuestion, answer: bool, persona: str) -> str:
    is_correct = answer == question.is_real
    mark, class_ = ("✓", "right") if is_correct else ("✗", "wrong")
    title = escape(tr("correct") if is_correct else tr("wrong"))
    kind = escape(tr("real") if question.is_real else tr("generated"))
    last_turn = question.context[-1]
    return (
        f'<li class="{class_}"><span class="mark" role="img" aria-label="{title}" title="{title}">{mark}</span><div>'
        f'<p class="faint">{escape(last_turn.speaker)}: {escape(" / ".join(last_turn.bubbles))}</p>'
        f"<p>{escape(persona)}: {escape(' / '.join(question.bubbles))}</p></div>"
        f'<span class="was {"real" if question.is_real else "generated"}">{kind}</span></li>'
    )
