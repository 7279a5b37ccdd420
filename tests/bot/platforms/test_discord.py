"""The real discord.py client against simcord's offline Discord."""

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import discord
import pytest
import simcord
from simcord.backend.models.message import Message, MessageSticker
from simcord.enums import MessageType

from bot.platforms import UNNAMED, Answered, Incoming, Outgoing, SendFailed
from bot.platforms.discord import PLUGIN
from bot.platforms.discord.platform import DiscordPlatform
from bot.platforms.discord.settings import DiscordSettings
from doppel.errors import DoppelError
from tests.bot.fakes.discord_stage import Daemon, Server, running
from tests.bot.fakes.discord_world import TOKEN, DiscordWorld
from training.archives.discord.chat_exporter import _sticker


@pytest.fixture
async def daemon_and_env() -> AsyncIterator[tuple[Daemon, simcord.Env]]:
    async with DiscordWorld() as world, running(world) as both:
        yield both


def sends(env: simcord.Env) -> list[dict[str, Any]]:
    return [
        request.json for request in env.http_requests if request.method == "POST" and request.path.endswith("/messages")
    ]


async def test_a_direct_message_becomes_incoming(daemon_and_env: tuple[Daemon, simcord.Env]) -> None:
    daemon, env = daemon_and_env
    anna = env.create_user("anna", global_name="Anna")
    message = await anna.send_dm("are you there?\n你好 🎈")
    assert await daemon.next() == Incoming(
        platform="discord",
        event_id=str(message.id),
        chat=str(anna.dm_channel.id),
        kind="dm",
        sender=str(anna.id),
        sender_name="Anna",
        text="are you there?\n你好 🎈",
        sent_at=message.created_at,
        message_id=str(message.id),
        mentions_bot=True,
        allow_ids=(str(anna.id),),
    )
    assert daemon.connections == 1


async def test_in_a_server_only_what_is_meant_for_the_persona_is_addressed(
    daemon_and_env: tuple[Daemon, simcord.Env],
) -> None:
    daemon, env = daemon_and_env
    server = Server(env)
    await server.anna.send(server.channel, "good morning all")
    await server.anna.send(server.channel, f"{server.me.mention} good morning")
    await server.anna.send(server.channel, f"{server.bob.mention} good morning")
    got = [await daemon.next() for _ in range(3)]
    assert [message.mentions_bot for message in got] == [False, True, False]
    assert [message.text for message in got] == ["good morning all", "good morning", "@Bob good morning"]
    assert {message.kind for message in got} == {"group"}
    assert {message.chat for message in got} == {str(server.channel.id)}
    assert {message.allow_ids for message in got} == {(str(server.channel.id), str(server.guild.id))}


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("<@{me}> hi", "hi"),
        ("<@!{me}>, hi", "hi"),
        ("hey <@{me}>, hi <@{bob}> in <#{channel}>", "hey, hi @Bob in #general"),
        ("<@{me}>", "{name}"),
        ("<@{me}> <:wave:123456789012345678><a:dance:123456789012345678>", ":wave::dance:"),
        ("<@{me}> a<b and <@12> and `<@1>`", "a<b and <@12> and `<@1>`"),
    ],
)
async def test_mentions_are_read_as_people_see_them(
    daemon_and_env: tuple[Daemon, simcord.Env], template: str, text: str
) -> None:
    daemon, env = daemon_and_env
    server = Server(env)
    text = text.format(name=server.me.display_name)
    content = template.format(me=server.me.id, bob=server.bob.id, channel=server.channel.id)
    await server.anna.send(server.channel, content)
    incoming = await daemon.next()
    assert (incoming.mentions_bot, incoming.text) == (True, text)


async def test_a_role_addresses_only_if_discord_made_it_for_the_bot(
    daemon_and_env: tuple[Daemon, simcord.Env], monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon, env = daemon_and_env
    server = Server(env)
    own = server.guild.create_role("Mina", mentionable=True)
    other = server.guild.create_role("Regulars", mentionable=True)
    # simcord makes no managed roles; Discord tags the one it makes for a bot with the bot's id.
    cached = env.bot.get_guild(server.guild.id)
    assert cached is not None
    role = cached.get_role(own.id)
    assert role is not None
    monkeypatch.setattr(role, "tags", discord.RoleTags({"bot_id": str(server.me.id)}))
    await server.anna.send(server.channel, f"{own.mention} hi")
    await server.anna.send(server.channel, f"{other.mention} hi")
    got = [await daemon.next() for _ in range(2)]
    assert [(message.mentions_bot, message.text) for message in got] == [(True, "hi"), (False, "@Regulars hi")]


async def test_a_reply_to_the_persona_addresses_and_others_do_not(daemon_and_env: tuple[Daemon, simcord.Env]) -> None:
    daemon, env = daemon_and_env
    server = Server(env)
    await daemon.platform.send(Outgoing(id=1, chat=str(server.channel.id), text="good morning"))
    own = server.channel.last_message
    assert own is not None
    from_bob = await server.bob.send(server.channel, "hm")
    await server.anna.send(server.channel, "why?", reply_to=own)
    await server.anna.send(server.channel, "why?", reply_to=from_bob)
    got = [await daemon.next() for _ in range(3)]
    assert [(message.text, message.mentions_bot) for message in got] == [("hm", False), ("why?", True), ("why?", False)]


def send_sticker(env: simcord.Env, server: Server, *names: str) -> Message:
    """Anna sends stickers, which simcord's people cannot."""
    stickers = [server.guild.create_sticker(name) for name in names]
    items = [MessageSticker(one.id, one.name, one.format_type, server.guild.id) for one in stickers]
    return env.backend.create_message(server.channel.id, server.anna.id, "", stickers=items)


async def test_what_a_message_answers_comes_with_it(daemon_and_env: tuple[Daemon, simcord.Env]) -> None:
    daemon, env = daemon_and_env
    server = Server(env)
    own_id = await daemon.platform.send(Outgoing(id=1, chat=str(server.channel.id), text="good morning"))
    own = server.channel.last_message
    assert own is not None
    content = f"{server.me.mention} ask {server.anna.mention} <:wave:123456789012345678>"
    from_bob = await server.bob.send(server.channel, content)
    robot = server.guild.add_member(env.create_user("robot", bot=True))
    from_robot = await robot.send(server.channel, "at 9")
    picture = await server.bob.send(server.channel, "", attachments=[("photo.png", b"not really")])
    forwarded = await server.bob.forward(from_robot, server.channel)
    joined = server.guild.create_system_message(server.channel, MessageType.NEW_MEMBER, author=server.bob)
    send_sticker(env, server, "wave hello")
    sticker = server.channel.last_message
    assert sticker is not None
    for answered in (own, from_bob, from_robot, picture, forwarded, joined, sticker):
        await server.anna.send(server.channel, "why?", reply_to=answered)
    got = [await daemon.next() for _ in range(9)]
    assert [message.answers for message in got if message.text != "why?"] == [None, None]
    assert [message.answers for message in got if message.text == "why?"] == [
        Answered(sender=None, text="good morning", message_id=own_id),
        Answered(sender=str(server.bob.id), text="ask @Anna :wave:", message_id=str(from_bob.id)),
        Answered(sender=str(robot.id), text="at 9", message_id=str(from_robot.id)),
        None,
        Answered(sender=UNNAMED, text="at 9", message_id=str(forwarded.id)),
        None,
        Answered(sender=str(server.anna.id), text=":wave_hello:", message_id=str(sticker.id)),
    ]


async def test_a_deleted_message_is_not_shown(daemon_and_env: tuple[Daemon, simcord.Env]) -> None:
    daemon, env = daemon_and_env
    server = Server(env)
    from_bob = await server.bob.send(server.channel, "hm")
    await server.bob.delete(from_bob)
    reference = {"channel_id": str(server.channel.id), "message_id": str(from_bob.id)}
    env.backend.create_message(server.channel.id, server.anna.id, "why?", reference=reference)
    got = [await daemon.next() for _ in range(2)]
    assert [(message.text, message.answers) for message in got] == [("hm", None), ("why?", None)]


async def test_stickers_are_read_as_in_an_archive(daemon_and_env: tuple[Daemon, simcord.Env]) -> None:
    daemon, env = daemon_and_env
    names = ("wave hello", "🎈", "ok")
    send_sticker(env, Server(env), *names)
    text = (await daemon.next()).text
    assert text == ":wave_hello: 🎈 :ok:"
    assert text == _sticker({"stickers": [{"name": name} for name in names]})


async def test_bots_webhooks_forwards_and_empty_messages_are_left_out(
    daemon_and_env: tuple[Daemon, simcord.Env],
) -> None:
    daemon, env = daemon_and_env
    server = Server(env)
    robot = server.guild.add_member(env.create_user("robot", bot=True))
    await robot.send(server.channel, f"{server.me.mention} hi")
    await server.guild.create_webhook(server.channel, "news").send("news")
    server.guild.create_system_message(server.channel, MessageType.NEW_MEMBER, author=server.bob)
    await server.anna.send(server.channel, "", attachments=[("photo.png", b"not really")])
    await daemon.platform.send(Outgoing(id=1, chat=str(server.channel.id), text="my own"))
    await server.anna.send(server.channel, "real")
    incoming = await daemon.next()
    assert (incoming.text, incoming.sender_name) == ("real", "Anna")


async def test_messages_keep_their_order(daemon_and_env: tuple[Daemon, simcord.Env]) -> None:
    daemon, env = daemon_and_env
    anna = env.create_user("anna")
    for number in range(20):
        await anna.send_dm(str(number))
    assert [(await daemon.next()).text for _ in range(20)] == [str(number) for number in range(20)]


async def test_a_bubble_notifies_nobody_and_is_sent_once(daemon_and_env: tuple[Daemon, simcord.Env]) -> None:
    daemon, env = daemon_and_env
    server = Server(env)
    chat = str(server.channel.id)
    asked = await server.anna.send(server.channel, f"{server.me.mention} hi")
    outgoing = Outgoing(id=7, chat=chat, text="hi @everyone 🎈", reply_to=str(asked.id))
    message_id = await daemon.platform.send(outgoing)
    assert server.channel.last_message is not None
    assert str(server.channel.last_message.id) == message_id
    (sent,) = sends(env)
    assert sent["content"] == "hi @everyone 🎈"
    assert sent["allowed_mentions"] == {"parse": []}
    assert sent["message_reference"]["message_id"] == asked.id
    assert sent["message_reference"]["fail_if_not_exists"] is False
    assert sent["enforce_nonce"] is True
    assert 1 <= len(sent["nonce"]) <= 25

    await daemon.platform.send(outgoing)
    await daemon.platform.send(Outgoing(id=8, chat=chat, text="hi @everyone 🎈"))
    await daemon.platform.send(Outgoing(id=7, chat=chat, text="from a new outbox"))
    nonces = [request["nonce"] for request in sends(env)]
    assert nonces[0] == nonces[1]
    assert len(set(nonces)) == 3
    assert daemon.platform.resend_is_safe


async def test_length_is_in_code_points_up_to_discords_limit(daemon_and_env: tuple[Daemon, simcord.Env]) -> None:
    daemon, env = daemon_and_env
    chat = str(Server(env).channel.id)
    assert [daemon.platform.length(text) for text in ("abc", "你好", "🎈", "")] == [3, 2, 1, 0]
    await daemon.platform.send(Outgoing(id=1, chat=chat, text="🎈" * daemon.platform.limit))
    with pytest.raises(SendFailed) as caught:
        await daemon.platform.send(Outgoing(id=2, chat=chat, text="🎈" * daemon.platform.limit + "x"))
    assert caught.value.permanent


@pytest.mark.parametrize(
    ("status", "permanent"), [(400, True), (403, True), (404, True), (429, False), (500, False), (503, False)]
)
async def test_failures_to_send_say_whether_trying_again_helps(
    daemon_and_env: tuple[Daemon, simcord.Env], status: int, permanent: bool
) -> None:
    daemon, env = daemon_and_env
    chat = str(Server(env).channel.id)
    env.inject_error("POST", "/channels/*/messages", status=status)
    with pytest.raises(SendFailed) as caught:
        await daemon.platform.send(Outgoing(id=1, chat=chat, text="hello"))
    assert caught.value.permanent is permanent
    assert not caught.value.unknown
    await daemon.platform.send(Outgoing(id=1, chat=chat, text="hello"))


@pytest.mark.parametrize(
    ("error", "retry_after", "unknown"),
    [
        (discord.RateLimited(90.5), 90.5, False),
        (aiohttp.ServerDisconnectedError(), None, True),
        (ConnectionResetError(), None, True),
        (TimeoutError(), None, True),
    ],
)
async def test_a_lost_answer_is_told_from_a_request_to_wait(
    daemon_and_env: tuple[Daemon, simcord.Env],
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    retry_after: float | None,
    unknown: bool,
) -> None:
    daemon, env = daemon_and_env
    chat = str(Server(env).channel.id)

    async def request(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(env.bot.http, "request", request)
    with pytest.raises(SendFailed) as caught:
        await daemon.platform.send(Outgoing(id=1, chat=chat, text="hello"))
    assert (caught.value.retry_after, caught.value.unknown) == (retry_after, unknown)
    assert str(caught.value)
    await daemon.platform.typing(chat)


async def test_typing_is_shown_once_and_its_failures_are_not(daemon_and_env: tuple[Daemon, simcord.Env]) -> None:
    daemon, env = daemon_and_env
    chat = str(Server(env).channel.id)
    await daemon.platform.typing(chat)
    assert [request.path for request in env.http_requests if request.path.endswith("/typing")] == [
        f"/channels/{chat}/typing"
    ]
    env.inject_error("POST", "/channels/*/typing", status=500)
    for target in (chat, "999", "general"):
        await daemon.platform.typing(target)


async def test_before_it_is_connected_nothing_is_lost_and_nothing_raised() -> None:
    platform = DiscordPlatform(DiscordSettings(), {"DISCORD_TOKEN": TOKEN})
    with pytest.raises(SendFailed, match="not connected") as caught:
        await platform.send(Outgoing(id=1, chat="1", text="hello"))
    assert not caught.value.permanent
    await platform.typing("1")
    await platform.close()


async def test_it_asks_for_no_more_than_it_needs(daemon_and_env: tuple[Daemon, simcord.Env]) -> None:
    _, env = daemon_and_env
    asked = {name for name, wanted in env.bot.intents if wanted}
    assert asked == {"guilds", "guild_messages", "dm_messages", "message_content"}


async def test_a_refused_token_is_a_clear_error() -> None:
    async with DiscordWorld() as world:
        daemon = Daemon(world, token="wrong-token")
        with pytest.raises(DoppelError, match="refuses the token") as caught:
            await daemon.platform.run(daemon.received.put, daemon.connected, daemon.newest)
        assert "wrong-token" not in str(caught.value)
        await daemon.platform.close()


async def test_a_missing_intent_is_a_clear_error() -> None:
    async with DiscordWorld(approved_intents=discord.Intents.default()) as world:
        daemon = Daemon(world)
        with pytest.raises(DoppelError, match="Message Content Intent"):
            await daemon.platform.run(daemon.received.put, daemon.connected, daemon.newest)
        await daemon.platform.close()


async def test_outages_are_waited_out_and_connected_is_told_once() -> None:
    async with DiscordWorld() as world:
        world.refusals = [aiohttp.ClientConnectionError("no route"), TimeoutError(), ConnectionResetError()]
        async with running(world) as (daemon, env):
            await env.create_user("anna").send_dm("still here?")
            assert (await daemon.next()).text == "still here?"
            world.lose(aiohttp.ClientConnectionError("cable cut"))
            await world.env()
            await env.create_user("bob").send_dm("and now?")
            assert (await daemon.next()).text == "and now?"
        first, second, third, after_a_success = daemon.waits
        assert first <= 1 <= second <= 2 <= third <= 4
        assert after_a_success <= 1
        assert daemon.connections == 1


async def test_a_lost_connection_is_one_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    platform = DiscordPlatform(DiscordSettings(), {"DISCORD_TOKEN": TOKEN})
    try:
        raise ConnectionResetError("reset by peer")
    except OSError:
        # As discord.client.Client.connect writes it.
        logging.getLogger("discord.client").exception("Attempting a reconnect in %.2fs", 1.5)
    assert caplog.messages == ["Attempting a reconnect in 1.50s: reset by peer"]
    assert "Traceback" not in caplog.text
    await platform.close()
    assert not logging.getLogger("discord.client").filters


async def test_what_receive_raises_ends_the_run_and_the_run_can_be_repeated() -> None:
    async with DiscordWorld() as world:
        daemon = Daemon(world)

        async def full_disk(_: Incoming) -> None:
            raise OSError("no space left on device")

        task = asyncio.create_task(daemon.platform.run(full_disk, daemon.connected, daemon.newest))
        env = await world.env()
        anna = env.create_user("anna")
        await anna.send_dm("first")
        with pytest.raises(OSError, match="no space left"):
            await task
        again = asyncio.create_task(daemon.platform.run(daemon.received.put, daemon.connected, daemon.newest))
        await world.env()
        await anna.send_dm("second")
        assert await daemon.texts(2) == ["first", "second"]
        again.cancel()
        await asyncio.gather(again, return_exceptions=True)
        await daemon.platform.close()


async def test_what_has_arrived_is_committed_before_it_stops() -> None:
    async with DiscordWorld() as world:
        daemon = Daemon(world)
        on_disk = asyncio.Event()

        async def slowly(incoming: Incoming) -> None:
            await on_disk.wait()
            await daemon.received.put(incoming)

        task = asyncio.create_task(daemon.platform.run(slowly, daemon.connected, daemon.newest))
        env = await world.env()
        anna = env.create_user("anna")
        for text in ("first", "second"):
            await anna.send_dm(text)
        task.cancel()
        await asyncio.sleep(0)
        on_disk.set()
        await asyncio.gather(task, return_exceptions=True)
        assert [daemon.received.get_nowait().text for _ in range(2)] == ["first", "second"]
        # Replies still go out after the intake has stopped, until `close`.
        await daemon.platform.send(Outgoing(id=1, chat=str(anna.dm_channel.id), text="bye"))
        await daemon.platform.close()


@pytest.mark.parametrize(
    ("settings", "environ", "reason"),
    [
        ({"enabled": False}, {"DISCORD_TOKEN": TOKEN}, "discord.enabled is false"),
        ({}, {}, "set DISCORD_TOKEN"),
        ({}, {"DISCORD_TOKEN": " "}, "set DISCORD_TOKEN"),
        ({}, {"DISCORD_TOKEN": TOKEN}, None),
    ],
)
def test_why_it_stays_off(settings: dict[str, object], environ: dict[str, str], reason: str | None) -> None:
    off = PLUGIN.off_reason(DiscordSettings.model_validate(settings), environ)
    assert off is None if reason is None else off is not None and reason in off
