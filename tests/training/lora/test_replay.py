"""Replay: the base's own text, sampled once, the same for the same seed, and learned on every token."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from doppel.config import cache_dir
from doppel.errors import DoppelError, UserError
from doppel.models.base import BaseIdentity, load_model
from doppel.transcript import Transcript
from tests.tiny import build_transcript
from training.lora import replay as replaying
from training.lora.examples import Example, count_tokens
from training.lora.replay import estimated_tokens, replay_examples


@pytest.fixture(scope="module")
def base(tiny_base: Path) -> PreTrainedModel:
    return load_model(tiny_base, torch.float32)


@pytest.fixture(scope="module")
def transcript() -> Transcript:
    return build_transcript()


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOPPEL_CACHE", str(tmp_path / "cache"))


def sampled(base: PreTrainedModel, transcript: Transcript, **changes: Any) -> list[Example]:
    settings: dict[str, Any] = {"tokens": 300, "max_distinct": 10_000, "length": 24, "seed": 0, **changes}
    return replay_examples(base, transcript, BaseIdentity("tiny", "ab" * 32), **settings)


def test_as_many_tokens_as_wanted_all_learned(base: PreTrainedModel, transcript: Transcript) -> None:
    before = torch.random.get_rng_state()
    items = sampled(base, transcript)
    assert count_tokens(items) == pytest.approx(300, abs=24)
    for example in items:
        assert 1 < len(example.ids) <= 24
        assert example.ids[0] == transcript.tokenizer.bos_token_id
        assert example.supervised == len(example.ids) - 1
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_text_may_end_and_its_end_is_learned(
    base: PreTrainedModel, transcript: Transcript, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = list(range(5, len(transcript.tokenizer), 5))
    monkeypatch.setattr(base.config, "eos_token_id", ends)
    items = sampled(base, transcript)
    for example in items:
        assert not {*ends} & {*example.ids[:-1]}
        assert len(example.ids) == 24 or example.ids[-1] in ends
    assert any(len(example.ids) < 24 for example in items)


def test_sampled_once_and_the_same_for_the_same_seed(
    base: PreTrainedModel, transcript: Transcript, monkeypatch: pytest.MonkeyPatch
) -> None:
    once = sampled(base, transcript)
    assert sampled(base, transcript, seed=1) != once
    more = sampled(base, transcript, tokens=1000)
    assert more[: len(once)] == once
    with monkeypatch.context() as patched:
        patched.setattr(base, "generate", None)  # the cache has it all
        assert sampled(base, transcript) == once
        assert sampled(base, transcript, tokens=1000) == more


def test_an_interruption_costs_one_batch_and_a_damaged_batch_is_made_again(
    base: PreTrainedModel, transcript: Transcript
) -> None:
    whole = sampled(base, transcript, tokens=1000)
    batches = sorted(cache_dir().rglob("0*.json"))
    assert len(batches) > 2
    batches[-1].unlink()
    batches[1].write_text("[[1, 2")
    kept = batches[0].stat().st_mtime_ns
    assert sampled(base, transcript, tokens=1000) == whole
    assert batches[0].stat().st_mtime_ns == kept
    assert {path for path in cache_dir().rglob("*") if path.is_file()} == {*batches}


def test_it_is_the_bases_own_distribution(
    base: PreTrainedModel, transcript: Transcript, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the model's own settings filter is sampled all the same: the second tokens are as likely as it says."""
    monkeypatch.setattr(base.generation_config, "top_k", 1)
    monkeypatch.setattr(base.generation_config, "repetition_penalty", 5.0)
    monkeypatch.setattr(replaying, "_ROWS", 4000)
    items = sampled(base, transcript, tokens=8000, length=2)
    begin = transcript.tokenizer.bos_token_id
    with torch.no_grad():
        chances = base(torch.tensor([[begin]])).logits[0, -1].double().softmax(-1)
    counts = torch.bincount(torch.tensor([example.ids[1] for example in items]), minlength=len(chances)) / len(items)
    assert float((counts - chances).abs().max()) < 0.03


def test_where_time_is_short_few_are_sampled_and_repeated(base: PreTrainedModel, transcript: Transcript) -> None:
    items = sampled(base, transcript, tokens=5000, max_distinct=300)
    assert count_tokens(items) == pytest.approx(5000, abs=24)
    assert len({tuple(example.ids) for example in items}) <= 2 * replaying._ROWS
    assert estimated_tokens(None, "cpu") is None
    assert estimated_tokens(2, "cpu") == 36_000


def test_a_base_without_a_token_that_begins_texts_is_refused(base: PreTrainedModel) -> None:
    transcript = build_transcript()
    transcript.tokenizer.bos_token = None
    items = sampled(base, transcript)
    assert {example.ids[0] for example in items} == {transcript.tokenizer.eos_token_id}
    transcript.tokenizer.eos_token = None
    with pytest.raises(UserError, match=r"training\.replay: .* set training.replay to 0"):
        sampled(base, transcript)


def test_a_cache_that_cannot_be_written_is_one_clear_line(
    base: PreTrainedModel, transcript: Transcript, tmp_path: Path
) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(DoppelError, match="cannot be written"):
        sampled(base, transcript)
