"""What this machine needs for one of each thing a training does, measured on the model and the data themselves.

Micro-batches differ in length and in how much of them carries loss, so what is measured is seconds a unit of
*work*: multiply-adds of the body for every token and of the head for every supervised one. A few batches,
drawn evenly over all the work, then speak for the rest. Leaves the model as it was; knows no plan.
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

_SECONDS = 12.0  # after which no further batch is measured
_QUANTILES = (0.5, 0.85, 0.15)  # of all the work, in the order in which they are measured


class ComputeCost(msgspec.Struct, frozen=True):
    """How a model's work grows.

    Attributes:
        token: multiply-adds of the body for one token.
        supervised: multiply-adds of the head for one supervised token.
    """

    token: float
    supervised: float

    def of(self, items: Sequence[Example]) -> float:
        """Multiply-adds of one forward pass over examples."""
        return sum(len(one.ids) * self.token + one.supervised * self.supervised for one in items)


def compute_cost(model: torch.nn.Module) -> ComputeCost:
    """The compute_cost of a causal language model, bare or with adapters."""
    causal = model.get_base_model() if isinstance(model, PeftModel) else model
    assert isinstance(causal, PreTrainedModel)
    head, table = causal.get_output_embeddings().weight, causal.get_input_embeddings().weight
    assert isinstance(head, torch.Tensor)
    assert isinstance(table, torch.Tensor)
    tables = {id(weight): weight.numel() for weight in (head, table)}  # often one and the same
    body = causal.num_parameters() - sum(tables.values())
    return ComputeCost(float(max(1, body)), float(head.numel()))


def training_seconds_per_mac(model: torch.nn.Module, steps: Sequence[Step], clock: "Clock") -> float:
    """Seconds a multiply-add of forward takes in training, backward included.

    Args:
        model: with its LoRA.
        steps: of one epoch; representative batches are chosen among theirs.
        clock: tells the time.
    """

    def train(group: Sequence[Example]) -> None:
        losses, _ = token_losses(model, collate(group))
        losses.mean().backward()
        model.zero_grad(set_to_none=True)

    return _seconds_a_unit(compute_cost(model), [group for step in steps for group in step], train, clock)


@torch.no_grad()
def scoring_seconds_per_mac(model: torch.nn.Module, groups: Sequence[Sequence[Example]], clock: "Clock") -> float:
    """Seconds a multiply-add of forward takes in scoring; `groups` are the micro-batches to be scored."""

    def scored(group: Sequence[Example]) -> None:
        token_losses(model, collate(group))

    return _seconds_a_unit(compute_cost(model), groups, scored, clock)


def time_step_and_checkpoint(model: PeftModel, steps: Sequence[Step], clock: "Clock") -> tuple[float, float]:
    """Seconds of one optimizer step, and of writing one checkpoint.

    Everything that takes memory in training is taken at once: gradients, AdamW's state, and what the micro-batch with
    the most work needs. The optimizer's steps are real and at a learning rate of 0, so they change nothing.
    """
    work = compute_cost(model)
    groups = sorted((group for step in steps for group in step), key=work.of)
    optimizer = MasterAdamW([one for one in model.parameters() if one.requires_grad], lr=0.0)
    for group in (groups[0], groups[-1]):  # the state is made by the first
        losses, _ = token_losses(model, collate(group))
        losses.mean().backward()
        seconds = clock.time(optimizer.step)
        optimizer.zero_grad()

    def write() -> None:
        with tempfile.TemporaryDirectory() as folder:
            model.save_pretrained(folder, save_embedding_layers=False)
            torch.save(optimizer.state_dict(), Path(folder) / "optimizer.pt")

    return seconds, clock.time(write)


class Clock:
    """Times work on a device, waiting for what a GPU was only asked to do. `now` gives seconds."""

    def __init__(self, device: str, now: Callable[[], float] = time.perf_counter) -> None:
        self._is_cuda = device.startswith("cuda")
        self._now = now

    def time(self, work: Callable[[], object]) -> float:
        """Seconds that `work` takes."""
        self._wait()
        began = self._now()
        work()
        self._wait()
        return self._now() - began

    def _wait(self) -> None:
        if self._is_cuda:
            torch.cuda.synchronize()


def _seconds_a_unit(
    work: ComputeCost, groups: Sequence[Sequence[Example]], run: Callable[[Sequence[Example]], None], clock: Clock
) -> float:
    ordered = sorted(groups, key=work.of)
    run(ordered[0])  # the first time kernels are chosen and memory is taken
    totals = list(accumulate(work.of(group) for group in ordered))
    seconds = done = 0.0
    for quantile in _QUANTILES:
        if seconds > _SECONDS:
            break
        group = next(group for group, total in zip(ordered, totals, strict=True) if total >= quantile * totals[-1])
        seconds += min(clock.time(partial(run, group)) for _ in range(2))  # other programs only ever make it slower
        done += work.of(group)
    return seconds / done
