"""`doppel store`: copies the bot's database, and checks it, while the daemon runs."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from doppel.cli.app import Run, as_command
from doppel.errors import DataDamaged, UserError
from doppel.i18n import tr
from doppel.terminal import print_status, printable

if TYPE_CHECKING:
    from bot.store.check import StoreReport

MAX_SHOWN = 20
"""Bubbles in doubt that are listed for people; `--json` has all."""

store = typer.Typer(help="The bot's database: back it up and check it, also while doppel runs.", no_args_is_help=True)


def backup(
    run: Run,
    *,
    file: Annotated[
        Path | None,
        typer.Argument(help="Where to write the copy; data/backups/doppel-<time>.db if none is named.", metavar="FILE"),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
) -> dict[str, Any]:
    """Write a checked copy of the bot's database to a file, for you alone."""
    from bot.store.backup import back_up, default_file  # SQLAlchemy takes long to import
    from bot.store.integrity import sqlite_file

    database, now = sqlite_file(run.config.store_url), datetime.now(UTC)
    if database is None:
        raise UserError(tr("`store.url` names a database server; back it up with its own tool, such as `pg_dump`"))
    target = default_file(run.config, now) if file is None else file.expanduser()
    size = back_up(database, target, now, replace=force)
    print_status(tr("{path}: written and checked ({size} MB)", path=target, size=_megabytes(size)))
    return {"file": str(target), "bytes": size}


def check(run: Run) -> dict[str, Any]:
    """Check the bot's database for damage; show what is unfinished and which deliveries are in doubt."""
    from bot.store.check import check_store  # SQLAlchemy takes long to import
    from bot.store.integrity import sqlite_file

    report = check_store(run.config.store_url)
    name = sqlite_file(run.config.store_url) or tr("the database")
    result = {"database": str(name), **msgspec.to_builtins(report)}
    if report.problems:
        for problem in report.problems:
            print_status(problem)
        error = DataDamaged(
            tr("{path}: the database is damaged; stop doppel and restore a backup (docs/delivery.md)", path=name)
        )
        error.result = result
        raise error
    if report.schema > report.supported_schema:
        newer = UserError(
            tr(
                "{path}: written by a newer doppel (schema {theirs}, this version supports {ours}); update doppel",
                path=name,
                theirs=report.schema,
                ours=report.supported_schema,
            )
        )
        newer.result = result
        raise newer
    for line in _lines(report, str(name)):
        print_status(line)
    return result


def _lines(report: "StoreReport", name: str) -> list[str]:
    lines = []
    if report.file_bytes is not None and report.free_bytes is not None:
        sizes = {"size": _megabytes(report.file_bytes), "free": _megabytes(report.free_bytes)}
        lines.append(tr("{path}: whole; {size} MB, of which {free} MB are free", path=name, **sizes))
    if report.schema == report.supported_schema:
        lines.append(tr("schema {number}, the current one", number=report.schema))
    else:
        versions = {"number": report.schema, "current": report.supported_schema}
        lines.append(tr("schema {number}; the next `doppel run` updates it to {current}", **versions))
    lines.append(tr("messages: {counts}", counts=_counts(report.messages)))
    lines.append(tr("bubbles: {counts}", counts=_counts(report.bubbles)))
    lines.append(tr("slots of schedules: {counts}", counts=_counts(report.slots)))
    lines.append(_unfinished_line(report))
    lines.append(tr("in doubt (may have arrived or not): {count}", count=f"{len(report.in_doubt):,}"))
    lines += [
        f"  {bubble.at:%Y-%m-%d %H:%M:%S} UTC  {bubble.platform}:{printable(bubble.chat)}"
        for bubble in report.in_doubt[:MAX_SHOWN]
    ]
    if len(report.in_doubt) > MAX_SHOWN:
        lines.append(tr("  … and {count} older ones (--json shows all)", count=len(report.in_doubt) - MAX_SHOWN))
    return lines


def _unfinished_line(report: "StoreReport") -> str:
    unfinished = report.unfinished
    if unfinished.since is None:
        return tr("unfinished: nothing")
    return tr(
        "unfinished: {messages} messages and {bubbles} bubbles, the oldest since {time} UTC",
        messages=f"{unfinished.messages:,}",
        bubbles=f"{unfinished.bubbles:,}",
        time=f"{unfinished.since:%Y-%m-%d %H:%M:%S}",
    )


def _counts(by_state: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {state}" for state, count in by_state.items()) or tr("none")


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f}"


store.command("backup")(as_command(backup))
store.command("check")(as_command(check))
