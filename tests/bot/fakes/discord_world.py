"""An offline Discord for the real discord.py client: simcord's, started where the client would connect."""

import asyncio
from types import TracebackType
from typing import Any, Self

import discord
import simcord

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

    async def env(self) -> simcord.Env:
        """The environment, when the client is connected."""
        await self._came.wait()
        assert self._env is not None
        return self._env
