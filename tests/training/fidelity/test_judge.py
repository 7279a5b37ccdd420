"""The adapter under examination: batches and shared beginnings change no number, and replies follow from the seed."""

from pathlib import Path

import numpy as np
import pytest
import torch

from doppel.config import parse_config
from doppel.engine import Sampling
from doppel.transcript import ME, Header, Turn
from tests.families import FAMILIES, random_lora, save_family
from tests.training.fidelity.cases import situation
from training.fidelity.adapted_model import AdaptedModel, Continuations, load_adapted_model
from training.fidelity.generate import generate_replies
from training.lora.examples import Example


def opened(folder: Path, family: str) -> AdaptedModel:
    base = save_family(family, folder / "base")
    lora = random_lora(base, folder / "adapters")
    config = parse_config({"model": {"base": str(base), "dtype": "float32"}}, folder / "config.yaml")
    return load_adapted_model(config.model, lora.folder)


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> AdaptedModel:
    return opened(tmp_path_factory.mktemp("subject"), "gemma3")


def log_probability(subject: AdaptedModel, prompt: list[int], answer: list[int]) -> float:
    with torch.no_grad():
        logits = subject.model(input_ids=torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
    return float(logits.log_softmax(-1).gather(1, torch.tensor(answer)[:, None]).double().sum())


@pytest.mark.parametrize("family", FAMILIES)
def test_answers_are_scored_as_if_each_stood_alone(tmp_path: Path, family: str) -> None:
    subject = opened(tmp_path, family)
    questions = [
        Continuations([2, 20, 21, 22], [[30, 31, 32], [40], [41, 42]]),
        Continuations([2, 50], [[33, 34], [35, 36, 37, 38]]),
    ]
    for question, values in zip(questions, subject.log_probabilities(questions), strict=True):
        alone = [log_probability(subject, question.prompt, answer) for answer in question.options]
        assert np.allclose(values, alone, rtol=1e-4, atol=1e-4)


def test_the_adapter_disabled_is_another_and_the_adapter_comes_back(subject: AdaptedModel) -> None:
    question = [Continuations([2, 20, 21], [[30, 31]])]
    adapter = subject.log_probabilities(question)[0][0]
    with subject.adapter_disabled():
        base = subject.log_probabilities(question)[0][0]
    assert adapter != base
    assert subject.log_probabilities(question)[0][0] == adapter


def test_scores_come_in_order(subject: AdaptedModel) -> None:
    items = [Example([2, *range(20, 20 + count)], [0] + [1] * count, count) for count in (9, 3, 6)]
    together = subject.example_losses(items)
    alone = [subject.example_losses([item])[0] for item in items]
    assert [loss.text for loss in together] == pytest.approx([loss.text for loss in alone], rel=1e-4)
    assert [loss.text_bytes for loss in together] == [9, 3, 6]


def test_replies_follow_from_the_seed_and_not_from_their_batch(subject: AdaptedModel) -> None:
    asked = [situation(number, "x" * (1 + number % 7)) for number in range(20)]
    sampling = Sampling(max_tokens=20)
    replies = generate_replies(subject, asked, sampling)
    assert [reply.exchange for reply in replies] == asked
    assert any(reply.bubbles for reply in replies)
    assert generate_replies(subject, asked, sampling) == replies
    assert generate_replies(subject, asked, sampling, seed=1) != replies
    assert generate_replies(subject, asked[:1], sampling)[0] == replies[0]


def test_a_prompt_before_every_situation_is_read(subject: AdaptedModel) -> None:
    asked = [situation(number) for number in range(4)]
    greedy = Sampling(temperature=0, max_tokens=12)
    prefix = subject.transcript.encode(Header(), [Turn(ME, ("hello hello hello",))]).ids
    with_prefix = generate_replies(subject, asked, greedy, prompt=prefix)
    ids = prefix + subject.transcript.prompt(asked[0].header, asked[0].context)
    begin = len(ids)
    with torch.no_grad():
        while len(ids) < begin + 12 and ids[-1] not in subject.transcript.stop_ids:
            ids.append(int(subject.model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
    assert list(with_prefix[0].bubbles) == subject.transcript.reply(ids[begin:])
    assert with_prefix != generate_replies(subject, asked, greedy)
