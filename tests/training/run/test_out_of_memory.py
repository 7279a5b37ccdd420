"""A training that runs out of memory goes on with less, and learns nothing twice."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from doppel.errors import UserError
from tests.training.runs import metrics_of, small_run
from training.lora.examples import MicroBatch
from training.run import run as fitting
from training.run import trainer
from training.run.run import run_training


@pytest.fixture
def with_room_for(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], list[int]]:
    """Makes a micro-batch of more than so many tokens run out of memory; returns the sizes of those that did not."""
    monkeypatch.setattr(fitting, "SampleReplies", lambda *_: list)
    whole = trainer.token_losses

    def limit(tokens: int) -> list[int]:
        sizes: list[int] = []

        def token_losses(model: Any, batch: MicroBatch, *others: Any) -> Any:
            if len(batch.ids) > tokens:
                raise torch.OutOfMemoryError
            sizes.append(len(batch.ids))
            return whole(model, batch, *others)

        monkeypatch.setattr(trainer, "token_losses", token_losses)
        return sizes

    return limit


def test_smaller_batches_learn_the_same(
    tmp_path: Path, tiny_base: Path, with_room_for: Callable[[int], list[int]], capsys: pytest.CaptureFixture[str]
) -> None:
    whole, limited = small_run(tmp_path / "whole", tiny_base), small_run(tmp_path / "limited", tiny_base)
    run_training(whole)
    sizes = with_room_for(250)
    run_training(limited)
    assert sizes
    assert max(sizes) <= 250
    assert "Not enough memory; going on with" in capsys.readouterr().err
    losses, smaller = ([row.loss for row in metrics_of(run) if row.loss is not None] for run in (whole, limited))
    assert smaller == pytest.approx(losses, rel=1e-3)


def test_without_room_for_one_conversation_it_says_what_to_do(
    tmp_path: Path, tiny_base: Path, with_room_for: Callable[[int], list[int]], capsys: pytest.CaptureFixture[str]
) -> None:
    config = small_run(tmp_path, tiny_base)
    with_room_for(10)
    with pytest.raises(UserError, match=r"not enough memory for a conversation of \d+ tokens; set a lower training\."):
        run_training(config)
    assert "computing each layer twice" in capsys.readouterr().err
