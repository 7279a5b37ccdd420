"""The fastest number of threads is found and left in use."""

from collections.abc import Iterator

import pytest
import torch

from training.lora.threads import choose_threads, one_thread, use_threads


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    use_threads(before)


class Machine:
    """A clock on which a piece of work takes as long as the table says for the threads in use."""

    def __init__(self, seconds: dict[int, float]) -> None:
        self.seconds = seconds
        self.now = 0.0
        self.tried: set[int] = set()

    def work(self) -> None:
        self.tried.add(torch.get_num_threads())
        self.now += self.seconds[torch.get_num_threads()]

    def clock(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("seconds", "best"),
    [
        ({1: 8.0, 2: 4.5, 4: 2.5}, 4),
        ({1: 8.0, 2: 4.5, 4: 9.0}, 2),
        ({1: 2.0, 2: 3.0, 4: 9.0}, 1),
        ({1: 2.0, 2: 1.98, 4: 1.97}, 1),  # nothing gained: not taken
    ],
)
def test_takes_the_fastest(seconds: dict[int, float], best: int) -> None:
    torch.set_num_threads(4)
    machine = Machine(seconds)
    assert choose_threads(machine.work, machine.clock) == best
    assert torch.get_num_threads() == best
    assert machine.tried == {1, 2, 4}


def test_one_thread_stays_one() -> None:
    torch.set_num_threads(1)
    machine = Machine({1: 1.0})
    assert choose_threads(machine.work, machine.clock) == 1


def test_one_thread_for_a_while() -> None:
    use_threads(2)
    with one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2
