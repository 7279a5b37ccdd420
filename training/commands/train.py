"""`doppel train`: data/ → adapters/<persona>/<version>/."""

from typing import Annotated, Any

import typer

from doppel.cli.app import Run
from doppel.i18n import tr
from doppel.terminal import console, print_status
from training.dataset.files import check_archives


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
    force: Annotated[
        bool, typer.Option("--force", help="Put the adapter in use even if it fails its examination.")
    ] = False,
    plan: Annotated[
        bool, typer.Option("--plan", help="Show settings, time and memory of the training, and do not train.")
    ] = False,
) -> dict[str, Any] | None:
    """Train a LoRA on the data set and publish it; Ctrl-C stops, the same command goes on."""
    config = run.config
    check_archives(config)
    if plan:
        return _plan(run, first_run=first_run, origin=origin, restart=restart)
    from training.run.run import run_training  # torch takes seconds to import

    is_examined = config.training.gate and not first_run  # a first run has no time for it
    result = run_training(config, first_run=first_run, origin=origin, restart=restart, in_use=not is_examined)
    if not result:  # of several processes one answers
        return None
    if is_examined:
        from training.fidelity.gate import examine_and_use

        result |= examine_and_use(config, result["version"], force=force)
    return result


def _plan(run: Run, *, first_run: bool, origin: str | None, restart: bool) -> dict[str, Any] | None:
    from training.run.forecast import forecast
    from training.run.forecast_table import lines, settings_table, time_table

    print_status(tr("Measuring this machine …"))
    made = forecast(run.config, first_run=first_run, origin=origin, restart=restart)
    if made is None:
        return None
    if not run.as_json:
        for table in (settings_table(made), time_table(made)):
            console.print()
            console.print(table)
        console.print()
        for line in lines(made):
            print_status(line)
    return made.result()
