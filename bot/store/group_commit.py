"""Runs transactions on one thread, and commits those that wait together: one sync to disk serves all of them."""

import asyncio
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from itertools import groupby
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, IntegrityError

MAX_GROUP = 128
"""Transactions in one commit; bounds how long the first of them waits for the others."""

MAX_ATTEMPTS = 3

_CONFLICTS = ("40001", "40P01")
"""PostgreSQL's codes of a serialization failure and a deadlock."""

R = TypeVar("R")

Work = Callable[[Connection], R]


class _Outcome(NamedTuple):
    """What a call returned, or the error that it or its commit raised."""

    future: asyncio.Future[Any]
    result: Any
    error: Exception | None = None


class _Call(NamedTuple):
    work: Work[Any]
    future: asyncio.Future[Any]
    is_alone: bool = False
    """Outside of any transaction."""


class GroupCommit:
    """A database connection on a thread of its own.

    What is submitted while the thread is busy becomes one transaction. If one call of it raises, nothing of it is
    committed, and each call is run again by itself: so calls must change nothing but the database. A call that another
    program got in the way of (it inserted the same row, or both waited for each other) is run up to three times.

    Args:
        open_connection: called on the thread.

    Raises:
        Exception: what `open_connection` raised.
    """

    def __init__(self, open_connection: Callable[[], Connection]) -> None:
        self._queue: SimpleQueue[_Call | None] = SimpleQueue()
        opened: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, args=(open_connection, opened), name="store", daemon=True)
        self._thread.start()
        opened.result()

    def submit(self, work: Work[R]) -> asyncio.Future[R]:
        """Runs `work(connection)`. The future has its result once it is on disk, or what it or the commit raised.

        Must be called on the thread of a running event loop. Work whose future is cancelled before it starts is left
        out.
        """
        return self._submit(work, is_alone=False)

    def submit_alone(self, work: Work[R]) -> asyncio.Future[R]:
        """Runs `work(connection)` by itself and outside of a transaction, after what was submitted before."""
        return self._submit(work, is_alone=True)

    def close(self) -> None:
        """Finishes what was submitted and closes the connection."""
        self._queue.put(None)
        self._thread.join()

    def _submit(self, work: Work[R], *, is_alone: bool) -> asyncio.Future[R]:
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._queue.put(_Call(work, future, is_alone))
        return future

    def _run(self, open_connection: Callable[[], Connection], opened: "Future[None]") -> None:
        try:
            connection = open_connection()
        except BaseException as error:  # noqa: BLE001 - raised again by whoever opens the store
            opened.set_exception(error)
            return
        opened.set_result(None)
        with connection:
            while (first := self._queue.get()) is not None:
                calls, is_last = self._waiting(first)
                running = [call for call in calls if not call.future.cancelled()]
                for is_alone, group in groupby(running, key=lambda call: call.is_alone):
                    _deliver((_run_outside if is_alone else _run_together)(connection, list(group)))
                if is_last:
                    break

    def _waiting(self, first: _Call) -> tuple[list[_Call], bool]:
        """The first call and those that wait behind it; whether the thread ends after them."""
        calls = [first]
        while len(calls) < MAX_GROUP:
            try:
                call = self._queue.get_nowait()
            except Empty:
                break
            if call is None:
                return calls, True
            calls.append(call)
        return calls, False


def _run_together(connection: Connection, calls: Sequence[_Call]) -> list[_Outcome]:
    """Runs calls as one transaction; by themselves if one of them or the commit fails."""
    attempt = 1
    while True:
        try:
            with connection.begin():
                return [_Outcome(call.future, call.work(connection)) for call in calls]
        except Exception as error:  # noqa: BLE001 - passed on to the caller
            if len(calls) > 1:
                return [outcome for call in calls for outcome in _run_together(connection, [call])]
            if attempt == MAX_ATTEMPTS or not _may_succeed_again(error):
                return [_Outcome(calls[0].future, None, error)]
            attempt += 1


def _may_succeed_again(error: Exception) -> bool:
    """Whether another program that uses the database caused the error, and no longer stands in the way."""
    if isinstance(error, IntegrityError):
        return True
    return isinstance(error, DBAPIError) and getattr(error.orig, "sqlstate", None) in _CONFLICTS


def _run_outside(connection: Connection, calls: Sequence[_Call]) -> list[_Outcome]:
    """Runs calls one after another without a transaction."""
    outcomes = []
    for call in calls:
        try:
            outcomes.append(_Outcome(call.future, call.work(connection)))
        except Exception as error:  # noqa: BLE001 - passed on to the caller
            outcomes.append(_Outcome(call.future, None, error))
    return outcomes


def _deliver(outcomes: Sequence[_Outcome]) -> None:
    """Gives the callers their results: an event loop is woken once for all of its calls, which is not cheap."""
    for loop, group in groupby(outcomes, key=lambda outcome: outcome.future.get_loop()):
        with suppress(RuntimeError):  # the loop is closed, and nobody waits any more
            loop.call_soon_threadsafe(_resolve, list(group))


def _resolve(outcomes: Sequence[_Outcome]) -> None:
    """Runs on the event loop of the callers."""
    for future, result, error in outcomes:
        if future.done():  # its caller was cancelled meanwhile
            continue
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)
