"""A server spoken to over HTTP: asked again when it fails for a moment, left alone when it fails for longer.

Knows requests, streams of events and failures; knows neither tokens nor sampling. Connections are not kept open
between requests, so that nothing is left behind in an event loop that ends; next to a generation one costs little.
"""

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from random import Random
from typing import Any

import httpx

from doppel.engine import EngineError
from doppel.i18n import tr
from doppel.system.backoff import Backoff

ATTEMPTS = 4
FIRST_WAIT, LONGEST_WAIT = 0.5, 8.0
BREAK_AFTER, BREAK_SECONDS = 5, 30.0
_CONNECT_SECONDS, _SILENCE_SECONDS = 5.0, 300.0
_MOMENTARY = frozenset({408, 425, 429, 500, 502, 503, 504})
_ALIVE = frozenset({408, 425, 429})  # the server is well and says when it is too much
_LONGEST_REASON = 200

Sleep = Callable[[float], Awaitable[None]]


class ServerError(EngineError):
    """The server did not do what it was asked. `status` is 0 where there was no answer at all."""

    def __init__(self, text: str, status: int = 0, wait: float | None = None) -> None:
        super().__init__(text)
        self.status = status
        self.wait = wait
        """Seconds to wait before the next attempt, as the server wishes."""


class Breaker:
    """Refuses requests for a while after so many failures in a row; then lets one through to see.

    Args:
        clock: seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float], after: int = BREAK_AFTER, seconds: float = BREAK_SECONDS) -> None:
        self._clock = clock
        self._after = after
        self._seconds = seconds
        self._failures = 0
        self._until = 0.0

    @property
    def seconds_left(self) -> float:
        """Until the next request is let through; 0 when it would be now."""
        return max(0.0, self._until - self._clock()) if self._failures >= self._after else 0.0

    def admit(self) -> bool:
        """Whether a request may go out. The one that is let through to see holds off the others."""
        if self._failures < self._after:
            return True
        if self.seconds_left:
            return False
        self._until = self._clock() + self._seconds
        return True

    def succeeded(self) -> None:
        """The server answered."""
        self._failures = 0

    def failed(self) -> None:
        """It did not, or only to say that it is broken."""
        self._failures += 1
        self._until = self._clock() + self._seconds


class Server:
    """One server.

    Args:
        url: what paths are put after, like `http://127.0.0.1:8000`.
        key: sent as the bearer, and never shown.
        clock, sleep, random: for the waits between attempts.
        transport: in place of the network.
    """

    def __init__(
        self,
        url: str,
        key: str = "",
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Sleep = asyncio.sleep,
        random: Random | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.url = url.rstrip("/")
        self._key = key
        self._sleep = sleep
        self._random = random or Random()
        self.breaker = Breaker(clock)
        self._client = httpx.AsyncClient(
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx.Timeout(_SILENCE_SECONDS, connect=_CONNECT_SECONDS),
            limits=httpx.Limits(max_keepalive_connections=0),
            transport=transport,
        )

    async def ask(
        self, method: str, path: str, body: dict[str, Any] | None = None, *, final: frozenset[int] = frozenset()
    ) -> Any:
        """The JSON that the server answers; None for an answer that is not JSON.

        Args:
            final: statuses after which it is not asked again.

        Raises:
            ServerError: it refuses, or does not answer after several attempts. EngineError: it is left alone now.
        """
        async with aclosing(self._events(method, path, body, streamed=False, final=final)) as events:
            return await anext(events)

    async def stream(self, path: str, body: dict[str, Any]) -> AsyncGenerator[dict[str, Any]]:
        """The events of a streamed answer. Closing the generator closes the connection, which cancels the work.

        Attempts are repeated until the first event; what breaks off later is an error.

        Raises:
            ServerError: as `ask`, or the stream breaks off. EngineError: the server is left alone now.
        """
        async with aclosing(self._events("POST", path, body, streamed=True)) as events:
            async for event in events:
                yield event

    async def close(self) -> None:
        """Closes what is open."""
        await self._client.aclose()

    async def _events(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None,
        *,
        streamed: bool,
        final: frozenset[int] = frozenset(),
    ) -> AsyncGenerator[Any]:
        """What one request brings, after as many attempts as it takes."""
        backoff = Backoff(self._random, first=FIRST_WAIT, longest=LONGEST_WAIT)
        for attempt in range(ATTEMPTS):
            if not self.breaker.admit():
                raise EngineError(
                    tr(
                        "{url} failed {count} times in a row; next attempt in {seconds} s",
                        url=self.url,
                        count=BREAK_AFTER,
                        seconds=round(self.breaker.seconds_left) or 1,
                    )
                )
            begun = False
            try:
                async with aclosing(self._attempt(method, path, body, streamed=streamed)) as events:
                    async for event in events:
                        begun = True
                        yield event
                return
            except ServerError as error:
                if begun or error.status not in (_MOMENTARY | {0}) - final or attempt == ATTEMPTS - 1:
                    raise
                usual = backoff.next()
                wait = usual if error.wait is None else error.wait
            await self._sleep(wait)

    async def _attempt(
        self, method: str, path: str, body: dict[str, Any] | None, *, streamed: bool
    ) -> AsyncGenerator[Any]:
        has_answered = False
        try:
            async with self._client.stream(method, self.url + path, json=body) as response:
                has_answered = True
                if response.is_error:
                    await response.aread()
                    raise self._refusal(response)
                if streamed:
                    async with aclosing(self._parsed(response)) as events:
                        async for event in events:
                            yield event
                else:
                    await response.aread()
                    self.breaker.succeeded()
                    yield _json(response.text)
        except httpx.HTTPError as error:
            self.breaker.failed()
            reason = self._presentable(str(error) or type(error).__name__)
            if has_answered:
                text = tr("{url} broke off in the middle of an answer: {reason}", url=self.url, reason=reason)
            else:
                text = tr("{url} does not answer: {reason}", url=self.url, reason=reason)
            raise ServerError(text) from None

    async def _parsed(self, response: httpx.Response) -> AsyncGenerator[dict[str, Any]]:
        """The `data:` lines of a stream, up to the one that ends it."""
        async for line in response.aiter_lines():
            name, _, text = line.partition(":")
            if name == "data" and text.strip() == "[DONE]":
                return
            if name not in ("data", "error"):
                continue
            event = _json(text)
            if not isinstance(event, dict) or name == "error" or event.get("error"):
                self.breaker.failed()
                raise ServerError(
                    tr("{url} failed: {reason}", url=self.url, reason=self._presentable(_reason(event) or text))
                )
            self.breaker.succeeded()
            yield event
        self.breaker.failed()
        raise ServerError(tr("{url} broke off in the middle of an answer", url=self.url))

    def _refusal(self, response: httpx.Response) -> ServerError:
        status = response.status_code
        if status in _MOMENTARY - _ALIVE:
            self.breaker.failed()
        else:
            self.breaker.succeeded()
        reason = self._presentable(_reason(_json(response.text)) or response.reason_phrase)
        if status in (401, 403):
            reason = tr("{reason}; is the key in DOPPEL_ENGINE_KEY right?", reason=reason)
        text = tr("{url} answers {status}: {reason}", url=self.url, status=status, reason=reason)
        return ServerError(text, status, _wished_wait(response))

    def _presentable(self, reason: str) -> str:
        """One line, not too long, without the key."""
        line = next(iter(reason.strip().splitlines()), "")[:_LONGEST_REASON]
        return line.replace(self._key, "…") if self._key else line


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _reason(content: Any) -> str:
    """What an error's JSON says: OpenAI's `error.message`, or what others make of it."""
    for name in ("error", "message", "detail"):
        if isinstance(content, dict) and content.get(name):
            content = content[name]
    return content if isinstance(content, str) else ""


def _wished_wait(response: httpx.Response) -> float | None:
    try:
        return min(max(float(response.headers["Retry-After"]), 0.0), BREAK_SECONDS)
    except (KeyError, ValueError):
        return None
