"""An HTTP client for a completions server: retries after short failures, and stops sending after repeated ones.

Connections are not kept open between requests, so that nothing is left in an event loop that ends; opening one
takes little time compared with a generation.
"""

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from random import Random
from typing import Any

import httpx

from doppel.engine import EngineError, EngineUnavailable
from doppel.i18n import tr
from doppel.system.backoff import Backoff

ATTEMPTS = 4
FIRST_WAIT, MAX_WAIT = 0.5, 8.0
MAX_FAILURES, BREAK_SECONDS = 5, 3.0
"""After so many failures in a row one request every few seconds shows whether the server is back. Longer, and people
wait for replies from a server that works again.
"""
MAX_RETRY_AFTER = 30.0
_CONNECT_SECONDS, _READ_SECONDS = 5.0, 300.0
_RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504})
_UNAVAILABLE = _RETRIED | {401, 403}  # with the right key the same request is served
_OVERLOADED = frozenset({408, 425, 429})  # the server works, and asks to slow down
_MAX_REASON = 200

Sleep = Callable[[float], Awaitable[None]]


class ServerError(EngineError):
    """The server refuses a request: sent again, it would be refused again."""

    def __init__(self, text: str, status: int = 0) -> None:
        super().__init__(text)
        self.status = status


class ServerUnavailable(EngineUnavailable, ServerError):
    """The server is away, overloaded, failing or does not accept the key. `status` is 0 where there was no response.

    `retry_after` is the wait that it asks for.
    """

    def __init__(self, text: str, status: int = 0, retry_after: float | None = None) -> None:
        EngineUnavailable.__init__(self, text, retry_after)
        self.status = status


class CircuitBreaker:
    """Refuses requests for a while after several failures in a row, then lets a single one through as a test.

    Args:
        clock: seconds, monotonic.
        max_failures: failures in a row after which it opens.
        seconds: how long it stays open.
    """

    def __init__(
        self, clock: Callable[[], float], max_failures: int = MAX_FAILURES, seconds: float = BREAK_SECONDS
    ) -> None:
        self._clock = clock
        self._max_failures = max_failures
        self._seconds = seconds
        self._failures = 0
        self._until = 0.0

    @property
    def seconds_left(self) -> float:
        """Until the next request is allowed; 0 when it is allowed now."""
        return max(0.0, self._until - self._clock()) if self._failures >= self._max_failures else 0.0

    def allow(self) -> bool:
        """Whether a request may be sent. While the test request runs, others are refused."""
        if self._failures < self._max_failures:
            return True
        if self.seconds_left:
            return False
        self._until = self._clock() + self._seconds
        return True

    def record_success(self) -> None:
        """The server responded."""
        self._failures = 0

    def record_failure(self) -> None:
        """The server did not respond, or with an error of its own."""
        self._failures += 1
        self._until = self._clock() + self._seconds


class ServerClient:
    """The connection to one server.

    Args:
        url: base URL without `/v1`, like `http://127.0.0.1:8000`.
        key: sent as the bearer token, and never shown.
        clock, sleep, random: for the waits between attempts.
        transport: replaces the network.
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
        self.breaker = CircuitBreaker(clock)
        self._client = httpx.AsyncClient(
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx.Timeout(_READ_SECONDS, connect=_CONNECT_SECONDS),
            limits=httpx.Limits(max_keepalive_connections=0),
            transport=transport,
        )

    async def request(
        self, method: str, path: str, body: dict[str, Any] | None = None, *, no_retry: frozenset[int] = frozenset()
    ) -> Any:
        """The JSON of the response; None for a response that is not JSON.

        Args:
            no_retry: statuses after which the request is not sent again.

        Raises:
            ServerError: the server refuses. ServerUnavailable: it does not respond, or fails, after several attempts.
            EngineUnavailable: the circuit breaker is open.
        """
        async with aclosing(self._events(method, path, body, streamed=False, no_retry=no_retry)) as events:
            return await anext(events)

    async def stream(self, path: str, body: dict[str, Any]) -> AsyncGenerator[dict[str, Any]]:
        """The events of a streamed response. Closing the generator closes the connection, which cancels the work.

        Retried until the first event; a later failure is an error.

        Raises:
            ServerError: the server refuses. EngineUnavailable: as `request`, or the stream breaks off.
        """
        async with aclosing(self._events("POST", path, body, streamed=True)) as events:
            async for event in events:
                yield event

    async def close(self) -> None:
        """Closes the connection."""
        await self._client.aclose()

    async def _events(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None,
        *,
        streamed: bool,
        no_retry: frozenset[int] = frozenset(),
    ) -> AsyncGenerator[Any]:
        """The events of one request, with retries."""
        backoff = Backoff(self._random, first=FIRST_WAIT, longest=MAX_WAIT)
        for attempt in range(ATTEMPTS):
            if not self.breaker.allow():
                raise EngineUnavailable(
                    tr(
                        "{url} failed {count} times in a row; next attempt in {seconds} s",
                        url=self.url,
                        count=MAX_FAILURES,
                        seconds=round(self.breaker.seconds_left) or 1,
                    ),
                    self.breaker.seconds_left,
                )
            begun = False
            try:
                async with aclosing(self._attempt(method, path, body, streamed=streamed)) as events:
                    async for event in events:
                        begun = True
                        yield event
                return
            except ServerError as error:
                if begun or error.status not in (_RETRIED | {0}) - no_retry or attempt == ATTEMPTS - 1:
                    raise
                seconds = backoff.next()
                if isinstance(error, ServerUnavailable) and error.retry_after is not None:
                    seconds = error.retry_after
            await self._sleep(seconds)

    async def _attempt(
        self, method: str, path: str, body: dict[str, Any] | None, *, streamed: bool
    ) -> AsyncGenerator[Any]:
        has_responded = False
        try:
            async with self._client.stream(method, self.url + path, json=body) as response:
                has_responded = True
                if response.is_error:
                    await response.aread()
                    raise self._error_of(response)
                if streamed:
                    async with aclosing(self._parse_events(response)) as events:
                        async for event in events:
                            yield event
                else:
                    await response.aread()
                    self.breaker.record_success()
                    yield _json(response.text)
        except httpx.HTTPError as error:
            self.breaker.record_failure()
            reason = self._presentable(str(error) or type(error).__name__)
            if has_responded:
                text = tr("{url} stopped in the middle of a response: {reason}", url=self.url, reason=reason)
            else:
                text = tr("{url} does not respond: {reason}", url=self.url, reason=reason)
            raise ServerUnavailable(text) from None

    async def _parse_events(self, response: httpx.Response) -> AsyncGenerator[dict[str, Any]]:
        """The `data:` lines of a stream, up to the one that ends it."""
        async for line in response.aiter_lines():
            name, _, text = line.partition(":")
            if name == "data" and text.strip() == "[DONE]":
                return
            if name not in ("data", "error"):
                continue
            event = _json(text)
            if not isinstance(event, dict) or name == "error" or event.get("error"):
                self.breaker.record_failure()
                raise ServerUnavailable(
                    tr("{url} failed: {reason}", url=self.url, reason=self._presentable(_reason(event) or text))
                )
            self.breaker.record_success()
            yield event
        self.breaker.record_failure()
        raise ServerUnavailable(tr("{url} stopped in the middle of a response", url=self.url))

    def _error_of(self, response: httpx.Response) -> ServerError:
        status = response.status_code
        if status in _RETRIED - _OVERLOADED:
            self.breaker.record_failure()
        else:
            self.breaker.record_success()
        reason = self._presentable(_reason(_json(response.text)) or response.reason_phrase)
        if status in (401, 403):
            reason = tr("{reason}; check the key in DOPPEL_ENGINE_KEY", reason=reason)
        text = tr("{url} responded with {status}: {reason}", url=self.url, status=status, reason=reason)
        if status in _UNAVAILABLE:
            return ServerUnavailable(text, status, _retry_after(response))
        return ServerError(text, status)

    def _presentable(self, reason: str) -> str:
        """The first line, shortened, without the key."""
        line = next(iter(reason.strip().splitlines()), "")[:_MAX_REASON]
        return line.replace(self._key, "…") if self._key else line


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _reason(content: Any) -> str:
    """The message of an error's JSON: OpenAI's `error.message`, or a variant of it."""
    for name in ("error", "message", "detail"):
        if isinstance(content, dict) and content.get(name):
            content = content[name]
    return content if isinstance(content, str) else ""


def _retry_after(response: httpx.Response) -> float | None:
    try:
        return min(max(float(response.headers["Retry-After"]), 0.0), MAX_RETRY_AFTER)
    except (KeyError, ValueError):
        return None
