"""When the persona answers what: debounce, thinking again, failures, groups, history."""

import asyncio
import logging

import pytest

from bot.platforms import Answered, SendFailed
from doppel.engine import EngineError
from doppel.transcript import pseudonym
from tests.bot.conftest import MakeHarness
from tests.bot.harness import FakePlatform, Harness, incoming

ANN = pseudonym("telegram", "7")


async def test_reply_is_sent_bubble_by_bubble_and_marked_answered(harness: Harness) -> None:
    harness.engine.turns = [["hi!", "how are you"]]
    await harness.on_message(incoming(1, "hello"))
    await harness.clock.advance(60)
    assert harness.platform.texts == ["hi!", "how are you"]
    assert await harness.inbox_states() == [("answered", None)]
    assert await harness.bubbles() == [("hi!", "sent"), ("how are you", "sent")]
    assert [row.adapter for row in await harness.outbox_rows()] == ["0001", "0001"]
    assert f"{ANN}: hello\n\nme:" in harness.engine.prompts[0]


async def test_waits_for_silence_before_thinking(harness: Harness) -> None:
    harness.engine.turns = [["ok"]]
    await harness.on_message(incoming(1, "one"))
    await harness.clock.advance(1.5)
    await harness.on_message(incoming(2, "two"))
    await harness.clock.advance(1.9)
    assert harness.engine.prompts == []
    await harness.clock.advance(0.1)
    assert len(harness.engine.prompts) == 1
    assert f"{ANN}: one\n two\n\nme:" in harness.engine.prompts[0]
    await harness.clock.advance(60)
    assert harness.platform.texts == ["ok"]


async def test_message_while_thinking_makes_it_think_again(harness: Harness) -> None:
    harness.engine.gate.clear()
    harness.engine.turns = [["both"]]
    await harness.on_message(incoming(1, "one"))
    await harness.clock.advance(3)
    await harness.on_message(incoming(2, "two"))
    assert harness.engine.cancelled == 1
    await harness.clock.advance(3)
    assert f"{ANN}: one\n two\n\nme:" in harness.engine.prompts[1]
    harness.engine.gate.set()
    await harness.clock.advance(60)
    assert harness.platform.texts == ["both"]
    assert await harness.inbox_states() == [("answered", None)] * 2


async def test_thinks_again_only_once(harness: Harness) -> None:
    harness.engine.gate.clear()
    harness.engine.turns = [["first"], ["second"]]
    for event in (1, 2, 3):
        await harness.on_message(incoming(event, f"text {event}"))
        await harness.clock.advance(3)
    assert harness.engine.cancelled == 1
    harness.engine.gate.set()
    await harness.clock.advance(60)
    assert harness.platform.texts == ["first", "second"]
    assert "text 3" not in harness.engine.prompts[1]
    assert harness.engine.prompts[2].endswith(f"{ANN}: text 3\n\nme:")


async def test_message_before_all_bubbles_are_sent_drops_the_rest(harness: Harness) -> None:
    harness.engine.turns = [["aa", "bb", "cc"], ["dd"]]
    await harness.on_message(incoming(1, "one"))
    await harness.clock.advance(2 + 1.0)
    assert harness.platform.texts == ["aa"]
    await harness.on_message(incoming(2, "two"))
    await harness.clock.advance(60)
    assert harness.platform.texts == ["aa", "dd"]
    assert await harness.bubbles() == [("aa", "sent"), ("bb", "failed"), ("cc", "failed"), ("dd", "sent")]
    assert (await harness.outbox_rows())[1].error == "a new message came before it was sent"
    assert harness.engine.prompts[1].endswith(f"{ANN}: one\n\nme: aa\n\n{ANN}: two\n\nme:")


async def test_several_chats_at_once(make_harness: MakeHarness) -> None:
    harness = await make_harness(telegram={"allow": [7, 8]})
    harness.engine.turns = [["aaaa"], ["bbbb"]]
    await harness.on_message(incoming(1), incoming(2, chat="8", sender="8"))
    await harness.clock.advance(4)
    assert sorted(harness.platform.sent) == [(4.0, "aaaa"), (4.0, "bbbb")]


async def test_same_event_gets_one_reply(harness: Harness) -> None:
    harness.engine.turns = [["ok"], ["again"]]
    await harness.on_message(incoming(1), incoming(1))
    await harness.clock.advance(60)
    await harness.on_message(incoming(1))
    await harness.clock.advance(60)
    assert harness.platform.texts == ["ok"]


async def test_group_is_answered_when_addressed_and_listened_to_otherwise(harness: Harness) -> None:
    harness.engine.turns = [["ok", "yes"]]
    group = {"chat": "-100", "kind": "group"}
    await harness.on_message(incoming(1, "nice weather", sender="8", mentions_bot=False, **group))
    await harness.clock.advance(60)
    assert harness.engine.prompts == []
    await harness.on_message(incoming(2, "what do you think", sender="9", **group))
    await harness.clock.advance(60)
    bob, eve = pseudonym("telegram", "8"), pseudonym("telegram", "9")
    assert harness.engine.prompts[0].endswith(f"{bob}: nice weather\n\n{eve}: what do you think\n\nme:")
    assert [one.reply_to for one in harness.platform.outgoing] == ["m2", None]
    assert await harness.inbox_states() == [("ignored", "not addressed"), ("answered", None)]


async def test_private_chat_does_not_quote(harness: Harness) -> None:
    harness.engine.turns = [["ok"]]
    await harness.on_message(incoming(1))
    await harness.clock.advance(60)
    assert harness.platform.outgoing[0].reply_to is None


async def test_typing_is_shown_while_thinking_and_refreshed(harness: Harness) -> None:
    harness.engine.gate.clear()
    harness.engine.turns = [["ok"]]
    await harness.on_message(incoming(1))
    await harness.clock.advance(2)
    assert len(harness.platform.typed) == 1
    await harness.clock.advance(8)
    assert len(harness.platform.typed) == 3
    harness.engine.gate.set()
    await harness.clock.advance(60)
    typed = len(harness.platform.typed)
    await harness.clock.advance(60)
    assert len(harness.platform.typed) == typed


async def test_failing_engine_is_asked_again_then_given_up(harness: Harness, caplog: pytest.LogCaptureFixture) -> None:
    harness.engine.turns = [EngineError("full"), EngineError("full"), EngineError("worn out")]
    with caplog.at_level(logging.WARNING):
        await harness.on_message(incoming(1))
        await harness.clock.advance(2)
        assert await harness.inbox_states() == [("new", "full")]
        await harness.clock.advance(120)
    assert len(harness.engine.prompts) == 3
    assert await harness.inbox_states() == [("failed", "worn out")]
    assert "telegram: no reply yet: full" in caplog.text
    harness.engine.turns = [["back"]]
    await harness.on_message(incoming(2))
    await harness.clock.advance(60)
    assert harness.platform.texts == ["back"]


async def test_engine_that_recovers_answers(harness: Harness) -> None:
    harness.engine.turns = [EngineError("full"), ["ok"]]
    await harness.on_message(incoming(1))
    await harness.clock.advance(60)
    assert harness.platform.texts == ["ok"]


async def test_empty_turn_is_tried_again_and_then_left(harness: Harness) -> None:
    harness.engine.turns = [[], ["ok"], [], [], []]
    await harness.on_message(incoming(1))
    await harness.clock.advance(60)
    assert harness.platform.texts == ["ok"]
    await harness.on_message(incoming(2))
    await harness.clock.advance(60)
    assert len(harness.engine.prompts) == 5
    assert (await harness.inbox_states())[1] == ("ignored", "the persona had nothing to say")


async def test_nothing_is_answered_before_the_persona_is_awake(make_harness: MakeHarness) -> None:
    harness = await make_harness(ready=False)
    harness.engine.turns = [["good morning"]]
    await harness.on_message(incoming(1))
    await harness.clock.advance(600)
    assert harness.engine.prompts == []
    await harness.start_responder()
    await harness.clock.advance(60)
    assert harness.platform.texts == ["good morning"]


async def test_history_is_limited(make_harness: MakeHarness) -> None:
    harness = await make_harness(reply={"history": 3, "debounce_seconds": 0})
    for event in range(4):
        harness.engine.turns = [[f"answer {event}"]]
        await harness.on_message(incoming(event, f"question {event}"))
        await harness.clock.advance(60)
    assert harness.engine.prompts[-1].endswith(f"{ANN}: question 2\n\nme: answer 2\n\n{ANN}: question 3\n\nme:")
    assert "answer 1" not in harness.engine.prompts[-1]


async def test_too_many_bubbles_are_cut(make_harness: MakeHarness) -> None:
    harness = await make_harness(reply={"max_bubbles": 2})
    harness.engine.turns = [["a", "b", "c"]]
    await harness.on_message(incoming(1))
    await harness.clock.advance(60)
    assert harness.platform.texts == ["a", "b"]


async def test_blank_message_is_neither_stored_nor_answered(harness: Harness) -> None:
    await harness.on_message(incoming(1, "  "))
    await harness.clock.advance(60)
    assert await harness.inbox_states() == []
    assert harness.engine.prompts == []


class TestCrash:
    """A new daemon on the same database, after the old one ended at every point of a reply."""

    async def test_unanswered_message_is_answered(self, harness: Harness) -> None:
        await harness.on_message(incoming(1))
        assert await harness.inbox_states() == [("new", None)]
        harness.engine.turns = [["ok"]]
        await harness.restart()
        await harness.clock.advance(60)
        assert harness.platform.texts == ["ok"]

    async def test_while_thinking(self, harness: Harness) -> None:
        harness.engine.gate.clear()
        await harness.on_message(incoming(1))
        await harness.clock.advance(5)
        assert len(harness.engine.prompts) == 1
        harness.engine.turns = [["ok"]]
        await harness.stop()
        assert harness.engine.cancelled == 1
        harness.engine.gate.set()
        await harness.start()
        await harness.clock.advance(60)
        assert harness.platform.texts == ["ok"]
        assert await harness.inbox_states() == [("answered", None)]

    async def test_pending_bubbles_are_sent_once(self, harness: Harness) -> None:
        harness.engine.turns = [["aa", "bb"]]
        await harness.on_message(incoming(1))
        await harness.clock.advance(3)
        assert await harness.bubbles() == [("aa", "sent"), ("bb", "pending")]
        await harness.restart()
        await harness.clock.advance(60)
        assert harness.platform.texts == ["aa", "bb"]
        assert len(harness.engine.prompts) == 1

    @pytest.mark.parametrize(("safe", "state", "texts"), [(False, "unknown", []), (True, "sent", ["aa"])])
    async def test_while_sending(
        self, make_harness: MakeHarness, caplog: pytest.LogCaptureFixture, safe: bool, state: str, texts: list[str]
    ) -> None:
        harness = await make_harness(FakePlatform(resend_is_safe=safe))
        harness.platform.hold = asyncio.Event()
        harness.engine.turns = [["aa"]]
        await harness.on_message(incoming(1))
        await harness.clock.advance(10)
        assert await harness.bubbles() == [("aa", "sending")]
        for task in harness.delivery._sends:
            task.cancel()
        await harness.restart()
        await harness.clock.advance(60)
        assert await harness.bubbles() == [("aa", state)]
        assert harness.platform.texts == texts
        assert "doppel stopped while sending to 7" in caplog.text

    async def test_bubble_on_its_way_is_followed_to_its_end(self, harness: Harness) -> None:
        harness.platform.hold = asyncio.Event()
        harness.engine.turns = [["aa", "bb"]]
        await harness.on_message(incoming(1))
        await harness.clock.advance(10)
        asyncio.get_running_loop().call_soon(harness.platform.hold.set)
        await harness.router.close(5)
        assert await harness.bubbles() == [("aa", "sent"), ("bb", "pending")]

    async def test_platform_that_was_switched_off_waits(self, make_harness: MakeHarness) -> None:
        harness = await make_harness()
        await harness.on_message(incoming(1))
        await harness.stop()
        harness.platforms = {"discord": FakePlatform("discord")}
        await harness.start()
        await harness.clock.advance(60)
        assert harness.engine.prompts == []
        assert await harness.inbox_states() == [("new", None)]


async def test_permanent_failure_does_not_stop_the_chat(harness: Harness) -> None:
    harness.platform.failures = [SendFailed("blocked", permanent=True)]
    harness.engine.turns = [["aa"], ["bb"]]
    await harness.on_message(incoming(1))
    await harness.clock.advance(60)
    await harness.on_message(incoming(2))
    await harness.clock.advance(60)
    assert await harness.bubbles() == [("aa", "failed"), ("bb", "sent")]


async def test_of_several_candidates_the_one_not_said_before_is_sent(make_harness: MakeHarness) -> None:
    harness = await make_harness(reply={"candidates": 2})
    harness.engine.turns = [["hi!"], ["hi!"]]
    await harness.on_message(incoming(1, "hello"))
    await harness.clock.advance(60)
    harness.engine.turns = [["Hi"], ["you again"]]
    await harness.on_message(incoming(2, "hello"))
    await harness.clock.advance(60)
    assert harness.platform.texts == ["hi!", "you again"]
    assert len(harness.engine.prompts) == 4


async def test_what_a_message_answers_is_in_the_prompt_now_and_later(harness: Harness) -> None:
    harness.engine.turns = [["go"], ["sure"]]
    group = {"chat": "-100", "kind": "group"}
    answered = Answered(sender="8", text="we leave at 9", message_id="x")
    await harness.on_message(incoming(1, "what do you think?", sender="9", answers=answered, **group))
    await harness.clock.advance(60)
    bob, eve = pseudonym("telegram", "8"), pseudonym("telegram", "9")
    seen = f"{bob}: we leave at 9\n\n{eve}: what do you think?\n\nme:"
    assert harness.engine.prompts[0].endswith(f"\n\n{seen}")
    await harness.on_message(incoming(2, "sure?", sender="9", answers=Answered(sender=None, text="go"), **group))
    await harness.clock.advance(60)
    assert harness.engine.prompts[1].endswith(f"\n\n{seen} go\n\n{eve}: sure?\n\nme:")


async def test_an_older_bubble_that_is_answered_is_the_persona_s_turn(harness: Harness) -> None:
    harness.engine.turns = [["at 9"], ["yes"], ["really"]]
    for event, text in enumerate(("when?", "ok?"), start=1):
        await harness.on_message(incoming(event, text))
        await harness.clock.advance(60)
    first = (await harness.outbox_rows())[0]
    answered = Answered(sender=None, text="at 9", message_id=first.message_id)
    await harness.on_message(incoming(3, "are you sure?", answers=answered))
    await harness.clock.advance(60)
    assert harness.engine.prompts[2].endswith(
        f"{ANN}: when?\n\nme: at 9\n\n{ANN}: ok?\n\nme: yes\n at 9\n\n{ANN}: are you sure?\n\nme:"
    )


async def test_nothing_is_stored_of_a_blocked_person_who_is_quoted(make_harness: MakeHarness) -> None:
    harness = await make_harness(telegram={"allow": ["-100"], "block": [8]})
    harness.engine.always = ["ok"]
    group = {"chat": "-100", "kind": "group", "sender": "9"}
    for event, sender in enumerate(("8", "11", ""), start=1):
        answers = Answered(sender=sender, text="secret plan")
        await harness.on_message(incoming(event, f"look {event}", answers=answers, **group))
    assert [(row.answers_sender, row.answers_text) for row in await harness.inbox_rows()] == [
        (None, None),
        ("11", "secret plan"),
        ("", "secret plan"),
    ]


async def test_what_is_answered_is_shortened_and_stored_only_with_words(harness: Harness) -> None:
    for event, text in enumerate(("x" * 5000, " \n", "a\0b\ud800"), start=1):
        await harness.on_message(incoming(event, answers=Answered(sender="8", text=text)))
    assert [row.answers_text for row in await harness.inbox_rows()] == ["x" * 4096, None, "ab?"]


async def test_a_stranger_gets_nothing_stored_by_quoting(harness: Harness) -> None:
    answers = Answered(sender="7", text="of somebody who is allowed")
    await harness.on_message(incoming(1, sender="8", chat="8", answers=answers))
    assert await harness.inbox_rows() == []


async def test_the_last_attempt_is_without_what_is_answered(harness: Harness) -> None:
    harness.engine.fault = lambda prompt: EngineError("cannot") if "poison" in prompt else None
    harness.engine.turns = [["ok"]]
    await harness.on_message(incoming(1, "hello", answers=Answered(sender="8", text="poison")))
    await harness.clock.advance(300)
    assert harness.platform.texts == ["ok"]
    assert harness.engine.prompts[-1].endswith(f"]\n\n{ANN}: hello\n\nme:")
