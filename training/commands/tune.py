"""`doppel tune`: which training settings suit this archive and base model best."""

from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from doppel.cli.app import Run
from doppel.errors import UserError
from doppel.i18n import tr
from doppel.terminal import console, print_status
from training.dataset.files import check_archives

if TYPE_CHECKING:
    from training.tuning.search import SearchResult
    from training.tuning.study import Trial


def tune(
    run: Run,
    *,
    trials: Annotated[int, typer.Option("--trials", min=0, help="Number of trials, earlier ones included.")] = 20,
    minutes: Annotated[
        float | None, typer.Option("--minutes", min=0, help="Start no further trial after so many minutes.")
    ] = None,
    trial_minutes: Annotated[
        float | None,
        typer.Option(
            "--trial-minutes", min=0.01, help="Time limit of one trial; default 10 on a CPU, whole epochs on a GPU."
        ),
    ] = None,
    write: Annotated[bool, typer.Option("--write", help="Write the best settings to the configuration file.")] = False,
) -> dict[str, Any]:
    """Search for the best training settings; Ctrl-C stops, run it again to resume."""
    check_archives(run.config)
    if find_spec("optuna") is None:
        raise UserError(tr("`doppel tune` needs optuna; run `pip install 'doppel[tune]'`"))
    from training.tuning.search import SearchLimits, search_settings  # torch takes seconds to import
    from training.tuning.tables import trials_table

    found = search_settings(run.config, SearchLimits(trials, minutes, trial_minutes))
    if not run.as_json and found.trials:
        console.print()
        console.print(trials_table(found))
        console.print()
    result = {**msgspec.to_builtins(found), "written": False}
    _print_best(found, will_write=write)
    if write and found.best is not None and found.best.number != 1:
        from training.tuning.config_edit import write_settings

        write_settings(run.config_path, "training", settings_of(found.best))
        print_status(tr("Written to {path}; `doppel train` will use it.", path=run.config_path))
        result["written"] = True
    if found.stopped:
        from training.run.run import TrainingInterrupted

        interrupted = TrainingInterrupted(tr("stopped; run the same command again to resume"))
        interrupted.result = result
        raise interrupted
    return result


def settings_of(trial: "Trial") -> dict[str, int | float]:
    """A trial's settings as config.yaml has them."""
    return {name: int(value) if value == int(value) else value for name, value in trial.values.items()}


def _print_best(found: "SearchResult", *, will_write: bool) -> None:
    """Prints the best trial, and how to use its settings."""
    if found.best is None or found.best.score is None:
        print_status(tr("No trial has finished yet."))
        return
    current = found.trials[0].score
    if found.best.number == 1 or current is None:
        print_status(tr("No better settings found than the current ones (trial 1)."))
        return
    print_status(
        tr(
            "Best: trial {number}, with {better:.1%} fewer bits per byte than the current settings (trial 1).",
            number=found.best.number,
            better=1 - found.best.score / current,
        )
    )
    lines = ", ".join(f"{name}: {value}" for name, value in settings_of(found.best).items())
    if not will_write:
        print_status(tr("Put under `training:` in config.yaml: {lines}; or run again with --write.", lines=lines))
    if found.trial_tokens < found.epoch_tokens:
        print_status(
            tr(
                "Each trial read only {share:.0%} of an epoch; a full training may need other settings. Longer trials: "
                "--trial-minutes.",
                share=found.trial_tokens / found.epoch_tokens,
            )
        )
