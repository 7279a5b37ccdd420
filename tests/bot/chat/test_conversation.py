"""When the persona answers what: debounce, thinking again, failures, groups, history."""

import asyncio
import logging

import pytest

from bot.platforms import SendFailed
from doppel.engine import EngineError
from doppel.transcript import pseudonym
from tests.bot.conftest import MakeStage
from tests.bot.stage import FakePlatform, Stage, incoming

ANN = pseudonym("telegram", "7")


async def test_reply_is_sent_bubble_by_bubble_and_marked_answered(stage: Stage) -> None:
    stage.engine.turns = [["hi!", "how are you"]]
    await stage.hear(incoming(1, "hello"))
    await stage.clock.advance(60)
    assert stage.platform.texts == ["hi!", "how are you"]
    assert await stage.inbox_states() == [("answered", None)]
    assert await stage.bubbles() == [("hi!", "sent"), ("how are you", "sent")]
    assert [row.adapter for row in await stage.outbox_rows()] == ["0001", "0001"]
    assert f"{ANN}: hello\n\nme:" in stage.engine.prompts[0]


async def test_waits_for_silence_before_thinking(stage: Stage) -> None:
    stage.engine.turns = [["ok"]]
    await stage.hear(incoming(1, "one"))
    await stage.clock.advance(1.5)
    await stage.hear(incoming(2, "two"))
    await stage.clock.advance(1.9)
    assert stage.engine.prompts == []
    await stage.clock.advance(0.1)
    assert len(stage.engine.prompts) == 1
    assert f"{ANN}: one\n two\n\nme:" in stage.engine.prompts[0]
    await stage.clock.advance(60)
    assert stage.platform.texts == ["ok"]


async def test_message_while_thinking_makes_it_think_again(stage: Stage) -> None:
    stage.engine.gate.clear()
    stage.engine.turns = [["both"]]
    await stage.hear(incoming(1, "one"))
    await stage.clock.advance(3)
    await stage.hear(incoming(2, "two"))
    assert stage.engine.cancelled == 1
    await stage.clock.advance(3)
    assert f"{ANN}: one\n two\n\nme:" in stage.engine.prompts[1]
    stage.engine.gate.set()
    await stage.clock.advance(60)
    assert stage.platform.texts == ["both"]
    assert await stage.inbox_states() == [("answered", None)] * 2


async def test_thinks_again_only_once(stage: Stage) -> None:
    stage.engine.gate.clear()
    stage.engine.turns = [["first"], ["second"]]
    for event in (1, 2, 3):
        await stage.hear(incoming(event, f"text {event}"))
        await stage.clock.advance(3)
    assert stage.engine.cancelled == 1
    stage.engine.gate.set()
    await stage.clock.advance(60)
    assert stage.platform.texts == ["first", "second"]
    assert "text 3" not in stage.engine.prompts[1]
    assert stage.engine.prompts[2].endswith(f"{ANN}: text 3\n\nme:")


async def test_message_before_all_bubbles_are_sent_drops_the_rest(stage: Stage) -> None:
    stage.engine.turns = [["aa", "bb", "cc"], ["dd"]]
    await stage.hear(incoming(1, "one"))
    await stage.clock.advance(2 + 1.0)
    assert stage.platform.texts == ["aa"]
    await stage.hear(incoming(2, "two"))
    await stage.clock.advance(60)
    assert stage.platform.texts == ["aa", "dd"]
    assert await stage.bubbles() == [("aa", "sent"), ("bb", "failed"), ("cc", "failed"), ("dd", "sent")]
    assert (await stage.outbox_rows())[1].error == "a new message came before it was sent"
    assert stage.engine.prompts[1].endswith(f"{ANN}: one\n\nme: aa\n\n{ANN}: two\n\nme:")


async def test_several_chats_at_once(make_stage: MakeStage) -> None:
    stage = await make_stage(telegram={"allow": [7, 8]})
    stage.engine.turns = [["aaaa"], ["bbbb"]]
    await stage.hear(incoming(1), incoming(2, chat="8", sender="8"))
    await stage.clock.advance(4)
    assert sorted(stage.platform.sent) == [(4.0, "aaaa"), (4.0, "bbbb")]


async def test_same_event_gets_one_reply(stage: Stage) -> None:
    stage.engine.turns = [["ok"], ["again"]]
    await stage.hear(incoming(1), incoming(1))
    await stage.clock.advance(60)
    await stage.hear(incoming(1))
    await stage.clock.advance(60)
    assert stage.platform.texts == ["ok"]


async def test_group_is_answered_when_addressed_and_listened_to_otherwise(stage: Stage) -> None:
    stage.engine.turns = [["ok", "yes"]]
    group = {"chat": "-100", "kind": "group"}
    await stage.hear(incoming(1, "nice weather", sender="8", addressed=False, **group))
    await stage.clock.advance(60)
    assert stage.engine.prompts == []
    await stage.hear(incoming(2, "what do you think", sender="9", **group))
    await stage.clock.advance(60)
    bob, eve = pseudonym("telegram", "8"), pseudonym("telegram", "9")
    assert stage.engine.prompts[0].endswith(f"{bob}: nice weather\n\n{eve}: what do you think\n\nme:")
    assert [one.reply_to for one in stage.platform.outgoing] == ["m2", None]
    assert await stage.inbox_states() == [("ignored", "not addressed"), ("answered", None)]


async def test_private_chat_does_not_quote(stage: Stage) -> None:
    stage.engine.turns = [["ok"]]
    await stage.hear(incoming(1))
    await stage.clock.advance(60)
    assert stage.platform.outgoing[0].reply_to is None


async def test_typing_is_shown_while_thinking_and_refreshed(stage: Stage) -> None:
    stage.engine.gate.clear()
    stage.engine.turns = [["ok"]]
    await stage.hear(incoming(1))
    await stage.clock.advance(2)
    assert len(stage.platform.typed) == 1
    await stage.clock.advance(8)
    assert len(stage.platform.typed) == 3
    stage.engine.gate.set()
    await stage.clock.advance(60)
    typed = len(stage.platform.typed)
    await stage.clock.advance(60)
    assert len(stage.platform.typed) == typed


async def test_failing_engine_is_asked_again_then_given_up(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    stage.engine.turns = [EngineError("full"), EngineError("full"), EngineError("worn out")]
    with caplog.at_level(logging.WARNING):
        await stage.hear(incoming(1))
        await stage.clock.advance(2)
        assert await stage.inbox_states() == [("new", "full")]
        await stage.clock.advance(120)
    assert len(stage.engine.prompts) == 3
    assert await stage.inbox_states() == [("failed", "worn out")]
    assert "telegram: no reply yet: full" in caplog.text
    stage.engine.turns = [["back"]]
    await stage.hear(incoming(2))
    await stage.clock.advance(60)
    assert stage.platform.texts == ["back"]


async def test_engine_that_recovers_answers(stage: Stage) -> None:
    stage.engine.turns = [EngineError("full"), ["ok"]]
    await stage.hear(incoming(1))
    await stage.clock.advance(60)
    assert stage.platform.texts == ["ok"]


async def test_empty_turn_is_tried_again_and_then_left(stage: Stage) -> None:
    stage.engine.turns = [[], ["ok"], [], [], []]
    await stage.hear(incoming(1))
    await stage.clock.advance(60)
    assert stage.platform.texts == ["ok"]
    await stage.hear(incoming(2))
    await stage.clock.advance(60)
    assert len(stage.engine.prompts) == 5
    assert (await stage.inbox_states())[1] == ("ignored", "the persona had nothing to say")


async def test_nothing_is_answered_before_the_persona_is_awake(make_stage: MakeStage) -> None:
    stage = await make_stage(awake=False)
    stage.engine.turns = [["good morning"]]
    await stage.hear(incoming(1))
    await stage.clock.advance(600)
    assert stage.engine.prompts == []
    await stage.wake()
    await stage.clock.advance(60)
    assert stage.platform.texts == ["good morning"]


async def test_history_is_limited(make_stage: MakeStage) -> None:
    stage = await make_stage(reply={"history": 3, "debounce_seconds": 0})
    for event in range(4):
        stage.engine.turns = [[f"answer {event}"]]
        await stage.hear(incoming(event, f"question {event}"))
        await stage.clock.advance(60)
    assert stage.engine.prompts[-1].endswith(f"{ANN}: question 2\n\nme: answer 2\n\n{ANN}: question 3\n\nme:")
    assert "answer 1" not in stage.engine.prompts[-1]


async def test_too_many_bubbles_are_cut(make_stage: MakeStage) -> None:
    stage = await make_stage(reply={"max_bubbles": 2})
    stage.engine.turns = [["a", "b", "c"]]
    await stage.hear(incoming(1))
    await stage.clock.advance(60)
    assert stage.platform.texts == ["a", "b"]


async def test_blank_message_is_neither_stored_nor_answered(stage: Stage) -> None:
    await stage.hear(incoming(1, "  "))
    await stage.clock.advance(60)
    assert await stage.inbox_states() == []
    assert stage.engine.prompts == []


class TestCrash:
    """A new daemon on the same database, after the old one ended at every point of a reply."""

    async def test_unanswered_message_is_answered(self, stage: Stage) -> None:
        await stage.hear(incoming(1))
        assert await stage.inbox_states() == [("new", None)]
        stage.engine.turns = [["ok"]]
        await stage.restart()
        await stage.clock.advance(60)
        assert stage.platform.texts == ["ok"]

    async def test_while_thinking(self, stage: Stage) -> None:
        stage.engine.gate.clear()
        await stage.hear(incoming(1))
        await stage.clock.advance(5)
        assert len(stage.engine.prompts) == 1
        stage.engine.turns = [["ok"]]
        await stage.stop()
        assert stage.engine.cancelled == 1
        stage.engine.gate.set()
        await stage.start()
        await stage.clock.advance(60)
        assert stage.platform.texts == ["ok"]
        assert await stage.inbox_states() == [("answered", None)]

    async def test_pending_bubbles_are_sent_once(self, stage: Stage) -> None:
        stage.engine.turns = [["aa", "bb"]]
        await stage.hear(incoming(1))
        await stage.clock.advance(3)
        assert await stage.bubbles() == [("aa", "sent"), ("bb", "pending")]
        await stage.restart()
        await stage.clock.advance(60)
        assert stage.platform.texts == ["aa", "bb"]
        assert len(stage.engine.prompts) == 1

    @pytest.mark.parametrize(("safe", "state", "texts"), [(False, "unknown", []), (True, "sent", ["aa"])])
    async def test_while_sending(
        self, make_stage: MakeStage, caplog: pytest.LogCaptureFixture, safe: bool, state: str, texts: list[str]
    ) -> None:
        stage = await make_stage(FakePlatform(resend_is_safe=safe))
        stage.platform.hold = asyncio.Event()
        stage.engine.turns = [["aa"]]
        await stage.hear(incoming(1))
        await stage.clock.advance(10)
        assert await stage.bubbles() == [("aa", "sending")]
        for task in stage.delivery._sending:
            task.cancel()
        await stage.restart()
        await stage.clock.advance(60)
        assert await stage.bubbles() == [("aa", state)]
        assert stage.platform.texts == texts
        assert "doppel ended while a bubble to 7 was being sent" in caplog.text

    async def test_bubble_on_its_way_is_followed_to_its_end(self, stage: Stage) -> None:
        stage.platform.hold = asyncio.Event()
        stage.engine.turns = [["aa", "bb"]]
        await stage.hear(incoming(1))
        await stage.clock.advance(10)
        asyncio.get_running_loop().call_soon(stage.platform.hold.set)
        await stage.intake.close(5)
        assert await stage.bubbles() == [("aa", "sent"), ("bb", "pending")]

    async def test_platform_that_was_switched_off_waits(self, make_stage: MakeStage) -> None:
        stage = await make_stage()
        await stage.hear(incoming(1))
        await stage.stop()
        stage.platforms = {"discord": FakePlatform("discord")}
        await stage.start()
        await stage.clock.advance(60)
        assert stage.engine.prompts == []
        assert await stage.inbox_states() == [("new", None)]


async def test_permanent_failure_does_not_stop_the_chat(stage: Stage) -> None:
    stage.platform.failures = [SendFailed("blocked", permanent=True)]
    stage.engine.turns = [["aa"], ["bb"]]
    await stage.hear(incoming(1))
    await stage.clock.advance(60)
    await stage.hear(incoming(2))
    await stage.clock.advance(60)
    assert await stage.bubbles() == [("aa", "failed"), ("bb", "sent")]


async def test_of_several_candidates_the_one_not_said_before_is_sent(make_stage: MakeStage) -> None:
    stage = await make_stage(reply={"candidates": 2})
    stage.engine.turns = [["hi!"], ["hi!"]]
    await stage.hear(incoming(1, "hello"))
    await stage.clock.advance(60)
    stage.engine.turns = [["Hi"], ["you again"]]
    await stage.hear(incoming(2, "hello"))
    await stage.clock.advance(60)
    assert stage.platform.texts == ["hi!", "you again"]
    assert len(stage.engine.prompts) == 4
