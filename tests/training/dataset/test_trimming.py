"""What is cut from a session: only ends, never a question from its answer, and every line is accounted for."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.training.messages import line
from training.cleaning.rules import DropReason
from training.dataset.sessions import SessionMessage
from training.dataset.trimming import split_around, trim_repeats


def session(letters: str) -> list[SessionMessage]:
    """`m` is the owner's, `r` the owner's and a repeat, `n` nearly one; every other letter is somebody."""
    return [
        line(number, letter, sender="me" if letter in "mrn" else letter, kind="group")
        for number, letter in enumerate(letters)
    ]


def verdict(one: SessionMessage) -> DropReason | None:
    reasons: dict[str, DropReason] = {"r": DropReason.REPEAT, "n": DropReason.NEAR_DUPLICATE}
    return reasons.get(one.message.text)


def texts(lines: Sequence[SessionMessage]) -> str:
    return "".join(line.message.text for line in lines)


@pytest.mark.parametrize(
    ("letters", "left"),
    [
        ("", ""),
        ("am", "am"),
        ("ab", "ab"),  # nothing of the owner's: not for here
        ("ar", ""),
        ("arbr", ""),
        ("aram", "am"),  # the first answer goes with its question
        ("amar", "ama"),  # what was said before the repeat follows the owner's words
        ("amara", "ama"),
        ("amaram", "amaram"),  # between two that stay a repeat is context
        ("aranam", "am"),
        ("amanara", "ama"),
        ("armam", "armam"),  # within a turn that says something new as well
        ("rm", "rm"),
        ("ram", "am"),
        ("m", "m"),
        ("nrr", ""),
        ("rambrcm", "ambrcm"),
        ("arambmcrd", "ambmc"),
    ],
)
def test_repeats_go_at_the_ends(letters: str, left: str) -> None:
    part, gone = trim_repeats(session(letters), verdict)
    assert texts(part) == left
    assert len(part) + len(gone) == len(letters)
    for removed, reason in gone:
        assert reason == (verdict(removed) or "no turn of yours")


@given(st.text(alphabet="abmrn", max_size=30))
def test_an_unbroken_stretch_is_left_and_every_line_is_accounted_for(letters: str) -> None:
    whole = session(letters)
    part, gone = trim_repeats(whole, verdict)
    kept, lost = {line.message.id for line in part}, {line.message.id for line, _ in gone}
    assert kept | lost == {line.message.id for line in whole}
    assert not kept & lost
    assert texts(part) in letters
    assert all(line.message.text != "m" for line, _ in gone)  # what is new is never lost
    assert part == [] or any(line.message.text == "m" for line in part) or not any(line.is_mine for line in part)
    assert trim_repeats(part, verdict) == (part, [])


@pytest.mark.parametrize(
    ("letters", "stretches"),
    [
        ("", []),
        ("am", ["am"]),
        ("x", []),
        ("xm", []),
        ("amxbm", ["am", "bm"]),
        ("amxmmbm", ["am", "bm"]),  # the owner's words right after it may answer it
        ("amxxmbxmam", ["am", "b", "am"]),
        ("amx", ["am"]),
        ("xmam", ["am"]),
    ],
)
def test_a_person_is_taken_out_with_the_answers(letters: str, stretches: list[str]) -> None:
    found = split_around(letters, lambda letter: letter == "x", lambda letter: letter == "m")
    assert [letters[start:stop] for start, stop in found] == stretches


@given(st.text(alphabet="abmx", max_size=30))
def test_the_stretches_are_apart_and_hold_nothing_of_the_person(letters: str) -> None:
    found = split_around(letters, lambda letter: letter == "x", lambda letter: letter == "m")
    ends = [place for stretch in found for place in stretch]
    assert ends == sorted(set(ends))
    left = "".join(letters[start:stop] for start, stop in found)
    assert "x" not in left
    assert left.count("a") + left.count("b") == letters.count("a") + letters.count("b")
    assert all(start == 0 or letters[start] != "m" for start, _ in found)
