"""`doppel train`: data/ → adapters/<persona>/<version>/."""

from typing import Annotated, Any

import typer

from doppel.cli.app import Run
from doppel.config import Config
from doppel.errors import UserError
from doppel.i18n import tr
from doppel.terminal import console, print_status
from training.dataset.files import check_archives


def train(
    run: Run,
    *,
    first_run: Annotated[
        bool, typer.Option("--first-run", help="Stop after training.first_run_minutes, for a quick first result.")
    ] = False,
    start_from: Annotated[
        str | None,
        typer.Option("--from", metavar="VERSION|PATH", help="Start from an adapter: a version, or its folder."),
    ] = None,
    restart: Annotated[bool, typer.Option("--restart", help="Discard an interrupted training and start over.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Put the adapter in use even if it fails the examination.")
    ] = False,
    plan: Annotated[
        bool, typer.Option("--plan", help="Show the training's settings, time and memory, without training.")
    ] = False,
    bases: Annotated[
        bool, typer.Option("--bases", help="With --plan: compare base models on this machine instead.")
    ] = False,
) -> dict[str, Any] | None:
    """Train a LoRA on the data set and publish it; Ctrl-C stops, run it again to resume."""
    config = run.config
    check_archives(config)
    if bases and not plan:
        raise UserError(tr("--bases shows a plan only; use it with --plan"))
    if bases:
        return _show_bases(config, as_json=run.as_json)
    if plan:
        return _show_plan(config, first_run=first_run, start_from=start_from, restart=restart, as_json=run.as_json)
    from training.run.run import run_training  # torch takes seconds to import

    is_examined = config.training.gate and not first_run  # an examination takes too long for a first run
    result = run_training(config, first_run=first_run, start_from=start_from, restart=restart, in_use=not is_examined)
    if not result:  # only the main one of several processes has a result
        return None
    if is_examined:
        from training.fidelity.gate import examine_and_use

        result |= examine_and_use(config, result["version"], force=force)
    return result


def _show_bases(config: Config, *, as_json: bool) -> dict[str, Any]:
    from training.run.base_choice import base_table, choice_lines, choice_result, compare_bases

    print_status(tr("Measuring this machine …"))
    choice = compare_bases(config)
    if not as_json:
        console.print()
        console.print(base_table(choice))
        console.print()
        for line in choice_lines(choice):
            print_status(line)
    return choice_result(choice)


def _show_plan(
    config: Config, *, first_run: bool, start_from: str | None, restart: bool, as_json: bool
) -> dict[str, Any] | None:
    from training.run.forecast import make_forecast, settings_table, summary_lines, time_table

    print_status(tr("Measuring this machine …"))
    forecast = make_forecast(config, first_run=first_run, start_from=start_from, restart=restart)
    if forecast is None:
        return None
    if not as_json:
        for table in (settings_table(forecast), time_table(forecast)):
            console.print()
            console.print(table)
        console.print()
        for line in summary_lines(forecast):
            print_status(line)
    return forecast.result()
