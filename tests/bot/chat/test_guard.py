"""A reply that the guard objects to is written anew once, and then nothing is sent."""

import logging

import msgspec
import pytest

from bot.chat.responder import KEPT_BACK, SILENT
from doppel.adapters.guard import make_guard
from doppel.transcript import Turn
from tests.bot.conftest import MakeStage
from tests.bot.stage import FakePlatform, Stage, incoming
from tests.doppel.adapters.test_guard import SECRET

OTHER = "something else"


async def guarded(make_stage: MakeStage, **content: object) -> Stage:
    """A stage whose adapter was trained on what Ann said."""
    stage = await make_stage(FakePlatform(limit=200), **content)
    loaded = stage.voice.loaded
    assert loaded is not None
    persona = msgspec.structs.replace(loaded.persona, guard=make_guard([[Turn("Ann", (SECRET,))]]))
    stage.voice.switch(msgspec.structs.replace(loaded, persona=persona))
    return stage


async def answer(stage: Stage) -> list[str]:
    await stage.hear(incoming(1))
    await stage.clock.advance(60)
    return stage.platform.texts


async def test_it_is_written_anew_once(make_stage: MakeStage, caplog: pytest.LogCaptureFixture) -> None:
    stage = await guarded(make_stage)
    stage.engine.turns = [[SECRET[:30], SECRET[30:]], [OTHER]]
    assert await answer(stage) == [OTHER]
    assert "telegram: a reply is not sent: it repeats 8 words or more" in caplog.text
    assert SECRET[:20] not in caplog.text
    assert await stage.inbox_states() == [("answered", None)]


async def test_then_nothing_is_sent(make_stage: MakeStage, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    stage = await guarded(make_stage)
    stage.engine.turns = [[SECRET], [f"well, {SECRET}"], [OTHER]]
    assert await answer(stage) == []
    assert stage.engine.turns == [[OTHER]]
    assert await stage.inbox_states() == [("ignored", KEPT_BACK)]
    assert await stage.outbox_rows() == []
    assert SILENT not in caplog.text


async def test_silence_in_between_lets_nothing_through(make_stage: MakeStage) -> None:
    stage = await guarded(make_stage)
    stage.engine.turns = [[], [], [SECRET], [SECRET]]
    assert await answer(stage) == []
    assert await stage.inbox_states() == [("ignored", KEPT_BACK)]


async def test_it_can_be_turned_off(make_stage: MakeStage) -> None:
    stage = await guarded(make_stage, reply={"guard": False})
    stage.engine.turns = [[SECRET]]
    assert await answer(stage) == [SECRET]


async def test_an_adapter_without_a_guard_says_everything(make_stage: MakeStage) -> None:
    stage = await make_stage(FakePlatform(limit=200))
    stage.engine.turns = [[SECRET]]
    assert await answer(stage) == [SECRET]


async def test_a_post_is_guarded_too(make_stage: MakeStage) -> None:
    stage = await guarded(make_stage)
    stage.engine.turns = [[SECRET], [SECRET], [OTHER]]
    thought = await stage.voice.say(kind="post", platform="telegram")
    assert (thought.bubbles, thought.silence) == ((), KEPT_BACK)
    assert (await stage.voice.say(kind="post", platform="telegram")).bubbles == (OTHER,)
