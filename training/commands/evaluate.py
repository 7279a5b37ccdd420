"""`doppel evaluate`: how much an adapter is like its owner, in figures with a floor and a ceiling."""

from typing import Annotated, Any

import typer

from doppel.cli.app import Run
from doppel.terminal import console


def evaluate(
    run: Run,
    versions: Annotated[
        list[str] | None, typer.Argument(help="A version, or two to compare; nothing: the one in use.")
    ] = None,
    *,
    quick: Annotated[bool, typer.Option("--quick", help="A rough report in about three minutes.")] = False,
    tune_sampling: Annotated[
        bool, typer.Option("--tune-sampling", help="First find the temperature, top_p and min_p most like the owner.")
    ] = False,
) -> dict[str, Any]:
    """Measure how much an adapter is like its owner, on messages it has never seen."""
    from training.fidelity.evaluate import evaluate_version  # torch takes seconds to import
    from training.fidelity.outcome import compare
    from training.fidelity.report.table import comparison_table, report_table
    from training.tuning.sampling import tune_sampling as tune
    from training.tuning.tables import tuning_table

    chosen = versions[:2] if versions else [None]
    tuned = [tune(run.config, version, quick=quick) for version in chosen] if tune_sampling else []
    reports = [evaluate_version(run.config, version, quick=quick) for version in chosen]
    if not run.as_json:
        for one in tuned:
            console.print()
            console.print(tuning_table(one))
        console.print()
        console.print(report_table(reports[0], console.width) if len(reports) == 1 else comparison_table(*reports))
    result = reports[0].result() if len(reports) == 1 else compare(*reports)
    return {**result, "tuned": [one.result() for one in tuned]} if tuned else result
