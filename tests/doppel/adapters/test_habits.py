"""Habits survive being written, and typing takes a human time."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doppel.adapters.habits import FILE, Habits, read_habits, write_habits

seconds = st.floats(0, 3600, allow_nan=False)


@given(st.builds(Habits, seconds_per_character=seconds, bubble_gap_seconds=st.lists(seconds).map(tuple)))
def test_what_is_written_is_read_back(tmp_path_factory: pytest.TempPathFactory, habits: Habits) -> None:
    folder = tmp_path_factory.mktemp("habits")
    write_habits(folder, habits)
    assert read_habits(folder) == habits


def test_without_a_file_the_defaults_are_used(tmp_path: Path) -> None:
    assert read_habits(tmp_path) == Habits()


def test_the_file_is_readable_by_people(tmp_path: Path) -> None:
    write_habits(tmp_path, Habits())
    assert '"seconds_per_character": 0.12' in (tmp_path / FILE).read_text()


@given(st.text(), seconds)
def test_typing_takes_between_a_moment_and_eight_seconds(text: str, pace: float) -> None:
    assert 0.4 <= Habits(seconds_per_character=pace).typing_seconds(text) <= 8


def test_a_longer_text_takes_longer() -> None:
    assert Habits().typing_seconds("a longer text") > Habits().typing_seconds("text")
