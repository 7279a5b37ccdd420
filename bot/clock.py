"""The clock as an argument, so that tests need not wait.

Waits are measured with `monotonic`: the wall clock may be set, and it jumps when the machine wakes from suspend.
"""

import asyncio
import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Returns the time and sleeps."""

    def now(self) -> datetime:
        """The current time, aware, in UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds since an arbitrary moment; never goes back. Stands still while the machine is suspended."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Sleeps; returns at once for zero or less."""
        ...


class SystemClock:
    """The system clock."""

    def now(self) -> datetime:
        """The current time, aware, in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Seconds since an arbitrary moment; never goes back. Stands still while the machine is suspended."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Sleeps; returns at once for zero or less."""
        await asyncio.sleep(max(0.0, seconds))
