"""Scores of the adapter under examination: batches and shared prefixes change no number."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.families import FAMILIES
from tests.training.fidelity.cases import load_random_adapter
from training.fidelity.adapted_model import AdaptedModel, Continuations
from training.lora.examples import Example


def log_probability(adapted: AdaptedModel, prompt: list[int], answer: list[int]) -> float:
    """Of an answer on its own, from the logits of a plain forward pass."""
    with torch.no_grad():
        logits = adapted.model(input_ids=torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
    return float(logits.log_softmax(-1).gather(1, torch.tensor(answer)[:, None]).double().sum())


@pytest.mark.parametrize("family", FAMILIES)
def test_options_are_scored_as_if_each_was_alone(tmp_path: Path, family: str) -> None:
    adapted = load_random_adapter(tmp_path, family)
    questions = [
        Continuations([2, 20, 21, 22], [[30, 31, 32], [40], [41, 42]]),
        Continuations([2, 50], [[33, 34], [35, 36, 37, 38]]),
    ]
    for question, values in zip(questions, adapted.log_probabilities(questions), strict=True):
        alone = [log_probability(adapted, question.prompt, answer) for answer in question.options]
        assert np.allclose(values, alone, rtol=1e-4, atol=1e-4)


def test_disabling_the_adapter_changes_scores_until_it_is_enabled_again(adapted: AdaptedModel) -> None:
    question = [Continuations([2, 20, 21], [[30, 31]])]
    with_adapter = adapted.log_probabilities(question)[0][0]
    with adapted.adapter_disabled():
        base = adapted.log_probabilities(question)[0][0]
    assert with_adapter != base
    assert adapted.log_probabilities(question)[0][0] == with_adapter


def test_losses_are_in_the_order_of_the_examples(adapted: AdaptedModel) -> None:
    examples = [Example([2, *range(20, 20 + count)], [0] + [1] * count, count) for count in (9, 3, 6)]
    together = adapted.example_losses(examples)
    alone = [adapted.example_losses([example])[0] for example in examples]
    assert [loss.text for loss in together] == pytest.approx([loss.text for loss in alone], rel=1e-4)
    assert [loss.text_bytes for loss in together] == [9, 3, 6]
