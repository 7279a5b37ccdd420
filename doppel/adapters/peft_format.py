"""Reads and writes adapters in PEFT's format, without a manifest: made elsewhere, or training checkpoints.

Plain LoRA of any version of PEFT can be read; anything else is refused with the reason. Pickled weights are read only
on request, and only if they contain nothing but tensors.
"""

import hashlib
import re
import warnings
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec
import torch
from peft import LoraConfig
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor

from doppel.adapters.lora_file import Lora, adapted_layers, parse_scaling, unsupported_setting
from doppel.adapters.versions import PEFT_CONFIG, WEIGHTS, AdapterRefused
from doppel.errors import UserError
from doppel.i18n import tr
from doppel.models.base import BaseIdentity, identify
from doppel.models.bundled import BUNDLED
from doppel.system.durable_files import file_digest

PICKLED = "adapter_model.bin"

_KEY = re.compile(r"^(?:base_model\.model\.)?(?P<layer>.+)\.lora_(?P<side>[AB])(?:\.[A-Za-z0-9_\-]+)?\.weight$")
# Dropped settings of PEFT's first versions that change what is computed.
_OLD_SETTINGS = ("enable_lora",)
_BUNDLED_NAMES = ("gemma-3-270m",)


class PeftAdapter(msgspec.Struct, frozen=True):
    """An adapter in PEFT's format.

    Attributes:
        lora: its weights, under the names that PEFT uses today.
        digest: SHA-256 of the file with the weights.
        base: the base model it names, or None.
        unknown: names of settings that PEFT does not have; they have no effect.
    """

    lora: Lora
    digest: str
    base: str | None
    unknown: list[str]


def read_peft_adapter(folder: Path, *, pickled: bool) -> PeftAdapter:
    """Reads a folder with adapter_config.json and adapter_model.safetensors.

    Args:
        folder: with the files or links to them, as in the Hugging Face cache.
        pickled: read an old adapter_model.bin if there is no adapter_model.safetensors.

    Raises:
        UserError: there is no adapter in the folder. AdapterRefused: it is damaged, or not a plain LoRA.
    """
    if not (folder / PEFT_CONFIG).is_file():
        raise UserError(tr("{path}: no adapter here: {name} is missing", path=folder, name=PEFT_CONFIG))
    settings = _read_settings(folder)
    kind = settings.get("peft_type")
    if kind != "LORA":
        raise AdapterRefused(
            tr("{path}: this is a {kind} adapter; doppel supports only LoRA", path=folder, kind=str(kind)[:40])
        )
    if old := next((name for name in _OLD_SETTINGS if settings.get(name)), None):
        raise unsupported_setting(folder, old)
    peft_names = LoraConfig().to_dict().keys()
    scaling = parse_scaling(
        folder, msgspec.json.encode({name: value for name, value in settings.items() if name in peft_names})
    )
    if scaling.r < 1 or not scaling.lora_alpha > 0:
        raise AdapterRefused(tr("{path}: {name} cannot be read", path=folder, name=PEFT_CONFIG))
    tensors, digest = _read_tensors(folder, pickled=pickled)
    weights = _with_current_names(folder, tensors)
    lora = Lora(f"foreign-{digest[:12]}", folder, scaling, weights, adapted_layers(folder, weights, scaling.r))
    base = settings.get("base_model_name_or_path")
    unknown = sorted(name for name, value in settings.items() if name not in peft_names and value)
    return PeftAdapter(lora, digest, base if isinstance(base, str) and base else None, unknown)


def write_lora(folder: Path, lora: Lora, base: BaseIdentity) -> None:
    """Writes a LoRA in PEFT's format; its settings hold only rank, scaling, layers and the base's id."""
    save_file(lora.weights, folder / WEIGHTS, metadata={"format": "pt"})
    settings = LoraConfig(
        **msgspec.structs.asdict(lora.scaling),
        target_modules=sorted(lora.layers),
        task_type="CAUSAL_LM",
        base_model_name_or_path=base.id,
        inference_mode=True,
    )
    settings.save_pretrained(str(folder))


def check_named_base(adapter: PeftAdapter, base: BaseIdentity) -> None:
    """Raises AdapterRefused if an adapter names another base model; one that names none is accepted."""
    if not _is_same_base(adapter.base, base):
        raise AdapterRefused(
            tr(
                "{path}: made for the base model {theirs}, but model.base is {ours}; if their weights are the same, "
                "use `doppel adapters import --force`",
                path=adapter.lora.folder,
                theirs=adapter.base,
                ours=base.id,
            )
        )


def _read_settings(folder: Path) -> dict[str, Any]:
    try:
        return msgspec.json.decode((folder / PEFT_CONFIG).read_bytes(), type=dict[str, Any])
    except (OSError, msgspec.MsgspecError, RecursionError):
        raise AdapterRefused(tr("{path}: {name} cannot be read", path=folder, name=PEFT_CONFIG)) from None


def _read_tensors(folder: Path, *, pickled: bool) -> tuple[dict[str, Tensor], str]:
    """The weights under their names in the file, and the file's digest."""
    path = folder / WEIGHTS
    if path.is_file():
        try:
            content = path.read_bytes()
            return load(content), hashlib.sha256(content).hexdigest()
        except (OSError, SafetensorError, KeyError):
            raise AdapterRefused(tr("{path}: {name} cannot be read", path=folder, name=WEIGHTS)) from None
    path = folder / PICKLED
    if not path.is_file():
        raise UserError(tr("{path}: no adapter here: {name} is missing", path=folder, name=WEIGHTS))
    if not pickled:
        raise AdapterRefused(
            tr(
                "{path}: its weights are pickled; import it with `doppel adapters import`, which converts them to "
                "safetensors",
                path=folder,
            )
        )
    try:
        digest = file_digest(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of a damaged or hostile pickle before it refuses it
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # noqa: BLE001 a damaged or hostile pickle can fail in any way
        raise AdapterRefused(
            tr(
                "{path}: {name} is damaged or contains more than tensors (a pickle can run code), so it was not loaded",
                path=folder,
                name=PICKLED,
            )
        ) from None
    if not isinstance(content, dict) or not all(_is_named_tensor(name, value) for name, value in content.items()):
        raise AdapterRefused(tr("{path}: {name} does not contain named tensors", path=folder, name=PICKLED))
    return content, digest


def _is_named_tensor(name: Any, value: Any) -> bool:
    return isinstance(name, str) and isinstance(value, Tensor) and value.layout == torch.strided


def _with_current_names(folder: Path, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Copies of the weights under the names that PEFT uses today. Unknown names are kept, to be refused later."""
    weights: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        match = _KEY.match(key)
        name = f"base_model.model.{match['layer']}.lora_{match['side']}.weight" if match else key
        if name in weights:
            raise AdapterRefused(tr("{path}: contains {name} twice", path=folder, name=name))
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor.float()).all()):
            raise AdapterRefused(tr("{path}: {name} contains numbers that are not finite", path=folder, name=key))
        weights[name] = tensor.detach().clone(memory_format=torch.contiguous_format)
    return weights


def _is_same_base(name: str | None, base: BaseIdentity) -> bool:
    """Whether a name means a base: compares weights if it is a folder here, else the last part of the name.

    The rest of a path does not count, because models are stored in different places.
    """
    if name is None:
        return True
    folder = Path(name).expanduser()
    with suppress(OSError):  # the name may not be a valid path
        if any(folder.glob("*.safetensors")):
            return identify(folder, name).digest == base.digest
    ours = {_last(base.id), *(_BUNDLED_NAMES if base.id == BUNDLED else ())}
    return _last(name) in ours


def _last(name: str) -> str:
    return PurePosixPath(name.replace("\\", "/")).name.lower()
