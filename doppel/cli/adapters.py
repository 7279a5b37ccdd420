"""`doppel adapters`: lists the published versions, chooses the current one, imports and exports."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from doppel.adapters.versions import (
    AdapterRefused,
    Manifest,
    current_version,
    list_versions,
    read_manifest,
    roll_back,
    use_version,
)
from doppel.cli.app import Run, as_command
from doppel.errors import UserError
from doppel.i18n import tr
from doppel.terminal import console, print_status

adapters = typer.Typer(
    help="Published adapters: list them, choose one, go back to the one before, import and export.",
    no_args_is_help=True,
)


def list_command(run: Run) -> dict[str, Any]:
    """Show the published versions, how well each does, and which one is in use."""
    folder = run.config.adapters_dir
    used = current_version(folder)
    rows = [_describe(run, version, used is not None and version == used.name) for version in list_versions(folder)]
    if not rows:
        print_status(tr("No adapter in {path} yet; run `doppel train` (or `doppel up`) first.", path=folder))
    elif not run.as_json:
        console.print(_table(rows))
    return {"adapters": rows}


def use_command(
    run: Run, *, version: Annotated[str, typer.Argument(help="The version, for example 0002.")]
) -> dict[str, Any]:
    """Make a version the current one; a running daemon takes it up at its next reply."""
    return _report_current(use_version(run.config.adapters_dir, version.zfill(4)).name)


def rollback_command(run: Run) -> dict[str, Any]:
    """Go back to the version before the current one."""
    return _report_current(roll_back(run.config.adapters_dir).name)


def import_version(
    run: Run,
    *,
    path: Annotated[Path, typer.Argument(help="Folder with adapter_config.json and the weights, as PEFT saves them.")],
    force: Annotated[bool, typer.Option("--force", help="Take it although it names another base model.")] = False,
    use: Annotated[bool, typer.Option("--use", help="Put it in use at once, without an examination.")] = False,
) -> dict[str, Any]:
    """Make an adapter from elsewhere the persona's next version, if it fits the base model."""
    from doppel.adapters.importing import import_adapter  # torch takes seconds to import

    return import_adapter(run.config, path.expanduser(), force=force, use=use)


def export_version(
    run: Run,
    *,
    version: Annotated[str | None, typer.Argument(help="The version; the current one if none is named.")] = None,
    merged: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write base and adapter as one Hugging Face model.")
    ] = None,
    gguf: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a LoRA for llama.cpp or Ollama.")] = None,
    base_gguf: Annotated[
        Path | None, typer.Option(metavar="FILE", help="With --gguf: write the bundled base for them, too.")
    ] = None,
) -> dict[str, Any]:
    """Write a version as other programs take it: --merged DIR or --gguf FILE."""
    if (merged is None) == (gguf is None) or (gguf is None and base_gguf is not None):
        raise UserError(tr("say what to write: --merged DIR, or --gguf FILE [--base-gguf FILE]"))
    from doppel.adapters.export.version import export_gguf, export_merged  # torch takes seconds to import

    chosen = None if version is None else version.zfill(4)
    if merged is not None:
        return export_merged(run.config, chosen, merged)
    assert gguf is not None
    return export_gguf(run.config, chosen, gguf, base_gguf)


def _report_current(version: str) -> dict[str, Any]:
    print_status(tr("Version {version} is the current one now.", version=version))
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


adapters.command("list")(as_command(list_command))
adapters.command("use")(as_command(use_command))
adapters.command("rollback")(as_command(rollback_command))
adapters.command("import")(as_command(import_version))
adapters.command("export")(as_command(export_version))
