"""Habits measured from bursts."""

import pytest

from doppel.adapters.habits import Habits
from tests.training.messages import line
from training.dataset.habits import HabitsCollector


def test_gaps_within_the_owners_bursts_are_measured() -> None:
    rhythm = HabitsCollector()
    lines = [line(0, "hi", sender="ana", at=0)]
    at = 5.0
    for number in range(1, 12):
        lines.append(line(number, "x" * 10, at=at))
        at += number * 2 / 60  # gaps of 2, 4, … 20 seconds
    lines.append(line(99, "ok", sender="ana", at=at + 1))
    lines.append(line(100, "a turn of its own", at=at + 30))
    rhythm.add(lines)
    habits = rhythm.habits()
    assert habits.bubbles_per_turn == 6.0
    assert habits.seconds_per_character == pytest.approx(1.1)
    assert habits.bubble_gap_seconds == pytest.approx([3.8, 5.6, 7.4, 9.2, 11.0, 12.8, 14.6, 16.4, 18.2])


def test_an_export_without_seconds_says_nothing_about_gaps() -> None:
    rhythm = HabitsCollector()
    rhythm.add([line(number, at=number) for number in range(20)])
    assert rhythm.habits() == Habits(bubbles_per_turn=20.0)


def test_nothing_measured_means_defaults() -> None:
    assert HabitsCollector().habits() == Habits()
