"""`doppel tune`: which settings suit this archive and base model best."""

import math
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer
from rich.table import Table

from doppel.cli.app import Run
from doppel.errors import UserError
from doppel.i18n import tr
from doppel.terminal import console, print_status
from training.dataset.files import check_archives
from training.tuning.config_edit import write_settings

if TYPE_CHECKING:
    from training.tuning.search import Tuned
    from training.tuning.study import Trial


def tune(
    run: Run,
    *,
    trials: Annotated[
        int, typer.Option("--trials", min=0, help="How many there are to be, earlier ones included.")
    ] = 20,
    minutes: Annotated[
        float | None, typer.Option("--minutes", min=0, help="Begin no trial after so many minutes.")
    ] = None,
    trial_minutes: Annotated[
        float | None,
        typer.Option(
            "--trial-minutes", min=0.01, help="Longest training of a trial; without a GPU 10, with one whole epochs."
        ),
    ] = None,
    write: Annotated[
        bool, typer.Option("--write", help="Write the best settings into the configuration file.")
    ] = False,
) -> dict[str, Any]:
    """Search for the settings that learn you best; Ctrl-C stops, the same command goes on."""
    check_archives(run.config)
    if find_spec("optuna") is None:
        raise UserError(tr("`doppel tune` needs optuna; run `pip install 'doppel[tune]'`"))
    from training.tuning.search import SearchLimits  # torch takes seconds to import
    from training.tuning.search import tune as search

    tuned = search(run.config, SearchLimits(trials, minutes, trial_minutes))
    if not run.as_json and tuned.trials:
        console.print()
        console.print(trials_table(tuned))
        console.print()
    result = {**msgspec.to_builtins(tuned), "written": False}
    _tell(tuned, will_write=write)
    if write and tuned.best is not None and tuned.best.number != 1:
        write_settings(run.config_path, "training", settings_of(tuned.best))
        print_status(tr("Written into {path}; `doppel train` uses them.", path=run.config_path))
        result["written"] = True
    if tuned.stopped:
        from training.run.run import TrainingInterrupted

        stopped = TrainingInterrupted(tr("stopped; the same command goes on with the search"))
        stopped.result = result
        raise stopped
    return result


def settings_of(trial: "Trial") -> dict[str, int | float]:
    """A trial's settings as they stand in config.yaml."""
    return {name: int(value) if value == int(value) else value for name, value in trial.values.items()}


def trials_table(tuned: "Tuned") -> Table:
    """Every trial with its settings and how it did."""
    names = [*tuned.trials[0].values]
    table = Table(title=tr("Trials"), title_justify="left", box=None, pad_edge=False)
    titles = [name.replace("_", " ") for name in names]
    for title in ("", tr("trial"), *titles, tr("bits per byte"), tr("against the base"), tr("minutes")):
        table.add_column(title, justify="right")
    for trial in tuned.trials:
        is_best = tuned.best is not None and trial.number == tuned.best.number
        change = (
            "–" if trial.score is None or not math.isfinite(trial.score) else f"{trial.score / tuned.base - 1:+.1%}"
        )
        table.add_row(
            "●" if is_best else "",
            str(trial.number),
            *(f"{value:g}" for value in trial.values.values()),
            "–" if trial.score is None else f"{trial.score:.4f}",
            {"done": change, "pruned": tr("given up"), "running": tr("not finished")}[trial.state],
            "–" if trial.seconds is None else f"{trial.seconds / 60:.1f}",
            style="bold" if is_best else "dim" if trial.state == "pruned" else "",
        )
    return table


def _tell(tuned: "Tuned", *, will_write: bool) -> None:
    """What the search has found, and what to do with it."""
    if tuned.best is None or tuned.best.score is None:
        print_status(tr("No trial has come to its end yet."))
        return
    present = tuned.trials[0].score
    if tuned.best.number == 1 or present is None:
        print_status(tr("Nothing better than the settings it began with has been found (trial 1)."))
        return
    print_status(
        tr(
            "The best is trial {number}: {better:.1%} fewer bits per byte than the settings it began with (trial 1).",
            number=tuned.best.number,
            better=1 - tuned.best.score / present,
        )
    )
    lines = ", ".join(f"{name}: {value}" for name, value in settings_of(tuned.best).items())
    if not will_write:
        print_status(
            tr("For config.yaml, under training: {lines}; the same command with --write writes them.", lines=lines)
        )
    if tuned.trial_tokens < tuned.epoch_tokens:
        print_status(
            tr(
                "A trial read {share:.0%} of an epoch; a whole training may want other settings. `--trial-minutes` "
                "makes trials longer.",
                share=tuned.trial_tokens / tuned.epoch_tokens,
            )
        )
