"""The processes of one training, one per GPU: which one is main, what they agree on, the sum of their gradients.

Launchers (torchrun, accelerate) start the same command several times and number the copies in the environment.
Each process holds the same adapter, plans the same steps, and computes its share of every step.
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

_TIMEOUT = timedelta(hours=12)
"""The longest wait for another process. Downloading or scoring a large base takes long; a process that dies is noticed
by the launcher at once."""

_PEER_LOST = re.compile(r"gloo|Connection (closed|reset)|NCCL|remote process exited")
_OTHER_STRATEGIES = ("ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED", "ACCELERATE_USE_MEGATRON_LM")


class ProcessGroup(msgspec.Struct, frozen=True):
    """The processes that train together, seen from this one; a single one unless a launcher started several.

    Attributes:
        rank: of this process, from 0.
        world_size: number of processes.
    """

    rank: int = 0
    world_size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes files and prints."""
        return self.rank == 0

    def broadcast(self, value: T) -> T:
        """The main process's value, in every process."""
        if self.world_size == 1:
            return value
        values: list[T] = [value]
        distributed.broadcast_object_list(values, src=0)
        return values[0]

    def all_gather(self, value: T) -> list[T]:
        """The values of all processes by rank, in every process."""
        if self.world_size == 1:
            return [value]
        values: list[T] = [value] * self.world_size
        distributed.all_gather_object(values, value)
        return values

    def barrier(self) -> None:
        """Waits until every process has come here."""
        self.all_gather(None)

    @contextmanager
    def one_at_a_time(self) -> Iterator[None]:
        """Runs the block in one process after another."""
        for _ in range(self.rank):
            self.barrier()
        yield
        for _ in range(self.rank, self.world_size):
            self.barrier()

    @contextmanager
    def main_first(self) -> Iterator[None]:
        """Runs the block in the main process, then in the others."""
        if not self.is_main:
            self.barrier()
        yield
        if self.is_main:
            self.barrier()

    @torch.no_grad()
    def broadcast_parameters(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        """Gives every process the main process's parameter values."""
        if self.world_size > 1:
            for parameter in parameters:
                distributed.broadcast(parameter.data, src=0)

    @torch.no_grad()
    def average_gradients(
        self, parameters: Sequence[torch.nn.Parameter], loss: torch.Tensor, tokens: int
    ) -> torch.Tensor:
        """Turns each process's gradient of a sum of losses into the gradient of the mean over all processes.

        Gradients and loss are reduced in one float32 tensor. A process without work has no gradients, and adds zeros.

        Args:
            parameters: the trained ones, in the same order in every process.
            loss: (), the sum of this process's losses.
            tokens: number of losses in all processes.

        Returns:
            (), the mean loss.
        """
        if self.world_size == 1:
            for parameter in parameters:
                if parameter.grad is not None:
                    parameter.grad /= tokens
            return loss / tokens
        sizes = [tensor.numel() for tensor in (*parameters, loss)]
        buffer = torch.zeros(sum(sizes), device=loss.device)
        *gradients, total = buffer.split(sizes)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            if parameter.grad is not None:
                gradient.copy_(parameter.grad.flatten())
        total.copy_(loss)
        distributed.all_reduce(buffer)
        buffer /= tokens
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient.view_as(parameter).to(parameter.dtype)
        mean: torch.Tensor = total[0]
        return mean


SINGLE_PROCESS = ProcessGroup()


@contextmanager
def join_processes(device: str) -> Iterator[ProcessGroup]:
    """Connects to the other processes that a launcher started, for as long as the block runs.

    Args:
        device: `cpu` or `cuda`; with several processes each takes a GPU of its own.

    Raises:
        UserError: the device cannot be shared, or there are more processes than GPUs.
        DoppelError: another process ended early.
    """
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    if world_size == 1 or "RANK" not in os.environ:
        yield SINGLE_PROCESS
        return
    if any(os.environ.get(name, "").lower() == "true" for name in _OTHER_STRATEGIES):
        raise UserError(
            tr("accelerate is set to use FSDP, DeepSpeed or Megatron; turn that off: doppel splits the work itself")
        )
    os.environ["ACCELERATE_MIXED_PRECISION"] = "no"  # the dtype is measured, and float16 would bring a loss scaler
    if device == "cuda":
        _use_gpu(int(os.environ.get("LOCAL_RANK", os.environ["RANK"])))
        # objects are exchanged through the CPU, so that they need no GPU memory
        distributed.init_process_group("cpu:gloo,cuda:nccl", timeout=_TIMEOUT)
    elif device == "cpu":
        distributed.init_process_group("gloo", timeout=_TIMEOUT)
    else:
        raise UserError(
            tr("model.device: `{device}` does not support several processes; use cuda or cpu", device=device)
        )
    try:
        yield ProcessGroup(distributed.get_rank(), world_size)
    except RuntimeError as error:
        if not _PEER_LOST.search(str(error)):
            raise
        raise DoppelError(tr("another process of this training has ended; see its own message for why")) from None
    finally:
        distributed.destroy_process_group()


def _use_gpu(local_rank: int) -> None:
    from accelerate.utils import check_cuda_p2p_ib_support

    if local_rank >= torch.cuda.device_count():
        raise UserError(
            tr(
                "needs at least {needed} GPUs, found {count}; start torchrun with --nproc-per-node {count}",
                needed=local_rank + 1,
                count=torch.cuda.device_count(),
            )
        )
    torch.cuda.set_device(local_rank)
    if not check_cuda_p2p_ib_support():  # two cards of the RTX 4000 series, with an old driver
        os.environ.update(NCCL_P2P_DISABLE="1", NCCL_IB_DISABLE="1")
