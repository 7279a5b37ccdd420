"""Exit codes, and errors that the command line shows as one line. Any other exception is a bug, with its traceback."""

from enum import IntEnum
from typing import Any


class ExitCode(IntEnum):
    """What a command's exit code tells scripts and service managers."""

    OK = 0
    FAILURE = 1
    """The work failed, or a bug."""
    USER_ERROR = 2
    """The command, its input or the configuration is wrong: starting it again does not help."""
    DAMAGED = 65
    """Stored data is damaged (EX_DATAERR of sysexits.h)."""
    TRY_AGAIN = 75
    """It failed and is worth another start as it is (EX_TEMPFAIL of sysexits.h)."""
    INTERRUPTED = 130
    """Ctrl-C, as shells report it."""


class DoppelError(Exception):
    """The work failed (exit code 1). The message is one line that the user can act on."""

    exit_code: int = ExitCode.FAILURE
    result: dict[str, Any] | None = None
    """Printed by `--json` despite the failure; None: nothing is."""


class UserError(DoppelError):
    """The command or its input is wrong (exit code 2). The message says where, what is wrong and what to do."""

    exit_code = ExitCode.USER_ERROR


class DataDamaged(DoppelError):
    """Stored data is damaged (exit code 65)."""

    exit_code = ExitCode.DAMAGED


class TryAgainLater(DoppelError):
    """The process cannot go on, but a new one probably can (exit code 75): a service manager starts it again."""

    exit_code = ExitCode.TRY_AGAIN
