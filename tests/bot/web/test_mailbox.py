"""The web chat's mailbox."""

import asyncio

import pytest

from bot.platforms import Incoming, Outgoing
from bot.web import PLUGIN, mailbox
from bot.web.mailbox import Mailbox
from bot.web.settings import WebSettings
from tests.bot.harness import no_known_messages


@pytest.fixture
def web() -> Mailbox:
    return Mailbox()


async def test_message_typed_before_the_daemon_listens_waits(web: Mailbox) -> None:
    received: list[Incoming] = []

    async def receive(incoming: Incoming) -> None:
        assert web.revision("a") == 0  # pages are told only after the message is safe
        received.append(incoming)

    typed = asyncio.create_task(web.submit("a", "hello", "1"))
    await asyncio.sleep(0)
    assert received == []
    connected = asyncio.Event()
    listening = asyncio.create_task(web.run(receive, connected.set, no_known_messages))
    await typed
    assert connected.is_set()
    (message,) = received
    assert (message.platform, message.chat, message.kind, message.text) == ("web", "a", "dm", "hello")
    assert message.mentions_bot
    assert web.revision("a") == 1
    listening.cancel()
    await asyncio.gather(listening, return_exceptions=True)
    await web.close()


async def test_a_message_is_known_by_its_chat_and_the_pages_id(web: Mailbox) -> None:
    received: list[str] = []

    async def receive(incoming: Incoming) -> None:
        received.append(incoming.event_id)

    listening = asyncio.create_task(web.run(receive, lambda: None, no_known_messages))
    for client_id in ("1", "2", "2"):
        await web.submit("a", "ok", client_id)
    await web.submit("b", "ok", "2")  # the id of another visitor's message
    assert received == ["a:1", "a:2", "a:2", "b:2"]
    listening.cancel()
    await asyncio.gather(listening, return_exceptions=True)


async def test_typing_ends_with_the_bubble_or_fades(web: Mailbox, monkeypatch: pytest.MonkeyPatch) -> None:
    await web.typing("a")
    assert web.is_typing("a")
    assert not web.is_typing("b")
    assert await web.send(Outgoing(id=5, chat="a", text="hi")) == "5"
    assert not web.is_typing("a")
    assert web.revision("a") == 1
    monkeypatch.setattr(mailbox, "TYPING_SECONDS", 0.0)
    await web.typing("a")
    assert not web.is_typing("a")


def test_needs_no_account_and_counts_characters(web: Mailbox) -> None:
    assert PLUGIN.off_reason(WebSettings(), {}) is None
    assert web.length("😀a") == 2
