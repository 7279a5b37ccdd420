"""Work that an event may cut short."""

import asyncio

import pytest

from bot.cancellation import CancelledByEvent, cancel_on_event


async def answer() -> int:
    await asyncio.sleep(0)
    return 42


async def test_work_that_is_not_interrupted_gives_its_result() -> None:
    assert await cancel_on_event(answer(), None) == 42
    assert await cancel_on_event(answer(), asyncio.Event()) == 42


async def test_event_cancels_the_work_and_waits_for_its_end() -> None:
    event, ended = asyncio.Event(), []

    async def endless() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append(True)

    asyncio.get_running_loop().call_later(0, event.set)
    with pytest.raises(CancelledByEvent):
        await cancel_on_event(endless(), event)
    assert ended == [True]


async def test_work_that_fails_while_it_is_cancelled_counts_as_cancelled() -> None:
    event = asyncio.Event()

    async def fails_at_its_end() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise KeyError("x")

    asyncio.get_running_loop().call_later(0, event.set)
    with pytest.raises(CancelledByEvent):
        await cancel_on_event(fails_at_its_end(), event)


async def test_failure_comes_through() -> None:
    async def broken() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        await cancel_on_event(broken(), asyncio.Event())


async def test_cancelling_the_caller_cancels_the_work() -> None:
    ended = []

    async def endless() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    task = asyncio.create_task(cancel_on_event(endless(), asyncio.Event()))
    for _ in range(3):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended == [True]
