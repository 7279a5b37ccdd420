"""When memory does not suffice: how to tell, and how many replies may be written at once from then on."""

import torch

_ROUNDS_TO_TRUST = 500  # steps without trouble after which one reply more is tried


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error of torch, or of Python, says that there is no memory left."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(
        words in str(error) for words in ("out of memory", "can't allocate memory", "not enough memory")
    )


def first_line(error: Exception) -> str:
    """What an error says, in one line."""
    return (str(error).splitlines() or [type(error).__name__])[0]


class Allowance:
    """How many requests may be under way at once: lowered when memory ends, raised again in time.

    Args:
        most: where memory suffices.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self.rows = most
        self._rounds = 0

    def limit(self, rows: int) -> None:
        """So many are what memory suffices for."""
        self.rows = max(1, rows)
        self._rounds = 0

    def suffices(self) -> None:
        """A step went well."""
        if self.rows < self._most:
            self._rounds += 1
            if self._rounds >= _ROUNDS_TO_TRUST:
                self.rows += 1
                self._rounds = 0
