"""report.html of `doppel build`: what became of the messages, a portrait of the owner's writing, and ten sessions.

Draws what `statistics` counted and what the build's report says. Names of people and chats stay out of it,
only pseudonyms are in; the examples hold the owner's own words and those of others, as the data set does.
"""

import math
import os
from collections import Counter
from contextlib import suppress
from html import escape
from pathlib import Path
from statistics import median

import msgspec

from doppel.config import Config, ModelSettings
from doppel.errors import DoppelError
from doppel.i18n import tr
from doppel.reports.charts import Bar, TableBar, bar_chart, bar_table, heat_map, line_chart
from doppel.reports.html import FILE, Section, charts, figures, page, table
from doppel.system.write_errors import translate_write_errors
from doppel.transcript import render
from training.dataset.files import read_sessions
from training.dataset.report.figures import REPORT, LengthReport, Report, by_format, reason_name
from training.dataset.report.statistics import MOST_BUBBLES, CountTokens, Portrait, estimated_tokens, portray

CONTACTS_SHOWN = 12
LANGUAGES_SHOWN = 8
ENDINGS_SHOWN = 6

_GAP_STEP = 30  # minutes
_MOST_MONTHS = 240  # more are drawn as years

_STYLE = """
.charts { margin-top: .75rem; } .charts figure { max-width: 40rem; }
.note { color: var(--faint); font-size: .9rem; margin: .75rem 0; }
.session { margin: 0 0 1rem; padding: .75rem 1rem; border: 1px solid var(--rule); border-radius: .5rem;
  font: .9rem/1.5 ui-monospace, "SF Mono", Menlo, Consolas, "Noto Sans Mono CJK SC", monospace;
  white-space: pre-wrap; overflow-wrap: anywhere; }
"""


class Measure(msgspec.Struct, frozen=True, kw_only=True):
    """How the length of sessions is measured.

    Attributes:
        count_tokens: counts the tokens of texts.
        counted_by: how that was done, for people.
        max_length: tokens of the longest session that training takes whole.
        reason: why it is that long; None where config.yaml sets it.
    """

    count_tokens: CountTokens
    counted_by: str
    max_length: int
    reason: str | None


def measure_for(model: ModelSettings, max_length: int, reason: str | None) -> Measure:
    """With the base model's own tokenizer where it is on this machine already, else by bytes; nothing is fetched."""
    from doppel.models.base import is_prepared, prepare_base

    if is_prepared(model):
        with suppress(DoppelError):  # a base that is damaged is not the data set's trouble; `doppel train` says so
            counter = _counter(prepare_base(model, lambda _: None) / "tokenizer.json")
            if counter is not None:
                name = tr("counted with the tokenizer of the base model, {base}", base=model.base)
                return Measure(count_tokens=counter, counted_by=name, max_length=max_length, reason=reason)
    name = tr("estimated from the bytes of the text, as there is no tokenizer of the base model here yet")
    return Measure(count_tokens=estimated_tokens, counted_by=name, max_length=max_length, reason=reason)


def write_page(config: Config, report: Report, measure: Measure) -> Report:
    """Puts report.html into the data folder, and how long sessions are into its report.json.

    Returns:
        The report with these lengths.

    Raises:
        DoppelError: one of them cannot be written.
    """
    portrait = portray(read_sessions(config.data_dir), config.zone, measure.count_tokens)
    report = msgspec.structs.replace(report, lengths=lengths_of(portrait, measure))
    page = build_page(config.persona.name, report, portrait, measure)
    _put(config.data_dir / FILE, page.encode())
    _put(config.data_dir / REPORT, msgspec.json.format(msgspec.json.encode(report), indent=2))
    return report


def lengths_of(portrait: Portrait, measure: Measure) -> LengthReport | None:
    """The lengths of sessions, and how long a session may be; None where nothing was counted."""
    if not portrait.tokens:
        return None
    return LengthReport(
        half=portrait.tokens_at(0.5),
        most=portrait.tokens_at(0.95),
        longest=max(portrait.tokens),
        max_length=measure.max_length,
        why=measure.reason or tr("set in config.yaml"),
        fitting=round(portrait.fitting(measure.max_length), 4),
        counted_by=measure.counted_by,
    )


def _put(path: Path, content: bytes) -> None:
    """Writes a file, whole or not at all."""
    staging = path.with_name(f".{path.name}.{os.getpid()}")
    with translate_write_errors(path):
        try:
            staging.write_bytes(content)
            staging.replace(path)
        finally:
            staging.unlink(missing_ok=True)


def build_page(persona: str, report: Report, portrait: Portrait, measure: Measure) -> str:
    """The whole page."""
    owner = report.owner
    stretch = f"{owner.first:%Y-%m-%d} – {owner.last:%Y-%m-%d}" if owner.first and owner.last else ""
    sections = [
        Section(tr("In figures"), _figures(report, portrait)),
        Section(tr("What became of the messages"), _funnel(report) + _sources(report) + _unread(report)),
        Section(tr("When you write"), _when(portrait)),
        Section(tr("How you write"), _how(portrait)),
        Section(tr("Whom you write with"), _contacts(portrait)),
        Section(tr("Length of sessions"), _lengths(portrait, measure)),
    ]
    if gaps := _gaps(report):
        sections.append(Section(tr("Silences that end a session"), gaps))
    examples = "".join(
        f'<pre class="session">{escape(render(one.header, one.turns))}</pre>' for one in portrait.examples
    )
    sections.append(Section(tr("Examples, as the model sees them"), examples))
    return page(tr("The data set of {persona}", persona=persona), stretch, sections, _STYLE)


def _counter(path: Path) -> CountTokens | None:
    """Counts with a tokenizer's file, if it can be read."""
    from transformers import PreTrainedTokenizerFast

    try:
        tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(path)).backend_tokenizer
    except Exception:  # noqa: BLE001  the library raises nothing more definite
        return None
    return lambda texts: [len(one.ids) for one in tokenizer.encode_batch(list(texts))]


def _figures(report: Report, portrait: Portrait) -> str:
    return figures(
        [
            (tr("messages of yours"), f"{portrait.mine:,}"),
            (tr("messages of others"), f"{portrait.others:,}"),
            (tr("sessions"), f"{portrait.sessions:,}"),
            *((title, f"{report.sessions.get(split, 0):,}") for split, title in _splits()),
            (tr("people"), f"{len(portrait.contacts):,}"),
        ]
    )


def _splits() -> list[tuple[str, str]]:
    return [("train", tr("for training")), ("validation", tr("to watch the training")), ("test", tr("for the test"))]


def _funnel(report: Report) -> str:
    """Read, then every reason with what it took away, then kept."""
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
        (name, *(f"{n:,}" for n in (one.read, one.kept, one.bad))) for name, one in by_format(report.sources).items()
    ]
    return table((tr("source"), tr("read"), tr("kept"), tr("could not be read")), rows)


def _unread(report: Report) -> str:
    """How many files were left alone, and of what kind: their names often are people's."""
    notes = []
    if report.unknown_count:
        endings = Counter(Path(name).suffix.lower() or tr("without an ending") for name in report.unknown)
        kinds = ", ".join(f"{ending} {count:,}" for ending, count in endings.most_common(ENDINGS_SHOWN))
        text = tr(
            "Files that no reader knows: {count} ({kinds}); report.json names them.",
            count=f"{report.unknown_count:,}",
            kinds=kinds,
        )
        notes.append(text)
    if report.beside:
        notes.append(
            tr(
                "Pictures, videos, pages and attachments beside the messages, not read: {count}",
                count=f"{report.beside:,}",
            )
        )
    return "".join(f'<p class="note">{escape(note)}</p>' for note in notes)


def _when(portrait: Portrait) -> str:
    note = tr("Every message counts at the time at which its session began.")
    month_and_hour = charts([bar_chart(tr("Messages by month"), _months(portrait.months)), _hours(portrait)])
    return f'{month_and_hour}<p class="note">{escape(note)}</p>'


def _months(months: Counter[tuple[int, int]]) -> list[Bar]:
    """A bar a month, also for months without messages; a bar a year where the months would be too many."""
    if not months:
        return []
    numbers = [year * 12 + month - 1 for year, month in months]
    first, last = min(numbers), max(numbers)
    if last - first >= _MOST_MONTHS:
        years: Counter[int] = Counter()
        for (year, _), count in months.items():
            years[year] += count
        span = range(min(years), max(years) + 1)
        every = math.ceil(len(span) / 10)
        return [Bar(str(year) if not year % every else "", str(year), years[year]) for year in span]
    length = last - first + 1
    months_named = 1 if length <= 8 else 3 if length <= 20 else 12 * math.ceil(length / 120)
    columns = []
    for number in range(first, last + 1):
        year, month = divmod(number, 12)
        full = f"{year}-{month + 1:02}"
        name = str(year) if months_named >= 12 else full
        columns.append(Bar(name if number % months_named == 0 else "", full, months[year, month + 1]))
    return columns


def _hours(portrait: Portrait) -> str:
    days = (tr("Mon"), tr("Tue"), tr("Wed"), tr("Thu"), tr("Fri"), tr("Sat"), tr("Sun"))
    hours = [("" if hour % 3 else str(hour), f"{hour:02}:00") for hour in range(24)]
    return heat_map(tr("Your messages by weekday and hour"), days, hours, portrait.hours)


def _how(portrait: Portrait) -> str:
    top = max(portrait.lengths, default=0)
    lengths = [Bar(_power(size), _doubling(size), portrait.lengths[size]) for size in range(top + 1)]
    bubbles = [
        Bar(name := str(size) if size < MOST_BUBBLES else f"{size}+", name, portrait.bubbles[size])
        for size in range(1, max(portrait.bubbles, default=1) + 1)
    ]
    drawn = charts(
        [
            bar_chart(tr("Characters of a message of yours"), lengths, tr("characters and more")),
            bar_chart(tr("Messages that you send in a row"), bubbles, tr("messages")),
        ]
    )
    return drawn + _languages(portrait)


def _power(size: int) -> str:
    """A power of two, short enough to stand below a column."""
    return f"{1 << size}" if size < 10 else f"{1 << (size - 10)}k" if size < 20 else f"{1 << (size - 20)}M"


def _doubling(size: int) -> str:
    low, high = 1 << size, (2 << size) - 1
    return str(low) if low == high else f"{low:,}–{high:,}"


def _languages(portrait: Portrait) -> str:
    ranked = portrait.languages.most_common()
    told = [(name or tr("cannot be told"), count) for name, count in ranked[:LANGUAGES_SHOWN] if count]
    if rest := sum(count for _, count in ranked[LANGUAGES_SHOWN:]):
        told.append((tr("others"), rest))
    bars = bar_table((TableBar(*row) for row in told), portrait.mine)
    return f"<h3>{escape(tr('Languages of your messages'))}</h3>{bars}"


def _contacts(portrait: Portrait) -> str:
    ranked = portrait.contacts.most_common(CONTACTS_SHOWN)
    if not ranked:
        return f'<p class="note">{escape(tr("There is nobody else in this data set."))}</p>'
    note = tr("Messages of the others, under the made-up names by which the model knows them.")
    return f'{bar_table((TableBar(*row) for row in ranked), ranked[0][1])}<p class="note">{escape(note)}</p>'


def _lengths(portrait: Portrait, measure: Measure) -> str:
    lengths = lengths_of(portrait, measure)
    if lengths is None:
        return ""
    sizes: Counter[int] = Counter()
    for tokens, count in portrait.tokens.items():
        sizes[tokens.bit_length() - 1] += count
    shortest = min(sizes)
    columns = [Bar(_power(size), _doubling(size), sizes[size]) for size in range(shortest, max(sizes) + 1)]
    last_within = (lengths.max_length - 1).bit_length() - 1 - shortest
    told = figures(
        [
            (tr("half have at most"), _tokens(lengths.half)),
            (tr("95 % have at most"), _tokens(lengths.most)),
            (tr("the longest"), _tokens(lengths.longest)),
            (tr("max_length in training"), _tokens(lengths.max_length)),
            (tr("sessions that fit it whole"), f"{lengths.fitting:.1%}"),
        ]
    )
    end = max(portrait.tokens_at(0.99), min(lengths.max_length, lengths.longest), 1)
    points = [(end * place / 100, 100 * portrait.fitting(end * place // 100)) for place in range(101)]
    drawn = charts(
        [
            bar_chart(
                tr("Sessions by length (pale: longer than max_length)"), columns, tr("tokens and more"), last_within
            ),
            line_chart(tr("Sessions that fit, in percent"), "max_length", points),
        ]
    )
    note = tr(
        "Tokens: {counted}. max_length: {why}; longer sessions are cut, and nothing of yours is lost.",
        counted=lengths.counted_by,
        why=lengths.why,
    )
    return f'{told}<p class="note">{escape(note)}</p>{drawn}'


def _tokens(count: int) -> str:
    return tr("{count} tokens", count=f"{count:,}")


def _gaps(report: Report) -> str:
    """How long the silences are that were found to end the sessions of each chat; empty where the report has none."""
    minutes = sorted(seconds / 60 for seconds in report.gaps.values())
    if not minutes:
        return ""
    counts = Counter(math.ceil(one / _GAP_STEP) * _GAP_STEP for one in minutes)
    columns = [
        Bar(str(end) if len(counts) < 12 or not end % (4 * _GAP_STEP) else "", f"{end - _GAP_STEP}–{end}", counts[end])
        for end in range(min(counts), max(counts) + 1, _GAP_STEP)
    ]
    told = [
        (tr("the shortest"), tr("{minutes:.0f} min", minutes=minutes[0])),
        (tr("in the middle"), tr("{minutes:.0f} min", minutes=median(minutes))),
        (tr("the longest"), tr("{minutes:.0f} min", minutes=minutes[-1])),
    ]
    return figures(told) + charts([bar_chart(tr("Chats by silence"), columns, tr("minutes, at most"))])
