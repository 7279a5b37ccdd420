"""An adapter is examined with the prompts that the daemon sends: token for token."""

from datetime import UTC
from itertools import pairwise

import pytest

from doppel.transcript import ME, Header, Turn, pseudonym
from tests.bot import harness as harness_module
from tests.bot.conftest import MakeHarness
from tests.bot.harness import START, incoming
from training.dataset.files import Session
from training.fidelity.served import Serving, served_exchanges, served_windows

ANN = pseudonym("telegram", "7")
PAUSE = 60.0


@pytest.mark.parametrize("languages", [[], ["en", "zh"]], ids=["one language", "two languages"])
@pytest.mark.parametrize("new_store_url", ["sqlite"], indirect=True)
async def test_the_examination_and_the_daemon_write_the_same_prompts(
    make_harness: MakeHarness, languages: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twenty conversations with pauses of a day in one chat, of which the last ten are examined."""
    vocabulary = {**harness_module.VOCABULARY, "language": languages}
    monkeypatch.setattr(harness_module, "VOCABULARY", vocabulary)
    harness = await make_harness(reply={"history": 10, "stale_after": "36500d"})
    turns, sessions = list[Turn](), list[Session]()
    for number in range(20):
        words = "今天我们去哪里吃饭" if number > 12 else "what is it that you do"
        received = [f"{words} {number} {part}" for part in range(1 + number % 3)]
        said = [f"answer {number} bubble {bubble}" for bubble in range(1 + number % 2)]
        harness.engine.turns = [said]
        await harness.on_message(*(incoming(10 * number + part, text) for part, text in enumerate(received)))
        await harness.clock.advance(PAUSE)
        turns += [Turn(ANN, tuple(received)), Turn(ME, tuple(said))]
        sessions.append(
            Session(
                id=f"{number:02}",
                split="train" if number < 10 else "test",
                chat="c",
                started_at=START.astimezone(UTC).replace(minute=number),
                header=Header(kind="dm"),
                turns=tuple(turns[-2:]),
                kind="dm",
            )
        )
    transcript = harness.engine.transcript
    serving = Serving(vocabulary, harness.config.zone, history=10, max_tokens=4000)
    exchanges = served_exchanges(sessions, sessions[10:], transcript, serving)
    prompts = [transcript.tokenizer.decode(transcript.prompt(each.header, each.context)) for each in exchanges]
    assert prompts == harness.engine.prompts[10:]
    assert len({len(each.context) for each in exchanges}) > 1
    assert {each.header.language for each in exchanges} == ({"en", "zh"} if languages else {None})
    together = served_windows([*exchanges], transcript)
    assert sum(len(window.exchanges) for window in together) == 10


def conversation(count: int) -> Session:
    turns = tuple(Turn(speaker, (f"{speaker} says {number}",)) for number in range(count) for speaker in (ANN, ME))
    header = Header(kind="dm", contact=ANN)
    return Session(id="s", split="test", chat="c", started_at=START, header=header, turns=turns, kind="dm")


@pytest.mark.parametrize("new_store_url", ["sqlite"], indirect=True)
async def test_one_pass_reads_each_reply_after_its_own_prompt(make_harness: MakeHarness) -> None:
    harness = await make_harness()
    transcript = harness.engine.transcript
    serving = Serving({"kind": ["dm"], "contact": [ANN]}, harness.config.zone, history=8, max_tokens=4000)
    exchanges = served_exchanges([conversation(30)], [conversation(30)], transcript, serving)
    windows = served_windows(exchanges, transcript)
    assert len(exchanges) == 30
    assert len(windows) < 30
    assert [exchange for window in windows for exchange in window.exchanges] == exchanges
    assert all(first.left_out <= second.left_out for first, second in pairwise(exchanges))
    for window in windows:
        mask = window.example.loss_mask
        for exchange, length, end in zip(window.exchanges, window.prompt_lengths, window.ends, strict=True):
            prompt = transcript.prompt(exchange.header, exchange.context)
            assert window.example.ids[:length] == prompt
            reply = transcript.encode(exchange.header, (*exchange.context, exchange.reply)).ids[len(prompt) :]
            assert window.example.ids[length:end] == reply
            assert all(mask[length:end])
        assert sum(map(bool, mask)) == sum(
            end - length for length, end in zip(window.prompt_lengths, window.ends, strict=True)
        )
        assert window.example.text_bytes == sum(len(exchange.text) for exchange in window.exchanges)
