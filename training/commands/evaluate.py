"""`doppel evaluate`: measures how much an adapter writes like its owner."""

from typing import Annotated, Any

import typer

from doppel.cli.app import Run
from doppel.terminal import console


def evaluate(
    run: Run,
    versions: Annotated[
        list[str] | None, typer.Argument(help="A version, or two to compare; default: the one in use.")
    ] = None,
    *,
    quick: Annotated[bool, typer.Option("--quick", help="A rough report in about three minutes.")] = False,
    tune_sampling: Annotated[
        bool,
        typer.Option("--tune-sampling", help="First find the temperature, top_p and min_p that write most like you."),
    ] = False,
) -> dict[str, Any]:
    """Measure how much an adapter writes like you, on messages it has never seen."""
    from training.fidelity.evaluate import evaluate_version  # imports torch, which is slow
    from training.fidelity.report.table import comparison_table, report_table
    from training.fidelity.stored import compare_reports
    from training.tuning.sampling import tune_sampling as tune
    from training.tuning.tables import sampling_table

    chosen = versions[:2] if versions else [None]
    tuned = [tune(run.config, version, quick=quick) for version in chosen] if tune_sampling else []
    reports = [evaluate_version(run.config, version, quick=quick) for version in chosen]
    if not run.as_json:
        for outcome in tuned:
            console.print()
            console.print(sampling_table(outcome))
        console.print()
        console.print(report_table(reports[0], console.width) if len(reports) == 1 else comparison_table(*reports))
    result = reports[0].to_json() if len(reports) == 1 else compare_reports(*reports)
    return {**result, "tuned": [outcome.result() for outcome in tuned]} if tuned else result
