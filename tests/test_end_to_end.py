"""The whole way with the bundled base: an export is built and trained on, the daemon answers in all three places, and
what is trained while it runs is in its next replies. Only Telegram's and Discord's own machines are imitated.
"""

import asyncio
import json
import logging
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from random import Random
from typing import Any, Protocol

import pytest
import simcord
import yaml
from playwright.async_api import Page, expect

from bot.app import Daemon, Dependencies
from bot.clock import SystemClock
from bot.commands.run import open_engine
from bot.platforms import discord
from bot.platforms.discord.platform import DiscordPlatform
from doppel.config import Config, load_config
from doppel.plugins import installed_platforms
from tests.bot.browser import CHROMIUM, NO_CHROMIUM, chromium, open_chat, send_message
from tests.bot.fakes.discord_world import TOKEN as DISCORD_TOKEN
from tests.bot.fakes.discord_world import DiscordWorld
from tests.bot.fakes.telegram_server import ANNA, TelegramServer
from tests.bot.fakes.telegram_server import TOKEN as TELEGRAM_TOKEN
from tests.scripts import run_python
from tests.training.exports import telegram_account, telegram_chat, telegram_message, write_json

SERVER = 800000000000000000
DISHES = ("dumplings", "plum cake", "noodles", "pancakes")
PLACES = ("harbour", "library", "garden")
DAY = 86_400
REPLY_SECONDS = 120


def account() -> Any:
    """A Telegram account of twelve short chats, a day apart; its owner writes thirty characters a second, in bursts."""
    chats = []
    for number, (dish, place) in enumerate(product(DISHES, PLACES)):
        tom = 3000 + number
        said = [
            (tom, f"there is {dish} at the {place}, are you coming?", 0),
            (1001, f"haha {dish}, of course i am", 21),
            (1001, "see you there at seven then", 22),
        ]
        messages = [
            telegram_message(number * 10 + position, sender, text, at=number * DAY + seconds)
            for position, (sender, text, seconds) in enumerate(said, 1)
        ]
        chats.append(telegram_chat(messages, id=tom, name=f"Tom {number}"))
    return telegram_account(*chats)


def write_config(folder: Path, telegram_api: str, seed: int) -> Path:
    """A config.yaml for a training of four steps and replies of a few words."""
    content = {
        "timezone": "UTC",
        "persona": {"name": "mara"},
        "archive": "result.json",
        "training": {"rank": 4, "epochs": 0.4, "max_length": 128, "sessions_per_step": 1, "seed": seed},
        "reply": {
            "debounce_seconds": 0.05,
            "max_tokens": 12,
            "max_bubbles": 1,
            "stale_after": "36500d",  # the fake Discord and Telegram live in other years
        },
        "telegram": {"api": telegram_api, "allow": [ANNA.id]},
        "discord": {"allow": [SERVER]},
        "web": {"port": 0},
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


async def doppel(command: str, config: Path) -> dict[str, Any]:
    """Runs a command as its user does, in a process of its own; returns what `--json` prints."""
    result: dict[str, Any] = json.loads(await run_python("-m", "doppel", command, "--config", str(config), "--json"))
    return result


class Place(Protocol):
    """Where one can talk to the persona, one message after the other."""

    name: str

    async def ask(self, text: str) -> str:
        """Writes a message; returns the reply's one bubble."""
        ...


class Telegram:
    name = "telegram"

    def __init__(self, server: TelegramServer) -> None:
        self._server = server

    async def ask(self, text: str) -> str:
        self._server.user_says(text)
        return (await self._server.next_sent()).text or ""


class Discord:
    name = "discord"

    def __init__(self, env: simcord.Env) -> None:
        self._bot = env.bot
        guild = env.create_guild("Friends", id=SERVER)
        self._channel = guild.create_text_channel("general")
        self._anna = guild.add_member(env.create_user("anna", global_name="Anna"))

    async def ask(self, text: str) -> str:
        me = self._bot.user
        assert me is not None
        reply = self._bot.wait_for("message", check=lambda message: message.author.id == me.id)
        await self._anna.send(self._channel, f"{me.mention} {text}")
        return str((await reply).content)


class Web:
    name = "web"

    def __init__(self, page: Page) -> None:
        self._page = page

    async def ask(self, text: str) -> str:
        theirs = self._page.locator("#chat .theirs:not(.typing)")
        before = await theirs.count()
        await send_message(self._page, text)
        await expect(theirs).to_have_count(before + 1, timeout=REPLY_SECONDS * 1000)
        text = await theirs.nth(before).evaluate("bubble => bubble.firstChild.textContent")
        return str(text).strip()  # what follows is a blank and the time


async def ask_everywhere(places: Sequence[Place], text: str) -> list[str]:
    """The replies of all places to the same message, asked at the same time."""
    async with asyncio.timeout(REPLY_SECONDS):
        return await asyncio.gather(*(place.ask(text) for place in places))


class Announcement(logging.Handler):
    """Waits for a line of the log, as somebody who watches the terminal does."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = text
        self._came = asyncio.Event()

    def emit(self, record: logging.LogRecord) -> None:
        if self._text in record.getMessage():
            self._came.set()

    async def wait(self) -> None:
        async with asyncio.timeout(30):
            await self._came.wait()


@asynccontextmanager
async def serving(config: Config, world: DiscordWorld) -> AsyncIterator[Daemon]:
    """The daemon with everything that `doppel run` gives it, but for the place where Discord would be."""
    around = Dependencies(
        environ={"TELEGRAM_TOKEN": TELEGRAM_TOKEN, "DISCORD_TOKEN": DISCORD_TOKEN},
        platforms={
            **installed_platforms().plugins,
            "discord": replace(discord.PLUGIN, open=partial(DiscordPlatform, start=world.start)),
        },
        open_engine=open_engine,
        clock=SystemClock(),
        random=Random(1),
    )
    stop = asyncio.Event()
    daemon = Daemon(config, around)
    async with asyncio.TaskGroup() as group:  # a daemon that fails ends the test, too
        running = group.create_task(daemon.run(stop))
        yield daemon
        stop.set()
        async with asyncio.timeout(10):
            report = await running
    assert report["adapter"] == "0002"
    assert report["platforms"] == ["discord", "telegram", "web"]


def rows(config: Config, query: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(config.root / config.store.url)) as database:
        return database.execute(query).fetchall()


@pytest.mark.slow
@pytest.mark.timeout(600)  # the base may have to be converted first
@pytest.mark.usefixtures("bundled_base")
async def test_from_an_export_to_replies_everywhere_and_to_the_next_adapter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, subtests: pytest.Subtests
) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    caplog.set_level(logging.INFO, logger="bot")
    write_json(tmp_path / "result.json", account())
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(TelegramServer())
        path = write_config(tmp_path, server.url, seed=0)
        built = await doppel("build", path)
        assert (built["read"], built["kept"]) == (36, 36)
        assert sum(built["sessions"].values()) == 12
        first = await doppel("train", path)
        assert first["version"] == "0001"
        assert first["plan"]["steps"] == 4
        assert first["bits_per_byte_after"] < first["bits_per_byte_before"]

        config = load_config(path)
        world = await stack.enter_async_context(DiscordWorld())
        daemon = await stack.enter_async_context(serving(config, world))
        places: list[Place] = [Telegram(server), Discord(await world.env())]
        with subtests.test("web"):
            if CHROMIUM is None:
                pytest.skip(NO_CHROMIUM)
            places.append(Web(await open_chat(await stack.enter_async_context(chromium()), daemon.port)))
        replies = [await ask_everywhere(places, "there is soup at the harbour, are you coming?")]

        switched = Announcement("switched to adapter 0002")
        logging.getLogger("bot").addHandler(switched)
        stack.callback(logging.getLogger("bot").removeHandler, switched)
        again = write_config(tmp_path, server.url, seed=1)
        second, meanwhile = await asyncio.gather(doppel("train", again), ask_everywhere(places, "and tomorrow?"))
        assert second["version"] == "0002"
        replies.append(meanwhile)
        await switched.wait()
        replies.append(await ask_everywhere(places, "are you there?"))

    assert rows(config, "select distinct state from inbox") == [("answered",)]
    assert rows(config, "select count(*) from inbox") == [(3 * len(places),)]
    for number, place in enumerate(places):
        delivered = rows(
            config,
            "select text, adapter, outbox.state from outbox join chats on chats.id = chat_id "
            f"where platform = '{place.name}' order by outbox.id",
        )
        assert [text for text, _, _ in delivered] == [reply[number] for reply in replies]
        assert {state for _, _, state in delivered} == {"sent"}
        versions = [version for _, version, _ in delivered]
        assert (versions[0], versions[-1]) == ("0001", "0002")
        assert versions == sorted(versions)
