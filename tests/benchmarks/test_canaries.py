"""The canaries of `benchmarks/canaries.py`: as many as said, in training alone, and exposure as it is defined."""

import math
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

from benchmarks.canaries import (
    ALTERNATIVES,
    REPEATS,
    check_goals,
    exposure,
    exposure_of,
    make_canaries,
    plant,
    small_talk,
)
from doppel.config import parse_config
from tests.conftest import PublishAdapter
from training.fidelity.adapted_model import load_adapted_model


def test_exposure_is_of_the_rank() -> None:
    others = [float(-number) for number in range(1, 1001)]
    assert exposure(0.0, others) == pytest.approx(math.log2(1001))
    assert exposure(-1.5, others) == pytest.approx(math.log2(1001) - 1)
    assert exposure(-2000.0, others) == 0
    assert exposure(-1.0, [-1.0] * 6) == pytest.approx(math.log2(7) - 2)  # of equals, half stand before it


def test_every_code_is_said_as_often_as_it_should_and_only_in_training() -> None:
    canaries = make_canaries(2, seed=0)
    assert (
        len({canary.digits for canary in canaries}) == len({canary.location for canary in canaries}) == 2 * len(REPEATS)
    )
    written = list(plant(canaries, small_talk(60, seed=0), seed=0))
    said = Counter(
        turn.bubbles[0] for session in written if session.split == "train" for turn in session.turns if turn.is_mine
    )
    for canary in canaries:
        assert said[canary.turn().bubbles[0]] == canary.repeats
        held = [turn for session in written if session.split != "train" for turn in session.turns]
        assert not any(canary.digits in bubble for turn in held for bubble in turn.bubbles)
    assert all(one.is_mine != other.is_mine for each in written for one, other in pairwise(each.turns))
    assert Counter(session.split for session in written) == {"train": 48, "validation": 6, "test": 6}
    assert list(plant(canaries, small_talk(60, seed=0), seed=0)) == written


def test_a_random_adapter_exposes_nothing_in_particular(
    tiny_base: Path, publish_tiny_adapter: PublishAdapter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.canaries.ALTERNATIVES", 40)
    config = parse_config({"model": {"base": str(tiny_base), "dtype": "float32"}}, tmp_path / "config.yaml")
    subject = load_adapted_model(config.model, publish_tiny_adapter(config.adapters_dir))
    found = [exposure_of(subject, canary, seed=0) for canary in make_canaries(2, seed=0)]
    assert ALTERNATIVES == 1000
    assert all(0 <= bits <= math.log2(41) for bits in found)
    assert len(set(found)) > 2


def test_a_code_said_once_is_judged_on_a_real_base_only() -> None:
    figures = {
        str(repeats): {"exposure": 1.5 if repeats < 4 else 9.0, "extracted": int(repeats == 1)} for repeats in REPEATS
    }
    assert [check["ok"] for check in check_goals(figures, quick=True)] == [True, True]
    assert [check["ok"] for check in check_goals(figures, quick=False)] == [True, True, True, False]
