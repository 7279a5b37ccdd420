"""The clock as an argument, so that tests need not wait."""

import asyncio
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Returns the time and sleeps."""

    def now(self) -> datetime:
        """The current time, aware, in UTC."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Sleeps; returns at once for zero or less."""
        ...


class SystemClock:
    """The system clock."""

    def now(self) -> datetime:
        """The current time, aware, in UTC."""
        return datetime.now(UTC)

    async def sleep(self, seconds: float) -> None:
        """Sleeps; returns at once for zero or less."""
        await asyncio.sleep(max(0.0, seconds))
