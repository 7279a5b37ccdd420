"""`doppel sessions`: counts the sessions of the data set."""

from typing import Annotated, Any

import typer

from doppel.cli.app import Run
from doppel.errors import UserError
from doppel.terminal import print_status


def sessions(
    run: Run, *, split: Annotated[str, typer.Option(help="Count only this file of the data set.")] = "sessions"
) -> dict[str, Any]:
    """Count the sessions of the data set."""
    file = run.config.data_dir / f"{split}.jsonl"
    if not file.is_file():
        raise UserError(f"{file}: no such file; run `doppel build` first")
    count = len(file.read_bytes().splitlines())
    print_status(f"{count} sessions in {file}")
    return {"sessions": count}
