"""`doppel train`: data/ → adapters/<persona>/<version>/."""

from typing import Annotated, Any

import typer

from doppel.cli import Run
from doppel.diagnosis import data_made_from
from doppel.errors import UserError
from doppel.i18n import tr


def train(
    run: Run,
    *,
    first_run: Annotated[
        bool, typer.Option("--first-run", help="Stop after training.first_run_minutes: a first doppelgänger, soon.")
    ] = False,
    origin: Annotated[
        str | None,
        typer.Option(
            "--from", metavar="VERSION|PATH", help="Train on from an adapter: a version, or a folder with one."
        ),
    ] = None,
    restart: Annotated[
        bool, typer.Option("--restart", help="Begin anew instead of going on with an interrupted training.")
    ] = False,
) -> dict[str, Any] | None:
    """Train a LoRA on the data set and publish it; Ctrl-C stops, the same command goes on."""
    config = run.config
    if data_made_from(config) not in (None, config.archive_digest):
        raise UserError(
            tr(
                "{path}: made from other archives than config.yaml names now; run `doppel build` first",
                path=config.data_dir,
            )
        )
    from training.fit import fit, remove_unfinished  # torch takes seconds to import

    if restart:
        remove_unfinished(config)
    return fit(config, first_run=first_run, origin=origin) or None  # of several processes one answers
