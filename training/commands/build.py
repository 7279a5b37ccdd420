"""`doppel build`: archives in, data set out, and a table that says what became of every message."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from rich.progress import Progress, TaskID

from doppel.cli import Run
from doppel.i18n import tr
from doppel.terminal import console, progress, say
from doppel.transcript import render
from training.build import build_dataset
from training.build_report import Report, chats_table, sessions_table
from training.dataset import Session, read_sessions

EXAMPLES = 2
LOOKED_AT = 5000
"""Sessions among which the examples are chosen."""


def build(run: Run) -> dict[str, Any]:
    """Turn the archives into a data set: data/<persona>/ and a report."""
    config = run.config
    say(tr("Reading {archives} …", archives=", ".join(config.archives)))
    with _watched() as watcher:
        report = build_dataset(config, watcher)
    if not run.as_json:
        _show(report, config.data_dir)
    _warn(report)
    say(
        tr(
            "Data set in {path} after {seconds} s; next: `doppel train`",
            path=config.data_dir,
            seconds=f"{report.seconds:.1f}",
        )
    )
    return report.summary()


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
    say(
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
        say(render(session.header, session.turns))
    console.print()


def _warn(report: Report) -> None:
    """What was not read, and where to look."""
    if report.bad:
        first = next(bad for source in report.sources.values() for bad in source.bad_records)
        say(
            tr(
                "Records that could not be read and were left out: {count}, all listed in report.json; the first: "
                "{file}, {position}: {reason}",
                count=f"{report.bad:,}",
                file=first.file,
                position=first.position,
                reason=first.reason,
            )
        )
    if report.unknown:
        shown = ", ".join(report.unknown[:3])
        more = len(report.unknown) - 3
        files = shown if more <= 0 else tr("{files} and {more} more", files=shown, more=f"{more:,}")
        say(tr("Not an archive I know, so not read: {files}", files=files))


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
