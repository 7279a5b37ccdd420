"""The sections of report.html on an examination: metrics from floor to ceiling, distributions, and example replies."""

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

_EXAMPLE_REPLIES = 10
_MAX_BUBBLES = 6
_FIRST_WORDS = 8
_CONTEXT_TURNS = 3

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


def fidelity_sections(examination: ExaminationResult, goals: Sequence[GoalResult]) -> list[Section]:
    """Sections with all metrics, distributions, and the ten best and ten worst replies."""
    ranked = rank_replies(examination)
    best, worst = ranked[:_EXAMPLE_REPLIES], ranked[-_EXAMPLE_REPLIES:][::-1]
    return [
        Section(
            tr("How close it comes to you"),
            f"<p>{escape(floor_description(examination))}</p>{_bars(examination.metrics)}",
        ),
        Section(tr("How it writes and how you write"), _distributions(examination)),
        Section(tr("The ten replies most like you"), _chats(best)),
        Section(tr("The ten replies least like you"), _chats(worst)),
        Section(tr("All metrics"), _all_metrics(examination.metrics)),
        Section(tr("Goals"), _goals(goals)),
    ]


def rank_replies(examination: ExaminationResult) -> list[tuple[EvaluationReply, EvaluationReply]]:
    """(adapter's, owner's) replies, most similar to the owner's wording first.

    A reply is similar if the owner uses its words more often than the prompted base does (mean log-odds).
    """
    owner_counts, base_counts = (
        Counter(word for reply in replies for word in words(reply.text))
        for replies in (examination.actual, examination.prompted)
    )
    owner_total, base_total = sum(owner_counts.values()) + 1, sum(base_counts.values()) + 1

    def similarity(reply: EvaluationReply) -> float:
        reply_words = words(reply.text) or [""]
        log_odds = sum(
            math.log((owner_counts.get(word, 0) + 0.5) / owner_total)
            - math.log((base_counts.get(word, 0) + 0.5) / base_total)
            for word in reply_words
        )
        return log_odds / math.sqrt(len(reply_words))

    pairs = [
        (reply, actual) for reply, actual in zip(examination.adapter, examination.actual, strict=True) if reply.bubbles
    ]
    return sorted(pairs, key=lambda pair: similarity(pair[0]), reverse=True)


def _bars(metrics: Sequence[Metric]) -> str:
    """A table with a bar from floor to ceiling for each metric that has both."""
    rows = []
    for metric in metrics:
        position = metric.normalized
        if position is None or not math.isfinite(position):
            continue
        bar = f'<div class="span">{_interval_band(metric)}<i style="left:{_percent(position):.0f}%"></i></div>'
        value = format_value(metric, metric.estimate, with_interval=True)
        bounds = (format_value(metric, metric.floor), bar, format_value(metric, metric.ceiling))
        cells = (escape(title_of(metric.name)), escape(value), *bounds)
        rows.append(f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>")
    head = "".join(
        f"<th>{escape(title)}</th>" for title in (tr("metric"), tr("value"), tr("floor"), "", tr("ceiling (you)"))
    )
    return f'<div class="wide judged"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


def _interval_band(metric: Metric) -> str:
    """The confidence interval, clipped to floor and ceiling."""
    ends = [
        _percent(position)
        for bound in (metric.estimate.low, metric.estimate.high)
        if math.isfinite(position := msgspec.structs.replace(metric, estimate=Interval.exact(bound)).normalized or 0.0)
    ]
    if len(ends) < 2:
        return ""
    return f'<b style="left:{min(ends):.0f}%;width:{max(ends) - min(ends):.0f}%"></b>'


def _percent(position: float) -> float:
    return 100 * max(0.0, min(1.0, position))


def _distributions(examination: ExaminationResult) -> str:
    owner, adapter = (
        [reply for reply in replies if reply.bubbles] for replies in (examination.actual, examination.adapter)
    )
    if not owner or not adapter:
        return f"<p>{escape(tr('It wrote nothing.'))}</p>"
    length_classes = max(len(reply.text).bit_length() for reply in [*owner, *adapter])
    lengths = [str(1 << number) for number in range(length_classes)]
    bubble_counts = [*map(str, range(1, _MAX_BUBBLES)), f"{_MAX_BUBBLES}+"]
    first_words = [word for word, _ in Counter(map(_first_word, owner)).most_common(_FIRST_WORDS)]
    return charts(
        [
            _histogram(
                tr("Reply length in characters, at least"),
                lengths,
                owner,
                adapter,
                lambda reply: len(reply.text).bit_length() - 1,
            ),
            _histogram(
                tr("Messages in a row"),
                bubble_counts,
                owner,
                adapter,
                lambda reply: min(len(reply.bubbles), _MAX_BUBBLES) - 1,
            ),
            _histogram(
                tr("Your most frequent first words"),
                first_words,
                owner,
                adapter,
                lambda reply: first_words.index(_first_word(reply)) if _first_word(reply) in first_words else None,
            ),
        ]
    )


def _first_word(reply: EvaluationReply) -> str:
    return next(iter(words(reply.text)), reply.text[:1])


def _histogram(
    title: str,
    labels: Sequence[str],
    owner: Sequence[EvaluationReply],
    adapter: Sequence[EvaluationReply],
    class_of: Callable[[EvaluationReply], int | None],
) -> str:
    """Shares of both sides' replies in each class; `class_of` returns the index of a reply's label, or None."""
    shares = {}
    for name, replies in ((tr("you"), owner), (tr("it"), adapter)):
        counts = Counter(map(class_of, replies))
        shares[name] = [counts[index] / len(replies) for index in range(len(labels))]
    return grouped_bar_chart(title, labels, shares)


def _chats(pairs: Sequence[tuple[EvaluationReply, EvaluationReply]]) -> str:
    return f'<div class="pairs">{"".join(_chat(reply, actual) for reply, actual in pairs)}</div>'


def _chat(reply: EvaluationReply, actual: EvaluationReply) -> str:
    context = "".join(
        f'<p class="them"><b>{escape(tr("you") if turn.is_mine else turn.speaker)}</b> '
        f"{escape(' / '.join(turn.bubbles))}</p>"
        for turn in reply.exchange.context[-_CONTEXT_TURNS:]
    )
    its_text, your_text = (escape(" / ".join(answer.bubbles)) for answer in (reply, actual))
    return (
        f'<div class="chat">{context}<p class="it"><b>{escape(tr("it"))}</b> {its_text}</p>'
        f"<p><b>{escape(tr('you'))}</b> {your_text}</p></div>"
    )


def _all_metrics(metrics: Sequence[Metric]) -> str:
    rows = [
        (
            title_of(metric.name),
            format_value(metric, metric.estimate, with_interval=True),
            format_value(metric, metric.floor, with_interval=True),
            format_value(metric, metric.ceiling, with_interval=True),
        )
        for metric in metrics
    ]
    return f'<div class="judged">{table((tr("metric"), tr("value"), tr("floor"), tr("ceiling (you)")), rows)}</div>'


def _goals(goals: Sequence[GoalResult]) -> str:
    rows = [
        (title_of_goal(result.name), f"{result.value:.3f}", result.goal, "✓" if result.ok else "–") for result in goals
    ]
    return table((tr("goal"), tr("value"), tr("required"), ""), rows)
