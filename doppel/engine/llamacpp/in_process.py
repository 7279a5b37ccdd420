"""An httpx transport that calls llama.cpp in this process instead of sending requests over the network.

Each call blocks a thread of its own. A call can only be cancelled when it produces its next chunk, so no more calls
run than llama.cpp computes at once: one that waited inside for others could not be cancelled.
"""

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx

_STOP_SECONDS = 8.0  # for calls to end, which takes until the next token or the next part of a prefill

Complete = Callable[[bytes, Callable[[bytes], bool]], None]
"""Computes a completion: takes the request's JSON, and a function that receives each chunk; it stops on True."""


class InProcessTransport(httpx.AsyncBaseTransport):
    """Answers requests by calling a function.

    Args:
        complete: blocks until the completion is done or cancelled.
        max_calls: calls at once; further requests wait.
    """

    def __init__(self, complete: Complete, max_calls: int) -> None:
        self._complete = complete
        self._slots = asyncio.Semaphore(max_calls)
        self._active: set[_Call] = set()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """The response to a completion request, returned with its first chunk."""
        body = await request.aread()
        await self._slots.acquire()
        call = _Call(self._complete, body, self._on_end)
        self._active.add(call)
        call.start()
        try:
            first = await call.next_chunk()
        except asyncio.CancelledError:
            call.is_cancelled = True
            raise
        if (status := _error_status(first)) is not None:
            call.is_cancelled = True
            return httpx.Response(status, content=first)
        return httpx.Response(200, stream=_EventStream(first, call))

    def stop(self) -> None:
        """Cancels every call, waits until they have ended, and refuses further requests."""
        self._complete = _refuse
        deadline = time.monotonic() + _STOP_SECONDS
        for call in list(self._active):
            call.is_cancelled = True
        for call in list(self._active):
            call.thread.join(max(0.0, deadline - time.monotonic()))

    def _on_end(self, call: "_Call") -> None:
        self._active.discard(call)
        self._slots.release()


class _Call:
    """One call on a thread of its own; its chunks arrive in the event loop, followed by None."""

    def __init__(self, complete: Complete, body: bytes, on_end: Callable[["_Call"], None]) -> None:
        self.is_cancelled = False
        self.thread = threading.Thread(target=self._run, args=(complete, body), name="doppel-llamacpp", daemon=True)
        self._loop = asyncio.get_running_loop()
        self._chunks: asyncio.Queue[bytes | Exception | None] = asyncio.Queue()
        self._on_end = on_end

    def start(self) -> None:
        self.thread.start()

    async def next_chunk(self) -> bytes | None:
        """The next chunk; None at the end. Raises httpx.ReadError when llama.cpp fails."""
        chunk = await self._chunks.get()
        if isinstance(chunk, Exception):
            raise httpx.ReadError(str(chunk)) from chunk
        return chunk

    def _run(self, complete: Complete, body: bytes) -> None:
        end: Exception | None = None
        try:
            complete(body, self._receive)
        except Exception as error:  # noqa: BLE001 passed on to the caller
            end = error
        self._call_in_loop(self._chunks.put_nowait, end)
        self._call_in_loop(self._on_end, self)

    def _receive(self, chunk: bytes) -> bool:
        """Takes a chunk; returns whether to stop."""
        return not self._call_in_loop(self._chunks.put_nowait, chunk) or self.is_cancelled

    def _call_in_loop(self, function: Callable[[Any], None], argument: object) -> bool:
        """Calls a function in the event loop; False when the loop is closed."""
        try:
            self._loop.call_soon_threadsafe(function, argument)
        except RuntimeError:
            return False
        return True


class _EventStream(httpx.AsyncByteStream):
    """The chunks of a call as the server-sent events of a server."""

    def __init__(self, first: bytes | None, call: _Call) -> None:
        self._first = first
        self._call = call

    async def __aiter__(self) -> AsyncIterator[bytes]:
        chunk = self._first
        while chunk is not None:
            yield b"data: " + chunk + b"\n\n"
            chunk = await self._call.next_chunk()
        yield b"data: [DONE]\n\n"

    async def aclose(self) -> None:
        self._call.is_cancelled = True


def _refuse(body: bytes, receive: Callable[[bytes], bool]) -> None:
    raise RuntimeError("llama.cpp has been stopped")


def _error_status(first: bytes | None) -> int | None:
    """The HTTP status in an error; None when the chunk is not an error."""
    try:
        content = json.loads(first or b"{}")
        return int(content["error"]["code"]) if "error" in content else None
    except (ValueError, KeyError, TypeError):
        return 500
