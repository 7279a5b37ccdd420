"""`doppel forget`: takes one contact out of the data set, and has every later build leave them out."""

from typing import Annotated, Any

import msgspec
import typer

from doppel.cli.app import Run
from doppel.i18n import tr
from doppel.reports.html import FILE
from doppel.terminal import print_status
from training.dataset.forget import forget as forget_contact
from training.dataset.forget import read_report
from training.dataset.report.page import measure_for, write_page
from training.lora.settings import planned_length
from training.run.folders import run_folder, tuning_folder


def forget(
    run: Run,
    *,
    name: Annotated[str, typer.Argument(help="Whom: an account's id or name, or the pseudonym, as in contacts.json.")],
) -> dict[str, Any]:
    """Take one person out of the data set, for good."""
    config = run.config
    gone = forget_contact(config, name)
    print_status(
        tr(
            "{name} is forgotten: {messages} messages left the data set, {sessions} conversations are shorter or gone.",
            name=name,
            messages=f"{gone.messages:,}",
            sessions=f"{gone.sessions:,}",
        )
    )
    length = planned_length(config.training, config.model.device)
    write_page(config, read_report(config.data_dir), measure_for(config.model, length.value, length.reason))
    print_status(tr("What is in it, in pictures: {path}", path=config.data_dir / FILE))
    print_status(tr("No `doppel build` will take them in again: {path} says so, without their name.", path=gone.path))
    if config.adapters_dir.is_dir():
        print_status(
            tr(
                "What was trained before still knows them: run `doppel train`, then remove the older folders in {path}",
                path=config.adapters_dir,
            )
        )
    unfinished = [path for path in (run_folder(config.data_dir), tuning_folder(config.data_dir)) if path.is_dir()]
    if unfinished:
        print_status(tr("So does what is not finished: remove {paths}", paths=", ".join(map(str, unfinished))))
    return dict(msgspec.to_builtins(gone))
