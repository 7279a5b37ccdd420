"""Where a training starts: from a version or a folder of PEFT's, exactly as it was; refused when it does not fit."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file

from doppel.adapters.peft_format import PICKLED
from doppel.adapters.versions import PEFT_CONFIG, WEIGHTS, AdapterRefused
from doppel.config import Config, parse_config
from doppel.errors import UserError
from doppel.models.base import identify, load_model
from tests.tiny import build_base, publish_adapter, save_lora
from training.lora.bits_per_byte import HeldOutScore
from training.run.plan import TrainingPlan
from training.run.run_state import RunFolder
from training.run.starting_point import add_starting_lora, choose_starting_point, read_starting_adapter

IDS = torch.tensor([[2, 40, 41, 42, 43, 44]])


@pytest.fixture
def config(tmp_path: Path, tiny_base: Path) -> Config:
    return parse_config({"model": {"base": str(tiny_base), "dtype": "float32"}}, tmp_path / "config.yaml")


@pytest.fixture
def foreign(tmp_path: Path, tiny_base: Path) -> Path:
    folder = tmp_path / "theirs"
    folder.mkdir()
    save_lora(tiny_base, folder, seed=5)
    return folder


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        output = model(IDS).logits
    assert isinstance(output, torch.Tensor)
    return output


def settle(folder: Path, **settings: Any) -> None:
    config_content = json.loads((folder / PEFT_CONFIG).read_text())
    (folder / PEFT_CONFIG).write_text(json.dumps({**config_content, **settings}))


@pytest.mark.parametrize("settings", [{}, {"use_rslora": True}, {"lora_alpha": 3}])
def test_a_starting_adapter_computes_what_peft_computes_and_can_be_trained(
    config: Config, tiny_base: Path, foreign: Path, settings: dict[str, Any]
) -> None:
    settle(foreign, **settings)
    expected = PeftModel.from_pretrained(load_model(tiny_base, torch.float32), foreign)
    start = read_starting_adapter(config.adapters_dir, str(foreign), identify(tiny_base, "tiny"))
    model = add_starting_lora(start, load_model(tiny_base, torch.float32))
    assert torch.allclose(logits(model), logits(expected), atol=1e-6)
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert len(trained) == len(load_file(foreign / WEIGHTS))
    assert all("lora_" in name for name in trained)


def test_only_the_layers_of_the_starting_adapter_are_adapted(config: Config, tiny_base: Path, foreign: Path) -> None:
    weights = {name: tensor for name, tensor in load_file(foreign / WEIGHTS).items() if "layers.1.mlp" in name}
    save_file(weights, foreign / WEIGHTS)
    start = read_starting_adapter(config.adapters_dir, str(foreign), identify(tiny_base, "tiny"))
    model = add_starting_lora(start, load_model(tiny_base, torch.float32))
    assert sum(parameter.requires_grad for parameter in model.parameters()) == 6


def test_a_version_is_found_by_its_number(config: Config, tiny_base: Path) -> None:
    folder = publish_adapter(tiny_base, config.adapters_dir)
    base = identify(tiny_base, "tiny")
    for name in ("1", "0001", str(folder)):
        assert read_starting_adapter(config.adapters_dir, name, base).parent.name == "0001"
    with pytest.raises(UserError, match="no adapter version 0002; published: 0001"):
        read_starting_adapter(config.adapters_dir, "2", base)
    with pytest.raises(UserError, match="--from needs a version or a folder"):
        read_starting_adapter(config.adapters_dir, "nowhere", base)


def test_a_starting_adapter_that_does_not_fit_is_refused(
    config: Config, tiny_base: Path, foreign: Path, tmp_path: Path
) -> None:
    base = identify(tiny_base, "tiny")
    other_adapter = publish_adapter(build_base(tmp_path / "other", seed=9), tmp_path / "elsewhere")
    with pytest.raises(AdapterRefused, match="trained on another base model"):
        read_starting_adapter(config.adapters_dir, str(other_adapter), base)
    settle(foreign, base_model_name_or_path="google/gemma-3-1b-pt")
    with pytest.raises(AdapterRefused, match="made for the base model google/gemma-3-1b-pt"):
        read_starting_adapter(config.adapters_dir, str(foreign), base)
    settle(foreign, base_model_name_or_path=None)
    larger = load_model(build_base(tmp_path / "larger", hidden_size=64), torch.float32)
    with pytest.raises(AdapterRefused, match="in the adapter but"):
        add_starting_lora(read_starting_adapter(config.adapters_dir, str(foreign), base), larger)
    weights = load_file(foreign / WEIGHTS)
    torch.save(weights, foreign / PICKLED)
    (foreign / WEIGHTS).unlink()
    with pytest.raises(AdapterRefused, match="pickled; import it with `doppel adapters import`"):
        read_starting_adapter(config.adapters_dir, str(foreign), base)
    rank = next(iter(weights.values())).shape[0]
    head = {"lora_A": torch.zeros(rank, 32), "lora_B": torch.zeros(272, rank)}
    save_file(
        {**weights, **{f"base_model.model.lm_head.{side}.weight": weight for side, weight in head.items()}},
        foreign / WEIGHTS,
    )
    with pytest.raises(AdapterRefused, match=r"adapts the output head \(lm_head\)"):
        add_starting_lora(
            read_starting_adapter(config.adapters_dir, str(foreign), base), load_model(tiny_base, torch.float32)
        )


def test_an_unfinished_run_resumes_only_with_the_same_starting_adapter(
    config: Config, tiny_base: Path, foreign: Path
) -> None:
    base = identify(tiny_base, "tiny")
    work = RunFolder(config.data_dir.with_name("sample.training"), "purpose")
    assert choose_starting_point(config.adapters_dir, None, work, base) == (None, None)
    begun = read_starting_adapter(config.adapters_dir, str(foreign), base)
    state = work.start(_plan(), HeldOutScore(1, 1, 1, 1), begun.parent, HeldOutScore(2, 2, 2, 2))
    for name in (None, str(foreign)):
        start, going_on = choose_starting_point(config.adapters_dir, name, work, base)
        assert start is not None
        assert (start.parent, going_on) == (begun.parent, state)
    publish_adapter(tiny_base, config.adapters_dir)
    start, going_on = choose_starting_point(config.adapters_dir, "1", work, base)
    assert start is not None
    assert going_on is None
    checkpoint = work.folder / "checkpoint-3"
    checkpoint.mkdir()
    save_lora(tiny_base, checkpoint)
    with pytest.raises(UserError, match="copy it elsewhere first"):
        choose_starting_point(config.adapters_dir, str(checkpoint), work, base)


def _plan() -> TrainingPlan:
    numbers = {name: 1 for name, kind in TrainingPlan.__annotations__.items() if kind in (int, float)}
    return TrainingPlan(**numbers, device="cpu", dtype="float32")
