"""The whole daemon on Telegram and Discord at once, against services that others wrote; only the engine is a fake."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from random import Random

import pytest
import simcord
from aiogram import types

from bot.app import Daemon, Dependencies
from bot.platforms import discord, telegram
from bot.platforms.discord.platform import DiscordPlatform
from bot.platforms.telegram.platform import TelegramPlatform
from doppel.config import Config
from doppel.transcript import Transcript, pseudonym
from tests.bot.fakes.discord_world import TOKEN as DISCORD_TOKEN
from tests.bot.fakes.discord_world import DiscordWorld
from tests.bot.fakes.telegram_server import ANNA, BOT, Fault, TelegramServer
from tests.bot.fakes.telegram_server import TOKEN as TELEGRAM_TOKEN
from tests.bot.harness import FakeEngine, config_in, publish

SERVER = 800000000000000000
STRANGER = types.User(id=6006, is_bot=False, first_name="Stranger")


class QuickClock:
    """A hundred seconds pass in one."""

    def __init__(self) -> None:
        self._began = asyncio.get_running_loop().time()

    def now(self) -> datetime:
        passed = asyncio.get_running_loop().time() - self._began
        return datetime.fromtimestamp(1767323045 + passed * 100, UTC)

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time() * 100

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(max(0.0, seconds) / 100)


class Services:
    """A Telegram, a Discord, the engine and the config between them."""

    def __init__(self, folder: Path, telegram: TelegramServer, world: DiscordWorld, transcript: Transcript) -> None:
        self.telegram = telegram
        self.world = world
        self.engine = FakeEngine(transcript)
        self.config: Config = config_in(
            folder,
            telegram={"api": telegram.url, "allow": [ANNA.id, -200]},
            discord={"allow": [SERVER]},
            web={"port": 0},
            reply={"stale_after": "36500d"},  # the fake Discord lives in another year
        )
        publish(self.config)

    @asynccontextmanager
    async def daemon(self, telegram_token: str = TELEGRAM_TOKEN) -> AsyncIterator[simcord.Env]:
        """A run of the daemon, ended in order."""
        clock = QuickClock()
        dependencies = Dependencies(
            environ={"TELEGRAM_TOKEN": telegram_token, "DISCORD_TOKEN": DISCORD_TOKEN},
            platforms={
                "telegram": replace(telegram.PLUGIN, open=partial(TelegramPlatform, sleep=clock.sleep)),
                "discord": replace(
                    discord.PLUGIN, open=partial(DiscordPlatform, start=self.world.start, sleep=clock.sleep)
                ),
            },
            open_engine=lambda _: self.engine,
            clock=clock,
            random=Random(1),
        )
        stop = asyncio.Event()
        running = asyncio.create_task(Daemon(self.config, dependencies).run(stop))
        try:
            async with asyncio.timeout(30):
                yield await self.world.env()
        finally:
            stop.set()
            async with asyncio.timeout(10):
                await running


@pytest.fixture
async def services(
    tmp_path: Path, tiny_transcript: Transcript, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Services]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    async with TelegramServer() as telegram, DiscordWorld() as world:
        yield Services(tmp_path, telegram, world, tiny_transcript)


class Server:
    """A Discord server that is allowed, with a channel and a member."""

    def __init__(self, env: simcord.Env) -> None:
        self.env = env
        self.guild = env.create_guild("Friends", id=SERVER)
        self.channel = self.guild.create_text_channel("general")
        self.anna = self.guild.add_member(env.create_user("anna", global_name="Anna"))

    async def mention(self, text: str) -> None:
        assert self.env.bot.user is not None
        await self.anna.send(self.channel, f"{self.env.bot.user.mention} {text}")

    def said(self) -> list[str]:
        assert self.env.bot.user is not None
        return [message.content for message in self.channel.history() if message.author.id == self.env.bot.user.id]


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - the offline Discord has no event for "a message was sent"
        await asyncio.sleep(0.005)


async def test_both_services_and_all_their_chats_are_answered_at_once(services: Services) -> None:
    services.engine.turns = [["hi", "how are you?"]] * 3
    services.engine.gate.clear()
    async with services.daemon() as env:
        server = Server(env)
        services.telegram.user_says("hello")
        mention = types.MessageEntity(type="mention", offset=0, length=len(f"@{BOT.username}"))
        services.telegram.group_says("nobody asked the persona this")
        asked = services.telegram.group_says(f"@{BOT.username} and you?", entities=[mention])
        await server.mention("hello 🎈")
        await until(lambda: len(services.engine.prompts) == 3)
        services.engine.gate.set()
        sent = [await services.telegram.next_sent() for _ in range(4)]
        await until(lambda: len(server.said()) == 2)
        typing = [request for request in env.http_requests if request.path.endswith("/typing")]
    by_chat = {chat: [request.text for request in sent if request.chat.id == chat] for chat in (ANNA.id, -200)}
    assert by_chat == {ANNA.id: ["hi", "how are you?"], -200: ["hi", "how are you?"]}
    assert server.said() == ["hi", "how are you?"]
    quoted = [request.reply_parameters for request in services.telegram.of("sendMessage")]
    assert [parameters.message_id for parameters in quoted if parameters] == [asked.message_id]
    assert {request.chat_id for request in services.telegram.of("sendChatAction")} == {ANNA.id, -200}
    assert typing
    assert any("nobody asked" in prompt and "and you?" in prompt for prompt in services.engine.prompts)
    assert not any(BOT.username in prompt for prompt in services.engine.prompts)


async def test_outages_of_one_service_do_not_touch_the_other_and_nothing_is_sent_twice(services: Services) -> None:
    services.engine.turns = [["on discord"], ["on telegram"]]
    server_error = Fault(500, "Internal Server Error")
    services.telegram.fail("getMe", Fault(cut="before"), server_error)
    services.telegram.fail("getUpdates", Fault(409, "Conflict: terminated by other getUpdates request"))
    services.telegram.fail("sendMessage", Fault(429, "Too Many Requests: retry after 30", retry_after=30), server_error)
    services.world.refusals = [ConnectionResetError()]
    async with services.daemon() as env:
        server = Server(env)
        env.inject_error("POST", "/channels/*/messages", status=503)
        await server.mention("hello")
        await until(lambda: server.said() == ["on discord"])
        services.telegram.user_says("hello")
        assert (await services.telegram.next_sent()).text == "on telegram"
    assert len(services.telegram.of("sendMessage")) == 3
    assert [request.text for request in services.telegram.sent] == ["on telegram"]
    assert server.said() == ["on discord"]
    nonces = [request.json["nonce"] for request in env.http_requests if request.path.endswith("/messages")]
    assert len(nonces) == 2
    assert len(set(nonces)) == 1


async def test_a_message_taken_in_before_the_end_is_answered_after_the_next_start(services: Services) -> None:
    services.engine.gate.clear()
    async with services.daemon() as env:
        server = Server(env)
        services.telegram.user_says("hello")
        await server.mention("hello")
        await until(lambda: len(services.engine.prompts) == 2)
    assert not services.telegram.sent
    services.engine.turns = [["here I am"], ["here I am"]]
    services.engine.gate.set()
    async with services.daemon():
        assert (await services.telegram.next_sent()).text == "here I am"
        await until(lambda: server.said() == ["here I am"])
    assert len(services.telegram.sent) == 1


async def test_strangers_get_nothing_and_the_log_says_whom_to_add(
    services: Services, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    services.engine.turns = [["hi"]]
    async with services.daemon() as env:
        services.telegram.user_says("/start", user=STRANGER)
        stranger = env.create_user("stranger")
        await stranger.send_dm("hello?")
        services.telegram.user_says("/start")
        services.telegram.user_says("hello")
        await services.telegram.next_sent()
        await until(lambda: str(stranger.id) in caplog.text)
    assert [request.chat.id for request in services.telegram.sent] == [ANNA.id]
    assert "add 6006 to telegram.allow" in caplog.text
    assert f"add {stranger.id} to discord.allow" in caplog.text
    assert len(services.engine.prompts) == 1
    assert "/start" not in services.engine.prompts[0]
    assert not [request for request in env.http_requests if request.path.endswith("/messages")]


async def test_a_refused_token_leaves_the_other_service_running(
    services: Services, caplog: pytest.LogCaptureFixture
) -> None:
    services.engine.turns = [["still here"]]
    withdrawn = "999999:withdrawn-token-of-another-bot"
    async with services.daemon(telegram_token=withdrawn) as env:
        server = Server(env)
        await server.mention("hello")
        await until(lambda: server.said() == ["still here"])
        await until(lambda: "Telegram refuses the token" in caplog.text)
    assert withdrawn not in caplog.text
    assert "Traceback" not in caplog.text


async def test_the_model_sees_what_a_message_answers(services: Services) -> None:
    services.engine.always = ["ok"]
    bob = types.User(id=7002, is_bot=False, first_name="Bob")
    group = types.Chat(id=-200, type="supergroup", title="Friends")
    older = types.Message(message_id=50, date=0, chat=group, from_user=bob, text="the boat leaves at 9")
    quote = types.TextQuote(text="at 9", position=16)
    elsewhere = types.ExternalReplyInfo(origin=types.MessageOriginHiddenUser(date=0, sender_user_name="Eve"))
    anna, other, unnamed = (pseudonym("telegram", sender) for sender in (str(ANNA.id), str(bob.id), ""))
    prompts = services.engine.prompts
    async with services.daemon() as env:

        async def ask(text: str, **fields: object) -> str:
            """The end of the prompt, after the persona's last turn before the question."""
            services.telegram.group_says(f"/ask@{BOT.username} {text}", **fields)
            await services.telegram.next_sent()
            return prompts[-1].removesuffix("\n\nme:").rpartition("me: ok\n\n")[2]

        assert (await ask("1", reply_to_message=older)).endswith(f"]\n\n{other}: the boat leaves at 9\n\n{anna}: 1")
        first = services.telegram.sent[-1]
        assert await ask("2", reply_to_message=older, quote=quote) == f"{other}: at 9\n\n{anna}: 2"
        assert await ask("3", external_reply=elsewhere, quote=quote) == f"{unnamed}: at 9\n\n{anna}: 3"
        # The persona's last turn is what is answered: nothing is added.
        assert await ask("4", reply_to_message=services.telegram.sent[-1]) == f"{anna}: 4"
        services.telegram.group_says("5", user=bob)
        services.telegram.group_says("6", user=bob)
        assert await ask("7", reply_to_message=first) == f"{anna}: 7"
        assert prompts[-1].endswith(f"{other}: 5\n 6\n\nme: ok\n\n{anna}: 7\n\nme:")

        server = Server(env)
        from_bob = await server.guild.add_member(env.create_user("bob")).send(server.channel, "the boat leaves at 9")
        await server.mention("8")
        await until(lambda: len(server.said()) == 1)
        assert env.bot.user is not None
        await server.anna.send(server.channel, f"{env.bot.user.mention} 9", reply_to=from_bob)
        await until(lambda: len(server.said()) == 2)
    anna, other = (pseudonym("discord", str(account)) for account in (server.anna.id, from_bob.author.id))
    boat = f"{other}: the boat leaves at 9"
    assert prompts[-1].endswith(f"]\n\n{boat}\n\n{anna}: 8\n\nme: ok\n\n{boat}\n\n{anna}: 9\n\nme:")
