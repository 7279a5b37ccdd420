"""A llama.cpp of this process in place of the network: the same requests and answers, by a call instead of a socket.

Each call blocks a thread of its own. No more of them are under way than llama.cpp computes at once: a call is ended by
what it answers to the next piece of its result, and one that waited in there for others would not end. Knows requests
and pieces of answers; knows neither tokens nor sampling.
"""

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx

_END_SECONDS = 8.0  # for calls to end: until the next token, or until a part of a prompt is read

Call = Callable[[bytes, Callable[[bytes], bool]], None]
"""Asks for a completion: takes the request's JSON, and what each piece of the answer goes to, whose answer ends it."""


class Inside(httpx.AsyncBaseTransport):
    """Carries requests to a call.

    Args:
        call: blocks until the answer is complete, or not wanted any more.
        at_once: calls under way; further requests wait here.
    """

    def __init__(self, call: Call, at_once: int) -> None:
        self._call = call
        self._free = asyncio.Semaphore(at_once)
        self._under_way: set[_Answer] = set()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """The answer to a request for a completion, once it begins."""
        body = await request.aread()
        await self._free.acquire()
        answer = _Answer(self._call, body, self._ended)
        self._under_way.add(answer)
        answer.start()
        try:
            first = await answer.piece()
        except asyncio.CancelledError:
            answer.is_wanted = False
            raise
        if (status := _status(first)) is not None:
            answer.is_wanted = False
            return httpx.Response(status, content=first)
        return httpx.Response(200, stream=_Stream(first, answer))

    def end(self) -> None:
        """Ends every call, waits until they have ended, and makes no other."""
        self._call = _refuse
        until = time.monotonic() + _END_SECONDS
        for answer in list(self._under_way):
            answer.is_wanted = False
        for answer in list(self._under_way):
            answer.thread.join(max(0.0, until - time.monotonic()))

    def _ended(self, answer: "_Answer") -> None:
        self._under_way.discard(answer)
        self._free.release()


class _Answer:
    """One call, on its thread; its pieces come out in the event loop, and None after the last."""

    def __init__(self, call: Call, body: bytes, ended: Callable[["_Answer"], None]) -> None:
        self.is_wanted = True
        self.thread = threading.Thread(target=self._run, args=(call, body), name="doppel-llamacpp", daemon=True)
        self._loop = asyncio.get_running_loop()
        self._pieces: asyncio.Queue[bytes | Exception | None] = asyncio.Queue()
        self._ended = ended

    def start(self) -> None:
        self.thread.start()

    async def piece(self) -> bytes | None:
        """The next piece; None at the end. Raises httpx.ReadError when llama.cpp fails."""
        piece = await self._pieces.get()
        if isinstance(piece, Exception):
            raise httpx.ReadError(str(piece)) from piece
        return piece

    def _run(self, call: Call, body: bytes) -> None:
        end: Exception | None = None
        try:
            call(body, self._take)
        except Exception as error:  # noqa: BLE001 whatever it is, somebody waits for it
            end = error
        self._tell(self._pieces.put_nowait, end)
        self._tell(self._ended, self)

    def _take(self, piece: bytes) -> bool:
        return not (self._tell(self._pieces.put_nowait, piece) and self.is_wanted)

    def _tell(self, function: Callable[[Any], None], argument: object) -> bool:
        """Calls something in the event loop; False when that is closed, and nobody waits any more."""
        try:
            self._loop.call_soon_threadsafe(function, argument)
        except RuntimeError:
            return False
        return True


class _Stream(httpx.AsyncByteStream):
    """An answer as the events that a server would send."""

    def __init__(self, first: bytes | None, answer: _Answer) -> None:
        self._first = first
        self._answer = answer

    async def __aiter__(self) -> AsyncIterator[bytes]:
        piece = self._first
        while piece is not None:
            yield b"data: " + piece + b"\n\n"
            piece = await self._answer.piece()
        yield b"data: [DONE]\n\n"

    async def aclose(self) -> None:
        self._answer.is_wanted = False


def _refuse(body: bytes, take: Callable[[bytes], bool]) -> None:
    raise RuntimeError("it has ended")


def _status(first: bytes | None) -> int | None:
    """The status of an answer that is a refusal; None for any other."""
    try:
        found = json.loads(first or b"{}")
        return int(found["error"]["code"]) if "error" in found else None
    except (ValueError, KeyError, TypeError):
        return 500
