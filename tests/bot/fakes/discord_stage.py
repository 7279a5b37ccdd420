"""A Discord platform of ours in an offline Discord, and a server with people in it."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from random import Random

import simcord

from bot.platforms import Incoming
from bot.platforms.discord.platform import DiscordPlatform
from bot.platforms.discord.settings import DiscordSettings
from tests.bot.fakes.discord_world import TOKEN, DiscordWorld


class Daemon:
    """A running platform with what it received and how long it wanted to wait."""

    def __init__(self, world: DiscordWorld, token: str = TOKEN, *, allow: Sequence[int] = (), room: int = 0) -> None:
        self.waits: list[float] = []
        self.may_wake = asyncio.Event()
        self.may_wake.set()
        self.received: asyncio.Queue[Incoming] = asyncio.Queue(room)
        self.now = datetime(2026, 1, 1, 12, tzinfo=UTC)  # simcord's clock starts at midnight
        self.connections = 0
        self.known: dict[str, str] = {}
        self.platform = DiscordPlatform(
            DiscordSettings.model_validate({"allow": list(allow)}),
            {"DISCORD_TOKEN": token},
            start=world.start,
            sleep=self.sleep,
            random=Random(1),
            now=lambda: self.now,
        )

    async def newest(self) -> dict[str, str]:
        return self.known

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        await asyncio.sleep(0)
        await self.may_wake.wait()

    async def texts(self, count: int) -> list[str]:
        """The texts of the next messages."""
        return [(await self.next()).text for _ in range(count)]

    async def settle(self) -> None:
        """Lets everything happen that needs no time to pass."""
        for _ in range(200):
            await asyncio.sleep(0)

    def connected(self) -> None:
        self.connections += 1

    async def next(self) -> Incoming:
        async with asyncio.timeout(10):
            return await self.received.get()


@asynccontextmanager
async def running(
    world: DiscordWorld,
    known: dict[str, str] | None = None,
    *,
    days: int = 0,
    allow: Sequence[int] = (),
    room: int = 0,
    wakes: bool = True,
) -> AsyncIterator[tuple[Daemon, simcord.Env]]:
    """A running daemon. It receives while there is `room` (0: always); its waits end at once if it `wakes`."""
    daemon = Daemon(world, allow=allow, room=room)
    if not wakes:
        daemon.may_wake.clear()
    daemon.known = known or {}
    daemon.now += timedelta(days=days)
    task = asyncio.create_task(daemon.platform.run(daemon.received.put, daemon.connected, daemon.newest))
    try:
        async with asyncio.timeout(10):
            env = await world.env()
        yield daemon, env
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await daemon.platform.close()


class Server:
    """A server with a channel and a member."""

    def __init__(self, env: simcord.Env) -> None:
        self.guild = env.create_guild("Friends")
        self.channel = self.guild.create_text_channel("general")
        self.anna = self.guild.add_member(env.create_user("anna", global_name="Anna"))
        self.bob = self.guild.add_member(env.create_user("bob", global_name="Bob"))
        assert env.bot.user is not None
        self.me = env.bot.user
