"""The real python-telegram-bot against a Bot API whose requests and answers aiogram checks."""

import asyncio
import json
import logging
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import pytest
from aiogram import types

from bot.platforms import UNNAMED, Answered, Incoming, Outgoing, SendFailed
from bot.platforms.telegram import PLUGIN
from bot.platforms.telegram import platform as telegram
from bot.platforms.telegram.messages import to_incoming
from bot.platforms.telegram.platform import TelegramPlatform
from bot.platforms.telegram.settings import TelegramSettings
from doppel.errors import DoppelError
from tests.bot.fakes.telegram_server import ANNA, BOT, TOKEN, Fault, TelegramServer
from tests.bot.harness import no_known_messages


class Daemon:
    """A running platform: what it received, how long it wanted to wait, and whether it still runs."""

    def __init__(self, url: str, **settings: object) -> None:
        self.waits: list[float] = []
        self.received: asyncio.Queue[Incoming] = asyncio.Queue()
        self.connected = asyncio.Event()
        self.platform = TelegramPlatform(
            TelegramSettings.model_validate({"api": url, **settings}),
            {"TELEGRAM_TOKEN": TOKEN},
            sleep=self.sleep,
            random=Random(1),
        )

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        await asyncio.sleep(0)

    async def next(self) -> Incoming:
        async with asyncio.timeout(10):
            return await self.received.get()


@asynccontextmanager
async def running(server: TelegramServer, **settings: object) -> AsyncIterator[Daemon]:
    daemon = Daemon(server.url, **settings)
    task = asyncio.create_task(daemon.platform.run(daemon.received.put, daemon.connected.set, no_known_messages))
    try:
        yield daemon
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await daemon.platform.close()


@pytest.fixture
async def server(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[TelegramServer]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    async with TelegramServer() as server:
        yield server


@pytest.fixture
async def daemon(server: TelegramServer) -> AsyncIterator[Daemon]:
    async with running(server) as daemon:
        yield daemon


def entity(kind: str, text: str, part: str, **fields: object) -> types.MessageEntity:
    """An entity as Telegram counts it: in UTF-16 units."""
    before = text[: text.index(part)]
    return types.MessageEntity(type=kind, offset=len(before.encode("utf-16-le")) // 2, length=units(part), **fields)


def units(text: str) -> int:
    return len(text.encode("utf-16-le")) // 2


async def test_a_private_message_becomes_incoming(server: TelegramServer, daemon: Daemon) -> None:
    message = server.user_says("are you there?\nhello 你好 🎈")
    incoming = await daemon.next()
    assert incoming == Incoming(
        platform="telegram",
        event_id="123456:501",
        chat="7001",
        kind="dm",
        sender="7001",
        sender_name="Anna Example",
        text="are you there?\nhello 你好 🎈",
        sent_at=message.date,
        message_id="101",
        mentions_bot=True,
        allow_ids=("7001",),
    )
    assert daemon.connected.is_set()


async def test_start_opens_the_chat_with_an_empty_text(server: TelegramServer, daemon: Daemon) -> None:
    server.user_says("/start")
    server.user_says("/start from-a-link")
    server.group_says("/start@MinaPersonaBot")
    server.user_says("/started early today")
    assert [(await daemon.next()).text for _ in range(3)] == ["", "", "/started early today"]


@pytest.mark.parametrize(
    ("text", "part", "rest"),
    [
        ("@MinaPersonaBot what now?", "@MinaPersonaBot", "what now?"),
        ("🎈🎈 hey @minapersonabot, look 🎈", "@minapersonabot", "🎈🎈 hey, look 🎈"),
        ("👨‍👩‍👧‍👦你好 @MINAPERSONABOT", "@MINAPERSONABOT", "👨‍👩‍👧‍👦你好"),
        ("@MinaPersonaBot", "@MinaPersonaBot", "Mina"),
    ],
)
async def test_a_mention_addresses_and_is_taken_out(
    server: TelegramServer, daemon: Daemon, text: str, part: str, rest: str
) -> None:
    server.group_says(text, entities=[entity("mention", text, part)])
    incoming = await daemon.next()
    assert (incoming.kind, incoming.mentions_bot, incoming.text) == ("group", True, rest)
    assert (incoming.chat, incoming.allow_ids) == ("-200", ("-200",))


async def test_mentions_of_others_stay_and_do_not_address(server: TelegramServer, daemon: Daemon) -> None:
    server.group_says("@bob look", entities=[types.MessageEntity(type="mention", offset=0, length=4)])
    text = "ask the persona 🎈 about it"
    server.group_says(text, entities=[entity("text_mention", text, "the persona 🎈", user=ANNA)])
    server.group_says(text, entities=[entity("text_mention", text, "the persona 🎈", user=BOT)])
    got = [await daemon.next() for _ in range(3)]
    assert [message.mentions_bot for message in got] == [False, False, True]
    assert [message.text for message in got] == ["@bob look", text, "ask about it"]


async def test_names_address_in_groups(server: TelegramServer) -> None:
    async with running(server, names=["小明", "Ming"]) as daemon:
        for text in ("小明你怎么看", "ming?", "Mina?", "flaming hot", "hi all"):
            server.group_says(text)
        assert [(await daemon.next()).mentions_bot for _ in range(5)] == [True, True, False, False, False]


async def test_the_accounts_first_name_counts_where_no_names_are_set(server: TelegramServer, daemon: Daemon) -> None:
    server.group_says("does Mina know?")
    incoming = await daemon.next()
    assert (incoming.mentions_bot, incoming.text) == (True, "does Mina know?")


async def test_who_allows_a_group_is_told_that_the_bot_may_not_hear_its_name(
    server: TelegramServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for allow in ((), ("7001",), ("7001", -200)):
        assert "/setprivacy" not in caplog.text
        async with running(server, allow=allow) as daemon, asyncio.timeout(10):
            await daemon.connected.wait()
    assert "/setprivacy" in caplog.text


async def test_a_reply_to_the_persona_addresses_and_others_do_not(server: TelegramServer, daemon: Daemon) -> None:
    group = types.Chat(id=-200, type="supergroup", title="Friends")
    own = types.Message(message_id=5, date=0, chat=group, from_user=BOT, text="hm")
    other = types.Message(message_id=6, date=0, chat=group, from_user=ANNA, text="hm")
    topic = types.ForumTopicCreated(name="News", icon_color=1)
    opening = types.Message(message_id=7, date=0, chat=group, from_user=BOT, forum_topic_created=topic)
    server.group_says("why?", reply_to_message=own)
    server.group_says("why?", reply_to_message=other)
    server.group_says("why?", reply_to_message=opening, message_thread_id=7, is_topic_message=True)
    assert [(await daemon.next()).mentions_bot for _ in range(3)] == [True, False, False]


GROUP = types.Chat(id=-200, type="supergroup", title="Friends")
BOB = types.User(id=7002, is_bot=False, first_name="Bob")
NEWS = types.Chat(id=-300, type="channel", title="News")
BALLOON = types.Sticker(
    file_id="a", file_unique_id="b", type="regular", width=1, height=1, is_animated=False, is_video=False, emoji="🎈"
)


def written(text: str | None = None, user: types.User = BOB, **fields: Any) -> types.Message:
    """Message 6 of the group, as it is shown in a reply to it."""
    return types.Message(message_id=6, date=0, chat=GROUP, from_user=user, text=text, **fields)


def elsewhere(kind: str, part: str | None, **fields: Any) -> dict[str, Any]:
    """A reply to a message in another chat, with the quoted part of it."""
    external = types.ExternalReplyInfo.model_validate({"origin": {"type": kind, "date": 0, **fields}})
    return {"external_reply": external, "quote": part and types.TextQuote(text=part, position=0)}


def answered(sender: str | None, text: str, message_id: str | None = "6") -> Answered:
    return Answered(sender=sender, text=text, message_id=message_id)


ANSWERED: list[tuple[dict[str, Any], Answered | None]] = [
    ({"reply_to_message": written("at 9 🎈")}, answered("7002", "at 9 🎈")),
    ({"reply_to_message": written("hm", BOT)}, answered(None, "hm")),
    (
        {"reply_to_message": written("we leave at 9"), "quote": types.TextQuote(text="at 9", position=9)},
        answered("7002", "at 9"),
    ),
    (
        {
            "reply_to_message": written("@MinaPersonaBot when?"),
            "quote": types.TextQuote(text="@MinaPersonaBot when", position=0),
        },
        answered("7002", "when"),
    ),
    (
        {
            "reply_to_message": written(
                "@MinaPersonaBot hi", entities=[entity("mention", "@MinaPersonaBot", "@MinaPersonaBot")]
            )
        },
        answered("7002", "hi"),
    ),
    ({"reply_to_message": written("/ask@MinaPersonaBot when?")}, answered("7002", "when?")),
    ({"reply_to_message": written(sticker=BALLOON)}, answered("7002", "🎈")),
    ({"reply_to_message": written(caption="the sea", photo=[])}, answered("7002", "the sea")),
    ({"reply_to_message": written(photo=[])}, None),
    ({"reply_to_message": written("we are open", sender_chat=NEWS)}, answered("-300", "we are open")),
    (
        {
            "reply_to_message": written(
                "forwarded", forward_origin=types.MessageOriginHiddenUser(date=0, sender_user_name="Somebody")
            )
        },
        answered(UNNAMED, "forwarded"),
    ),
    (elsewhere("user", "at 9", sender_user=BOB), answered("7002", "at 9", None)),
    (elsewhere("user", "hm", sender_user=BOT), answered(None, "hm", None)),
    (elsewhere("hidden_user", "at 9", sender_user_name="Somebody"), answered(UNNAMED, "at 9", None)),
    (elsewhere("channel", "we are open", chat=NEWS, message_id=6), answered("-300", "we are open", None)),
    (elsewhere("chat", "hi all", sender_chat=GROUP), answered("-200", "hi all", None)),
    (elsewhere("user", None, sender_user=BOB), None),
]


async def test_what_a_message_answers_comes_with_it(server: TelegramServer, daemon: Daemon) -> None:
    for fields, _ in ANSWERED:
        server.group_says("Mina?", **fields)
    assert [(await daemon.next()).answers for _ in ANSWERED] == [answers for _, answers in ANSWERED]


@pytest.mark.parametrize("has_entity", [True, False])
async def test_a_command_to_the_bot_addresses_it(server: TelegramServer, daemon: Daemon, has_entity: bool) -> None:
    def say(text: str, part: str, **fields: Any) -> None:
        server.group_says(text, entities=[entity("bot_command", text, part)] if has_entity else None, **fields)

    say("/ask@MinaPersonaBot what now?", "/ask@MinaPersonaBot")
    say("/ask@minapersonabot\nwhat now?", "/ask@minapersonabot")
    say("/ask@MinaPersonaBot", "/ask@MinaPersonaBot", reply_to_message=written("at 9"))
    say("/ask@OtherBot is Mina here?", "/ask@OtherBot")
    say("/ask@OtherBot and?", "/ask@OtherBot", reply_to_message=written("hm", BOT))
    say("/ask@MinaPersonaBotToo what now?", "/ask@MinaPersonaBotToo")
    say("/ask what now?", "/ask")
    got = [await daemon.next() for _ in range(7)]
    assert [(message.mentions_bot, message.text) for message in got] == [
        (True, "what now?"),
        (True, "what now?"),
        (True, "Mina"),
        (False, "/ask@OtherBot is Mina here?"),
        (False, "/ask@OtherBot and?"),
        (False, "/ask@MinaPersonaBotToo what now?"),
        (False, "/ask what now?"),
    ]
    assert got[2].answers == answered("7002", "at 9")


async def test_a_topic_is_a_chat_of_its_own(server: TelegramServer, daemon: Daemon) -> None:
    server.group_says("Mina?", message_thread_id=42, is_topic_message=True)
    server.group_says("Mina?", message_thread_id=43)
    incoming = await daemon.next()
    assert (incoming.chat, incoming.allow_ids) == ("-200/42", ("-200",))
    assert (await daemon.next()).chat == "-200"
    await daemon.platform.send(Outgoing(id=1, chat=incoming.chat, text="yes"))
    await daemon.platform.typing(incoming.chat)
    assert [request.message_thread_id for request in server.of("sendMessage") + server.of("sendChatAction")] == [42, 42]


async def test_captions_and_stickers_are_read_and_bare_media_is_not(server: TelegramServer, daemon: Daemon) -> None:
    chat = types.Chat(id=7001, type="private")
    photo = [types.PhotoSize(file_id="a", file_unique_id="b", width=1, height=1)]
    sticker = types.Sticker(
        file_id="a",
        file_unique_id="b",
        type="regular",
        width=1,
        height=1,
        is_animated=False,
        is_video=False,
        emoji="🎈",
    )
    server.post(chat=chat, from_user=ANNA, photo=photo)
    server.post(chat=chat, from_user=ANNA, photo=photo, caption="look")
    server.post(chat=chat, from_user=ANNA, sticker=sticker)
    assert [(await daemon.next()).text for _ in range(2)] == ["look", "🎈"]


async def test_bots_channels_and_edits_are_left_out(server: TelegramServer, daemon: Daemon) -> None:
    channel = types.Chat(id=-300, type="channel", title="News")
    other_bot = types.User(id=9, is_bot=True, first_name="Other")
    server.user_says("from a bot", user=other_bot)
    server.post(chat=channel, kind="channel_post", text="from a channel")
    server.group_says("as a channel", sender_chat=channel)
    server.post(
        chat=types.Chat(id=7001, type="private"), kind="edited_message", from_user=ANNA, text="edited", edit_date=1
    )
    server.user_says("real")
    assert (await daemon.next()).text == "real"
    assert {tuple(request.allowed_updates) for request in server.of("getUpdates")} == {("message",)}


async def test_telegram_is_told_only_after_the_message_is_on_disk(server: TelegramServer) -> None:
    daemon = Daemon(server.url)
    started, on_disk = asyncio.Event(), asyncio.Event()

    async def slowly(_: Incoming) -> None:
        started.set()
        await on_disk.wait()

    update_id = 501
    server.user_says("keep this")
    task = asyncio.create_task(daemon.platform.run(slowly, daemon.connected.set, no_known_messages))
    async with asyncio.timeout(10):
        await started.wait()
        assert [request.offset for request in server.of("getUpdates")] == [None]
        assert server.pending[0].update_id == update_id
        on_disk.set()
        polls = await server.asked("getUpdates", 2)
    assert polls[1].offset == update_id + 1
    assert not server.pending
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await daemon.platform.close()


async def test_a_crash_while_receiving_loses_nothing(server: TelegramServer) -> None:
    daemon = Daemon(server.url)

    async def full_disk(_: Incoming) -> None:
        raise OSError("no space left on device")

    server.user_says("first")
    server.user_says("second")
    with pytest.raises(OSError, match="no space left"):
        async with asyncio.timeout(10):
            await daemon.platform.run(full_disk, daemon.connected.set, no_known_messages)
    await daemon.platform.close()
    async with running(server) as again:
        assert [(await again.next()).text for _ in range(2)] == ["first", "second"]


@pytest.mark.parametrize(
    ("fault", "wait"),
    [
        (Fault(429, "Too Many Requests: retry after 7", retry_after=7), 7),
        (Fault(409, "Conflict: terminated by other getUpdates request"), None),
        (Fault(500, "Internal Server Error"), None),
        (Fault(502, body=b"<html>Bad Gateway</html>"), None),
        (Fault(200, body=b"not json"), None),
        (Fault(cut="before"), None),
        (Fault(cut="after"), None),
    ],
)
@pytest.mark.parametrize("method", ["getMe", "deleteWebhook", "getUpdates"])
async def test_outages_are_waited_out(server: TelegramServer, method: str, fault: Fault, wait: float | None) -> None:
    server.fail(method, fault, fault)
    async with running(server) as daemon:
        server.user_says("still here?")
        assert (await daemon.next()).text == "still here?"
    first, second = daemon.waits
    if wait is not None:
        assert (first, second) == (wait, wait)
    else:
        assert 0.5 <= first <= 1 <= second <= 2


async def test_a_webhook_left_behind_is_taken_away(server: TelegramServer) -> None:
    server.webhook = True
    server.user_says("hello")
    async with running(server) as daemon:
        assert (await daemon.next()).text == "hello"


async def test_a_second_program_with_the_same_token_is_named(
    server: TelegramServer, caplog: pytest.LogCaptureFixture
) -> None:
    server.fail("getUpdates", Fault(409, "Conflict: terminated by other getUpdates request"))
    async with running(server) as daemon, asyncio.timeout(10):
        await daemon.connected.wait()
    assert "another program uses the same TELEGRAM_TOKEN" in caplog.text


@pytest.mark.parametrize("status", [401, 404])
@pytest.mark.parametrize("method", ["getMe", "getUpdates"])
async def test_a_refused_token_is_a_clear_error(server: TelegramServer, method: str, status: int) -> None:
    server.fail(method, Fault(status, "Unauthorized"))
    daemon = Daemon(server.url)
    with pytest.raises(DoppelError, match="refuses the token") as caught:
        await daemon.platform.run(daemon.received.put, daemon.connected.set, no_known_messages)
    assert TOKEN not in "".join(traceback.format_exception(caught.value))
    assert not daemon.connected.is_set()
    await daemon.platform.close()


async def test_a_bubble_is_sent_as_plain_text_without_previews(server: TelegramServer, daemon: Daemon) -> None:
    message = server.user_says("hi")
    incoming = await daemon.next()
    outgoing = Outgoing(id=1, chat=incoming.chat, text="*no* _markup_ <b>here</b> 🎈", reply_to=incoming.message_id)
    assert await daemon.platform.send(outgoing) == str((await server.next_sent()).message_id)
    (request,) = server.of("sendMessage")
    assert request.text == outgoing.text
    assert request.link_preview_options.is_disabled
    assert request.reply_parameters.message_id == message.message_id
    assert request.reply_parameters.allow_sending_without_reply
    assert request.entities is None
    assert not isinstance(request.parse_mode, str)


async def test_length_is_in_utf16_units_and_the_limit_is_telegrams(server: TelegramServer, daemon: Daemon) -> None:
    platform = daemon.platform
    assert [platform.length(text) for text in ("abc", "你好", "🎈", "")] == [3, 2, 2, 0]
    server.user_says("hi")
    chat = (await daemon.next()).chat
    longest = "🎈" * (platform.limit // 2)
    await platform.send(Outgoing(id=1, chat=chat, text=longest))
    with pytest.raises(SendFailed, match="too long") as caught:
        await platform.send(Outgoing(id=2, chat=chat, text=longest + "x"))
    assert caught.value.permanent


@pytest.mark.parametrize(
    ("fault", "permanent", "retry_after", "unknown"),
    [
        (Fault(429, "Too Many Requests: retry after 31", retry_after=31), False, 31, False),
        (Fault(400, "Bad Request: group chat was upgraded", migrate_to=-1009), True, None, False),
        (Fault(403, "Forbidden: bot was kicked from the group chat"), True, None, False),
        (Fault(500, "Internal Server Error"), False, None, False),
        (Fault(401, "Unauthorized"), False, None, False),
        (Fault(502, "Bad Gateway"), False, None, True),
        (Fault(504, body=b""), False, None, True),
        (Fault(cut="before"), False, None, True),
        (Fault(cut="after"), False, None, True),
    ],
)
async def test_failures_to_send_say_what_to_do_next(
    server: TelegramServer, daemon: Daemon, fault: Fault, permanent: bool, retry_after: float | None, unknown: bool
) -> None:
    server.user_says("hi")
    chat = (await daemon.next()).chat
    server.fail("sendMessage", fault)
    with pytest.raises(SendFailed) as caught:
        await daemon.platform.send(Outgoing(id=1, chat=chat, text="hello"))
    error = caught.value
    assert (error.permanent, error.retry_after, error.unknown) == (permanent, retry_after, unknown)
    assert TOKEN not in "".join(traceback.format_exception(error))
    if fault.migrate_to:
        assert "-1009" in str(error)


async def test_one_chat_that_has_to_wait_does_not_halt_the_others(server: TelegramServer, daemon: Daemon) -> None:
    other = types.User(id=7002, is_bot=False, first_name="Bob")
    server.user_says("hi")
    server.user_says("hi", user=other)
    chats = [(await daemon.next()).chat for _ in range(2)]
    server.fail("sendMessage", Fault(429, "Too Many Requests: retry after 3600", retry_after=3600))
    with pytest.raises(SendFailed):
        await daemon.platform.send(Outgoing(id=1, chat=chats[0], text="hello"))
    await daemon.platform.send(Outgoing(id=2, chat=chats[1], text="hello"))
    assert [request.chat.id for request in server.sent] == [7002]


async def test_a_blocked_or_unknown_chat_is_given_up(server: TelegramServer, daemon: Daemon) -> None:
    server.user_says("hi")
    chat = (await daemon.next()).chat
    server.blocked.add(int(chat))
    for number, target in enumerate((chat, "999", "-200/general")):
        with pytest.raises(SendFailed) as caught:
            await daemon.platform.send(Outgoing(id=number, chat=target, text="hello"))
        assert caught.value.permanent


async def test_nothing_has_left_where_nobody_listens() -> None:
    async with TelegramServer() as gone:
        url = gone.url
    daemon = Daemon(url)
    with pytest.raises(SendFailed) as caught:
        await daemon.platform.send(Outgoing(id=1, chat="7001", text="hello"))
    assert not caught.value.permanent
    assert not caught.value.unknown
    await daemon.platform.typing("7001")
    await daemon.platform.close()


async def test_typing_is_shown_and_its_failures_are_not(server: TelegramServer, daemon: Daemon) -> None:
    server.user_says("hi")
    chat = (await daemon.next()).chat
    await daemon.platform.typing(chat)
    assert [request.action for request in server.of("sendChatAction")] == ["typing"]
    server.fail("sendChatAction", Fault(500, "Internal Server Error"), Fault(cut="before"))
    for target in (chat, chat, "999", "-1/x"):
        await daemon.platform.typing(target)


async def test_typing_that_is_no_longer_wanted_leaves_no_connection_occupied(
    server: TelegramServer, daemon: Daemon
) -> None:
    server.user_says("hello")
    await daemon.next()
    loop, tick = asyncio.get_running_loop(), 0.0005
    for number in range(400):
        typing = asyncio.create_task(daemon.platform.typing(str(ANNA.id)))
        loop.call_later(number % 20 * tick, typing.cancel)  # while it connects, asks, or waits for the answer
        await asyncio.wait((typing,))
    await daemon.platform.send(Outgoing(id=1, chat=str(ANNA.id), text="ok", reply_to=None))
    connections = daemon.platform._application.bot.request._client._transport._pool.connections  # type: ignore[attr-defined]
    assert all(connection.is_idle() for connection in connections)


async def test_typing_leaves_connections_for_messages_when_telegram_is_slow(
    server: TelegramServer, daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = asyncio.Event()

    async def slowly(_: object) -> bool:
        await answer.wait()
        return True

    server.user_says("hello")
    await daemon.next()
    monkeypatch.setattr(server, "_sendchataction", slowly)
    typing = [asyncio.create_task(daemon.platform.typing(str(ANNA.id))) for _ in range(40)]
    await server.asked("sendChatAction")
    assert await daemon.platform.send(Outgoing(id=1, chat=str(ANNA.id), text="ok", reply_to=None))
    answer.set()
    await asyncio.gather(*typing)


async def test_typing_does_not_use_up_a_groups_messages(server: TelegramServer, daemon: Daemon) -> None:
    server.group_says("Mina?")
    chat = (await daemon.next()).chat
    async with asyncio.timeout(10):
        for _ in range(30):
            await daemon.platform.typing(chat)
        await daemon.platform.send(Outgoing(id=1, chat=chat, text="yes"))
    assert len(server.sent) == 1


async def test_the_token_is_never_logged(server: TelegramServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    server.fail("getUpdates", Fault(cut="before"), Fault(502, body=b"x"), Fault(429, "slow", retry_after=1))
    server.fail("sendMessage", Fault(429, "slow", retry_after=1), Fault(cut="after"))
    async with running(server) as daemon:
        server.user_says("hi")
        chat = (await daemon.next()).chat
        for number in range(2):
            with pytest.raises(SendFailed):
                await daemon.platform.send(Outgoing(id=number, chat=chat, text="hello"))
        server.fail("getUpdates", Fault(401, "Unauthorized"))
    assert "cannot be reached" in caplog.text
    assert "HTTP Request" in caplog.text
    assert TOKEN not in caplog.text
    assert TOKEN.partition(":")[2] not in caplog.text
    assert not [record for record in caplog.records if record.exc_info], "tracebacks for what is handled"


async def test_a_socks_proxy_in_the_environment_does_no_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:9")
    platform = Daemon("http://telegram.invalid").platform
    with pytest.raises(SendFailed) as caught:
        await platform.send(Outgoing(id=1, chat="7001", text="hello"))
    assert not caught.value.permanent
    assert not caught.value.unknown
    await platform.close()


@pytest.mark.parametrize(
    ("settings", "environ", "reason"),
    [
        ({"enabled": False}, {"TELEGRAM_TOKEN": TOKEN}, "telegram.enabled is false"),
        ({}, {}, "set TELEGRAM_TOKEN"),
        ({}, {"TELEGRAM_TOKEN": "  "}, "set TELEGRAM_TOKEN"),
        ({}, {"TELEGRAM_TOKEN": "my token"}, "is not a token"),
        ({}, {"TELEGRAM_TOKEN": "123456:"}, "is not a token"),
        ({}, {"TELEGRAM_TOKEN": f" {TOKEN}\n"}, None),
    ],
)
def test_why_it_stays_off(settings: dict[str, object], environ: dict[str, str], reason: str | None) -> None:
    off = PLUGIN.off_reason(TelegramSettings.model_validate(settings), environ)
    assert off is None if reason is None else off is not None and reason in off


async def test_an_update_that_cannot_be_read_is_left_out_and_the_others_are_not(
    server: TelegramServer, caplog: pytest.LogCaptureFixture
) -> None:
    good = {"message_id": 9, "date": 1767323045, "chat": {"id": 7001, "type": "private"}, "text": "still there?"}
    sender = {"id": 7001, "is_bot": False, "first_name": "Anna"}
    updates = [
        {"update_id": 900, "message": {"text": "without a chat"}},
        {"update_id": 901, "message": {**good, "from": sender}},
        {"update_id": 902, "message": "not even a message"},
    ]
    server.fail("getUpdates", Fault(status=200, body=json.dumps({"ok": True, "result": updates}).encode()))
    async with running(server) as daemon, asyncio.timeout(10):
        assert (await daemon.next()).text == "still there?"
        first, second = await server.asked("getUpdates", 2)
    assert (first.offset, second.offset) == (None, 903)
    assert caplog.text.count("skipped a message that could not be read") == 2
    assert "without a chat" not in caplog.text
    assert daemon.waits == []


async def test_a_message_that_cannot_be_translated_does_not_come_again(
    server: TelegramServer, daemon: Daemon, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails_once(*args: Any) -> Incoming | None:
        monkeypatch.setattr(telegram, "to_incoming", to_incoming)
        raise ValueError("odd")

    monkeypatch.setattr(telegram, "to_incoming", fails_once)
    server.user_says("odd")
    server.user_says("even")
    assert (await daemon.next()).text == "even"
    assert caplog.text.count("skipped a message that could not be read") == 1


async def test_an_update_that_always_fails_is_skipped_after_three_deliveries(
    server: TelegramServer, caplog: pytest.LogCaptureFixture
) -> None:
    daemon = Daemon(server.url)

    async def receive(incoming: Incoming) -> None:
        if incoming.text == "poison":
            raise KeyError("a bug")
        await daemon.received.put(incoming)

    server.user_says("before")
    server.user_says("poison")
    server.user_says("after")
    for _ in range(2):
        with pytest.raises(KeyError):
            await daemon.platform.run(receive, daemon.connected.set, no_known_messages)
    task = asyncio.create_task(daemon.platform.run(receive, daemon.connected.set, no_known_messages))
    while (await daemon.next()).text != "after":
        pass
    assert "Telegram: skipped update 502" in caplog.text
    assert "poison" not in caplog.text
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await daemon.platform.close()


async def test_an_update_is_tried_again_while_the_store_fails(
    server: TelegramServer, caplog: pytest.LogCaptureFixture
) -> None:
    daemon = Daemon(server.url)
    failures = [DoppelError("doppel.db: database or disk is full")] * 20

    async def receive(incoming: Incoming) -> None:
        if failures:
            assert server.pending  # not acknowledged
            raise failures.pop()
        await daemon.received.put(incoming)

    server.user_says("keep this")
    server.user_says("and this")
    task = asyncio.create_task(daemon.platform.run(receive, daemon.connected.set, no_known_messages))
    assert [(await daemon.next()).text for _ in range(2)] == ["keep this", "and this"]
    assert len(daemon.waits) == 20
    assert max(daemon.waits) <= telegram.LONGEST_RETRY_WAIT
    assert caplog.text.count("disk is full") == 1
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await daemon.platform.close()


async def test_a_bubble_that_is_confirmed_too_late_is_in_doubt(
    server: TelegramServer, daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    confirm = asyncio.Event()
    accept = server._sendmessage

    async def slowly(call: Any) -> types.Message:
        message = await accept(call)
        await confirm.wait()
        return message

    server.user_says("hello")
    await daemon.next()
    monkeypatch.setattr(server, "_sendmessage", slowly)
    monkeypatch.setattr(telegram, "SEND_TIMEOUT", 0.01)
    with pytest.raises(SendFailed) as failed:
        await daemon.platform.send(Outgoing(id=1, chat=str(ANNA.id), text="ok", reply_to=None))
    assert failed.value.unknown
    monkeypatch.setattr(telegram, "SEND_TIMEOUT", 60.0)
    asyncio.get_running_loop().call_later(0.05, confirm.set)
    assert await daemon.platform.send(Outgoing(id=2, chat=str(ANNA.id), text="ok", reply_to=None))
