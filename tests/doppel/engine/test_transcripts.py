"""Each adapter speaks in the transcript it was trained with, whatever the engine and the others use."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from doppel.adapters.habits import Habits, write_habits
from doppel.adapters.versions import AdapterRefused, Manifest, publishing
from doppel.engine import Request, Sampling
from doppel.engine.local.engine import TransformersEngine
from doppel.errors import UserError
from doppel.models.base import identify, load_model, load_tokenizer
from doppel.persona import speak
from doppel.transcript import FORMATS, Header, Turn, open_transcript
from tests.doppel.transcript.chat_templates import GEMMA
from tests.tiny import build_base, save_lora


@pytest.fixture(scope="module")
def instruct(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny base with a chat template."""
    folder = build_base(tmp_path_factory.mktemp("instruct"))
    (folder / "chat_template.jinja").write_text(GEMMA)
    return folder


@pytest.fixture
def engine(instruct: Path) -> Iterator[TransformersEngine]:
    engine = open_engine(instruct)
    yield engine
    engine.close()


def open_engine(base: Path, **options: str) -> TransformersEngine:
    return TransformersEngine(load_model(base, torch.float32), load_tokenizer(base), identify(base, "tiny"), **options)


def publish(base: Path, adapters_dir: Path, *, transcript: str, template: str = "", seed: int = 0) -> Path:
    manifest = Manifest(persona="sample", base=identify(base, "tiny"), transcript=transcript, template=template)
    with publishing(adapters_dir, manifest) as staging:
        save_lora(base, staging, seed=seed)
        write_habits(staging, Habits())
    return adapters_dir / (adapters_dir / "current").read_text().strip()


async def test_adapters_with_different_transcripts_are_served_together(
    engine: TransformersEngine, instruct: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chat = open_transcript(load_tokenizer(instruct), FORMATS["chat"])
    plain = await engine.load_adapter(publish(instruct, tmp_path, transcript="doppel-1"))
    chatty = await engine.load_adapter(
        publish(instruct, tmp_path, transcript="doppel-chat-1", template=chat.template, seed=1)
    )
    assert engine.transcript_of(plain).format == engine.transcript_of(None).format == "doppel-1"
    assert engine.transcript_of(chatty).format == "doppel-chat-1"
    requests: list[Request] = []
    generate = engine.generate
    monkeypatch.setattr(engine, "generate", lambda request: requests.append(request) or generate(request))
    header, turns = Header(kind="dm"), [Turn("Ramito", ("hello",))]
    for name in (plain, chatty):
        async for _ in speak(engine, name, header, turns, Sampling(seed=1, max_tokens=30)):
            pass
    assert [request.prompt for request in requests] == [
        engine.transcript.prompt(header, turns),
        chat.prompt(header, turns),
    ]
    assert requests[1].stop_ids == chat.stop_ids


async def test_an_engine_with_the_chat_transcript_serves_a_base_transcript_adapter(
    instruct: Path, tmp_path: Path
) -> None:
    engine = open_engine(instruct, transcript=FORMATS["chat"])
    try:
        name = await engine.load_adapter(publish(instruct, tmp_path, transcript="doppel-1"))
        assert engine.transcript_of(None).format == "doppel-chat-1"
        assert engine.transcript_of(name).format == "doppel-1"
    finally:
        engine.close()


async def test_a_changed_template_is_refused(engine: TransformersEngine, instruct: Path, tmp_path: Path) -> None:
    folder = publish(instruct, tmp_path, transcript="doppel-chat-1", template="of another")
    with pytest.raises(AdapterRefused, match="chat template has changed"):
        await engine.load_adapter(folder)
    assert engine.health().adapters == ()


async def test_a_chat_adapter_for_a_base_without_template_is_refused(tiny_base: Path, tmp_path: Path) -> None:
    engine = open_engine(tiny_base)
    try:
        with pytest.raises(AdapterRefused, match="this model has no chat template"):
            await engine.load_adapter(publish(tiny_base, tmp_path, transcript="doppel-chat-1"))
    finally:
        engine.close()


def test_the_chat_transcript_requires_a_template(tiny_base: Path) -> None:
    with pytest.raises(UserError, match="this model has no chat template"):
        open_engine(tiny_base, transcript=FORMATS["chat"])
