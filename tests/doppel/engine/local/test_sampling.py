"""The sampler: equal to transformers' own processors, and sound on any logits."""

import math
from collections import Counter

import msgspec
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    NoBadWordsLogitsProcessor,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    SequenceBiasLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
)

from doppel.engine import EngineError, Sampling, Token
from doppel.engine.local.penalties import TokenHistory
from doppel.engine.local.sampling import Sampler, _blockwise_topk, candidates, sample

OFF = Sampling(temperature=1, top_k=0, top_p=1, min_p=0)
"""Draws from the model's own distribution."""
samplings = st.builds(
    Sampling,
    temperature=st.floats(0.05, 3),
    top_k=st.integers(0, 40),
    top_p=st.floats(0.05, 1),
    min_p=st.floats(0, 0.5),
    typical_p=st.one_of(st.just(1.0), st.floats(0.1, 1)),
    repetition_penalty=st.floats(1, 2),
    no_repeat_ngram=st.integers(0, 3),
    logit_bias=st.dictionaries(st.integers(0, 299), st.floats(-5, 5), max_size=3).map(
        lambda found: tuple(found.items())
    ),
    bad_words=st.lists(st.lists(st.integers(0, 299), min_size=1, max_size=2).map(tuple), max_size=3).map(tuple),
)


def random_logits(seed: int, size: int = 300, scale: float = 3.0) -> torch.Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed)) * scale


def reference(logits: torch.Tensor, sampling: Sampling, seen: list[int]) -> torch.Tensor:
    """Probabilities after the processors that `generate` would make of the same settings, in its order."""
    processors = LogitsProcessorList()
    if sampling.logit_bias:
        processors.append(SequenceBiasLogitsProcessor([[[token], bias] for token, bias in sampling.logit_bias]))
    if sampling.repetition_penalty != 1:
        processors.append(RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty))
    if sampling.no_repeat_ngram:
        processors.append(NoRepeatNGramLogitsProcessor(sampling.no_repeat_ngram))
    if sampling.bad_words:
        processors.append(NoBadWordsLogitsProcessor([list(word) for word in sampling.bad_words]))
    processors.append(TemperatureLogitsWarper(sampling.temperature))
    if sampling.top_k:
        processors.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1:
        processors.append(TopPLogitsWarper(sampling.top_p))
    processors.append(MinPLogitsWarper(sampling.min_p))
    if sampling.typical_p < 1:
        processors.append(TypicalLogitsWarper(sampling.typical_p))
    return processors(torch.LongTensor([seen]), logits[None].clone())[0].softmax(-1)


def distribution(logits: torch.Tensor, sampling: Sampling, seen: list[int]) -> torch.Tensor:
    """Probabilities of all tokens as the sampler has them."""
    scores = logits.clone()
    TokenHistory(sampling, seen).apply(scores)
    ids, weights = candidates(scores, sampling)
    return torch.zeros_like(logits).index_put((ids,), weights / weights.sum())


@given(samplings, st.integers(0, 10_000), st.lists(st.integers(0, 299), min_size=1, max_size=30))
def test_distribution_is_that_of_transformers(sampling: Sampling, seed: int, seen: list[int]) -> None:
    logits = random_logits(seed)
    expected = reference(logits, sampling, seen)
    actual = distribution(logits, sampling, seen)
    # A token exactly at a threshold may fall on either side by rounding; its whole mass is then the difference.
    edge = (actual > 0) != (expected > 0)
    if sampling.typical_p == 1:
        assert edge.sum() <= 1
    else:  # what typical_p keeps follows from the entropy, which that token changes
        assert edge.sum() <= 3
    assert torch.allclose(actual, expected, atol=1e-4 + float(torch.maximum(actual, expected)[edge].sum()))


@given(st.integers(0, 10_000))
def test_top_p_without_top_k_equals_a_full_sort(seed: int) -> None:
    logits = random_logits(seed, size=5_000, scale=0.5)  # flat: far more than the first guess is needed
    sampling = Sampling(temperature=1.0, top_k=0, top_p=0.9, min_p=0)
    expected = int((reference(logits, sampling, [0]) > 0).sum())
    assert len(candidates(logits, sampling)[0]) == pytest.approx(expected, abs=1)


@given(samplings, st.lists(st.floats(-(2.0**99), 2.0**99, width=32), min_size=1, max_size=60), st.integers())
def test_any_finite_logits_give_a_token_and_its_probability(sampling: Sampling, logits: list[float], seed: int) -> None:
    token = Sampler(msgspec.structs.replace(sampling, seed=seed), [0]).sample(torch.tensor(logits))
    assert 0 <= token.id < len(logits)
    assert -math.inf < token.logprob <= 0
    assert token.model_logprob is not None
    assert token.model_logprob <= 0


@given(st.lists(samplings, min_size=1, max_size=6), st.integers(0, 10_000))
def test_rows_of_a_batch_are_sampled_as_if_alone(chosen: list[Sampling], seed: int) -> None:
    chosen = [msgspec.structs.replace(sampling, seed=place) for place, sampling in enumerate(chosen)]
    chosen.append(Sampling(temperature=0))
    logits = torch.stack([random_logits(seed + place) for place in range(len(chosen))])
    prompt = [3, 1, 4, 1, 5, 9, 2, 6, 5]
    together, alone = [[Sampler(sampling, prompt) for sampling in chosen] for _ in range(2)]
    for _ in range(3):
        tokens = sample(together, logits)
        for sampler, row, token in zip(alone, logits, tokens, strict=True):
            expected = sampler.sample(row)
            assert isinstance(token, Token)
            assert token.id == expected.id
            assert (token.logprob, token.model_logprob) == pytest.approx(
                (expected.logprob, expected.model_logprob), abs=1e-4
            )


@pytest.mark.parametrize("seed", range(4))
def test_blockwise_topk_equals_a_sort(seed: int) -> None:
    scores = torch.randn(3, 64 * 200, generator=torch.Generator().manual_seed(seed))
    scores[1, :100] = 9.0  # ties, and all in two blocks
    best, ids = _blockwise_topk(scores, 64)
    assert torch.equal(best, scores.sort(descending=True).values[:, :64])
    assert torch.equal(best, scores.gather(1, ids))
    assert all(len(set(row.tolist())) == 64 for row in ids)


def test_a_row_of_nan_does_not_affect_others() -> None:
    logits = torch.stack([random_logits(1), torch.full((300,), math.nan), random_logits(2)])
    for sampling in (Sampling(seed=1), Sampling(seed=1, top_k=0), Sampling(temperature=0), OFF):
        one, none, other = sample([Sampler(sampling, []) for _ in range(3)], logits)
        assert isinstance(none, EngineError)
        assert isinstance(one, Token)
        assert isinstance(other, Token)


@given(st.integers(0, 10_000), st.floats(1, 2))
def test_temperature_zero_takes_the_likeliest(seed: int, penalty: float) -> None:
    logits = random_logits(seed)
    seen = [int(logits.argmax()), 5, 7]
    expected = RepetitionPenaltyLogitsProcessor(penalty)(torch.tensor([seen]), logits[None].clone()).argmax()
    token = Sampler(Sampling(temperature=0, repetition_penalty=penalty), seen).sample(logits)
    assert token.id == int(expected)
    assert token.logprob == 0


def test_samples_follow_the_distribution() -> None:
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()
    for sampling in (OFF, msgspec.structs.replace(OFF, top_k=3), msgspec.structs.replace(OFF, top_p=0.9)):
        kept = 4 if sampling is OFF else 3
        expected = [probability / sum((0.5, 0.3, 0.15, 0.05)[:kept]) for probability in (0.5, 0.3, 0.15, 0.05)[:kept]]
        sampler = Sampler(msgspec.structs.replace(sampling, seed=1), [])
        drawn = [sampler.sample(logits) for _ in range(4_000)]
        shares = Counter(token.id for token in drawn)
        for token, probability in enumerate(expected):
            assert shares[token] / 4_000 == pytest.approx(probability, abs=0.03)
        assert {token.id: token.logprob for token in drawn} == pytest.approx(
            {token: math.log(probability) for token, probability in enumerate(expected)}, abs=1e-5
        )


def test_log_probabilities_of_the_filtered_and_the_models_distribution() -> None:
    logits = torch.tensor([0.4, 0.4, 0.2]).log()
    sampling = Sampling(temperature=0.5, top_k=2, top_p=1, min_p=0, seed=0, logit_bias=((0, 1.0), (1, 1.0)))
    token = Sampler(sampling, []).sample(logits)
    assert token.logprob == pytest.approx(math.log(0.5))
    assert token.model_logprob == pytest.approx(math.log(0.4))


def test_presence_and_frequency_penalties_count_only_the_reply() -> None:
    logits = torch.tensor([1.0, 1.0, 0.0])
    sampling = msgspec.structs.replace(OFF, presence_penalty=0.25, frequency_penalty=0.5)
    history = TokenHistory(sampling, [2, 2])
    for token in (0, 0, 1):
        history.add(token)
    scores = logits.clone()
    history.apply(scores)
    assert scores.tolist() == [1 - 0.25 - 2 * 0.5, 1 - 0.25 - 0.5, 0]


def test_dry_grows_with_the_repetition() -> None:
    sampling = msgspec.structs.replace(OFF, dry_multiplier=0.8, dry_base=2, dry_allowed_length=2)

    def taken(*ids: int, breakers: frozenset[int] = frozenset()) -> dict[int, float]:
        scores = torch.zeros(10)
        TokenHistory(msgspec.structs.replace(sampling, breakers=breakers), ids).apply(scores)
        return {token: round(-value, 4) for token, value in enumerate(scores.tolist()) if value}

    assert taken(1, 2, 3, 4, 9, 3) == {}  # one token repeated is allowed
    assert taken(1, 2, 3, 4, 9, 2, 3) == {4: 0.8}
    assert taken(1, 2, 3, 4, 9, 1, 2, 3) == {4: 1.6}
    assert taken(2, 3, 5, 1, 2, 3, 4, 9, 1, 2, 3) == {4: 1.6, 5: 0.8}
    assert taken(1, 1, 1, 1) == {1: 1.6}
    assert taken(1, 2, 3, 4, 9, 1, 2, 3, breakers=frozenset({1})) == {4: 0.8}
    assert taken(1, 2, 3, 4, 9, 1, 2, 3, breakers=frozenset({4})) == {}
    assert taken(1, 2, 3, 4, 9, 1, 2, 3, breakers=frozenset({3})) == {}


def test_dry_ends_a_loop() -> None:
    logits = torch.full((300,), -2.0)
    logits[7] = 4.0
    looping, free = [
        Sampler(msgspec.structs.replace(OFF, seed=1, temperature=0.3, dry_multiplier=multiplier), [7, 7])
        for multiplier in (0.0, 0.8)
    ]
    assert {looping.sample(logits).id for _ in range(20)} == {7}
    drawn = [free.sample(logits).id for _ in range(20)]
    assert max(map(len, "".join("x" if token == 7 else " " for token in drawn).split())) < 8


def test_breakers_are_never_forbidden() -> None:
    logits = torch.tensor([3.0, 2.0, 1.0])
    sampling = Sampling(temperature=0, no_repeat_ngram=1, breakers=frozenset({0}))
    assert [Sampler(sampling, [0, 1]).sample(logits).id for _ in range(2)] == [0, 0]


def test_forbidding_everything_forbids_nothing() -> None:
    sampler = Sampler(Sampling(temperature=0, bad_words=((0,), (1,)), no_repeat_ngram=1), [])
    assert [sampler.sample(torch.tensor([1.0, 2.0])).id for _ in range(3)] == [1, 1, 1]


def test_token_ids_beyond_the_vocabulary_are_ignored() -> None:
    sampling = Sampling(
        temperature=0, logit_bias=((9, 5.0),), bad_words=((9,),), repetition_penalty=1.5, presence_penalty=1.0
    )
    assert Sampler(sampling, [9]).sample(torch.tensor([1.0, 2.0])).id == 1


def test_a_seed_is_reproducible_and_none_is_random() -> None:
    logits = random_logits(3)

    def tokens(seed: int | None) -> list[int]:
        sampler = Sampler(Sampling(seed=seed, temperature=2, top_k=0), [])
        return [sampler.sample(logits).id for _ in range(20)]

    assert tokens(7) == tokens(7)
    assert tokens(7) != tokens(8)
    assert tokens(None) != tokens(None)


def test_the_penalty_counts_sampled_tokens() -> None:
    logits = torch.tensor([2.0, 1.9])
    sampler = Sampler(Sampling(temperature=0, repetition_penalty=1.5), [])
    assert [sampler.sample(logits).id for _ in range(3)] == [0, 1, 0]


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_non_finite_logits_are_an_error(broken: float) -> None:
    with pytest.raises(EngineError, match="is not finite"):
        candidates(torch.tensor([1.0, broken, 2.0]), Sampling())


def test_half_precision_logits_are_compared_in_float32() -> None:
    logits = random_logits(5).bfloat16()
    ids, weights = candidates(logits, Sampling(top_k=10, top_p=1, min_p=0))
    assert weights.dtype == torch.float32
    assert len(ids) == 10
