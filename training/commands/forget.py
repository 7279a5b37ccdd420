"""`doppel forget`: removes one contact from the data set and from every later build."""

from typing import Annotated, Any

import msgspec
import typer

from doppel.cli.app import Run
from doppel.i18n import tr
from doppel.reports.html import REPORT_PAGE
from doppel.terminal import print_status
from training.dataset.forget import forget_contact
from training.dataset.report.build_report import read_report
from training.dataset.report.page import length_settings, write_report_page
from training.lora.settings import planned_length
from training.run.folders import run_folder, tuning_folder


def forget(
    run: Run,
    *,
    name: Annotated[str, typer.Argument(help="Id, name or pseudonym of the contact, as in contacts.json.")],
) -> dict[str, Any]:
    """Remove one person from the data set, permanently."""
    config = run.config
    result = forget_contact(config.data_dir, config.people, name)
    print_status(
        tr(
            "{name}: removed {messages} messages from {sessions} sessions",
            name=name,
            messages=f"{result.messages:,}",
            sessions=f"{result.sessions:,}",
        )
    )
    length = planned_length(config.training, config.model.device)
    settings = length_settings(config.model, length.value, length.reason)
    report = read_report(config.data_dir)
    write_report_page(config.data_dir, config.persona.name, config.zone, report, settings)
    print_status(tr("Report with charts: {path}", path=config.data_dir / REPORT_PAGE))
    print_status(tr("Later builds leave them out, too. They are listed in {path}, as a hash.", path=result.path))
    if config.adapters_dir.is_dir():
        print_status(
            tr(
                "Existing adapters were trained with their messages. Run `doppel train`, then delete the old versions "
                "in {path}",
                path=config.adapters_dir,
            )
        )
    unfinished = [path for path in (run_folder(config.data_dir), tuning_folder(config.data_dir)) if path.is_dir()]
    if unfinished:
        print_status(
            tr(
                "Unfinished training contains their messages, too: delete {paths}",
                paths=", ".join(map(str, unfinished)),
            )
        )
    return dict(msgspec.to_builtins(result))
