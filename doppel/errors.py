"""The two ways a command ends badly. Anything else that escapes is a bug and keeps its traceback."""

from typing import Any


class DoppelError(Exception):
    """The work failed (exit code 1). The text is one line the user can act on."""

    exit_code = 1
    result: dict[str, Any] | None = None
    """What `--json` prints all the same, where a failure has one."""


class UserError(DoppelError):
    """The command or its input is wrong (exit code 2): says where, what is wrong and what to do."""

    exit_code = 2
