"""The report on a build, stored as report.json and printed by `--json`."""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from doppel.errors import UserError
from doppel.i18n import tr
from training.archives.discovery import Source
from training.archives.source_tree import BadRecord
from training.dataset.accounting import ChatCounts, sum_counts
from training.dataset.joined_chats import JoinedChat

REPORT_FILE = "report.json"

MAX_UNKNOWN_FILES = 20
"""Unknown files listed in the `--json` output."""
MAX_JOINED_CHATS = 100
"""Joined chats listed in the `--json` output."""


class ChatReport(msgspec.Struct, frozen=True, kw_only=True):
    """One chat: its id and name, and the numbers of messages read, kept, and dropped by reason."""

    chat: str
    name: str
    read: int
    kept: int
    dropped: dict[str, int]
    one_sided: int = 0


class SourceReport(msgspec.Struct, frozen=True, kw_only=True):
    """One archive. `read` is `kept` plus the sum of `dropped`; `bad` counts unreadable records."""

    path: str
    read: int
    kept: int
    dropped: dict[str, int]
    bad: int
    bad_records: list[BadRecord]
    chats: list[ChatReport]
    one_sided: int = 0


class OwnerReport(msgspec.Struct, frozen=True, kw_only=True):
    """The owner: accounts, messages read and kept, and the time span of the kept sessions in UTC.

    `notes` are what the user should know about how the owner was found.
    """

    accounts: list[str]
    read: int
    kept: int
    first: datetime | None
    last: datetime | None
    notes: list[str] = []


class LengthReport(msgspec.Struct, frozen=True, kw_only=True):
    """Lengths of sessions in tokens.

    Attributes:
        median: half of the sessions have at most this length.
        percentile_95: 95 % of the sessions have at most this length.
        longest: length of the longest session.
        max_length: longer sessions are split in training.
        max_length_reason: why it has this value.
        share_within: share of sessions of at most `max_length`.
        counted_by: how tokens were counted.
    """

    median: int = msgspec.field(name="half")
    percentile_95: int = msgspec.field(name="most")
    longest: int
    max_length: int
    max_length_reason: str = msgspec.field(name="why")
    share_within: float = msgspec.field(name="fitting")
    counted_by: str


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """A whole build.

    Attributes:
        read, kept, dropped, bad: the sums over `sources`.
        one_sided: messages of the owner's, among the kept, whose other side no archive has.
        sources: by format; numbered if there are several of one format.
        unknown_files: files of unknown format; may list only the first of them.
        unknown_count: number of files of unknown format.
        unknown_hints: what some of these files are, and what to do about them.
        notes: what the user should know about single archives.
        attachment_count: pictures, pages and other attachments, which are not read.
        archives_without_owner: archives without messages of the owner's, and the people in them.
        sessions: number of sessions by split.
        owner: the owner's messages.
        scrubbed: replaced secrets by kind.
        gaps: seconds of silence that end a session, by `platform:chat`.
        joined: conversations that several archives have.
        lengths: None until they were measured.
        archive_digest: digest of the archives in the configuration.
        data: the data folder.
        seconds: duration of the build.
    """

    read: int
    kept: int
    dropped: dict[str, int]
    one_sided: int = 0
    bad: int
    sources: dict[str, SourceReport]
    unknown_files: list[str] = msgspec.field(name="unknown")
    unknown_count: int = 0
    unknown_hints: dict[str, str] = {}
    notes: list[str] = []
    attachment_count: int = msgspec.field(name="beside", default=0)
    archives_without_owner: dict[str, list[str]] = msgspec.field(name="absent", default_factory=dict)
    sessions: dict[str, int]
    owner: OwnerReport
    scrubbed: dict[str, int] = {}
    gaps: dict[str, float] = {}
    joined: list[JoinedChat] = []
    lengths: LengthReport | None = None
    archive_digest: str = ""
    data: str = ""
    seconds: float = 0.0

    def summary(self) -> dict[str, Any]:
        """For `--json`: without the lists of chats, gaps and bad records, which are in report.json."""
        summary: dict[str, Any] = msgspec.to_builtins(self)
        del summary["gaps"]
        del summary["unknown"][MAX_UNKNOWN_FILES:]
        del summary["joined"][MAX_JOINED_CHATS:]
        summary["absent"] = len(self.archives_without_owner)
        for source in summary["sources"].values():
            source["chats"] = len(source["chats"])
            del source["bad_records"]
        return summary


def read_report(folder: Path) -> Report:
    """The report of a data set. Raises UserError if it cannot be read."""
    path = folder / REPORT_FILE
    try:
        return msgspec.json.decode(path.read_bytes(), type=Report)
    except (OSError, msgspec.MsgspecError) as error:
        raise UserError(
            tr("{path}: cannot be read: {error}; run `doppel build` again", path=path, error=error)
        ) from None


def source_reports(sources: Sequence[Source], rows: Sequence[ChatCounts]) -> dict[str, SourceReport]:
    """The report on each archive, from the counts of all chats."""
    by_source: list[list[ChatCounts]] = [[] for _ in sources]
    for row in rows:
        by_source[row.source].append(row)
    reports: dict[str, SourceReport] = {}
    numbers: Counter[str] = Counter()
    for source, chats in zip(sources, by_source, strict=True):
        total = sum_counts(chats)
        name = source.reader.name
        numbers[name] += 1
        reports[name if numbers[name] == 1 else f"{name} {numbers[name]}"] = SourceReport(
            path=source.tree.label,
            read=total.read,
            kept=total.kept,
            dropped=dict(total.dropped),
            one_sided=total.one_sided,
            bad=source.tree.bad_count,
            bad_records=source.tree.bad_records,
            chats=[
                ChatReport(
                    chat=chat.chat,
                    name=chat.name,
                    read=chat.read,
                    kept=chat.kept,
                    dropped=dict(chat.dropped),
                    one_sided=chat.one_sided,
                )
                for chat in sorted(chats, key=lambda chat: (-chat.read, chat.chat))
            ],
        )
    return reports
