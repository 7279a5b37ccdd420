"""`doppel build`: turns the archives into a data set and reports what happened to every message.

Also lists the supported archives, exports the data set for other trainers, and fetches missing parents of tweets.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.progress import Progress, TaskID
from rich.table import Table
from rich.text import Text

from doppel.cli.app import Run
from doppel.config import Config
from doppel.errors import UserError
from doppel.i18n import tr
from doppel.reports.html import REPORT_PAGE
from doppel.terminal import console, print_status, progress
from doppel.transcript import render
from training.archives.discovery import Format, installed_readers, supported_formats
from training.dataset.build import build_dataset
from training.dataset.export import check_target, export_dataset
from training.dataset.files import SESSIONS_FILE, Session, check_archives, read_sessions
from training.dataset.parent_fetcher import fetch_parents as fetch_missing_parents
from training.dataset.report.build_report import LengthReport, Report
from training.dataset.report.page import length_settings, write_report_page
from training.dataset.report.tables import chats_table, joined_note, joined_table, one_sided_note, sessions_table
from training.lora.settings import planned_length
from training.people.owner_question import OwnerCandidate, UnknownOwner

MAX_CANDIDATES = 12
MAX_PEOPLE = 5
MAX_NOTES = 5
MAX_FILES = 3
EXAMPLE_COUNT = 2
EXAMPLE_POOL = 5000
"""Number of sessions from which the examples are chosen."""


def build(
    run: Run,
    *,
    export: Annotated[
        tuple[str, Path] | None,
        typer.Option(
            "--export",
            metavar="FORMAT FILE",
            help="Export for another trainer: alpaca, sharegpt, openai or transcript. Builds it if missing.",
        ),
    ] = None,
    fetch_parents: Annotated[
        bool,
        typer.Option(
            "--fetch-parents",
            help="First fetch the posts your tweets reply to or quote from X, with your token in X_BEARER_TOKEN.",
        ),
    ] = False,
    list_formats: Annotated[bool, typer.Option("--list-formats", help="List the supported archive formats.")] = False,
) -> dict[str, Any]:
    """Turn the archives into a data set in data/<persona>/, with a report."""
    if list_formats:
        return _list_formats(run)
    if export is not None:
        return _export(run, *export, fetch=fetch_parents)
    fetched = _fetch(run) if fetch_parents else {}
    return {**_build(run).summary(), **fetched}


def _fetch(run: Run) -> dict[str, Any]:
    """Fetches the missing parents of the owner's tweets."""
    with _show_progress() as shown:
        shown.stage(tr("Looking for missing parents of your tweets"))
        fetched = fetch_missing_parents(run.config, shown.stage)
    print_status(
        tr(
            "Fetched from X: {found} of {count} posts that yours reply to or quote; {gone} are deleted or protected",
            found=f"{fetched.found:,}",
            count=f"{fetched.asked:,}",
            gone=f"{fetched.gone:,}",
        )
    )
    return {"parents": msgspec.to_builtins(fetched)}


def _build(run: Run) -> Report:
    config = run.config
    print_status(tr("Reading {archives} …", archives=", ".join(config.archives)))
    try:
        with _show_progress() as shown:
            report = build_dataset(config, shown)
    except UnknownOwner as error:
        if not run.as_json:
            console.print(_candidates_table(error.candidates))
        raise
    if not run.as_json:
        _print_report(report, config.data_dir)
    _print_unread(report)
    length = planned_length(config.training, config.model.device)
    settings = length_settings(config.model, length.value, length.reason)
    report = write_report_page(config.data_dir, config.persona.name, config.zone, report, settings)
    if report.lengths is not None:
        print_status(_format_lengths(report.lengths))
    print_status(tr("Report with charts: {path}", path=config.data_dir / REPORT_PAGE))
    print_status(
        tr(
            "Data set built in {path} ({seconds} s). Next: `doppel train`",
            path=config.data_dir,
            seconds=f"{report.seconds:.1f}",
        )
    )
    return report


def _export(run: Run, format_name: str, path: Path, *, fetch: bool) -> dict[str, Any]:
    """Exports the data set for another trainer; builds it first if there is none."""
    config: Config = run.config
    check_target(config.data_dir, format_name, path)  # before a build that may take long
    fetched = _fetch(run) if fetch else {}
    if fetch or not (config.data_dir / SESSIONS_FILE).is_file():
        _build(run)
    check_archives(config)
    exported = export_dataset(config.data_dir, format_name, path)
    counts = ", ".join(f"{category} {count:,}" for category, count in exported.categories.items())
    print_status(tr("{path}: {records} records ({counts})", path=path, records=f"{exported.records:,}", counts=counts))
    return {**msgspec.to_builtins(exported), **fetched}


def _list_formats(run: Run) -> dict[str, Any]:
    with suppress(UserError):  # only sets the language; the formats do not depend on the configuration
        _ = run.config
    formats = supported_formats(installed_readers())
    if not run.as_json:
        console.print(_formats_table(formats))
    return {"formats": msgspec.to_builtins(formats)}


def _formats_table(formats: list[Format]) -> Table:
    table = Table(title=tr("Supported archives"), title_justify="left")
    table.add_column(tr("format"))
    table.add_column(tr("file or folder"), overflow="fold")
    for archive_format in formats:
        table.add_row(archive_format.name, archive_format.accepts)
    return table


def _candidates_table(candidates: list[OwnerCandidate]) -> Table:
    """The accounts that may be the owner's. The error message says what to set in config.yaml."""
    table = Table(title=tr("Which of these are you?"), title_justify="left")
    table.add_column(tr("name"), overflow="fold")
    table.add_column(tr("account"), overflow="fold")
    table.add_column(tr("platform"))
    table.add_column(tr("chats"), justify="right")
    table.add_column(tr("messages"), justify="right")
    for candidate in candidates[:MAX_CANDIDATES]:
        counts = (f"{candidate.chats:,}", f"{candidate.messages:,}")
        row = (candidate.name, candidate.account, candidate.platform, *counts)
        table.add_row(*(Text(" ".join(cell.split())) for cell in row))
    if (more := len(candidates) - MAX_CANDIDATES) > 0:
        table.caption = tr("and {count} more, in fewer chats or with fewer messages", count=f"{more:,}")
    return table


class _ProgressBar:
    """Shows the progress of a build: bytes of the archives, and messages per second."""

    def __init__(self, bar: Progress) -> None:
        self._bar = bar
        self._task: TaskID | None = None
        self._bytes_total = 0
        self._bytes_read = 0
        self._messages = 0
        self._started = time.monotonic()

    def stage(self, text: str) -> None:
        if self._task is None:
            self._task = self._bar.add_task(text, total=None, rate="")
        self._update(description=text)

    def add_bytes_total(self, size: int) -> None:
        self._bytes_total += size
        self._update(total=self._bytes_total)

    def add_bytes_read(self, size: int) -> None:
        self._bytes_read += size
        self._update(completed=self._bytes_read)

    def add_messages(self, count: int) -> None:
        self._messages += count
        rate = self._messages / max(0.001, time.monotonic() - self._started)
        text = tr("{count} messages, {rate}/s", count=f"{self._messages:,}", rate=f"{rate:,.0f}")
        self._update(rate=text)

    def _update(self, **fields: Any) -> None:
        if self._task is not None:
            self._bar.update(self._task, **fields)


@contextmanager
def _show_progress() -> Iterator[_ProgressBar]:
    with progress(counted=False) as bar:
        yield _ProgressBar(bar)


def _print_report(report: Report, folder: Path) -> None:
    console.print()
    console.print(chats_table(report))
    console.print()
    console.print(sessions_table(report))
    owner = report.owner
    print_status(
        tr(
            "Your messages: {kept} of {read} kept, from {first} to {last} ({accounts})",
            accounts=", ".join(owner.accounts),
            kept=f"{owner.kept:,}",
            read=f"{owner.read:,}",
            first=f"{owner.first:%Y-%m-%d}" if owner.first else "?",
            last=f"{owner.last:%Y-%m-%d}" if owner.last else "?",
        )
    )
    if note := one_sided_note(report):
        print_status(note)
    if report.joined:
        console.print()
        console.print(joined_table(report))
        print_status(joined_note(report))
    for session in _examples(folder):
        console.print()
        console.rule(tr("An example, as the model sees it"), align="left", style="dim")
        print_status(render(session.header, session.turns))
    console.print()


def _format_lengths(lengths: LengthReport) -> str:
    return tr(
        "Session length in tokens: median {median}, 95 % at most {percentile_95}, longest {longest}. max_length in "
        "training is {max_length} ({reason}); {share} of the sessions are within it, longer ones are split.",
        median=f"{lengths.median:,}",
        percentile_95=f"{lengths.percentile_95:,}",
        longest=f"{lengths.longest:,}",
        max_length=f"{lengths.max_length:,}",
        reason=lengths.max_length_reason,
        share=f"{lengths.share_within:.1%}",
    )


def _print_unread(report: Report) -> None:
    """Prints what was not read, and where it is listed; before that, what is not certain about the owner."""
    for note in report.owner.notes[:MAX_NOTES]:
        print_status(note)
    if report.bad:
        first = next(bad for source in report.sources.values() for bad in source.bad_records)
        print_status(
            tr(
                "Unreadable records, left out: {count}. First: {file}, {position}: {reason}. All are listed in "
                "report.json.",
                count=f"{report.bad:,}",
                file=first.file,
                position=first.position,
                reason=first.reason,
            )
        )
    if report.archives_without_owner:
        archive, names = next(iter(report.archives_without_owner.items()))
        print_status(
            tr(
                "Archives without messages of yours: {count}. First: {archive} ({names}). If you are one of these "
                "people, add the name to `persona.me`. All are listed in report.json.",
                count=f"{len(report.archives_without_owner):,}",
                archive=archive,
                names=", ".join(names[:MAX_PEOPLE]),
            )
        )
    if report.unknown_count:
        files = ", ".join(report.unknown_files[:MAX_FILES])
        if (more := report.unknown_count - MAX_FILES) > 0:
            files = tr("{files} and {more} more, listed in report.json", files=files, more=f"{more:,}")
        print_status(
            tr(
                "Files of unknown format, not read: {count} ({files})",
                count=f"{report.unknown_count:,}",
                files=files,
            )
        )
    for path, hint in list(report.unknown_hints.items())[:MAX_FILES]:
        print_status(f"{path}: {hint}")
    for note in report.notes[:MAX_FILES]:
        print_status(note)
    if report.attachment_count:
        print_status(
            tr("Pictures, videos and other attachments, not read: {count}", count=f"{report.attachment_count:,}")
        )


def _examples(folder: Path) -> list[Session]:
    """Short sessions of different kinds, always the same ones."""
    pool = list(islice(read_sessions(folder), EXAMPLE_POOL))
    readable = [session for session in pool if _is_readable(session)] or pool
    # Ids are digests: their order is as good as random, and the same on every run.
    shuffled = sorted(readable, key=lambda session: session.id)
    chosen: dict[str | None, Session] = {}
    for session in shuffled:
        chosen.setdefault(session.header.kind, session)
    others = [session for session in shuffled if session not in chosen.values()]
    return [*chosen.values(), *others][:EXAMPLE_COUNT]


def _is_readable(session: Session) -> bool:
    characters = sum(len(bubble) for turn in session.turns for bubble in turn.bubbles)
    min_turns = 4 if session.header.kind in ("dm", "group") else 1
    return session.header.kind is not None and characters < 500 and len(session.turns) >= min_turns
