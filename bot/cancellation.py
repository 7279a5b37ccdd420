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
    is_late = False

    def cancel_work(_: asyncio.Task[Any]) -> None:
        nonlocal is_late
        is_late = task.cancel()  # False: it was done

    ending.add_done_callback(cancel_work)
    try:
        result = await task
        if not is_late:
            return result
    except (Exception, asyncio.CancelledError):
        caller = asyncio.current_task()
        if not is_late or (caller is not None and caller.cancelling()):
            raise
    finally:
        ending.cancel()
    raise error


async def cancel_tasks(*tasks: asyncio.Task[Any]) -> None:
    """Cancels tasks that are still running and waits until they have ended; never raises what they raise."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
