"""Errors that the command line shows as one line. Any other exception is a bug and is shown with its traceback."""

from typing import Any


class DoppelError(Exception):
    """The work failed (exit code 1). The message is one line that the user can act on."""

    exit_code = 1
    result: dict[str, Any] | None = None
    """Printed by `--json` despite the failure; None: nothing is."""


class UserError(DoppelError):
    """The command or its input is wrong (exit code 2). The message says where, what is wrong and what to do."""

    exit_code = 2
