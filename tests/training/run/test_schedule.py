"""The learning rate falls to zero when the run ends, whatever the machine's speed was."""

from collections.abc import Callable

import pytest

from training.run.schedule import Schedule


def rates(schedule: Schedule, seconds_of: Callable[[int], float]) -> tuple[list[float], float]:
    """The learning rate of each step, and the time that all of them took; `seconds_of` a step's number."""
    taken: list[float] = []
    seconds = 0.0
    while (progress := schedule.progress(len(taken), seconds)) < 1:
        taken.append(schedule.rate(progress))
        seconds += seconds_of(len(taken))
    return taken, seconds


def test_without_a_time_limit_every_step_is_taken_and_the_rate_ends_at_zero() -> None:
    taken, _ = rates(Schedule(1.0, 200), lambda _: 3.0)
    assert len(taken) == 200
    assert max(taken) == pytest.approx(1.0, abs=0.01)
    assert taken[0] < 0.2
    assert taken[6:] == sorted(taken[6:], reverse=True)
    assert taken[-1] < 1e-4


@pytest.mark.parametrize(
    "seconds_of",
    [lambda _: 4.0, lambda _: 1.0, lambda _: 9.0, lambda step: 4.0 if step < 30 else 12.0],
    ids=["as expected", "faster", "slower", "slower after a while"],
)
def test_the_rate_is_at_zero_when_the_time_is_up(seconds_of: Callable[[int], float]) -> None:
    taken, seconds = rates(Schedule(1.0, 10_000, seconds=400.0, step_seconds=4.0), seconds_of)
    assert taken[-1] < 0.01
    assert seconds == pytest.approx(400, abs=seconds_of(len(taken)) / 2 + 1)
    after_warm_up = taken[taken.index(max(taken)) :]
    assert after_warm_up == sorted(after_warm_up, reverse=True)


def test_with_time_to_spare_the_steps_end_it() -> None:
    taken, seconds = rates(Schedule(1.0, 50, seconds=400.0, step_seconds=4.0), lambda _: 1.0)
    assert (len(taken), seconds) == (50, 50)
    assert taken[-1] < 0.01


def test_one_step_is_taken_however_little_time_there_is() -> None:
    taken, _ = rates(Schedule(1.0, 50, seconds=0.001, step_seconds=4.0), lambda _: 4.0)
    assert len(taken) == 1
