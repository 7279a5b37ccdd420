"""Detects that memory has run out, and limits how many replies are decoded at once from then on."""

import torch

_STEPS_BEFORE_RAISING = 500  # successful steps before one more row is tried


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error of torch or Python means that memory has run out."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(
        words in str(error) for words in ("out of memory", "can't allocate memory", "not enough memory")
    )


def first_line(error: Exception) -> str:
    """The first line of an error's message, or its type."""
    return (str(error).splitlines() or [type(error).__name__])[0]


class BatchLimit:
    """How many requests may run at once: lowered when memory runs out, raised again over time.

    Args:
        max_rows: the limit while memory suffices.
    """

    def __init__(self, max_rows: int) -> None:
        self._max_rows = max_rows
        self.rows = max_rows
        self._steps = 0

    def lower(self, rows: int) -> None:
        """Allows only this many from now on, but at least one."""
        self.rows = max(1, rows)
        self._steps = 0

    def step_succeeded(self) -> None:
        """Counts a step without errors; enough of them raise the limit by one."""
        if self.rows < self._max_rows:
            self._steps += 1
            if self._steps >= _STEPS_BEFORE_RAISING:
                self.rows += 1
                self._steps = 0
