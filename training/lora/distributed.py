"""The processes of one training, one a GPU: who leads, what all agree on, and the sum of their gradients.

Launchers (torchrun, accelerate) start the same command several times and number the copies in the environment.
Every copy holds the same adapter and plans the same steps; of each step it computes a share. Knows processes and
tensors; knows no model.
"""

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import msgspec
import torch
from torch import distributed

from doppel.errors import DoppelError, UserError
from doppel.i18n import tr

T = TypeVar("T")

_PATIENCE = timedelta(hours=12)
"""How long one may wait for another: fetching a base or scoring a large one takes its time, and a process that dies is
noticed by the launcher at once."""

_GONE = re.compile(r"gloo|Connection (closed|reset)|NCCL|remote process exited")
_FOREIGN = ("ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED", "ACCELERATE_USE_MEGATRON_LM")


class ProcessGroup(msgspec.Struct, frozen=True):
    """This process among those of the training; alone unless a launcher started several.

    Attributes:
        number: of this process, from 0.
        count: of the processes.
    """

    number: int = 0
    count: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process is the one that writes and speaks."""
        return self.number == 0

    def tell(self, value: T) -> T:
        """The leader's value, in every process."""
        if self.count == 1:
            return value
        said: list[T] = [value]
        distributed.broadcast_object_list(said, src=0)
        return said[0]

    def collect(self, value: T) -> list[T]:
        """Everybody's value in the order of the processes, in every process."""
        if self.count == 1:
            return [value]
        values: list[T] = [value] * self.count
        distributed.all_gather_object(values, value)
        return values

    @contextmanager
    def one_at_a_time(self) -> Iterator[None]:
        """One process after another runs the block."""
        for _ in range(self.number):
            self.collect(None)
        yield
        for _ in range(self.number, self.count):
            self.collect(None)

    @contextmanager
    def main_first(self) -> Iterator[None]:
        """The leader runs the block while the others wait; then they do."""
        if not self.leads:
            self.collect(None)
        yield
        if self.leads:
            self.collect(None)

    @torch.no_grad()
    def align(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        """Gives every process the leader's values."""
        if self.count > 1:
            for one in parameters:
                distributed.broadcast(one.data, src=0)

    @torch.no_grad()
    def average(self, parameters: Sequence[torch.nn.Parameter], loss: torch.Tensor, tokens: int) -> torch.Tensor:
        """Turns everybody's gradients of sums into the gradient of the mean over all, in every process.

        They travel in one message, in float32. A process with nothing to do has no gradients and counts as zeros.

        Args:
            parameters: the trained ones, in the same order everywhere.
            loss: (), the sum of this process's losses.
            tokens: how many losses there are in all processes together.

        Returns:
            (), the mean loss.
        """
        if self.count == 1:
            for one in parameters:
                if one.grad is not None:
                    one.grad /= tokens
            return loss / tokens
        sizes = [one.numel() for one in (*parameters, loss)]
        message = torch.zeros(sum(sizes), device=loss.device)
        *sums, total = message.split(sizes)
        for one, added in zip(parameters, sums, strict=True):
            if one.grad is not None:
                added.copy_(one.grad.flatten())
        total.copy_(loss)
        distributed.all_reduce(message)
        message /= tokens
        for one, added in zip(parameters, sums, strict=True):
            one.grad = added.view_as(one).to(one.dtype)
        mean: torch.Tensor = total[0]
        return mean


SINGLE_PROCESS = ProcessGroup()


@contextmanager
def join_processes(device: str) -> Iterator[ProcessGroup]:
    """Meets the other processes that a launcher started, for as long as the block runs.

    Args:
        device: what this training computes on, `cpu` or `cuda`; with several processes each takes a GPU of its own.

    Raises:
        UserError: it cannot be shared, or there are more processes than GPUs.
        DoppelError: another process ended before its time.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1 or "RANK" not in os.environ:
        yield SINGLE_PROCESS
        return
    if any(os.environ.get(name, "").lower() == "true" for name in _FOREIGN):
        raise UserError(
            tr("accelerate is set up for FSDP, DeepSpeed or Megatron; doppel shares the work itself: leave that out")
        )
    os.environ["ACCELERATE_MIXED_PRECISION"] = "no"  # the dtype is measured, and float16 would bring a loss scaler
    if device == "cuda":
        _take_gpu(int(os.environ.get("LOCAL_RANK", os.environ["RANK"])))
        # objects travel between CPUs, so that they need no GPU memory
        distributed.init_process_group("cpu:gloo,cuda:nccl", timeout=_PATIENCE)
    elif device == "cpu":
        distributed.init_process_group("gloo", timeout=_PATIENCE)
    else:
        raise UserError(
            tr("model.device: `{device}` cannot be shared by several processes; write cuda or cpu", device=device)
        )
    try:
        yield ProcessGroup(distributed.get_rank(), count)
    except RuntimeError as error:
        if not _GONE.search(str(error)):
            raise
        raise DoppelError(tr("another process of this training has ended; its own message says why")) from None
    finally:
        distributed.destroy_process_group()


def _take_gpu(local: int) -> None:
    from accelerate.utils import check_cuda_p2p_ib_support

    if local >= torch.cuda.device_count():
        raise UserError(
            tr(
                "more processes than GPUs; start torchrun with --nproc-per-node {count}",
                count=torch.cuda.device_count(),
            )
        )
    torch.cuda.set_device(local)
    if not check_cuda_p2p_ib_support():  # two cards of the RTX 4000 series, with an old driver
        os.environ.update(NCCL_P2P_DISABLE="1", NCCL_IB_DISABLE="1")
