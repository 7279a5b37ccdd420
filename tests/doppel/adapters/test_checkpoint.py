"""Adapter folders for a try: checkpoints are served as the version they would become, what is wrong is refused."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from doppel.adapters.checkpoint import describe_checkpoints, open_adapter
from doppel.adapters.habits import Habits
from doppel.adapters.versions import PEFT_CONFIG, RANK_CAP, WEIGHTS, AdapterRefused, Manifest, read_manifest
from doppel.config import Config, parse_config
from doppel.errors import UserError
from doppel.models.base import BaseIdentity
from doppel.persona import read_persona
from tests.conftest import PublishAdapter
from tests.tiny import build_base, save_lora


@pytest.fixture
def config(tmp_path: Path, tiny_base: Path) -> Config:
    return parse_config({"model": {"base": str(tiny_base)}}, tmp_path / "config.yaml")


@pytest.fixture
def checkpoint(tmp_path: Path, tiny_base: Path) -> Path:
    folder = tmp_path / "data" / "sample.training" / "checkpoint-30"
    folder.mkdir(parents=True)
    save_lora(tiny_base, folder)
    for name in ("optimizer.pt", "rng_state.pth", "training_args.bin", "trainer_state.json"):
        (folder / name).write_bytes(b"\x80\x04.")
    return folder


def change(checkpoint: Path, **settings: object) -> None:
    found = json.loads((checkpoint / PEFT_CONFIG).read_text())
    (checkpoint / PEFT_CONFIG).write_text(json.dumps({**found, **settings}))


def test_a_checkpoint_is_opened_like_the_version_it_would_become(config: Config, checkpoint: Path) -> None:
    manifest = Manifest(persona="ann", base=BaseIdentity("x", "y"), header_vocabulary={"year": ["2018"]})
    describe_checkpoints(checkpoint.parent, manifest, Habits(bubbles_per_turn=3))
    with open_adapter(checkpoint, config) as opened:
        persona = read_persona(opened.folder, opened.version)
        assert persona.manifest.version == "checkpoint-30"
        assert persona.manifest.persona == "ann"
        assert persona.manifest.header_vocabulary == {"year": ["2018"]}
        assert persona.habits.bubbles_per_turn == 3
        read_manifest(persona.folder)
        served = load_file(persona.folder / WEIGHTS)
        assert all(torch.equal(served[name], tensor) for name, tensor in load_file(checkpoint / WEIGHTS).items())
        shutil.rmtree(checkpoint)  # the training goes on and keeps the two newest
        assert (persona.folder / WEIGHTS).is_file()
    assert not persona.folder.exists()


def test_a_checkpoint_without_a_manifest_has_the_configured_persona(config: Config, checkpoint: Path) -> None:
    (checkpoint.parent / "habits.json").write_text("not ours")
    with open_adapter(checkpoint, config) as opened:
        persona = read_persona(opened.folder, opened.version)
        assert persona.manifest.persona == "sample"
        assert persona.manifest.header_vocabulary == {}
        assert persona.habits == Habits()


def test_a_published_version_is_opened_in_place(
    config: Config, publish_tiny_adapter: PublishAdapter, tmp_path: Path
) -> None:
    folder = publish_tiny_adapter(tmp_path / "elsewhere", persona="maria")
    with open_adapter(folder, config) as opened:
        persona = read_persona(opened.folder, opened.version)
        assert persona.folder == folder
        assert persona.manifest.persona == "maria"


def test_a_folder_without_an_adapter_is_refused(config: Config, checkpoint: Path) -> None:
    for folder, says in ((checkpoint / "deeper", "no such folder"), (checkpoint.parent, "no adapter here")):
        with pytest.raises(UserError, match=says), open_adapter(folder, config):
            pass


class TestRefused:
    def expect(self, says: str, checkpoint: Path, config: Config) -> None:
        with pytest.raises(AdapterRefused, match=says) as caught, open_adapter(checkpoint, config):
            pass
        assert str(caught.value).startswith(f"{checkpoint}: ")
        assert "\n" not in str(caught.value)

    def test_weights_of_another_base_are_refused(self, config: Config, checkpoint: Path, tmp_path: Path) -> None:
        change(checkpoint, base_model_name_or_path=str(build_base(tmp_path / "other", seed=5)))
        self.expect("made for the base model", checkpoint, config)

    def test_another_name_of_the_base_is_refused(self, config: Config, checkpoint: Path) -> None:
        change(checkpoint, base_model_name_or_path="google/gemma-3-1b-pt")
        self.expect("made for the base model google/gemma-3-1b-pt", checkpoint, config)

    def test_layers_that_the_base_lacks_are_refused(self, config: Config, checkpoint: Path, tmp_path: Path) -> None:
        save_lora(build_base(tmp_path / "other", hidden_size=48), checkpoint)
        change(checkpoint, base_model_name_or_path=None)
        self.expect("in the adapter but .* in this base", checkpoint, config)

    def test_a_rank_above_the_limit_is_refused(self, config: Config, checkpoint: Path, tiny_base: Path) -> None:
        save_lora(tiny_base, checkpoint, rank=RANK_CAP + 1)
        self.expect("not a LoRA of rank 1 to 512", checkpoint, config)

    def test_pickled_weights_are_refused(self, config: Config, checkpoint: Path) -> None:
        torch.save(load_file(checkpoint / WEIGHTS), checkpoint / "adapter_model.bin")
        (checkpoint / WEIGHTS).unlink()
        self.expect("its weights are pickled", checkpoint, config)

    def test_an_incomplete_file_is_refused(self, config: Config, checkpoint: Path) -> None:
        (checkpoint / WEIGHTS).write_bytes((checkpoint / WEIGHTS).read_bytes()[:-100])
        self.expect("adapter_model.safetensors cannot be read", checkpoint, config)

    def test_weights_that_are_nan_are_refused(self, config: Config, checkpoint: Path) -> None:
        weights = load_file(checkpoint / WEIGHTS)
        next(iter(weights.values())).fill_(torch.nan)
        save_file(weights, checkpoint / WEIGHTS)
        self.expect("not finite", checkpoint, config)
