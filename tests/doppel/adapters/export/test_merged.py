"""The merged model: plain transformers loads it, and it computes what base and adapter compute."""

import json
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from doppel.adapters.export.gguf import write_gguf
from doppel.adapters.export.merged import write_merged
from doppel.adapters.export.target import check_free, exporting
from doppel.adapters.lora_file import Lora
from doppel.adapters.versions import AdapterRefused
from doppel.errors import DoppelError, UserError
from tests.families import EXPORTED, random_lora, save_family, save_seeing

IDS = torch.tensor([[7 * number % 250 + 3 for number in range(40)]])


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=IDS).logits
    return found.float()


@contextmanager
def no_file_above(size: int) -> Iterator[None]:
    """As on a full disk: the system refuses to write past `size` bytes of any file."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def adapted(base: Path, lora: Lora) -> torch.Tensor:
    """Logits of base and adapter apart, in float32."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    return logits(PeftModel.from_pretrained(model, str(lora.folder)))


@pytest.mark.parametrize("family", EXPORTED)
@pytest.mark.parametrize("tied", [False, True])
def test_logits_are_those_of_base_and_adapter(family: str, tied: bool, tmp_path: Path) -> None:
    base = save_family(family, tmp_path / "base", tied=tied)
    lora = random_lora(base, tmp_path / "adapters", use_rslora=tied)
    folder = write_merged(lora, base, tmp_path / "merged")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    assert type(model).__module__.startswith("transformers.models.")
    assert torch.allclose(logits(model), adapted(base, lora), atol=1e-3)
    assert (model.get_output_embeddings().weight is model.get_input_embeddings().weight) == tied


def test_half_precision_is_rounded_once(tmp_path: Path) -> None:
    base = save_family("gemma3", tmp_path / "base", dtype=torch.bfloat16)
    lora = random_lora(base, tmp_path / "adapters")
    folder = write_merged(lora, base, tmp_path / "merged")
    before, after = load_file(base / "model.safetensors"), load_file(folder / "model.safetensors")
    assert before.keys() == after.keys()
    for name, weight in after.items():
        assert weight.dtype == torch.bfloat16
        layer = name.removesuffix(".weight")
        if layer in lora.layers:
            outward, inward = (lora.weights[f"base_model.model.{layer}.lora_{side}.weight"] for side in "BA")
            exact = before[name].double() + lora.scaling.factor * (outward.double() @ inward.double())
            # bfloat16 has 8 binary digits; the sum itself was rounded to float32 before
            half_a_step = torch.ldexp(torch.ones_like(exact), exact.frexp().exponent - 9)
            assert ((weight.double() - exact).abs() <= half_a_step + 1e-6).all()
        else:
            assert torch.equal(weight, before[name])
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    expected = adapted(base, lora)
    assert (logits(model) - expected).abs().max() < 2**-6 * expected.abs().max()


def test_a_multimodal_model_is_merged(tmp_path: Path) -> None:
    base = save_seeing(tmp_path / "base")
    lora = random_lora(base, tmp_path / "adapters")
    folder = write_merged(lora, base, tmp_path / "merged")
    assert load_file(folder / "model.safetensors").keys() == load_file(base / "model.safetensors").keys()
    assert torch.allclose(logits(AutoModelForCausalLM.from_pretrained(folder)), adapted(base, lora), atol=1e-3)


def test_a_folder_that_may_not_be_entered_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: object, **__: object) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "is_dir", forbidden)
    with pytest.raises(DoppelError, match="cannot be written: Permission denied"):
        check_free(tmp_path / "out", folder=True)


def test_a_base_in_several_files(tmp_path: Path) -> None:
    base = save_family("qwen3", tmp_path / "base")
    model = AutoModelForCausalLM.from_pretrained(base)
    (base / "model.safetensors").unlink()
    model.save_pretrained(base, max_shard_size="100KB")
    assert len(list(base.glob("model-*.safetensors"))) > 2
    lora = random_lora(base, tmp_path / "adapters")
    folder = write_merged(lora, base, tmp_path / "merged")
    assert torch.allclose(logits(AutoModelForCausalLM.from_pretrained(folder)), adapted(base, lora), atol=1e-3)


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`:UserWarning")
def test_an_adapted_head_is_untied_from_the_embeddings(tmp_path: Path) -> None:
    base = save_family("llama", tmp_path / "base", tied=True)
    lora = random_lora(base, tmp_path / "adapters", target_modules=["lm_head"])
    folder = write_merged(lora, base, tmp_path / "merged")
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert torch.equal(
        model.get_input_embeddings().weight, load_file(base / "model.safetensors")["model.embed_tokens.weight"]
    )
    assert torch.allclose(logits(model), adapted(base, lora), atol=1e-3)


def test_only_files_that_belong_to_a_model_are_copied(tmp_path: Path) -> None:
    base = save_family("llama", tmp_path / "base")
    GenerationConfig(temperature=0.7, do_sample=True, eos_token_id=[1, 5]).save_pretrained(base)
    settings = json.loads((base / "generation_config.json").read_text())
    (base / "generation_config.json").write_text(json.dumps({**settings, "do_sample": False}))  # as Llama 2 has it
    for name in (
        "GEMMA_TERMS.html",
        "LICENSE",
        "chat_template.jinja",
        "modeling_evil.py",
        "tokenizer.pkl",
        "optimizer.pt",
    ):
        (base / name).write_text(name)
    folder = write_merged(random_lora(base, tmp_path / "adapters"), base, tmp_path / "deep" / "merged")
    assert {path.name for path in folder.iterdir()} == {
        *("config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"),
        *("GEMMA_TERMS.html", "LICENSE", "chat_template.jinja"),
    }
    assert (folder / "generation_config.json").read_bytes() == (base / "generation_config.json").read_bytes()
    text = "the theme, thinly"
    ids = AutoTokenizer.from_pretrained(base)(text).input_ids
    assert AutoTokenizer.from_pretrained(folder)(text).input_ids == ids


def test_a_folder_that_is_not_empty_is_refused(tmp_path: Path) -> None:
    base = save_family("llama", tmp_path / "base")
    lora = random_lora(base, tmp_path / "adapters")
    for target in (base, base / "config.json"):
        before = sorted(path.name for path in base.iterdir())
        with pytest.raises(UserError):
            write_merged(lora, base, target)
        assert sorted(path.name for path in base.iterdir()) == before
    (tmp_path / "empty").mkdir()
    assert (write_merged(lora, base, tmp_path / "empty") / "config.json").is_file()


def test_another_base_is_refused(tmp_path: Path) -> None:
    lora = random_lora(save_family("gemma3", tmp_path / "one"), tmp_path / "adapters")
    with pytest.raises(AdapterRefused, match="made for another base model"):
        write_merged(lora, save_family("llama", tmp_path / "two"), tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_a_quantised_base_is_refused(tmp_path: Path) -> None:
    base = save_family("llama", tmp_path / "base")
    lora = random_lora(base, tmp_path / "adapters")
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(
        json.dumps({**config, "quantization_config": {"quant_method": "gptq", "bits": 4}})
    )
    with pytest.raises(UserError, match="quantised weights cannot be merged"):
        write_merged(lora, base, tmp_path / "merged")


@pytest.mark.parametrize(("write", "size"), [(write_merged, 20_000), (write_gguf, 20_000), (write_gguf, 1000)])
def test_a_full_disk_is_one_line_and_leaves_nothing(write: Callable[..., Path], size: int, tmp_path: Path) -> None:
    base = save_family("llama", tmp_path / "base")
    lora = random_lora(base, tmp_path / "adapters")
    with (
        no_file_above(size),
        pytest.raises(DoppelError, match=r"there: cannot be written: .*(disk full|too large)") as caught,
    ):
        write(lora, base, tmp_path / "out" / "there")
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("folder", [True, False])
def test_an_export_that_is_stopped_leaves_nothing(folder: bool, tmp_path: Path) -> None:
    def stop_in_the_middle() -> None:
        with exporting(tmp_path / "out", folder=folder) as work:
            (work / "half" if folder else work).write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop_in_the_middle()
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_while_copying_the_tokenizer_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = save_family("llama", tmp_path / "base")
    lora = random_lora(base, tmp_path / "adapters")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(DoppelError, match="merged: cannot be written: No space left on device"):
        write_merged(lora, base, tmp_path / "merged")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapters", "base"]
