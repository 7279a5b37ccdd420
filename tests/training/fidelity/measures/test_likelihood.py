"""The rival of an adapter is fair: on real conversations its prompt does not make the base model worse."""

from pathlib import Path

import pytest

from doppel.config import parse_config
from tests.families import random_lora
from tests.training.dataset.test_build import SilentProgress
from training.dataset.build import build_dataset
from training.dataset.files import read_sessions
from training.fidelity.adapted_model import load_adapted_model
from training.fidelity.measures.likelihood import PROMPT_TOKENS, bits_per_byte
from training.fidelity.served import served_windows, serving_of
from training.fidelity.texts import few_shot_prompt, select_evaluation_data

TOKENS = 250
"""Of replies, in some six prompts of a thousand tokens."""


@pytest.mark.slow
@pytest.mark.timeout(600)  # the base may have to be converted first
def test_the_prompt_does_not_hurt_the_base_on_the_sample(tmp_path: Path, bundled_base: Path) -> None:
    content = {"archive": "sample", "persona": {"name": "sam"}, "model": {"base": str(bundled_base)}}
    config = parse_config(content, tmp_path / "config.yaml")
    build_dataset(config, SilentProgress())
    adapted = load_adapted_model(config.model, random_lora(bundled_base, tmp_path / "adapters").folder)
    serving = serving_of(config, adapted.manifest, adapted.context_length)
    data = select_evaluation_data(list(read_sessions(config.data_dir)), adapted.transcript, serving)
    windows = served_windows(data.exchanges, adapted.transcript, TOKENS)
    prompt = few_shot_prompt(data.train, adapted.transcript, PROMPT_TOKENS)
    assert len(prompt) > PROMPT_TOKENS / 2
    with adapted.adapter_disabled():
        alone, prompted = adapted.turn_losses(windows), adapted.turn_losses(windows, prompt=prompt)
    assert bits_per_byte(prompted).value < bits_per_byte(alone).value * 1.01
