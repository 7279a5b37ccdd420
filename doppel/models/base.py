"""The base model: located or downloaded, identified by its weights, and loaded.

`model.base` is `bundled`, a Hugging Face id, or a local folder with safetensors weights. Code from a model repository
is never run, and pickled weights are never read.
"""

import hashlib
import json
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from doppel.config import ModelSettings, cache_dir
from doppel.errors import DoppelError, UserError
from doppel.i18n import tr
from doppel.models.bundled import BUNDLED, bundled_folder, prepare_bundled
from doppel.secrets import HUB_TOKEN, read_secret
from doppel.system.atomic_file import write_atomically
from doppel.system.durable_files import file_digest

if TYPE_CHECKING:
    import torch
    from transformers import BitsAndBytesConfig, PreTrainedModel, PreTrainedTokenizerBase

_MAX_SLOWDOWN = 20  # of bfloat16 in the first product, which includes kernel set-up; beyond it is not timed again
_FLOAT16_FAMILIES = frozenset({"llama", "mistral", "qwen2", "qwen3"})
"""Whose activations stay within float16. Those of Gemma 3, Gemma 4 and Qwen3.5 overflow, and end as NaN."""
_WITHOUT_WEIGHTS = ("*.json", "tokenizer*", "*.model", "*.jinja", "*.txt")
_WITH_WEIGHTS = (*_WITHOUT_WEIGHTS, "*.safetensors")


class BaseIdentity(msgspec.Struct, frozen=True):
    """Identifies a base model: its id as configured, and a SHA-256 over its weight files."""

    id: str
    digest: str


def prepare_base(model: ModelSettings, on_progress: Callable[[str], None]) -> Path:
    """A folder with the base's safetensors weights, config and tokenizer; converted or downloaded if needed.

    Args:
        model: the `model` section of the configuration.
        on_progress: called with a line for the user when something slow begins or a licence applies.

    Raises:
        UserError: no such folder or id. DoppelError: the conversion or the download failed.
    """
    if model.base == BUNDLED:
        return prepare_bundled(on_progress)
    local = Path(model.base).expanduser()
    folder = local if local.is_dir() else _download(model.base, on_progress)
    if not (folder / "config.json").is_file() or not any(folder.glob("*.safetensors")):
        raise UserError(
            tr(
                "model.base: `{base}` has no config.json with safetensors weights (no other weight files are read)",
                base=model.base,
            )
        )
    return folder


def prepare_tokenizer(model: ModelSettings, on_progress: Callable[[str], None]) -> Path:
    """A folder with the base's config and tokenizer, for bases whose weights are on another machine.

    Raises:
        UserError: no such folder or id. DoppelError: the download failed.
    """
    if model.base == BUNDLED:
        return prepare_bundled(on_progress)
    local = Path(model.base).expanduser()
    return local if local.is_dir() else _download(model.base, on_progress, _WITHOUT_WEIGHTS)


def is_prepared(model: ModelSettings) -> bool:
    """Whether `prepare_base` will neither convert nor download anything."""
    if model.base == BUNDLED:
        return bundled_folder().is_dir()
    cached = _cached_download(model.base)
    return Path(model.base).expanduser().is_dir() or (cached is not None and any(cached.glob("*.safetensors")))


def identify(folder: Path, base_id: str) -> BaseIdentity:
    """The identity of a prepared base: a SHA-256 over the digests of its weight files.

    The digest is cached by path, size and modification time of the files, because large models take long to read.
    """
    weights = sorted(folder.glob("*.safetensors"))
    key = [f"{path.resolve()}:{path.stat().st_size}:{path.stat().st_mtime_ns}" for path in weights]
    cached = cache_dir() / "digests" / hashlib.sha256("\n".join(key).encode()).hexdigest()
    try:
        digest = cached.read_text(encoding="ascii")
    except FileNotFoundError:
        digest = hashlib.sha256("\n".join(file_digest(path) for path in weights).encode()).hexdigest()
        cached.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(cached, digest.encode("ascii"))
    return BaseIdentity(base_id, digest)


def load_tokenizer(folder: Path) -> "PreTrainedTokenizerBase":
    """The base's fast tokenizer. Raises UserError if it has none."""
    from transformers import AutoTokenizer

    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    if not tokenizer.is_fast:
        raise UserError(tr("{path}: has no fast tokenizer (tokenizer.json); doppel needs one", path=folder))
    return tokenizer


def has_chat_template(folder: Path) -> bool:
    """Whether a prepared base comes with a chat template; reads its files without loading the tokenizer."""
    if (folder / "chat_template.jinja").is_file():
        return True
    try:
        settings = json.loads((folder / "tokenizer_config.json").read_bytes())
        return bool(settings.get("chat_template"))
    except (OSError, ValueError, AttributeError):
        return False


def load_model(
    folder: Path,
    dtype: "torch.dtype",
    device: str = "cpu",
    quantization: "BitsAndBytesConfig | None" = None,
    *,
    split: bool = False,
) -> "PreTrainedModel":
    """The base's causal language model in evaluation mode.

    Args:
        folder: the prepared base.
        dtype: of the weights.
        device: where the weights go; ignored with `split`.
        quantization: how the linear layers are quantised; None: they are not.
        split: distribute the layers over all GPUs by their free memory.

    Raises:
        UserError: the model cannot be loaded.
    """
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype,
            local_files_only=True,
            use_safetensors=True,
            attn_implementation="sdpa",
            **({} if quantization is None else {"quantization_config": quantization, "device_map": {"": device}}),
            **({"device_map": "auto"} if split else {}),
        )
    except (OSError, ValueError) as error:
        raise UserError(
            tr("{path}: cannot be loaded: {error}", path=folder, error=str(error).splitlines()[0])
        ) from None
    if quantization is None and not split:  # otherwise it is loaded to its devices, and cannot be moved
        model.to(device)  # type: ignore[arg-type]
    model.eval()
    model.get_output_embeddings().register_forward_pre_hook(_make_contiguous)
    return model


def _make_contiguous(_: "torch.nn.Module", inputs: "tuple[torch.Tensor, ...]") -> "tuple[torch.Tensor, ...]":
    """Copies the hidden states before the head, because those of a prompt's last position are a strided slice.

    Given such a slice and frozen weights, torch copies the head instead: 7 s a prompt with a vocabulary of 262k.
    """
    import torch

    return (inputs[0].clone(memory_format=torch.contiguous_format), *inputs[1:])


def choose_device(setting: str) -> str:
    """Resolves `auto` to the first CUDA device, else Apple's GPU, else the CPU; returns anything else unchanged."""
    import torch

    if setting != "auto":
        return setting
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def choose_dtype(setting: str, device: str, folder: Path | None = None) -> "torch.dtype":
    """The dtype for frozen weights: as set; `auto` is bfloat16 unless another is faster on this machine.

    On a CPU bfloat16 and float32 are timed on a matrix product (about 0.1 s). CPUs without bfloat16 units are up to a
    hundred times slower in it; there a single product is enough. GPUs before Ampere emulate bfloat16 slowly, and get
    float16 or float32.

    Args:
        setting: `model.dtype` in config.yaml.
        device: where the model computes.
        folder: the prepared base; float16 is chosen only for one that is known to stay within its range.
    """
    import torch

    if setting != "auto":
        return torch.float32 if setting == "float32" else torch.bfloat16
    if device.startswith("cuda") and not torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.float16 if folder is not None and _model_type(folder) in _FLOAT16_FAMILIES else torch.float32
    if device != "cpu":
        return torch.bfloat16
    float32 = _gemm_seconds(torch.float32)
    bfloat16 = _gemm_seconds(torch.bfloat16, give_up_after=_MAX_SLOWDOWN * float32)
    return torch.bfloat16 if bfloat16 < float32 else torch.float32


def _model_type(folder: Path) -> str | None:
    """The family of a prepared base; None if its config names none."""
    try:
        return str(json.loads((folder / "config.json").read_bytes())["model_type"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _gemm_seconds(dtype: "torch.dtype", give_up_after: float = math.inf) -> float:
    """Seconds of a matrix product, the best of four; stops once the best is above `give_up_after`."""
    import torch

    left, right = torch.ones(512, 1024, dtype=dtype), torch.ones(1024, 1024, dtype=dtype)
    best = math.inf
    for _ in range(4):  # the first includes the set-up of the kernel
        started = time.perf_counter()
        torch.mm(left, right)
        best = min(best, time.perf_counter() - started)
        if best > give_up_after:
            break
    return best


def _download(base_id: str, on_progress: Callable[[str], None], patterns: tuple[str, ...] = _WITH_WEIGHTS) -> Path:
    """The folder of a model of the Hugging Face hub, downloaded unless its files are cached."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    cached = _cached_download(base_id)
    if cached is not None and (patterns is _WITHOUT_WEIGHTS or any(cached.glob("*.safetensors"))):
        return cached
    token = read_secret(HUB_TOKEN, os.environ) or None
    on_progress(tr("Downloading the base model {base} from the Hugging Face hub, once …", base=base_id))
    try:
        return Path(snapshot_download(base_id, allow_patterns=list(patterns), token=token))
    except (HFValidationError, RepositoryNotFoundError):
        raise UserError(
            tr("model.base: `{base}` is neither `bundled`, a folder, nor a model on the Hugging Face hub", base=base_id)
        ) from None
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise DoppelError(
            tr(
                "model.base: cannot download `{base}`: {reason}; try again or use a local folder",
                base=base_id,
                reason=reason,
            )
        ) from None


def _cached_download(base_id: str) -> Path | None:
    """The folder of a model in the hub's cache, possibly without weights; None if it is not there."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(base_id, allow_patterns=list(_WITH_WEIGHTS), local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError):
        return None
