"""What a build did, in figures: report.json, the `--json` answer and the tables in the terminal."""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec
from rich.table import Table
from rich.text import Text

from doppel.i18n import tr
from training.archives.discovery import Source
from training.archives.source_tree import BadRecord
from training.dataset.accounting import Row, total

REPORT = "report.json"

CHATS_SHOWN = 10
SOURCES_SHOWN = 5
"""Archives of one format that are shown one by one."""
UNKNOWN_SHOWN = 20


class ChatReport(msgspec.Struct, frozen=True, kw_only=True):
    """One chat: its name on this machine, and what became of its messages."""

    chat: str
    name: str
    read: int
    kept: int
    dropped: dict[str, int]


class SourceReport(msgspec.Struct, frozen=True, kw_only=True):
    """One archive. `read` is `kept` plus the sum of `dropped`; `bad` records could not be read at all."""

    path: str
    read: int
    kept: int
    dropped: dict[str, int]
    bad: int
    bad_records: list[BadRecord]
    chats: list[ChatReport]


class OwnerReport(msgspec.Struct, frozen=True, kw_only=True):
    """The owner: accounts, messages read and kept, and the time that the kept sessions span, in UTC."""

    accounts: list[str]
    read: int
    kept: int
    first: datetime | None
    last: datetime | None


class LengthReport(msgspec.Struct, frozen=True, kw_only=True):
    """How long sessions are, in tokens: half have at most `half`, 95 % at most `most`, one has `longest`.

    `max_length` is what training takes whole, `why` the reason for it, and `fitting` the share of sessions that do.
    """

    half: int
    most: int
    longest: int
    max_length: int
    why: str
    fitting: float
    counted_by: str


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """A whole build. `sources` by format, numbered where there are several of one; `sessions` by split.

    `archive_digest` is the configuration's: what the data set was made from. `scrubbed`: replaced secrets by kind.
    `unknown`: files that no reader knows, `unknown_count` of them in all; `beside`: pictures, pages and attachments.
    `gaps`: the silence in seconds that ends a session, by `platform:chat`, for every conversation. `lengths` is None
    until the data set was measured.
    """

    read: int
    kept: int
    dropped: dict[str, int]
    bad: int
    sources: dict[str, SourceReport]
    unknown: list[str]
    unknown_count: int = 0
    beside: int = 0
    absent: dict[str, list[str]] = {}
    sessions: dict[str, int]
    owner: OwnerReport
    scrubbed: dict[str, int] = {}
    gaps: dict[str, float] = {}
    lengths: LengthReport | None = None
    archive_digest: str = ""
    data: str = ""
    seconds: float = 0.0

    def summary(self) -> dict[str, Any]:
        """For `--json`: everything but the single chats, their gaps and bad records, which stand in report.json.

        Of the files that no reader knows it has the first ones.
        """
        summary: dict[str, Any] = msgspec.to_builtins(self)
        del summary["gaps"]
        del summary["unknown"][UNKNOWN_SHOWN:]
        summary["absent"] = len(self.absent)
        for source in summary["sources"].values():
            source["chats"] = len(source["chats"])
            del source["bad_records"]
        return summary


def source_reports(sources: Sequence[Source], rows: Sequence[Row]) -> dict[str, SourceReport]:
    """The figures per archive; `rows` hold the archives' numbers."""
    by_source: list[list[Row]] = [[] for _ in sources]
    for row in rows:
        by_source[row.source].append(row)
    reports: dict[str, SourceReport] = {}
    numbers: Counter[str] = Counter()
    for source, own in zip(sources, by_source, strict=True):
        sums = total(own)
        name = source.reader.name
        numbers[name] += 1
        reports[name if numbers[name] == 1 else f"{name} {numbers[name]}"] = SourceReport(
            path=source.tree.label,
            read=sums.read,
            kept=sums.kept,
            dropped=dict(sums.dropped),
            bad=source.tree.bad_count,
            bad_records=source.tree.bad_records,
            chats=[
                ChatReport(chat=row.chat, name=row.name, read=row.read, kept=row.kept, dropped=dict(row.dropped))
                for row in sorted(own, key=lambda row: (-row.read, row.chat))
            ],
        )
    return reports


def by_format(sources: dict[str, SourceReport]) -> dict[str, SourceReport]:
    """The archives, as one where there are many of a format: some exports are a file for every chat."""
    formats: dict[str, list[tuple[str, SourceReport]]] = {}
    for name, source in sources.items():
        formats.setdefault(name.partition(" ")[0], []).append((name, source))
    shown: dict[str, SourceReport] = {}
    for form, several in formats.items():
        if len(several) <= SOURCES_SHOWN:
            shown.update(several)
            continue
        dropped: Counter[str] = Counter()
        for _, one in several:
            dropped.update(one.dropped)
        shown[tr("{format}, {count} archives", format=form, count=f"{len(several):,}")] = SourceReport(
            path="",
            read=sum(one.read for _, one in several),
            kept=sum(one.kept for _, one in several),
            dropped=dict(dropped),
            bad=sum(one.bad for _, one in several),
            bad_records=[],
            chats=sorted((chat for _, one in several for chat in one.chats), key=lambda chat: (-chat.read, chat.chat)),
        )
    return shown


def chats_table(report: Report) -> Table:
    """Per source and chat: read, kept, dropped and why. The largest chats, the others summed."""
    table = Table(title=tr("What became of the messages"), title_justify="left", show_footer=len(report.sources) > 1)
    table.add_column(tr("source / chat"), tr("together"), overflow="fold")
    table.add_column(tr("read"), f"{report.read:,}", justify="right")
    table.add_column(tr("kept"), f"{report.kept:,}", justify="right")
    table.add_column(tr("dropped, and why"), reasons(report.dropped), overflow="fold")
    for name, source in by_format(report.sources).items():
        _add(table, name, source, style="bold")
        shown = source.chats[:CHATS_SHOWN]
        for chat in shown:
            _add(table, f"  {chat.name or chat.chat}", chat)
        rest = source.chats[CHATS_SHOWN:]
        if rest:
            sums = total(Row(0, "", "", chat.read, chat.kept, Counter(chat.dropped)) for chat in rest)
            _add(table, "  " + tr("{count} more chats", count=f"{len(rest):,}"), sums, style="dim")
    return table


def sessions_table(report: Report) -> Table:
    """Sessions per split."""
    table = Table(title=tr("Sessions"), title_justify="left")
    table.add_column(tr("for training"), justify="right")
    table.add_column(tr("to watch the training"), justify="right")
    table.add_column(tr("for the test"), justify="right")
    table.add_row(*(f"{report.sessions[split]:,}" for split in ("train", "validation", "test")))
    return table


def reasons(dropped: dict[str, int]) -> str:
    """`media 12, forward 3`, the most frequent first."""
    ordered = sorted(dropped.items(), key=lambda item: -item[1])
    return ", ".join(f"{reason_name(reason)} {count:,}" for reason, count in ordered)


def reason_name(reason: str) -> str:
    """A reason for dropping a message, in the user's language."""
    names = {
        "empty": tr("empty"),
        "media": tr("media"),
        "service": tr("service"),
        "forward": tr("forward"),
        "retweet": tr("retweet"),
        "bot": tr("bot"),
        "superseded": tr("superseded"),
        "deleted": tr("deleted"),
        "reaction": tr("reaction"),
        "link-only": tr("link-only"),
        "duplicate": tr("duplicate"),
        "excluded": tr("excluded"),
        "forgotten": tr("forgotten"),
        "near-duplicate": tr("nearly the same again"),
        "repeat": tr("said too often"),
        "contact cap": tr("too much with one contact"),
        "no turn of yours": tr("conversation without you"),
        "also in test": tr("copy of a test session"),
    }
    return names.get(reason, reason)


def _add(table: Table, name: str, figures: SourceReport | ChatReport | Row, style: str = "") -> None:
    table.add_row(
        Text(name), f"{figures.read:,}", f"{figures.kept:,}", reasons(dict(figures.dropped)), style=style or None
    )
