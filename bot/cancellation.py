"""Work that something else may cut short: a new message stops a reply that is not finished."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

R = TypeVar("R")


class CancelledByEvent(Exception):
    """The event came before the work was done; the work has been cancelled."""


async def cancel_on_event(work: Coroutine[Any, Any, R], interruption: asyncio.Event | None) -> R:
    """Runs the work to its end unless the event comes first; None: it cannot be interrupted.

    Raises:
        Interrupted: the event was set; work that had ended by then still counts as done.
    """
    if interruption is None:
        return await work
    task = asyncio.create_task(work)
    alarm = asyncio.create_task(interruption.wait())
    try:
        await asyncio.wait((task, alarm), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise CancelledByEvent
        return await task
    finally:
        await _cancel(task, alarm)


async def _cancel(*tasks: asyncio.Task[Any]) -> None:
    """Cancels what still runs and waits until it has stopped."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
