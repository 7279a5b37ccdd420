"""`doppel adapters`: which versions are published, and which one speaks."""

from typing import Annotated, Any

import typer
from rich.table import Table

from doppel.adapter import AdapterRefused, Manifest, current, read_manifest, rollback, use, versions
from doppel.cli import Run, as_command
from doppel.i18n import tr
from doppel.terminal import console, say

adapters = typer.Typer(
    help="Published adapters: list them, choose one, go back to the one before.", no_args_is_help=True
)


def list_versions(run: Run) -> dict[str, Any]:
    """Show the published versions, how well each does, and which one is in use."""
    folder = run.config.adapters_dir
    used = current(folder)
    rows = [_describe(run, version, used is not None and version == used.name) for version in versions(folder)]
    if not rows:
        say(tr("No adapter in {path} yet; run `doppel train` (or `doppel up`) first.", path=folder))
    elif not run.as_json:
        console.print(_table(rows))
    return {"adapters": rows}


def use_version(
    run: Run, *, version: Annotated[str, typer.Argument(help="The version, for example 0002.")]
) -> dict[str, Any]:
    """Make a version the current one; a running daemon takes it up at its next reply."""
    return _chosen(use(run.config.adapters_dir, version.zfill(4)).name)


def roll_back(run: Run) -> dict[str, Any]:
    """Go back to the version before the current one."""
    return _chosen(rollback(run.config.adapters_dir).name)


def _chosen(version: str) -> dict[str, Any]:
    say(tr("Version {version} is the current one now.", version=version))
    return {"current": version}


def _describe(run: Run, version: str, is_current: bool) -> dict[str, Any]:
    row: dict[str, Any] = {"version": version, "current": is_current}
    try:
        manifest = read_manifest(run.config.adapters_dir / version)
    except AdapterRefused as error:
        return {**row, "refused": str(error)}
    before, after = (_bits_per_byte(manifest, when) for when in ("before", "after"))
    return {
        **row,
        "created_at": manifest.created_at,
        "base": manifest.base.id,
        "bits_per_byte_before": before,
        "bits_per_byte_after": after,
    }


def _bits_per_byte(manifest: Manifest, when: str) -> float | None:
    score = manifest.fidelity.get(when)
    value = score.get("bits_per_byte") if isinstance(score, dict) else None
    return float(value) if isinstance(value, int | float) else None


def _table(rows: list[dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False)
    for title in ("", tr("version"), tr("made"), tr("base model"), tr("bits per byte")):
        table.add_column(title)
    for row in rows:
        if "refused" in row:
            table.add_row(_mark(row), row["version"], tr("refused"), row["refused"])
            continue
        scores = [row["bits_per_byte_before"], row["bits_per_byte_after"]]
        change = " → ".join("?" if score is None else f"{score:.3f}" for score in scores)
        table.add_row(_mark(row), row["version"], row["created_at"][:16].replace("T", " "), row["base"], change)
    return table


def _mark(row: dict[str, Any]) -> str:
    return "●" if row["current"] else ""


adapters.command("list")(as_command(list_versions))
adapters.command("use")(as_command(use_version))
adapters.command("rollback")(as_command(roll_back))
