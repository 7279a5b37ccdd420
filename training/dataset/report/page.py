"""The page report.html of `doppel build`: what happened to the messages, how the owner writes, and example sessions.

Names of people and chats do not appear, only pseudonyms. The examples contain real messages, as the data set does.
"""

import math
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from datetime import tzinfo
from html import escape
from pathlib import Path
from statistics import median

import msgspec

from doppel.config import ModelSettings
from doppel.errors import DoppelError
from doppel.i18n import tr
from doppel.reports.charts import Bar, TableBar, bar_chart, bar_table, heat_map, line_chart
from doppel.reports.html import REPORT_PAGE, Section, charts, figures, page, table
from doppel.system.atomic_file import write_atomically
from doppel.transcript import pseudonym, render
from training.dataset.files import read_sessions
from training.dataset.report.build_report import REPORT_FILE, LengthReport, Report
from training.dataset.report.statistics import (
    MAX_BUBBLES,
    CountTokens,
    DatasetStatistics,
    collect_statistics,
    estimate_tokens,
)
from training.dataset.report.tables import format_shifts, group_by_format, joined_note, one_sided_note, reason_name

MAX_CONTACTS = 12
MAX_JOINED_CHATS = 20
MAX_LANGUAGES = 8
MAX_EXTENSIONS = 6

_GAP_BIN_MINUTES = 30
_MAX_MONTHS = 240  # longer time spans are drawn by year

_STYLE = """
.charts { margin-top: .75rem; } .charts figure { max-width: 40rem; }
.note { color: var(--faint); font-size: .9rem; margin: .75rem 0; }
.session { margin: 0 0 1rem; padding: .75rem 1rem; border: 1px solid var(--rule); border-radius: .5rem;
  font: .9rem/1.5 ui-monospace, "SF Mono", Menlo, Consolas, "Noto Sans Mono CJK SC", monospace;
  white-space: pre-wrap; overflow-wrap: anywhere; }
"""


class LengthSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How the length of sessions is measured, and the longest that training takes.

    Attributes:
        count_tokens: counts the tokens of texts.
        counted_by: how, for the user.
        max_length: longer sessions are split in training, in tokens.
        reason: why it has this value; None if it is set in config.yaml.
    """

    count_tokens: CountTokens
    counted_by: str
    max_length: int
    reason: str | None


def length_settings(model: ModelSettings, max_length: int, reason: str | None) -> LengthSettings:
    """Uses the base model's tokenizer if it is on this machine, else an estimate. Downloads nothing."""
    from doppel.models.base import is_prepared, prepare_base

    if is_prepared(model):
        with suppress(DoppelError):  # `doppel train` reports a damaged base model
            count_tokens = _tokenizer_counter(prepare_base(model, lambda _: None) / "tokenizer.json")
            if count_tokens is not None:
                counted_by = tr("counted with the tokenizer of the base model, {base}", base=model.base)
                return LengthSettings(
                    count_tokens=count_tokens, counted_by=counted_by, max_length=max_length, reason=reason
                )
    counted_by = tr("estimated from the size of the text, as the base model is not downloaded yet")
    return LengthSettings(count_tokens=estimate_tokens, counted_by=counted_by, max_length=max_length, reason=reason)


def write_report_page(data_dir: Path, persona: str, zone: tzinfo, report: Report, settings: LengthSettings) -> Report:
    """Writes report.html into a data folder, and the lengths of its sessions into report.json.

    Args:
        data_dir: the data set.
        persona: its name.
        zone: the owner's time zone.
        report: of the build.
        settings: how lengths are measured.

    Returns:
        The report with the lengths.

    Raises:
        DoppelError: a file cannot be written.
    """
    statistics = collect_statistics(read_sessions(data_dir), zone, settings.count_tokens)
    report = msgspec.structs.replace(report, lengths=measure_lengths(statistics, settings))
    html = build_page(persona, report, statistics, settings)
    write_atomically(data_dir / REPORT_PAGE, html.encode())
    write_atomically(data_dir / REPORT_FILE, msgspec.json.format(msgspec.json.encode(report), indent=2))
    return report


def measure_lengths(statistics: DatasetStatistics, settings: LengthSettings) -> LengthReport | None:
    """The lengths of the sessions; None if there are none."""
    if not statistics.tokens:
        return None
    return LengthReport(
        median=statistics.length_quantile(0.5),
        percentile_95=statistics.length_quantile(0.95),
        longest=max(statistics.tokens),
        max_length=settings.max_length,
        max_length_reason=settings.reason or tr("set in config.yaml"),
        share_within=round(statistics.share_within(settings.max_length), 4),
        counted_by=settings.counted_by,
    )


def build_page(persona: str, report: Report, statistics: DatasetStatistics, settings: LengthSettings) -> str:
    """The HTML of the page."""
    owner = report.owner
    time_span = f"{owner.first:%Y-%m-%d} – {owner.last:%Y-%m-%d}" if owner.first and owner.last else ""
    sections = [
        Section(tr("Overview"), _overview(report, statistics)),
        Section(
            tr("Messages read and kept"),
            _kept_and_dropped(report) + _sources(report) + _joined(report) + _notes(report),
        ),
        Section(tr("When you write"), _when(statistics)),
        Section(tr("How you write"), _how(statistics)),
        Section(tr("Who you write with"), _contacts(statistics)),
        Section(tr("Length of sessions"), _lengths(statistics, settings)),
    ]
    if gaps := _gaps(report):
        sections.append(Section(tr("Silence that ends a session"), gaps))
    examples = "".join(
        f'<pre class="session">{escape(render(session.header, session.turns))}</pre>' for session in statistics.examples
    )
    sections.append(Section(tr("Examples, as the model sees them"), examples))
    return page(tr("Data set of {persona}", persona=persona), time_span, sections, _STYLE)


def _tokenizer_counter(path: Path) -> CountTokens | None:
    """Counts with a tokenizer file; None if it cannot be read."""
    from transformers import PreTrainedTokenizerFast

    try:
        tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(path)).backend_tokenizer
    except Exception:  # noqa: BLE001  the library raises nothing more specific
        return None
    return lambda texts: [len(encoding.ids) for encoding in tokenizer.encode_batch(list(texts))]


def _overview(report: Report, statistics: DatasetStatistics) -> str:
    splits = [
        ("train", tr("for training")),
        ("validation", tr("for validation")),
        ("test", tr("for the test")),
    ]
    return figures(
        [
            (tr("your messages"), f"{statistics.own_messages:,}"),
            (tr("messages of others"), f"{statistics.other_messages:,}"),
            (tr("sessions"), f"{statistics.sessions:,}"),
            *((title, f"{report.sessions.get(split, 0):,}") for split, title in splits),
            (tr("contacts"), f"{len(statistics.contacts):,}"),
        ]
    )


def _kept_and_dropped(report: Report) -> str:
    """A bar for the messages read, for each reason that dropped some, and for those kept."""
    rows = [TableBar(tr("read"), report.read)]
    left = report.read
    for reason, count in sorted(report.dropped.items(), key=lambda item: -item[1]):
        left -= count
        rows.append(TableBar(reason_name(reason), count, offset=left, is_dropped=True))
    return bar_table([*rows, TableBar(tr("kept"), report.kept)], report.read)


def _sources(report: Report) -> str:
    if len(report.sources) < 2 and not report.bad:
        return ""
    rows = [
        (name, *(f"{count:,}" for count in (source.read, source.kept, source.bad)))
        for name, source in group_by_format(report.sources).items()
    ]
    return table((tr("archive"), tr("read"), tr("kept"), tr("unreadable records")), rows)


def _joined(report: Report) -> str:
    """The chats that several archives have, by pseudonym, those with most copies first."""
    if not report.joined:
        return ""
    chats = sorted(report.joined, key=lambda chat: (-chat.copies, chat.chat))[:MAX_JOINED_CHATS]
    rows = [
        (
            pseudonym(chat.platform, chat.chat),
            chat.platform,
            f"{len(chat.archives):,}",
            f"{chat.copies:,}",
            format_shifts(chat),
        )
        for chat in chats
    ]
    titles = (tr("chat"), tr("platform"), tr("archives"), tr("copies left out"), tr("clocks apart"))
    return table(titles, rows)


def _notes(report: Report) -> str:
    """Joined chats, one-sided messages, and unread files by extension: file names often contain people's names."""
    notes = [note for note in (joined_note(report), one_sided_note(report)) if note]
    if report.unknown_count:
        extensions = Counter(Path(name).suffix.lower() or tr("no extension") for name in report.unknown_files)
        kinds = ", ".join(f"{extension} {count:,}" for extension, count in extensions.most_common(MAX_EXTENSIONS))
        notes.append(
            tr(
                "Files of unknown format, not read: {count} ({kinds}). They are listed in report.json.",
                count=f"{report.unknown_count:,}",
                kinds=kinds,
            )
        )
    if report.attachment_count:
        notes.append(
            tr("Pictures, videos and other attachments, not read: {count}", count=f"{report.attachment_count:,}")
        )
    return "".join(f'<p class="note">{escape(note)}</p>' for note in notes)


def _when(statistics: DatasetStatistics) -> str:
    note = tr("Each message counts at the time at which its session began.")
    by_month = bar_chart(tr("Messages by month"), _months(statistics.months))
    return f'{charts([by_month, _hours(statistics)])}<p class="note">{escape(note)}</p>'


def _months(months: Counter[tuple[int, int]]) -> list[Bar]:
    """A bar for each month, also without messages; for each year if there are too many months."""
    if not months:
        return []
    numbers = [year * 12 + month - 1 for year, month in months]
    first, last = min(numbers), max(numbers)
    if last - first >= _MAX_MONTHS:
        years: Counter[int] = Counter()
        for (year, _), count in months.items():
            years[year] += count
        span = range(min(years), max(years) + 1)
        label_step = math.ceil(len(span) / 10)
        return [Bar(str(year) if not year % label_step else "", str(year), years[year]) for year in span]
    length = last - first + 1
    label_step = 1 if length <= 8 else 3 if length <= 20 else 12 * math.ceil(length / 120)
    bars = []
    for number in range(first, last + 1):
        year, month = divmod(number, 12)
        name = f"{year}-{month + 1:02}"
        label = str(year) if label_step >= 12 else name
        bars.append(Bar(label if number % label_step == 0 else "", name, months[year, month + 1]))
    return bars


def _hours(statistics: DatasetStatistics) -> str:
    days = (tr("Mon"), tr("Tue"), tr("Wed"), tr("Thu"), tr("Fri"), tr("Sat"), tr("Sun"))
    hours = [("" if hour % 3 else str(hour), f"{hour:02}:00") for hour in range(24)]
    return heat_map(tr("Your messages by weekday and hour"), days, hours, statistics.hours)


def _how(statistics: DatasetStatistics) -> str:
    longest = max(statistics.lengths, default=0)
    lengths = _powers_of_two(statistics.lengths, range(longest + 1))
    bubbles = [
        Bar(name := str(size) if size < MAX_BUBBLES else f"{size}+", name, statistics.bubbles[size])
        for size in range(1, max(statistics.bubbles, default=1) + 1)
    ]
    drawn = charts(
        [
            bar_chart(tr("Length of your messages"), lengths, tr("characters or more")),
            bar_chart(tr("Messages you send in a row"), bubbles, tr("messages")),
        ]
    )
    return drawn + _languages(statistics)


def _powers_of_two(counts: Counter[int], exponents: Sequence[int]) -> list[Bar]:
    """A bar for each power of two, labelled with its lower bound."""
    return [Bar(_short_power(exponent), _power_range(exponent), counts[exponent]) for exponent in exponents]


def _short_power(exponent: int) -> str:
    """A power of two, short enough for a label."""
    if exponent < 10:
        return f"{1 << exponent}"
    return f"{1 << (exponent - 10)}k" if exponent < 20 else f"{1 << (exponent - 20)}M"


def _power_range(exponent: int) -> str:
    low, high = 1 << exponent, (2 << exponent) - 1
    return str(low) if low == high else f"{low:,}–{high:,}"


def _languages(statistics: DatasetStatistics) -> str:
    ranked = statistics.languages.most_common()
    rows = [TableBar(name or tr("unknown language"), count) for name, count in ranked[:MAX_LANGUAGES] if count]
    if rest := sum(count for _, count in ranked[MAX_LANGUAGES:]):
        rows.append(TableBar(tr("others"), rest))
    return f"<h3>{escape(tr('Languages of your messages'))}</h3>{bar_table(rows, statistics.own_messages)}"


def _contacts(statistics: DatasetStatistics) -> str:
    ranked = statistics.contacts.most_common(MAX_CONTACTS)
    if not ranked:
        return f'<p class="note">{escape(tr("There are no other people in this data set."))}</p>'
    note = tr("Their messages, under the made-up names by which the model knows them.")
    rows = [TableBar(name, count) for name, count in ranked]
    return f'{bar_table(rows, ranked[0][1])}<p class="note">{escape(note)}</p>'


def _lengths(statistics: DatasetStatistics, settings: LengthSettings) -> str:
    lengths = measure_lengths(statistics, settings)
    if lengths is None:
        return ""
    sizes: Counter[int] = Counter()
    for tokens, count in statistics.tokens.items():
        sizes[tokens.bit_length() - 1] += count
    smallest = min(sizes)
    bars = _powers_of_two(sizes, range(smallest, max(sizes) + 1))
    last_within = (lengths.max_length - 1).bit_length() - 1 - smallest
    summary = figures(
        [
            (tr("median"), _tokens(lengths.median)),
            (tr("95 % are at most"), _tokens(lengths.percentile_95)),
            (tr("longest"), _tokens(lengths.longest)),
            (tr("max_length in training"), _tokens(lengths.max_length)),
            (tr("sessions within max_length"), f"{lengths.share_within:.1%}"),
        ]
    )
    end = max(statistics.length_quantile(0.99), min(lengths.max_length, lengths.longest), 1)
    points = [(end * part / 100, 100 * statistics.share_within(end * part // 100)) for part in range(101)]
    drawn = charts(
        [
            bar_chart(tr("Sessions by length (pale: over max_length)"), bars, tr("tokens or more"), last_within),
            line_chart(tr("Sessions within max_length, in percent"), "max_length", points),
        ]
    )
    note = tr(
        "Tokens are {counted}. max_length: {reason}. Longer sessions are split; none of your messages are lost.",
        counted=lengths.counted_by,
        reason=lengths.max_length_reason,
    )
    return f'{summary}<p class="note">{escape(note)}</p>{drawn}'


def _tokens(count: int) -> str:
    return tr("{count} tokens", count=f"{count:,}")


def _gaps(report: Report) -> str:
    """The silences that end a session in each chat; empty if the report has none."""
    minutes = sorted(seconds / 60 for seconds in report.gaps.values())
    if not minutes:
        return ""
    counts = Counter(math.ceil(gap / _GAP_BIN_MINUTES) * _GAP_BIN_MINUTES for gap in minutes)
    bars = [
        Bar(
            str(end) if len(counts) < 12 or not end % (4 * _GAP_BIN_MINUTES) else "",
            f"{end - _GAP_BIN_MINUTES}–{end}",
            counts[end],
        )
        for end in range(min(counts), max(counts) + 1, _GAP_BIN_MINUTES)
    ]
    summary = figures(
        [
            (tr("shortest"), tr("{minutes:.0f} min", minutes=minutes[0])),
            (tr("median"), tr("{minutes:.0f} min", minutes=median(minutes))),
            (tr("longest"), tr("{minutes:.0f} min", minutes=minutes[-1])),
        ]
    )
    return summary + charts([bar_chart(tr("Chats by silence"), bars, tr("minutes, at most"))])
