"""Adapters without a manifest: what PEFT has ever written of a plain LoRA is read, everything else refused by name."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from doppel.adapters.peft_format import PICKLED, check_named_base, read_peft_adapter, write_lora
from doppel.adapters.versions import PEFT_CONFIG, WEIGHTS, AdapterRefused
from doppel.errors import UserError
from doppel.models.base import BaseIdentity, identify
from tests.tiny import save_lora

OLD_SETTINGS = {
    "base_model_name_or_path": "decapoda-research/llama-7b-hf",
    "bias": "none",
    "enable_lora": None,
    "fan_in_fan_out": False,
    "inference_mode": True,
    "lora_alpha": 16,
    "lora_dropout": 0.05,
    "merge_weights": False,
    "modules_to_save": None,
    "peft_type": "LORA",
    "r": 4,
    "target_modules": ["q_proj", "v_proj"],
    "task_type": "CAUSAL_LM",
}
"""adapter_config.json as Alpaca-LoRA and its kin wrote it with PEFT 0.2."""


@pytest.fixture
def folder(tmp_path: Path, tiny_base: Path) -> Path:
    folder = tmp_path / "theirs"
    folder.mkdir()
    save_lora(tiny_base, folder)
    return folder


def settle(folder: Path, **settings: Any) -> None:
    config = json.loads((folder / PEFT_CONFIG).read_text())
    (folder / PEFT_CONFIG).write_text(json.dumps({**config, **settings}))


def rename(folder: Path, change: Callable[[str], str]) -> dict[str, Tensor]:
    weights = load_file(folder / WEIGHTS)
    save_file({change(name): tensor for name, tensor in weights.items()}, folder / WEIGHTS)
    return weights


def pickle(folder: Path, content: object | None = None) -> None:
    torch.save(load_file(folder / WEIGHTS) if content is None else content, folder / PICKLED)
    (folder / WEIGHTS).unlink()


def same(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def test_what_peft_saves_today_is_read(folder: Path, tiny_base: Path) -> None:
    adapter = read_peft_adapter(folder, pickled=False)
    assert adapter.lora.scaling.factor == 2
    assert same(adapter.lora.weights, load_file(folder / WEIGHTS))
    assert adapter.lora.layers["model.layers.0.self_attn.q_proj"] == (32, 32)
    assert adapter.base == str(tiny_base)
    assert adapter.unknown == []


@pytest.mark.parametrize(
    "change",
    [
        lambda name: name.removeprefix("base_model.model."),
        lambda name: name.replace(".weight", ".default.weight"),
        lambda name: name.removeprefix("base_model.model.").replace(".weight", ".my-adapter.weight"),
    ],
)
def test_other_names_for_the_same_weights_are_understood(folder: Path, change: Callable[[str], str]) -> None:
    weights = rename(folder, change)
    assert same(read_peft_adapter(folder, pickled=False).lora.weights, weights)


def test_old_settings_and_pickled_weights_are_understood(folder: Path) -> None:
    weights = load_file(folder / WEIGHTS)
    (folder / PEFT_CONFIG).write_text(json.dumps(OLD_SETTINGS))
    pickle(folder)
    with pytest.raises(AdapterRefused, match="pickled; import it with `doppel adapters import`"):
        read_peft_adapter(folder, pickled=False)
    adapter = read_peft_adapter(folder, pickled=True)
    assert same(adapter.lora.weights, weights)
    assert adapter.lora.scaling.factor == 4


@pytest.mark.parametrize(
    "settings",
    [
        {"target_modules": r".*\.(q|v)_proj"},
        {"task_type": None},
        {"task_type": "SEQ_2_SEQ_LM", "layers_to_transform": [0, 1]},
        {"unsloth_version": "2024.9", "auto_mapping": {"a": "b"}},
        {"init_lora_weights": "gaussian", "lora_dropout": 0.1},
        {"use_rslora": True},
    ],
)
def test_settings_for_training_only_are_ignored(folder: Path, settings: dict[str, Any]) -> None:
    settle(folder, **settings)
    adapter = read_peft_adapter(folder, pickled=False)
    assert adapter.unknown == (["unsloth_version"] if "unsloth_version" in settings else [])
    assert adapter.lora.scaling.factor == (4 if "use_rslora" in settings else 2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"peft_type": "LOHA"}, "this is a LOHA adapter; doppel supports only LoRA"),
        ({"peft_type": None}, "this is a None adapter"),
        ({"use_dora": True}, "use_dora is set in adapter_config.json, which doppel does not support"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save is set"),
        ({"bias": "lora_only"}, "bias is set"),
        ({"fan_in_fan_out": True}, "fan_in_fan_out is set"),
        ({"enable_lora": [True, False, True]}, "enable_lora is set"),
        ({"rank_pattern": {"q_proj": 2}}, "rank_pattern is set"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights is set"),
        ({"r": 0}, r"adapter_config\.json cannot be read"),
        ({"r": 8}, r"has shape \d+×\d+, which does not match rank 8 in adapter_config\.json"),
        ({"lora_alpha": None}, r"adapter_config\.json cannot be read"),
    ],
)
def test_what_the_engine_cannot_serve_is_refused_by_name(folder: Path, settings: dict[str, Any], message: str) -> None:
    settle(folder, **settings)
    with pytest.raises(AdapterRefused, match=message) as refusal:
        read_peft_adapter(folder, pickled=True)
    assert "\n" not in str(refusal.value)
    assert str(folder) in str(refusal.value)


class Hostile:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("/tmp/doppel-was-here"),))


@pytest.mark.parametrize("content", [Hostile(), {"a": Hostile()}, [1, 2], {"a": 1}, {1: torch.ones(1)}])
def test_a_pickle_with_more_than_tensors_is_not_read(folder: Path, content: object) -> None:
    pickle(folder, content)
    with pytest.raises(
        AdapterRefused, match=r"adapter_model\.bin (is damaged or contains more|does not contain named)"
    ):
        read_peft_adapter(folder, pickled=True)
    assert not Path("/tmp/doppel-was-here").exists()


def test_weights_that_are_not_of_a_lora_are_named(folder: Path) -> None:
    weights = load_file(folder / WEIGHTS)
    save_file({**weights, "base_model.model.lm_head.lora_magnitude_vector": torch.ones(4)}, folder / WEIGHTS)
    with pytest.raises(AdapterRefused, match="lora_magnitude_vector is not a LoRA weight"):
        read_peft_adapter(folder, pickled=False)


def test_half_of_a_layer_is_refused(folder: Path) -> None:
    weights = load_file(folder / WEIGHTS)
    name = next(name for name in weights if "lora_B" in name)
    save_file({key: tensor for key, tensor in weights.items() if key != name}, folder / WEIGHTS)
    with pytest.raises(AdapterRefused, match="has only one of its two LoRA matrices"):
        read_peft_adapter(folder, pickled=False)


@pytest.mark.parametrize("name", [WEIGHTS, PICKLED, PEFT_CONFIG])
@pytest.mark.parametrize("content", [b"", b"{", b"\x80\x04.", b"PK\x03\x04 cut off", b"[1]"])
def test_damaged_files_are_one_clear_line(folder: Path, name: str, content: bytes) -> None:
    if name == PICKLED:
        (folder / WEIGHTS).unlink()
    (folder / name).write_bytes(content)
    with pytest.raises(AdapterRefused, match=name):
        read_peft_adapter(folder, pickled=True)


def test_numbers_that_are_not_finite_are_refused(folder: Path) -> None:
    weights = load_file(folder / WEIGHTS)
    name = next(iter(weights))
    weights[name][0, 0] = float("nan")
    save_file(weights, folder / WEIGHTS)
    with pytest.raises(AdapterRefused, match="not finite"):
        read_peft_adapter(folder, pickled=False)


def test_a_folder_without_an_adapter_is_one_clear_line(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(UserError, match=r"adapter_config\.json is missing"):
        read_peft_adapter(tmp_path, pickled=True)
    (folder / WEIGHTS).unlink()
    with pytest.raises(UserError, match=r"adapter_model\.safetensors is missing"):
        read_peft_adapter(folder, pickled=True)


def test_what_is_written_is_read_back(folder: Path, tmp_path: Path) -> None:
    settle(folder, use_rslora=True, unsloth_version="2024.9")
    lora = read_peft_adapter(folder, pickled=False).lora
    target = tmp_path / "ours"
    target.mkdir()
    write_lora(target, lora, BaseIdentity("bundled", "00"))
    again = read_peft_adapter(target, pickled=False)
    assert again.unknown == []
    assert again.base == "bundled"
    assert again.lora.scaling == lora.scaling
    assert same(again.lora.weights, lora.weights)


@pytest.mark.parametrize(
    ("theirs", "ours", "fits"),
    [
        (None, "Qwen/Qwen3-0.6B-Base", True),
        ("Qwen/Qwen3-0.6B-Base", "Qwen/Qwen3-0.6B-Base", True),
        ("/home/ann/models/qwen3-0.6b-base/", "Qwen/Qwen3-0.6B-Base", True),
        (r"D:\models\Qwen3-0.6B-Base", "Qwen/Qwen3-0.6B-Base", True),
        ("Qwen/Qwen3-0.6B", "Qwen/Qwen3-0.6B-Base", False),
        ("google/gemma-3-270m", "bundled", True),
        ("google/gemma-3-270m-it", "bundled", False),
        ("x" * 5000, "bundled", False),
    ],
)
def test_the_base_it_names_is_compared(folder: Path, theirs: str | None, ours: str, fits: bool) -> None:
    settle(folder, base_model_name_or_path=theirs)
    adapter = read_peft_adapter(folder, pickled=False)
    if fits:
        check_named_base(adapter, BaseIdentity(ours, "00"))
    else:
        with pytest.raises(AdapterRefused, match=rf"model\.base is {ours}; .* --force"):
            check_named_base(adapter, BaseIdentity(ours, "00"))


def test_a_base_on_this_machine_is_compared_by_its_weights(folder: Path, tiny_base: Path) -> None:
    adapter = read_peft_adapter(folder, pickled=False)
    check_named_base(adapter, identify(tiny_base, "another name"))
    with pytest.raises(AdapterRefused):
        check_named_base(adapter, BaseIdentity(str(tiny_base), "other weights"))
