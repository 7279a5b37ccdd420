"""Runs work that an event may cancel, as a new message cancels a reply in progress."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from bot.clock import Clock

R = TypeVar("R")


class CancelledByEvent(Exception):
    """The event was set before the work was done; the work has been cancelled."""


async def cancel_on_event(work: Coroutine[Any, Any, R], event: asyncio.Event | None) -> R:
    """Runs the work and returns its result; cancels it when the event is set first. None: nothing cancels it.

    Raises:
        CancelledByEvent: the event was set first. Work that had finished by then still counts as done.
    """
    if event is None:
        return await work
    return await _finish_before(event.wait(), work, CancelledByEvent)


async def cancel_after(work: Coroutine[Any, Any, R], seconds: float, clock: Clock) -> R:
    """Runs the work and returns its result; cancels it after so many seconds of the clock. Raises TimeoutError."""
    return await _finish_before(clock.sleep(seconds), work, TimeoutError)


async def _finish_before(end: Coroutine[Any, Any, Any], work: Coroutine[Any, Any, R], error: type[Exception]) -> R:
    """Runs the work until `end` is over, and raises the error if it is not done by then."""
    task, ending = asyncio.create_task(work), asyncio.create_task(end)
    try:
        await asyncio.wait((task, ending), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise error
        return await task
    finally:
        await cancel_tasks(task, ending)


async def cancel_tasks(*tasks: asyncio.Task[Any]) -> None:
    """Cancels tasks that are still running and waits until they have ended; never raises what they raise."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
