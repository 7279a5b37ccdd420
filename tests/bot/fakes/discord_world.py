"""An offline Discord for the real discord.py client: simcord's, started where the client would connect."""

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Self

import discord
import simcord
from discord.http import HTTPClient
from simcord.http.client import FakeHTTPClient

TOKEN = "not-a-real-token"


class DiscordWorld:
    """One Discord. `async with DiscordWorld() as world:`, then give `world.start` to the platform as `start`.

    `await world.env()` is simcord's environment, once the client has come: it makes users, servers and faults.
    """

    def __init__(self, **options: Any) -> None:
        self._options = options
        self._env: simcord.Env | None = None
        self._came = asyncio.Event()
        self._lost: asyncio.Future[None] | None = None
        self.refusals: list[Exception] = []
        """What the next logins meet, one each."""
        self.holds_ready = False
        """Whether the next client stays connected without becoming ready, until `become_ready`."""
        self._become_ready: Callable[[], Awaitable[None]] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._env is not None:
            await self._env.shutdown()
            if kind is None:
                self._env.raise_errors()

    async def start(self, client: discord.Client, token: str) -> None:
        """Takes the place of `discord.Client.start`: logs in and stays until cancelled or `lose`."""
        if self.refusals:
            raise self.refusals.pop(0)
        if token != TOKEN:
            raise discord.LoginFailure("Improper token has been passed.")
        if self.holds_ready:
            self._hold_ready(client)
        if self._env is None:
            env = simcord.Env(client, **self._options)
            await env.start()
            self._env = env
        else:
            await self._env.restart_bot(client)
        self._lost = asyncio.get_running_loop().create_future()
        self._came.set()
        try:
            await self._lost
        finally:
            self._came.clear()

    def lose(self, error: Exception) -> None:
        """Ends the connection for a reason that discord.py does not mend itself."""
        assert self._lost is not None
        self._came.clear()
        self._lost.set_exception(error)

    async def become_ready(self) -> None:
        """Tells a client that was held by `holds_ready` that all servers are known."""
        assert self._become_ready is not None
        await self._become_ready()

    def _hold_ready(self, client: discord.Client) -> None:
        self._become_ready = client.on_ready  # type: ignore[attr-defined]

        async def on_ready() -> None:
            pass

        client.on_ready = on_ready  # type: ignore[attr-defined]

    async def env(self) -> simcord.Env:
        """The environment, when the client is connected."""
        await self._came.wait()
        assert self._env is not None
        return self._env


async def _logs_from(self: FakeHTTPClient, channel_id: int, limit: int, **where: int | None) -> Any:
    """Discord answers `after` with the next messages, newest first; simcord with the last ones."""
    if where.get("after") is None:
        return await HTTPClient.logs_from(self, channel_id, limit, **where)
    return (await HTTPClient.logs_from(self, channel_id, 10**9, **where))[-limit:]


FakeHTTPClient.logs_from = _logs_from  # type: ignore[method-assign,assignment]
