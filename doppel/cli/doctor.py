"""`doppel doctor`: what is missing, and what to do about it."""

import os
from typing import Any

import msgspec
from rich.table import Table
from rich.text import Text

from doppel.cli.app import Run
from doppel.cli.checks import examine
from doppel.errors import DoppelError
from doppel.i18n import tr
from doppel.plugins import Check
from doppel.terminal import console, print_status


class ChecksFailed(DoppelError):
    """Something that `doppel up` needs is missing; `result` holds all checks."""

    def __init__(self, text: str, result: dict[str, Any]) -> None:
        super().__init__(text)
        self.result = result


def doctor(run: Run) -> dict[str, Any]:
    """Check this machine, the configuration, the models and the bots; says what to do."""
    checks = examine(run.config_path, os.environ)
    result = {"checks": msgspec.to_builtins(checks)}
    if not run.as_json:
        console.print(_table(checks))
    failed = [check.name for check in checks if not check.ok and check.level == "needed"]
    if failed:
        raise ChecksFailed(tr("needs fixing: {names}", names=", ".join(map(tr, failed))), result)
    print_status(tr("Everything that `doppel up` needs is there."))
    return result


def _table(checks: list[Check]) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    for check in checks:
        sign, style = ("✓", "green") if check.ok else ("✗", "red") if check.level == "needed" else ("–", "yellow")
        table.add_row(Text(sign, style), tr(check.name), Text(check.hint))
    return table
