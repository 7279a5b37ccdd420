"""`doppel build`: archives in, data set out, with a table and a page that say what became of every message.

Also lists what archives can be read, writes the data set in the formats of other trainers, and has the posts fetched
that the owner's tweets answer, where the user asks for it.
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
from doppel.reports.html import FILE
from doppel.terminal import console, print_status, progress
from doppel.transcript import render
from training.archives.discovery import Format, installed_readers, supported_formats
from training.dataset.build import build_dataset
from training.dataset.export import check_target, export_dataset
from training.dataset.files import SESSIONS, Session, check_archives, read_sessions
from training.dataset.parents import fetch_parents as fetch_missing
from training.dataset.report.figures import LengthReport, Report, chats_table, sessions_table
from training.dataset.report.page import measure_for, write_page
from training.lora.settings import planned_length
from training.people.owner import Candidate, UnknownOwner

CANDIDATES_SHOWN = 12
PEOPLE_SHOWN = 5
EXAMPLES = 2
LOOKED_AT = 5000
"""Sessions among which the examples are chosen."""


def build(
    run: Run,
    *,
    export: Annotated[
        tuple[str, Path] | None,
        typer.Option(
            "--export",
            metavar="FORMAT FILE",
            help="Write the data set for another trainer: alpaca, sharegpt, openai or transcript; builds if need be.",
        ),
    ] = None,
    fetch_parents: Annotated[
        bool,
        typer.Option(
            "--fetch-parents",
            help="First fetch from X what your tweets answer or quote, with your own token in X_BEARER_TOKEN.",
        ),
    ] = False,
    list_formats: Annotated[bool, typer.Option("--list-formats", help="List the archives that can be read.")] = False,
) -> dict[str, Any]:
    """Turn the archives into a data set: data/<persona>/ and a report."""
    if list_formats:
        return _list_formats(run)
    if export is not None:
        return _export(run, *export, fetch=fetch_parents)
    fetched = _fetch(run) if fetch_parents else {}
    return {**_build(run).summary(), **fetched}


def _fetch(run: Run) -> dict[str, Any]:
    """Fetches what the owner's tweets answer, before the build that puts it in its place."""
    with _watched() as watcher:
        watcher.stage(tr("Looking for what your tweets answer"))
        fetched = fetch_missing(run.config, watcher.stage)
    print_status(
        tr(
            "Fetched from X: {found} of {asked} posts that yours answer or quote; {gone} are deleted or protected",
            found=f"{fetched.found:,}",
            asked=f"{fetched.asked:,}",
            gone=f"{fetched.gone:,}",
        )
    )
    return {"parents": msgspec.to_builtins(fetched)}


def _build(run: Run) -> Report:
    config = run.config
    print_status(tr("Reading {archives} …", archives=", ".join(config.archives)))
    try:
        with _watched() as watcher:
            report = build_dataset(config, watcher)
    except UnknownOwner as error:
        if not run.as_json:
            console.print(_candidates_table(error.candidates))
        raise
    if not run.as_json:
        _show(report, config.data_dir)
    _warn(report)
    length = planned_length(config.training, config.model.device)
    report = write_page(config, report, measure_for(config.model, length.value, length.reason))
    if report.lengths is not None:
        print_status(_lengths(report.lengths))
    print_status(tr("What is in it, in pictures: {path}", path=config.data_dir / FILE))
    print_status(
        tr(
            "Data set in {path} after {seconds} s; next: `doppel train`",
            path=config.data_dir,
            seconds=f"{report.seconds:.1f}",
        )
    )
    return report


def _export(run: Run, form: str, path: Path, *, fetch: bool) -> dict[str, Any]:
    """Writes the data set for another trainer, having built it where there is none."""
    config: Config = run.config
    check_target(config.data_dir, form, path)  # before a build that may take long
    fetched = _fetch(run) if fetch else {}
    if fetch or not (config.data_dir / SESSIONS).is_file():
        _build(run)
    check_archives(config)
    exported = export_dataset(config.data_dir, form, path)
    counts = ", ".join(f"{category} {count:,}" for category, count in exported.categories.items())
    print_status(tr("{path}: {records} records ({counts})", path=path, records=f"{exported.records:,}", counts=counts))
    return {**msgspec.to_builtins(exported), **fetched}


def _list_formats(run: Run) -> dict[str, Any]:
    with suppress(UserError):  # only for the language: what can be read depends on no configuration
        _ = run.config
    formats = supported_formats(installed_readers())
    if not run.as_json:
        console.print(_formats_table(formats))
    return {"formats": msgspec.to_builtins(formats)}


def _formats_table(formats: list[Format]) -> Table:
    table = Table(title=tr("Archives that can be read"), title_justify="left")
    table.add_column(tr("format"))
    table.add_column(tr("what to hand over"), overflow="fold")
    for one in formats:
        table.add_row(one.name, one.accepts)
    return table


def _candidates_table(candidates: list[Candidate]) -> Table:
    """Who may be the owner. The error says what to write into config.yaml."""
    table = Table(title=tr("Which of these are you?"), title_justify="left")
    table.add_column(tr("name"), overflow="fold")
    table.add_column(tr("account"), overflow="fold")
    table.add_column(tr("platform"))
    table.add_column(tr("chats"), justify="right")
    table.add_column(tr("messages"), justify="right")
    for one in candidates[:CANDIDATES_SHOWN]:
        row = (one.name, one.account, one.platform, f"{one.chats:,}", f"{one.messages:,}")
        table.add_row(*(Text(" ".join(cell.split())) for cell in row))
    if (more := len(candidates) - CANDIDATES_SHOWN) > 0:
        table.caption = tr("and {count} more, in fewer chats or with fewer messages", count=f"{more:,}")
    return table


class _Watcher:
    """Draws the progress bar: bytes of the archives, and messages a second."""

    def __init__(self, bar: Progress) -> None:
        self._bar = bar
        self._task: TaskID | None = None
        self._size = 0
        self._done = 0
        self._messages = 0
        self._started = time.monotonic()

    def stage(self, text: str) -> None:
        if self._task is None:
            self._task = self._bar.add_task(text, total=None, rate="")
        self._update(description=text)

    def grew(self, size: int) -> None:
        self._size += size
        self._update(total=self._size)

    def read(self, size: int) -> None:
        self._done += size
        self._update(completed=self._done)

    def messages(self, count: int) -> None:
        self._messages += count
        rate = self._messages / max(0.001, time.monotonic() - self._started)
        text = tr("{count} messages, {rate}/s", count=f"{self._messages:,}", rate=f"{rate:,.0f}")
        self._update(rate=text)

    def _update(self, **fields: Any) -> None:
        if self._task is not None:
            self._bar.update(self._task, **fields)


@contextmanager
def _watched() -> Iterator[_Watcher]:
    with progress(counted=False) as bar:
        yield _Watcher(bar)


def _show(report: Report, folder: Path) -> None:
    console.print()
    console.print(chats_table(report))
    console.print()
    console.print(sessions_table(report))
    owner = report.owner
    print_status(
        tr(
            "Your messages: {kept} of {read} are in it, from {first} to {last} ({accounts}).",
            accounts=", ".join(owner.accounts),
            kept=f"{owner.kept:,}",
            read=f"{owner.read:,}",
            first=f"{owner.first:%Y-%m-%d}" if owner.first else "?",
            last=f"{owner.last:%Y-%m-%d}" if owner.last else "?",
        )
    )
    for session in _examples(folder):
        console.print()
        console.rule(tr("An example, as the model sees it"), align="left", style="dim")
        print_status(render(session.header, session.turns))
    console.print()


def _lengths(lengths: LengthReport) -> str:
    return tr(
        "Tokens in a session: half have up to {half}, 95 % up to {most}, the longest {longest}. Training takes "
        "{max_length} at once ({why}), so {fitting} stay whole.",
        half=f"{lengths.half:,}",
        most=f"{lengths.most:,}",
        longest=f"{lengths.longest:,}",
        max_length=f"{lengths.max_length:,}",
        why=lengths.why,
        fitting=f"{lengths.fitting:.1%}",
    )


def _warn(report: Report) -> None:
    """What was not read, and where to look."""
    if report.bad:
        first = next(bad for source in report.sources.values() for bad in source.bad_records)
        print_status(
            tr(
                "Records that could not be read and were left out: {count}, all listed in report.json; the first: "
                "{file}, {position}: {reason}",
                count=f"{report.bad:,}",
                file=first.file,
                position=first.position,
                reason=first.reason,
            )
        )
    if report.absent:
        archive, names = next(iter(report.absent.items()))
        print_status(
            tr(
                "Archives in which nobody who may be you writes: {count}, all listed in report.json; the first: "
                "{archive} ({names}). If you are one of them, add the name to `persona.me`.",
                count=f"{len(report.absent):,}",
                archive=archive,
                names=", ".join(names[:PEOPLE_SHOWN]),
            )
        )
    if report.unknown_count:
        shown = ", ".join(report.unknown[:3])
        more = report.unknown_count - 3
        files = (
            shown if more <= 0 else tr("{files} and {more} more, listed in report.json", files=shown, more=f"{more:,}")
        )
        print_status(
            tr(
                "Files that no reader knows, left unread: {count} ({files})",
                count=f"{report.unknown_count:,}",
                files=files,
            )
        )
    if report.beside:
        print_status(
            tr(
                "Pictures, videos, pages and attachments beside the messages, not read: {count}",
                count=f"{report.beside:,}",
            )
        )


def _examples(folder: Path) -> list[Session]:
    """Short sessions in which the persona speaks, of different kinds where there are some; always the same ones."""
    looked_at = list(islice(read_sessions(folder), LOOKED_AT))
    readable = [one for one in looked_at if _is_readable(one)] or looked_at
    # Ids are digests, so their order is as good as chance and the same on every run.
    shuffled = sorted(readable, key=lambda one: one.id)
    chosen: dict[str | None, Session] = {}
    for session in shuffled:
        chosen.setdefault(session.header.kind, session)
    others = [session for session in shuffled if session not in chosen.values()]
    return [*chosen.values(), *others][:EXAMPLES]


def _is_readable(session: Session) -> bool:
    characters = sum(len(bubble) for turn in session.turns for bubble in turn.bubbles)
    replies = session.header.kind in ("dm", "group")
    return session.header.kind is not None and characters < 500 and len(session.turns) >= (4 if replies else 1)
