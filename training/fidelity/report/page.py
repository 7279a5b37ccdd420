"""The outcome of an examination as sections of report.html: bars, distributions, and replies to look at."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from html import escape

import msgspec

from doppel.i18n import tr
from doppel.reports.charts import grouped_bar_chart
from doppel.reports.html import Section, charts, table
from doppel.reports.metrics import GoalResult, Interval, Metric, format_value
from training.fidelity.examine import ExaminationResult
from training.fidelity.generate import EvaluationReply
from training.fidelity.measures.habits import words
from training.fidelity.report.table import floor_description
from training.fidelity.report.titles import title_of, title_of_goal

_SHOWN_REPLIES = 10
_MOST_BUBBLES = 6
_OPENINGS = 8

STYLE = """
style + h1 { margin-top: 3.5rem; }
.span { position: relative; height: .5rem; background: var(--rule); border-radius: 1rem; width: min(14rem, 40vw);
  margin-top: .5rem; }
.span b { position: absolute; height: 100%; background: var(--accent); opacity: .35; border-radius: 1rem; }
.span i { position: absolute; top: -.2rem; width: .9rem; height: .9rem; border-radius: 1rem; background: var(--accent);
  transform: translateX(-50%); }
.judged td:first-child { min-width: 10rem; }
.judged td:not(:first-child) { white-space: nowrap; padding-right: 1.25rem; }
.pairs { display: grid; gap: 1.25rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); }
.chat { border: 1px solid var(--rule); border-radius: .6rem; padding: .75rem 1rem; font-size: .92rem; }
.chat p { margin: .2rem 0; white-space: pre-wrap; overflow-wrap: anywhere; }
.chat .them { color: var(--faint); }
.chat .it { color: var(--accent); }
"""


def fidelity_sections(examination: ExaminationResult, checks: Sequence[GoalResult]) -> list[Section]:
    """Sections with every figure, the distributions and the ten best and ten worst replies."""
    ranked = ranked_replies(examination)
    best, worst = ranked[:_SHOWN_REPLIES], ranked[-_SHOWN_REPLIES:][::-1]
    return [
        Section(
            tr("How close it comes to you"),
            f"<p>{escape(floor_description(examination))}</p>{_bars(examination.metrics)}",
        ),
        Section(tr("How it writes and how you write"), _distributions(examination)),
        Section(tr("The ten replies most like you"), _chats(best)),
        Section(tr("The ten replies least like you"), _chats(worst)),
        Section(tr("All metrics"), _figures(examination.metrics)),
        Section(tr("Goals"), _checks(checks)),
    ]


def ranked_replies(examination: ExaminationResult) -> list[tuple[EvaluationReply, EvaluationReply]]:
    """(written, actual) pairs, from what is most like the owner's words to what is least, by shared habits.

    A reply counts as like the owner's when its words are those the owner uses more often than the prompted base does.
    """
    own, base = (
        Counter(word for reply in side for word in words(reply.text))
        for side in (examination.actual, examination.prompted)
    )
    total_own, total_base = sum(own.values()) + 1, sum(base.values()) + 1

    def likeness(reply: EvaluationReply) -> float:
        found = words(reply.text) or [""]
        score = sum(
            math.log((own.get(word, 0) + 0.5) / total_own) - math.log((base.get(word, 0) + 0.5) / total_base)
            for word in found
        )
        return score / math.sqrt(len(found))

    pairs = [
        (reply, real) for reply, real in zip(examination.adapter, examination.actual, strict=True) if reply.bubbles
    ]
    return sorted(pairs, key=lambda pair: likeness(pair[0]), reverse=True)


def _bars(figures: Sequence[Metric]) -> str:
    rows = []
    for figure in figures:
        likeness = figure.normalized
        if likeness is None or not math.isfinite(likeness):
            continue
        bar = f'<div class="span">{_band(figure)}<i style="left:{_percent(likeness):.0f}%"></i></div>'
        value = format_value(figure, figure.estimate, with_interval=True)
        bounds = (format_value(figure, figure.floor), bar, format_value(figure, figure.ceiling))
        cells = (escape(title_of(figure.name)), escape(value), *bounds)
        rows.append(f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>")
    head = "".join(
        f"<th>{escape(title)}</th>" for title in (tr("metric"), tr("value"), tr("floor"), "", tr("ceiling (you)"))
    )
    return f'<div class="wide judged"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


def _band(figure: Metric) -> str:
    """The interval, as far as it lies between floor and ceiling."""
    ends = [
        _percent(end)
        for number in (figure.estimate.low, figure.estimate.high)
        if math.isfinite(
            end := msgspec.structs.replace(figure, estimate=Interval(number, number, number)).normalized or 0.0
        )
    ]
    if len(ends) < 2:
        return ""
    return f'<b style="left:{min(ends):.0f}%;width:{max(ends) - min(ends):.0f}%"></b>'


def _percent(likeness: float) -> float:
    return 100 * max(0.0, min(1.0, likeness))


def _distributions(examination: ExaminationResult) -> str:
    you, it = ([one for one in side if one.bubbles] for side in (examination.actual, examination.adapter))
    if not you or not it:
        return f"<p>{escape(tr('It wrote nothing.'))}</p>"
    classes = max(len(one.text).bit_length() for one in [*you, *it])
    lengths = [str(1 << number) for number in range(classes)]
    rows = [*map(str, range(1, _MOST_BUBBLES)), f"{_MOST_BUBBLES}+"]
    opening = [name for name, _ in Counter(map(_opening, you)).most_common(_OPENINGS)]
    drawn = [
        _histogram(
            tr("Reply length in characters, at least"), lengths, you, it, lambda one: len(one.text).bit_length() - 1
        ),
        _histogram(tr("Messages in a row"), rows, you, it, lambda one: min(len(one.bubbles), _MOST_BUBBLES) - 1),
        _histogram(
            tr("Your most frequent first words"),
            opening,
            you,
            it,
            lambda one: opening.index(_opening(one)) if _opening(one) in opening else None,
        ),
    ]
    return charts(drawn)


def _opening(reply: EvaluationReply) -> str:
    return next(iter(words(reply.text)), reply.text[:1])


def _histogram(
    title: str,
    labels: Sequence[str],
    you: Sequence[EvaluationReply],
    it: Sequence[EvaluationReply],
    place: Callable[[EvaluationReply], int | None],
) -> str:
    """The distribution of both sides' replies over the labels; `place` is the index of a reply's label, if any."""
    shares = {}
    for name, replies in ((tr("you"), you), (tr("it"), it)):
        counts = Counter(map(place, replies))
        shares[name] = [counts[index] / len(replies) for index in range(len(labels))]
    return grouped_bar_chart(title, labels, shares)


def _chats(pairs: Sequence[tuple[EvaluationReply, EvaluationReply]]) -> str:
    return f'<div class="pairs">{"".join(_chat(written, actual) for written, actual in pairs)}</div>'


def _chat(written: EvaluationReply, actual: EvaluationReply) -> str:
    heard = "".join(
        f'<p class="them"><b>{escape(tr("you") if turn.is_mine else turn.speaker)}</b> '
        f"{escape(' / '.join(turn.bubbles))}</p>"
        for turn in written.exchange.context[-3:]
    )
    it, you = (escape(" / ".join(reply.bubbles)) for reply in (written, actual))
    return (
        f'<div class="chat">{heard}<p class="it"><b>{escape(tr("it"))}</b> {it}</p>'
        f"<p><b>{escape(tr('you'))}</b> {you}</p></div>"
    )


def _figures(figures: Sequence[Metric]) -> str:
    rows = [
        (
            title_of(figure.name),
            format_value(figure, figure.estimate, with_interval=True),
            format_value(figure, figure.floor, with_interval=True),
            format_value(figure, figure.ceiling, with_interval=True),
        )
        for figure in figures
    ]
    return f'<div class="judged">{table((tr("metric"), tr("value"), tr("floor"), tr("ceiling (you)")), rows)}</div>'


def _checks(checks: Sequence[GoalResult]) -> str:
    rows = [(title_of_goal(check.name), f"{check.value:.3f}", check.goal, "✓" if check.ok else "–") for check in checks]
    return table((tr("goal"), tr("value"), tr("required"), ""), rows)
