"""The sampler: equal to transformers' own processors, and sound on any logits."""

import math
from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from doppel.engine import EngineError, Sampling
from doppel.engine.sampling import Sampler, candidates

samplings = st.builds(
    Sampling,
    temperature=st.floats(0.05, 3),
    top_k=st.integers(0, 40),
    top_p=st.floats(0.05, 1),
    min_p=st.floats(0, 0.5),
    repetition_penalty=st.floats(1, 2),
)


def random_logits(seed: int, size: int = 300, scale: float = 3.0) -> torch.Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed)) * scale


def reference(logits: torch.Tensor, sampling: Sampling, seen: list[int]) -> torch.Tensor:
    """Probabilities after the processors that `generate` would make of the same settings, in its order."""
    processors = LogitsProcessorList()
    if sampling.repetition_penalty != 1:
        processors.append(RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty))
    processors.append(TemperatureLogitsWarper(sampling.temperature))
    if sampling.top_k:
        processors.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1:
        processors.append(TopPLogitsWarper(sampling.top_p))
    processors.append(MinPLogitsWarper(sampling.min_p))
    return processors(torch.tensor([seen]), logits[None])[0].softmax(-1)


@given(samplings, st.integers(0, 10_000), st.lists(st.integers(0, 299), min_size=1, max_size=30))
def test_distribution_is_that_of_transformers(sampling: Sampling, seed: int, seen: list[int]) -> None:
    logits = random_logits(seed)
    expected = reference(logits, sampling, seen)
    ids, weights = candidates(logits, sampling, sorted(set(seen)))
    actual = torch.zeros_like(expected)
    actual[ids] = weights / weights.sum()
    # A token exactly at a threshold may fall on either side by rounding; its whole mass is then the difference.
    edge = (actual > 0) != (expected > 0)
    assert edge.sum() <= 1
    assert torch.allclose(actual, expected, atol=1e-5 + float(torch.maximum(actual, expected)[edge].sum()))


@given(st.integers(0, 10_000))
def test_top_p_without_top_k_equals_a_full_sort(seed: int) -> None:
    logits = random_logits(seed, size=5_000, scale=0.5)  # flat: far more than the first guess is needed
    sampling = Sampling(temperature=1.0, top_k=0, top_p=0.9, min_p=0)
    expected = int((reference(logits, sampling, [0]) > 0).sum())
    assert len(candidates(logits, sampling)[0]) == pytest.approx(expected, abs=1)


@given(samplings, st.lists(st.floats(-(2.0**99), 2.0**99, width=32), min_size=1, max_size=60), st.integers())
def test_any_finite_logits_give_a_token_and_its_probability(sampling: Sampling, logits: list[float], seed: int) -> None:
    sampling = Sampling(**{**{f: getattr(sampling, f) for f in sampling.__struct_fields__}, "seed": seed})
    token = Sampler(sampling, [0]).draw(torch.tensor(logits))
    assert 0 <= token.id < len(logits)
    assert -math.inf < token.logprob <= 0


@given(st.integers(0, 10_000), st.floats(1, 2))
def test_temperature_zero_takes_the_likeliest(seed: int, penalty: float) -> None:
    logits = random_logits(seed)
    seen = [int(logits.argmax()), 5, 7]
    expected = RepetitionPenaltyLogitsProcessor(penalty)(torch.tensor([seen]), logits[None].clone()).argmax()
    token = Sampler(Sampling(temperature=0, repetition_penalty=penalty), seen).draw(logits)
    assert token.id == int(expected)
    assert token.logprob == 0


def test_draws_follow_the_distribution() -> None:
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()
    sampler = Sampler(Sampling(temperature=1, top_k=0, top_p=1, min_p=0, seed=1), [])
    drawn = [sampler.draw(logits) for _ in range(4_000)]
    shares = Counter(token.id for token in drawn)
    for token, probability in enumerate((0.5, 0.3, 0.15, 0.05)):
        assert shares[token] / 4_000 == pytest.approx(probability, abs=0.03)
    assert {token.id: token.logprob for token in drawn} == pytest.approx(
        {token: math.log(probability) for token, probability in enumerate((0.5, 0.3, 0.15, 0.05))}, abs=1e-5
    )


def test_logprob_is_under_the_filtered_distribution() -> None:
    logits = torch.tensor([0.4, 0.4, 0.2]).log()
    token = Sampler(Sampling(temperature=1, top_k=2, top_p=1, min_p=0, seed=0), []).draw(logits)
    assert token.logprob == pytest.approx(math.log(0.5))


def test_same_seed_same_tokens_and_fresh_ones_without() -> None:
    logits = random_logits(3)

    def tokens(seed: int | None) -> list[int]:
        sampler = Sampler(Sampling(seed=seed, temperature=2, top_k=0), [])
        return [sampler.draw(logits).id for _ in range(20)]

    assert tokens(7) == tokens(7)
    assert tokens(7) != tokens(8)
    assert tokens(None) != tokens(None)


def test_penalty_counts_what_was_drawn() -> None:
    logits = torch.tensor([2.0, 1.9])
    sampler = Sampler(Sampling(temperature=0, repetition_penalty=1.5), [])
    assert [sampler.draw(logits).id for _ in range(3)] == [0, 1, 0]


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_broken_logits_are_an_error(broken: float) -> None:
    with pytest.raises(EngineError, match="no usable numbers"):
        candidates(torch.tensor([1.0, broken, 2.0]), Sampling())


def test_half_precision_logits_are_compared_in_float32() -> None:
    logits = random_logits(5).bfloat16()
    ids, weights = candidates(logits, Sampling(top_k=10, top_p=1, min_p=0))
    assert weights.dtype == torch.float32
    assert len(ids) == 10
