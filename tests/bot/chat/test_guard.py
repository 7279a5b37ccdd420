"""A reply that the guard objects to is written anew once, and then nothing is sent."""

import logging

import msgspec
import pytest

from bot.store.schema import IgnoreReason
from doppel.adapters.guard import build_guard
from doppel.transcript import Turn
from tests.bot.conftest import MakeHarness
from tests.bot.harness import FakePlatform, Harness, incoming
from tests.doppel.adapters.test_guard import SECRET

OTHER = "something else"


async def guarded(make_harness: MakeHarness, **content: object) -> Harness:
    """A stage whose adapter was trained on what Ann said."""
    harness = await make_harness(FakePlatform(limit=200), **content)
    loaded = harness.responder.adapter
    assert loaded is not None
    persona = msgspec.structs.replace(loaded.persona, guard=build_guard([[Turn("Ann", (SECRET,))]]))
    harness.responder.switch_adapter(msgspec.structs.replace(loaded, persona=persona))
    return harness


async def answer(harness: Harness) -> list[str]:
    await harness.on_message(incoming(1))
    await harness.clock.advance(60)
    return harness.platform.texts


async def test_it_is_written_anew_once(make_harness: MakeHarness, caplog: pytest.LogCaptureFixture) -> None:
    harness = await guarded(make_harness)
    harness.engine.turns = [[SECRET[:30], SECRET[30:]], [OTHER]]
    assert await answer(harness) == [OTHER]
    assert "telegram: reply blocked: it quotes 8+ words of your archive" in caplog.text
    assert SECRET[:20] not in caplog.text
    assert await harness.inbox_states() == [("answered", None)]


async def test_then_nothing_is_sent(make_harness: MakeHarness, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    harness = await guarded(make_harness)
    harness.engine.turns = [[SECRET], [f"well, {SECRET}"], [OTHER]]
    assert await answer(harness) == []
    assert harness.engine.turns == [[OTHER]]
    assert await harness.inbox_states() == [("ignored", IgnoreReason.BLOCKED)]
    assert await harness.outbox_rows() == []
    assert IgnoreReason.SILENT not in caplog.text


async def test_silence_in_between_lets_nothing_through(make_harness: MakeHarness) -> None:
    harness = await guarded(make_harness)
    harness.engine.turns = [[], [], [SECRET], [SECRET]]
    assert await answer(harness) == []
    assert await harness.inbox_states() == [("ignored", IgnoreReason.BLOCKED)]


async def test_it_can_be_turned_off(make_harness: MakeHarness) -> None:
    harness = await guarded(make_harness, reply={"guard": False})
    harness.engine.turns = [[SECRET]]
    assert await answer(harness) == [SECRET]


async def test_an_adapter_without_a_guard_says_everything(make_harness: MakeHarness) -> None:
    harness = await make_harness(FakePlatform(limit=200))
    harness.engine.turns = [[SECRET]]
    assert await answer(harness) == [SECRET]


async def test_a_post_is_guarded_too(make_harness: MakeHarness) -> None:
    harness = await guarded(make_harness)
    harness.engine.turns = [[SECRET], [SECRET], [OTHER]]
    reply = await harness.responder.respond(kind="post", platform="telegram")
    assert (reply.bubbles, reply.reason) == ((), IgnoreReason.BLOCKED)
    assert (await harness.responder.respond(kind="post", platform="telegram")).bubbles == (OTHER,)
