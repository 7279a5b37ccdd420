"""Waits between tries."""

from random import Random

from doppel.system.backoff import Backoff


def test_waits_grow_to_the_longest_and_never_pass_it() -> None:
    backoff = Backoff(Random(1), first=1, longest=60)
    waits = [backoff.next() for _ in range(2000)]
    ceilings = [min(60.0, 2.0 ** min(number, 6)) for number in range(2000)]
    assert all(ceiling / 2 <= wait <= ceiling for wait, ceiling in zip(waits, ceilings, strict=True))


def test_a_success_starts_over() -> None:
    backoff = Backoff(Random(1))
    for _ in range(10):
        backoff.next()
    backoff.reset()
    assert backoff.next() <= 1


def test_two_daemons_wait_differently() -> None:
    first, second = Backoff(Random(1)), Backoff(Random(2))
    assert [first.next() for _ in range(5)] != [second.next() for _ in range(5)]
