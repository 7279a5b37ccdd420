"""A quantised base: what is quantised and what not, what is refused, and that it is trained and published."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from doppel.adapters.versions import current_version, read_manifest
from doppel.config import parse_config
from doppel.errors import UserError
from doppel.models import quantize
from doppel.models.base import identify, load_model
from doppel.models.quantize import Method, check_quantization, load_quantized, quantization
from tests.tiny import build_base
from tests.training.runs import small_run
from training.lora.examples import Example, collate
from training.lora.model import add_lora, match_adapter_dtype, token_losses
from training.lora.threads import use_threads
from training.run import run as fitting
from training.run.run import run_training

METHODS: tuple[Method, ...] = ("nf4", "int8")
EXAMPLE = Example([2, 20, 21, 30, 31, 40, 41, 50, 22, 23], [0, 0, 0, 1, 1, 1, 2, 1, 1, 2], 12)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wide enough to fill a few blocks of quantised weights."""
    return build_base(tmp_path_factory.mktemp("wide") / "base", hidden_size=64)


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR, logger="bitsandbytes")


class TestRefused:
    def test_without_bitsandbytes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(quantize, "find_spec", lambda _: None)
        with pytest.raises(UserError, match=r"training\.quantize: needs bitsandbytes; .*doppel\[quant\]") as caught:
            check_quantization("cuda")
        assert caught.value.exit_code == 2

    def test_on_apples_gpu(self) -> None:
        with pytest.raises(UserError, match=r"training\.quantize: .* not on mps; write null, or model\.device: cpu"):
            check_quantization("mps")

    def test_before_anything_slow_begins(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(quantize, "find_spec", lambda _: None)
        config = parse_config(
            {"model": {"base": "nobody/nothing", "device": "cpu"}, "training": {"quantize": "nf4"}},
            tmp_path / "config.yaml",
        )
        with pytest.raises(UserError, match="needs bitsandbytes"):
            run_training(config)

    @pytest.mark.parametrize("training", [{"quantize": "fp8"}, {"quantize": "nf4", "split": True}])
    def test_in_the_configuration(self, training: dict[str, Any], tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"`training"):
            parse_config({"training": training}, tmp_path / "config.yaml")


def test_nf4_is_quantised_doubly_and_computes_in_the_dtype_of_the_body() -> None:
    config = quantization("nf4", torch.bfloat16)
    assert config.load_in_4bit
    assert config.bnb_4bit_quant_type == "nf4"
    assert config.bnb_4bit_use_double_quant
    assert config.bnb_4bit_compute_dtype == torch.bfloat16
    assert quantization("int8", torch.bfloat16).load_in_8bit


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("method", METHODS)
def test_only_the_layers_are_quantised_and_nothing_is_upcast(method: Method, dtype: torch.dtype, base: Path) -> None:
    model = load_quantized(base, method, dtype, "cpu")
    whole = load_model(base, dtype)
    linear = {
        name for name, module in whole.named_modules() if isinstance(module, torch.nn.Linear) and name != "lm_head"
    }
    quantised = {
        name.removesuffix(".weight")
        for name, parameter in model.named_parameters()
        if parameter.dtype in (torch.uint8, torch.int8)
    }
    assert quantised == linear
    assert {parameter.dtype for parameter in model.parameters() if parameter.is_floating_point()} == {dtype}
    assert model.num_parameters() == whole.num_parameters()
    adapted = add_lora(model, 2, 4)
    match_adapter_dtype(adapted, dtype)
    trained = {parameter.dtype for parameter in adapted.parameters() if parameter.requires_grad}
    assert trained == {torch.float32 if dtype == torch.float16 else dtype}
    assert len({name for name, _ in adapted.named_modules() if name.endswith("lora_A")}) == len(linear)


@pytest.mark.parametrize("method", METHODS)
def test_scoring_first_does_not_change_what_is_trained(method: Method, base: Path) -> None:
    """On some CPUs bitsandbytes repacks 4-bit weights when they are first evaluated, which ends all gradients."""
    use_threads(torch.get_num_threads())  # as a training does: numba's first call would change torch's in between
    results = []
    for scored in (False, True):
        model = load_quantized(base, method, torch.float32, "cpu")
        torch.manual_seed(0)
        adapted = add_lora(model, 2, 4)
        if scored:
            adapted.eval()
            with torch.no_grad():
                token_losses(adapted, collate([EXAMPLE]))
        adapted.train()
        losses, _ = token_losses(adapted, collate([EXAMPLE]))
        losses.sum().backward()
        gradients = [parameter.grad for name, parameter in adapted.named_parameters() if "lora_B" in name]
        assert all(gradient is not None and bool(gradient.abs().sum() > 0) for gradient in gradients)
        results.append([losses.detach(), *gradients])
    assert all(torch.equal(left, right) for left, right in zip(*results, strict=True))


@pytest.mark.parametrize("method", METHODS)
def test_it_is_close_to_the_base_itself(method: Method, base: Path) -> None:
    exact, _ = token_losses(load_model(base, torch.float32), collate([EXAMPLE]))
    rounded, _ = token_losses(load_quantized(base, method, torch.float32, "cpu"), collate([EXAMPLE]))
    assert float((rounded.mean() / exact.mean() - 1).abs().detach()) < 0.1
    assert not torch.equal(rounded, exact)


@pytest.mark.parametrize(("method", "dtype"), [("nf4", "float32"), ("int8", "bfloat16"), ("nf4", "float16")])
def test_it_learns_and_the_manifest_says_how(
    method: Method, dtype: str, tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fitting, "SampleReplies", lambda *_: list)
    monkeypatch.setattr("training.run.setup.choose_dtype", lambda *_: getattr(torch, dtype))
    config = small_run(tmp_path, base, quantize=method)
    result = run_training(config)
    assert result["bits_per_byte_after"] < 0.8 * result["bits_per_byte_before"]
    folder = current_version(config.adapters_dir)
    assert folder is not None
    manifest = read_manifest(folder)
    assert manifest.training["quantize"] == method
    assert manifest.training["dtype"] == dtype
    assert manifest.base == identify(base, str(base))  # served on the weights as they are
