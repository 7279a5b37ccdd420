"""A call in place of the network: streamed, refused, failed, cut off; never more at once than may be."""

import asyncio
import json
import threading
from collections.abc import Callable
from contextlib import aclosing
from typing import Any

import pytest

from doppel.engine.llamacpp.in_process import InProcessTransport
from doppel.engine.remote.client import ServerClient, ServerError

SECONDS = 10  # for what takes none


class Stub:
    """Answers with numbered events, each once it may: `go` is released once for each."""

    def __init__(self, events: int = 3) -> None:
        self.events = events
        self.go = threading.Semaphore(0)
        self.requests: list[Any] = []
        self.ended = 0

    def __call__(self, body: bytes, take: Callable[[bytes], bool]) -> None:
        self.requests.append(json.loads(body))
        for number in range(self.events):
            assert self.go.acquire(timeout=SECONDS)
            if take(json.dumps({"number": number}).encode()):
                break
        self.ended += 1

    def let(self, events: int) -> None:
        for _ in range(events):
            self.go.release()


def connect(complete: Callable[..., None], at_once: int = 1) -> tuple[ServerClient, InProcessTransport]:
    async def at_once_again(seconds: float) -> None:
        await asyncio.sleep(0)

    transport = InProcessTransport(complete, at_once)
    return ServerClient("http://inside", sleep=at_once_again, transport=transport), transport


async def numbers(server: ServerClient, name: str = "one") -> list[int]:
    return [event["number"] async for event in server.stream("/v1/completions", {"name": name})]


async def test_events_arrive_one_by_one() -> None:
    stub = Stub()
    server, _ = connect(stub)
    async with aclosing(server.stream("/v1/completions", {"prompt": [1, 2]})) as events:
        stub.let(1)
        assert await anext(events) == {"number": 0}
        stub.let(2)
        assert [event["number"] async for event in events] == [1, 2]
    assert stub.requests == [{"prompt": [1, 2]}]
    assert stub.ended == 1


async def test_calls_are_limited_and_in_order() -> None:
    stub = Stub(events=1)
    server, _ = connect(stub, at_once=2)
    tasks = [asyncio.create_task(numbers(server, name)) for name in "abcd"]
    while len(stub.requests) < 2:  # noqa: ASYNC110 they are threads
        await asyncio.sleep(0)
    assert {request["name"] for request in stub.requests} == {"a", "b"}
    stub.let(4)
    assert await asyncio.wait_for(asyncio.gather(*tasks), SECONDS) == [[0]] * 4
    assert [request["name"] for request in stub.requests[2:]] in (["c", "d"], ["d", "c"])


async def test_closing_ends_the_call_at_its_next_chunk() -> None:
    stub = Stub(events=1000)
    server, _ = connect(stub)
    async with aclosing(server.stream("/v1/completions", {})) as events:
        stub.let(1)
        await anext(events)
    stub.let(2)
    stub.events = 1
    assert await asyncio.wait_for(numbers(server), SECONDS) == [0]
    assert stub.ended == 2


async def test_a_waiting_request_can_be_cancelled() -> None:
    stub = Stub(events=1)
    server, _ = connect(stub)
    first, second, third = (asyncio.create_task(numbers(server, name)) for name in "abc")
    while not stub.requests:  # noqa: ASYNC110 it is a thread
        await asyncio.sleep(0)
    second.cancel()
    stub.let(2)
    assert await asyncio.wait_for(first, SECONDS) == await asyncio.wait_for(third, SECONDS) == [0]
    assert {request["name"] for request in stub.requests} == {"a", "c"}


async def test_an_error_has_its_status() -> None:
    def refuse(body: bytes, take: Callable[[bytes], bool]) -> None:
        take(json.dumps({"error": {"code": 400, "message": "too long"}}).encode())

    server, _ = connect(refuse)
    with pytest.raises(ServerError, match="responded with 400: too long") as raised:
        await numbers(server)
    assert raised.value.status == 400
    with pytest.raises(ServerError):  # its place is free again
        await asyncio.wait_for(numbers(server), SECONDS)


async def test_a_failure_is_reported() -> None:
    def fail(body: bytes, take: Callable[[bytes], bool]) -> None:
        raise RuntimeError("no memory")

    server, _ = connect(fail)
    with pytest.raises(ServerError, match="does not respond: no memory"):
        await numbers(server)


async def test_stopping_cancels_active_calls() -> None:
    stub = Stub(events=1000)
    server, transport = connect(stub)
    stub.let(2)
    task = asyncio.create_task(numbers(server))
    while not stub.requests:  # noqa: ASYNC110 it is a thread
        await asyncio.sleep(0)
    (call,) = transport._active
    ending = asyncio.create_task(asyncio.to_thread(transport.stop))
    while not call.is_cancelled:  # noqa: ASYNC110 as above
        await asyncio.sleep(0)
    stub.let(1)
    await asyncio.wait_for(ending, SECONDS)
    assert stub.ended == 1
    await asyncio.wait_for(task, SECONDS)
    with pytest.raises(ServerError, match=r"llama\.cpp has been stopped"):
        await numbers(server)
