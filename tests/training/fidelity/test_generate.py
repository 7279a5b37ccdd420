"""Replies of the adapter under examination depend on seed and exchange, not on their batch."""

from pathlib import Path

import pytest
import torch

from doppel.engine import Sampling
from doppel.transcript import ME, Header, Turn
from tests.training.fidelity.cases import load_random_adapter, make_exchange
from training.fidelity.adapted_model import AdaptedModel, Continuations
from training.fidelity.generate import generate, generate_replies


def test_replies_depend_on_the_seed_and_not_on_their_batch(adapted: AdaptedModel) -> None:
    exchanges = [make_exchange(number, "x" * (1 + number % 7)) for number in range(20)]
    sampling = Sampling(max_tokens=20)
    replies = generate_replies(adapted, exchanges, sampling)
    assert [reply.exchange for reply in replies] == exchanges
    assert any(reply.bubbles for reply in replies)
    assert generate_replies(adapted, exchanges, sampling) == replies
    assert generate_replies(adapted, exchanges, sampling, seed=1) != replies
    assert generate_replies(adapted, exchanges[:1], sampling)[0] == replies[0]


def test_an_exchange_goes_on_from_the_prompt_as_one_sequence(adapted: AdaptedModel) -> None:
    exchanges = [make_exchange(number) for number in range(4)]
    greedy = Sampling(temperature=0, max_tokens=12)
    prefix = adapted.transcript.encode(Header(), [Turn(ME, ("hello hello hello",))]).ids
    with_prefix = generate_replies(adapted, exchanges, greedy, prompt=prefix)
    context = adapted.transcript.prompt(exchanges[0].header, exchanges[0].context)
    assert context[: len(adapted.transcript.start)] == adapted.transcript.start
    ids = prefix + context[len(adapted.transcript.start) :]
    begin = len(ids)
    with torch.no_grad():
        while len(ids) < begin + 12 and ids[-1] not in adapted.transcript.stop_ids:
            ids.append(int(adapted.model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
    assert list(with_prefix[0].bubbles) == adapted.transcript.reply(ids[begin:])
    assert with_prefix != generate_replies(adapted, exchanges, greedy)


def test_log_probabilities_of_a_generated_reply_are_those_of_scoring_it(tmp_path: Path) -> None:
    adapted = load_random_adapter(tmp_path, "llama")
    exchanges = [make_exchange(number, "x" * (1 + 3 * number)) for number in range(5)]
    for completion in generate(adapted, exchanges, Sampling(max_tokens=12)):
        exchange = completion.reply.exchange
        request = Continuations(adapted.transcript.prompt(exchange.header, exchange.context), [completion.ids])
        scores = adapted.token_log_probabilities([request])[0][0]
        assert scores == pytest.approx(completion.log_probabilities, abs=1e-3)
