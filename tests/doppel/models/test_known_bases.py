"""What the recommended bases take, and that the README says the same."""

import re
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from doppel.models.known_bases import KNOWN_BASES, KnownBase, largest_base, matrix_rate, training_speed

ROOT = Path(__file__).parents[3]
PUBLISHED = {
    "bundled": 268_098_176,
    "Qwen/Qwen3-0.6B-Base": 596_049_920,
    "Qwen/Qwen3-1.7B-Base": 1_720_574_976,
    "Qwen/Qwen3-4B-Base": 4_022_468_096,
    "Qwen/Qwen3-8B-Base": 8_190_735_360,
    "Qwen/Qwen3-14B-Base": 14_768_307_200,
}
"""Parameters, norms included."""


@pytest.mark.parametrize("base", KNOWN_BASES, ids=[base.name for base in KNOWN_BASES])
def test_the_shapes_have_the_published_number_of_parameters(base: KnownBase) -> None:
    assert base.parameters == pytest.approx(PUBLISHED[base.name], rel=0.002)


def test_larger_bases_take_more_of_everything() -> None:
    for small, large in pairwise(KNOWN_BASES):
        assert small.training_bytes(1024) < large.training_bytes(1024)
        assert small.smallest_training_bytes(1024) < large.smallest_training_bytes(1024)
        assert small.serving_bytes() < large.serving_bytes()
        assert training_speed(small, 1e12) > training_speed(large, 1e12)
    for base in KNOWN_BASES:
        least, most = base.smallest_training_bytes(1024), base.training_bytes(1024)
        assert base.weight_bytes() < base.serving_bytes() < least < most


def test_time_and_memory_decide_which_base_is_affordable() -> None:
    def choose(rate: float, memory: int | None, hours: float = 8) -> str | None:
        base = largest_base(rate, memory, bytes_per_weight=2, length=1024, tokens=500_000, hours=hours)
        return None if base is None else base.name

    assert choose(1e15, 10**12) == "Qwen/Qwen3-14B-Base"
    assert choose(1e15, None) == "Qwen/Qwen3-14B-Base"
    assert choose(1e15, 16 * 10**9) == "Qwen/Qwen3-4B-Base"
    assert choose(1e15, 10**9) is None
    assert choose(4e11, 24 * 10**9) == "Qwen/Qwen3-1.7B-Base"
    assert choose(4e11, 24 * 10**9, hours=0.1) is None


def test_computing_layers_twice_takes_longer() -> None:
    base = next(base for base in KNOWN_BASES if base.name == "Qwen/Qwen3-4B-Base")
    enough, little = (int(size(1024) / 0.8) for size in (base.training_bytes, base.smallest_training_bytes))
    assert base.slowdown(None, 1024) == base.slowdown(enough, 1024) == 1
    assert base.slowdown(little, 1024) == pytest.approx(4 / 3)
    hours = 1.1 * 500_000 / training_speed(base, 1e13) / 3600
    chosen = [
        largest_base(1e13, size, bytes_per_weight=2, length=1024, tokens=500_000, hours=hours)
        for size in (enough, little)
    ]
    assert chosen[0] == base
    assert chosen[1] is not None
    assert chosen[1].parameters < base.parameters


def test_the_matrix_rate_is_a_plausible_number() -> None:
    assert 1e8 < matrix_rate("cpu", torch.float32) < 1e15


@pytest.mark.parametrize("name", ["README.md", "README.zh-CN.md"])
def test_the_readme_has_the_memory_that_the_formula_gives(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    for base in KNOWN_BASES:
        row = re.search(rf"\| `{re.escape(base.name)}`[^|]*\| (\d+) GB \| (\d+)–(\d+) GB \|", text)
        assert row is not None, base.name
        shown = tuple(map(int, row.groups()))
        expected = (base.serving_bytes(), base.smallest_training_bytes(1024), base.training_bytes(1024))
        assert shown == tuple(round(size / 1e9) for size in expected)
