"""A training that runs out of memory goes on with less, and learns nothing twice."""

import weakref
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
    assert capsys.readouterr().err.count("Not enough memory") == 1  # later steps begin with the smaller ones
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


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, RuntimeError])
def test_a_step_done_again_holds_nothing_of_the_batch_that_failed(
    error: type[Exception], tmp_path: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fitting, "SampleReplies", lambda *_: list)
    graphs: list[weakref.ref[Any]] = []
    is_alive: list[bool] = []

    class RunsOutOnce(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, losses: torch.Tensor) -> torch.Tensor:
            graphs.append(weakref.ref(ctx))
            return losses.clone()

        @staticmethod
        def backward(ctx: Any, upstream: torch.Tensor) -> torch.Tensor:
            if len(graphs) == 1:
                raise error("MPS backend out of memory")
            return upstream

    whole = trainer.token_losses

    def token_losses(*arguments: Any) -> Any:
        is_alive.extend(graph() is not None for graph in graphs[:1])
        losses, loss_mask = whole(*arguments)
        return RunsOutOnce.apply(losses), loss_mask  # type: ignore[no-untyped-call]

    monkeypatch.setattr(trainer, "token_losses", token_losses)
    run_training(small_run(tmp_path, tiny_base))
    assert is_alive
    assert not is_alive[0]
