"""Nothing that a training lets the model write holds a token that is markup, however much the model wants it."""

from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
import torch
from transformers import PreTrainedModel

from doppel.adapters.versions import Manifest
from doppel.config import cache_dir
from doppel.engine import Sampling
from doppel.engine.local.lora import LoraAdapters
from doppel.models.base import BaseIdentity, load_model
from doppel.transcript import Header, Transcript, Turn
from tests.tiny import build_transcript
from training.dataset.files import Session
from training.fidelity.adapted_model import AdaptedModel
from training.fidelity.generate import generate
from training.fidelity.served import Exchange
from training.lora.replay import replay_examples
from training.lora.samples import SampleReplies

TURNS = (Turn("Ramito", ("hello",)), Turn("me", ("hi",)))


@pytest.fixture(scope="module")
def transcript() -> Transcript:
    return build_transcript()


@pytest.fixture
def model(tiny_base: Path, transcript: Transcript) -> PreTrainedModel:
    """A model for which markup is by far the likeliest at every place."""
    model = load_model(tiny_base, torch.float32)
    markup = sorted(transcript.forbidden_ids)

    def prefer(_: object, __: object, output: object) -> None:
        output.logits[..., markup] += 1000

    model.register_forward_hook(prefer)
    return model


def test_samples_during_a_training(model: PreTrainedModel, transcript: Transcript) -> None:
    started = datetime(2018, 3, 6, tzinfo=UTC)
    session = Session(id="1", split="test", chat="c", started_at=started, header=Header(kind="dm"), turns=TURNS)
    for line in SampleReplies(model, transcript, [session], 1, 0)():
        assert "…" not in line
        assert not any(text in line for text in ("<", "[toxicity"))


def test_replies_that_are_measured(model: PreTrainedModel, transcript: Transcript) -> None:
    exchanges = [Exchange("1", Header(kind="dm"), TURNS[:1], TURNS[1])] * 3
    manifest = Manifest(persona="ann", base=BaseIdentity("tiny", ""))
    adapted = AdaptedModel(model, transcript, LoraAdapters(model), "", manifest)
    for completion in generate(adapted, exchanges, Sampling(temperature=1, top_k=0, max_tokens=16)):
        assert completion.ids
        assert transcript.forbidden_ids.isdisjoint(completion.ids)


def test_replay(
    model: PreTrainedModel, transcript: Transcript, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also not what an older version sampled and left in the cache."""
    monkeypatch.setenv("DOPPEL_CACHE", str(tmp_path))
    identity = BaseIdentity("tiny", "ab" * 32)
    unused = transcript.tokenizer.convert_tokens_to_ids("<unused0>")
    cached = cache_dir() / "replay" / f"{identity.digest[:16]}-0-24" / "00000.json"
    cached.parent.mkdir(parents=True)
    cached.write_bytes(msgspec.json.encode([[2, unused, 40], [2, 40, 41]]))
    items = replay_examples(model, transcript, identity, tokens=300, max_distinct=10_000, length=24, seed=0)
    assert items[0].ids == [2, 40, 41]
    assert len(items) > 5
    for example in items:
        assert transcript.safe_tokenizer.markup.difference({transcript.tokenizer.eos_token_id}).isdisjoint(
            example.ids[1:]
        )
