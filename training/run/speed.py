"""Measures how fast this machine trains, scores and saves, with the model and the data themselves.

Micro-batches differ in length and in how many tokens carry loss, so speed is measured in seconds per multiply-add: of
the body for each token, and of the head for each supervised one. A few batches, spread evenly over all the work,
stand for the rest. The model is left unchanged.
"""

import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import accumulate
from pathlib import Path

import msgspec
import torch
from peft import PeftModel
from transformers import PreTrainedModel

from training.lora.examples import Example, Step, collate
from training.lora.model import token_losses
from training.lora.optimizer import MasterAdamW
from training.lora.reduced_head import ReducedHead

_MAX_SECONDS = 12.0  # after which no further batch is measured
_QUANTILES = (0.5, 0.85, 0.15)  # of all the work, in the order of measuring


class ComputeCost(msgspec.Struct, frozen=True):
    """Multiply-adds of a model's forward pass.

    Attributes:
        per_token: of the body for one token.
        per_supervised_token: of the head for one supervised token.
    """

    per_token: float
    per_supervised_token: float

    def of(self, examples: Sequence[Example]) -> float:
        """Multiply-adds of one forward pass over the examples."""
        return sum(
            len(example.ids) * self.per_token + example.supervised * self.per_supervised_token for example in examples
        )


def compute_cost(model: torch.nn.Module, reduced: ReducedHead | None = None) -> ComputeCost:
    """The cost of a causal language model, bare or with adapters, and with a reduced head if it trains with one."""
    causal = model.get_base_model() if isinstance(model, PeftModel) else model
    assert isinstance(causal, PreTrainedModel)
    head, embedding = causal.get_output_embeddings().weight, causal.get_input_embeddings().weight
    assert isinstance(head, torch.Tensor)
    assert isinstance(embedding, torch.Tensor)
    sizes = {id(weight): weight.numel() for weight in (head, embedding)}  # often the same tensor
    body = causal.num_parameters() - sum(sizes.values())
    return ComputeCost(float(max(1, body)), float((head if reduced is None else reduced.weight).numel()))


def training_seconds_per_mac(
    model: torch.nn.Module,
    steps: Sequence[Step],
    timer: "DeviceTimer",
    *,
    head: ReducedHead | None = None,
    is_short: bool = False,
) -> float:
    """Seconds of training, backward included, per multiply-add of the forward pass.

    Args:
        model: with its LoRA.
        steps: of one epoch; representative batches are chosen from them.
        timer: times the batches.
        head: that it trains with.
        is_short: measure one batch once, which is rough but takes a fraction of the time.
    """

    def train(group: Sequence[Example]) -> None:
        losses, _ = token_losses(model, collate(group), head)
        losses.mean().backward()
        model.zero_grad(set_to_none=True)

    groups, cost = [group for step in steps for group in step], compute_cost(model, head)
    if is_short:
        return _seconds_per_mac(cost, groups, train, timer, quantiles=_QUANTILES[:1], repeats=1)
    return _seconds_per_mac(cost, groups, train, timer)


@torch.no_grad()
def scoring_seconds_per_mac(model: torch.nn.Module, groups: Sequence[Sequence[Example]], timer: "DeviceTimer") -> float:
    """Seconds of scoring per multiply-add of the forward pass; `groups` are the micro-batches to score."""

    def score(group: Sequence[Example]) -> None:
        token_losses(model, collate(group))

    return _seconds_per_mac(compute_cost(model), groups, score, timer)


def time_step_and_checkpoint(
    model: PeftModel, steps: Sequence[Step], timer: "DeviceTimer", head: ReducedHead | None = None
) -> tuple[float, float]:
    """Seconds of one optimizer step, and of writing one checkpoint.

    Allocates everything that training holds in memory at the same time: gradients, AdamW's state, and the activations
    of the most expensive micro-batch. The optimizer's steps are real, at a learning rate of 0.
    """
    cost = compute_cost(model)
    groups = sorted((group for step in steps for group in step), key=cost.of)
    optimizer = MasterAdamW([parameter for parameter in model.parameters() if parameter.requires_grad], lr=0.0)
    for group in (groups[0], groups[-1]):  # the first one creates the optimizer's state
        losses, _ = token_losses(model, collate(group), head)
        losses.mean().backward()
        seconds = timer.time(optimizer.step)
        optimizer.zero_grad()

    def write() -> None:
        with tempfile.TemporaryDirectory() as folder:
            model.save_pretrained(folder, save_embedding_layers=False)
            torch.save(optimizer.state_dict(), Path(folder) / "optimizer.pt")

    return seconds, timer.time(write)


class DeviceTimer:
    """Times functions on a device, and waits until a GPU has finished.

    Args:
        device: where they compute.
        clock: returns seconds.
    """

    def __init__(self, device: str, clock: Callable[[], float] = time.perf_counter) -> None:
        self._device = device
        self._clock = clock

    def time(self, function: Callable[[], object]) -> float:
        """Seconds that `function` takes."""
        self._synchronize()
        began = self._clock()
        function()
        self._synchronize()
        return self._clock() - began

    def _synchronize(self) -> None:
        if self._device.startswith("cuda"):
            torch.cuda.synchronize()
        elif self._device == "mps":
            torch.mps.synchronize()


def _seconds_per_mac(
    cost: ComputeCost,
    groups: Sequence[Sequence[Example]],
    run: Callable[[Sequence[Example]], None],
    timer: DeviceTimer,
    *,
    quantiles: Sequence[float] = _QUANTILES,
    repeats: int = 2,
) -> float:
    by_cost = sorted(groups, key=cost.of)
    run(by_cost[0])  # warm-up: chooses kernels and allocates memory
    totals = list(accumulate(cost.of(group) for group in by_cost))
    seconds = macs = 0.0
    for quantile in quantiles:
        if seconds > _MAX_SECONDS:
            break
        group = next(group for group, total in zip(by_cost, totals, strict=True) if total >= quantile * totals[-1])
        seconds += min(timer.time(partial(run, group)) for _ in range(repeats))  # other programs only make it slower
        macs += cost.of(group)
    return seconds / macs
