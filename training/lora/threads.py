"""Chooses the number of CPU threads by timing a little work: on a busy machine fewer threads are faster.

torch divides every small loop among its threads and waits for the last one, so that two threads can be several times
slower than one if another program occupies a core.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numba
import torch

_MIN_GAIN = 0.95  # more threads have to take at most this share of the time, as they slow other programs down


def use_threads(count: int) -> None:
    """Sets the number of threads for torch and for the compiled loops of `training.lora.cpu_kernels`."""
    numba.set_num_threads(min(count, numba.config.NUMBA_NUM_THREADS))  # type: ignore[attr-defined]
    torch.set_num_threads(count)  # after numba, whose first call sets the number for an OpenMP that both may share


@contextmanager
def one_thread() -> Iterator[None]:
    """Uses one thread within the block: generating a token is too little work to divide."""
    before = torch.get_num_threads()
    use_threads(1)
    try:
        yield
    finally:
        use_threads(before)


def choose_threads(workload: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> int:
    """Tries all of torch's threads, half of them, and so on down to one; leaves the fastest number in use.

    Args:
        workload: a piece of the coming training, long enough to time.
        clock: returns seconds.
    """
    max_threads = torch.get_num_threads()
    counts = sorted({max(1, max_threads >> halvings) for halvings in range(max_threads.bit_length())})
    best, fastest = counts[0], float("inf")
    for count in counts:
        use_threads(count)
        seconds = min(_seconds(workload, clock) for _ in range(2))
        if seconds < fastest * (_MIN_GAIN if fastest < float("inf") else 1):
            best, fastest = count, seconds
    use_threads(best)
    return best


def _seconds(workload: Callable[[], object], clock: Callable[[], float]) -> float:
    began = clock()
    workload()
    return clock() - began
