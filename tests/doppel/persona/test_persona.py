"""From a conversation to bubbles: the header served under, the sampling, the prompt that fits, the events."""

from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from doppel.adapters.habits import Habits
from doppel.adapters.versions import AdapterRefused, Manifest
from doppel.config import ReplySettings, parse_config
from doppel.engine import Request, Sampling, Token
from doppel.engine.local.engine import TransformersEngine
from doppel.errors import UserError
from doppel.models.base import BaseIdentity, identify, load_model, load_tokenizer
from doppel.persona import GeneratedBubble, PartialBubble, Persona, fit_prompt, open_persona, recent_turns, speak
from doppel.transcript import ME, Header, Transcript, Turn
from tests.conftest import PublishAdapter
from tests.tiny import VOCABULARY, build_transcript

NOW = datetime(2026, 7, 3, 22, 30, tzinfo=UTC)  # a Friday; Saturday morning in Shanghai
transcript = cache(build_transcript)


def persona(vocabulary: dict[str, list[str]] | None = None, sampling: dict[str, float] | None = None) -> Persona:
    manifest = Manifest(
        persona="ann",
        base=BaseIdentity("tiny", ""),
        header_vocabulary=VOCABULARY if vocabulary is None else vocabulary,
        sampling=sampling or {},
    )
    return Persona(Path("adapters/ann/0001"), manifest, Habits())


def test_the_header_has_only_values_from_the_training() -> None:
    header = persona().header(kind="dm", now=NOW, zone=ZoneInfo("Asia/Shanghai"), platform="telegram", contact="Ramito")
    assert header.render() == "[2018 Sat morning · telegram dm · en]"
    known = persona({**VOCABULARY, "contact": ["Ramito"], "language": ["en", "zh"]})
    header = known.header(kind="tweet", now=NOW, zone=ZoneInfo("UTC"), platform="discord", contact="Ramito")
    assert header.render() == "[2018 Fri evening · with Ramito]"
    turns = [Turn("Ramito", ("今天我们去哪里吃饭",)), Turn(ME, ("I do not know, what do you want to eat",))]
    header = known.header(kind="dm", now=NOW, zone=ZoneInfo("UTC"), turns=turns)
    assert header.render() == "[2018 Fri evening · dm · zh]"
    assert known.header(kind="post", now=NOW, zone=ZoneInfo("UTC"), turns=turns).language is None
    german = [Turn("Ramito", ("ich weiß nicht, das ist mir auch zu viel",))]
    assert known.header(kind="dm", now=NOW, zone=ZoneInfo("UTC"), turns=german).language is None
    assert persona({}).header(kind="dm", now=NOW, zone=ZoneInfo("UTC"), platform="telegram") == Header()


def test_sampling_comes_from_the_config_then_the_adapter_then_the_defaults() -> None:
    tuned = persona(sampling={"temperature": 1.1, "top_p": 0.9, "unknown": 3})
    sampling = tuned.sampling(ReplySettings(temperature=0.5, max_tokens=30))
    assert sampling == Sampling(temperature=0.5, top_p=0.9, max_tokens=30)
    assert persona().sampling(ReplySettings()) == Sampling()
    with pytest.raises(AdapterRefused, match=r"sampling\.temperature is out of range"):
        persona(sampling={"temperature": 99}).sampling(ReplySettings())


def test_configured_words_become_tokens() -> None:
    base_transcript = transcript()
    reply = ReplySettings(logit_bias=[{"word": "the", "bias": -2}], bad_words=["the", "haha"], dry_multiplier=0.8)
    assert persona().sampling(reply).bad_words == ()
    sampling = persona().sampling(reply, base_transcript)
    spelled = [base_transcript.safe_tokenizer.decode(word) for word in sampling.bad_words]
    assert spelled == ["the", " the", "haha", " haha"]
    assert [base_transcript.safe_tokenizer.decode([token]) for token, _ in sampling.logit_bias] == ["the", " the"]
    assert {bias for _, bias in sampling.logit_bias} == {-2}
    assert sampling.dry_multiplier == 0.8
    assert base_transcript.stop_ids < sampling.breakers
    assert persona().sampling(ReplySettings(), base_transcript) == Sampling()


def test_open_persona(publish_tiny_adapter: PublishAdapter, tmp_path: Path) -> None:
    config = parse_config({"persona": {"name": "ann"}}, tmp_path / "config.yaml")
    with pytest.raises(UserError, match="no adapter yet"):
        open_persona(config.adapters_dir)
    habits = Habits(bubbles_per_turn=3)
    folder = publish_tiny_adapter(config.adapters_dir, persona="ann", habits=habits)
    opened = open_persona(config.adapters_dir)
    assert (opened.folder, opened.manifest.version, opened.habits) == (folder, "0001", habits)


@given(st.integers(1, 60), st.integers(1, 200))
def test_old_turns_are_dropped_a_quarter_at_a_time(limit: int, count: int) -> None:
    turns = [Turn("Ramito", (str(number),)) for number in range(count)]
    kept = recent_turns(turns, limit)
    assert kept == turns[len(turns) - len(kept) :]
    assert min(count, limit - max(0, limit // 4 - 1)) <= len(kept) <= min(count, limit)
    assert (count - len(kept)) % max(1, limit // 4) == 0


turns_strategy = st.lists(
    st.builds(
        Turn,
        st.sampled_from([ME, "Ramito", "Bobesu"]),
        st.lists(
            st.text(min_size=1, max_size=40).filter(lambda text: bool(text.strip("\x00\ufeff \n\t"))),
            min_size=1,
            max_size=3,
        ).map(tuple),
    ),
    max_size=6,
)


@given(turns_strategy, st.integers(30, 400))
def test_a_prompt_fits_and_keeps_the_last_whole_turns(turns: list[Turn], room: int) -> None:
    turns = [turn for turn in turns if all(_is_text(bubble) for bubble in turn.bubbles)]
    header = Header(year="2018", kind="dm")
    ids = fit_prompt(transcript(), header, turns, room)
    assert len(ids) <= room
    suffixes = [transcript().prompt(header, turns[start:]) for start in range(len(turns) + 1)]
    fitting = next(prompt for prompt in suffixes if len(prompt) <= room)
    if fitting != suffixes[-1] or not turns:
        assert ids == fitting
    else:  # not even the last turn fits: its end is kept
        assert len(ids) >= len(fitting)


def _is_text(bubble: str) -> bool:
    try:
        transcript().encode(Header(), [Turn(ME, (bubble,))])
    except ValueError:
        return False
    return True


def test_a_too_long_last_turn_keeps_its_end() -> None:
    turn = Turn("Ramito", ("first", "word " * 200 + "what do you say?"))
    _, (kept,) = transcript().decode([*fit_prompt(transcript(), Header(), [turn], 60)[:-2]])
    assert kept.speaker == "Ramito"
    assert kept.bubbles[-1].endswith("say?")
    assert len(kept.bubbles) == 1


class ScriptedEngine:
    """An engine that generates the given tokens."""

    def __init__(self, ids: Sequence[int]) -> None:
        self.base = BaseIdentity("none", "")
        self.transcript: Transcript = transcript()
        self.context_length = 512
        self.ids = ids
        self.requests: list[Request] = []
        self.given = 0
        self.closed = False

    def transcript_of(self, adapter: str | None) -> Transcript:
        return self.transcript

    async def generate(self, request: Request) -> AsyncGenerator[Token]:
        self.requests.append(request)
        try:
            for token in self.ids:
                self.given += 1
                yield Token(token, -1.0)
        finally:
            self.closed = True


def reply_ids(*bubbles: str, rest: str = "") -> list[int]:
    """Token ids of a turn, then `rest` after its end."""
    whole = transcript().encode(Header(), [Turn(ME, bubbles)])
    me = transcript().prompt(Header(), [])[whole.opening :]
    return whole.ids[whole.opening + len(me) :] + transcript().tokenizer(rest)["input_ids"]


async def test_partial_events_grow_into_bubbles() -> None:
    engine = ScriptedEngine(reply_ids("hi é", "two\nlines", rest="Ramito: never"))
    events = [event async for event in speak(engine, "a", Header(), [], Sampling())]
    assert [event.text for event in events if isinstance(event, GeneratedBubble)] == ["hi é", "two\nlines"]
    partials = [event.text for event in events if isinstance(event, PartialBubble)]
    assert partials[:2] == ["h", "hi"]
    assert all("\ufffd" not in text for text in partials)
    assert engine.closed
    assert engine.given < len(engine.ids)
    assert engine.requests[0].stop_ids == transcript().stop_ids


async def test_max_bubbles_ends_the_turn() -> None:
    engine = ScriptedEngine(reply_ids("one", "two", "three"))
    events = [event async for event in speak(engine, None, Header(), [], Sampling(), max_bubbles=2)]
    assert [event.text for event in events if isinstance(event, GeneratedBubble)] == ["one", "two"]
    assert engine.closed


async def test_an_unfinished_bubble_is_yielded() -> None:
    engine = ScriptedEngine(reply_ids("one", "unfinished")[:-4])
    events = [event async for event in speak(engine, None, Header(), [], Sampling())]
    assert [event.text for event in events if isinstance(event, GeneratedBubble)] == ["one", "unfinis"]


async def test_closing_the_events_stops_the_engine() -> None:
    engine = ScriptedEngine(reply_ids("a long one"))
    async with aclosing(speak(engine, None, Header(), [], Sampling())) as events:
        await anext(events)
    assert engine.closed
    assert engine.given < 4


async def test_history_and_reply_share_the_context() -> None:
    engine = ScriptedEngine(reply_ids("ok"))
    turns = [Turn("Ramito", ("x" * 90,)) for _ in range(20)]
    async for _ in speak(engine, None, Header(), turns, Sampling(max_tokens=4000)):
        pass
    request = engine.requests[0]
    assert request.sampling.max_tokens == 256
    assert 100 < len(request.prompt) <= 256


@pytest.fixture
def engine(tiny_base: Path) -> Iterator[TransformersEngine]:
    model = load_model(tiny_base, torch.float32)
    engine = TransformersEngine(model, load_tokenizer(tiny_base), identify(tiny_base, "tiny"))
    yield engine
    engine.close()


async def test_with_the_local_engine(
    engine: TransformersEngine, publish_tiny_adapter: Callable[..., Path], tmp_path: Path
) -> None:
    name = await engine.load_adapter(publish_tiny_adapter(tmp_path))
    sampling = Sampling(seed=2, max_tokens=60)
    for turns in ([], [Turn("Ramito", ("hello",))]):
        events = [event async for event in speak(engine, name, Header(year="2018"), turns, sampling)]
        assert any(isinstance(event, GeneratedBubble) for event in events)
        assert events[-1].tokens <= 60
