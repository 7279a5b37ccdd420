"""How many threads to train with, found out by training a little: on a busy machine fewer are faster.

torch shares every small loop among its threads and waits for the last of them, so that one core taken by
another program can make two threads several times slower than one.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numba
import torch

_MARGIN = 0.95  # more threads must be this much faster than fewer: they also take from whoever else computes here


def use_threads(count: int) -> None:
    """Lets torch and the compiled loops of `training.lora.cpu_kernels` use this many threads."""
    numba.set_num_threads(min(count, numba.config.NUMBA_NUM_THREADS))  # type: ignore[attr-defined]
    torch.set_num_threads(count)  # the second: numba's first call sets the number of the OpenMP that both may share


@contextmanager
def one_thread() -> Iterator[None]:
    """Within it torch uses one thread: a token at a time has too little work for the waiting of several."""
    before = torch.get_num_threads()
    use_threads(1)
    try:
        yield
    finally:
        use_threads(before)


def choose_threads(work: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> int:
    """Tries all of torch's threads, half of them, and so on to one, and leaves the fastest number in use.

    Args:
        work: a piece of the training to come, long enough to time.
        clock: seconds.
    """
    most = torch.get_num_threads()
    counts = sorted({max(1, most >> halvings) for halvings in range(most.bit_length())})
    best, fastest = counts[0], float("inf")
    for count in counts:
        use_threads(count)
        seconds = min(_timed(work, clock) for _ in range(2))
        if seconds < fastest * (_MARGIN if fastest < float("inf") else 1):
            best, fastest = count, seconds
    use_threads(best)
    return best


def _timed(work: Callable[[], object], clock: Callable[[], float]) -> float:
    began = clock()
    work()
    return clock() - began
