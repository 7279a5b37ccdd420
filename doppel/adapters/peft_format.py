"""Adapters as PEFT leaves them, without a manifest: made elsewhere, or a checkpoint.

What any version of PEFT wrote for a plain LoRA is understood; what the engine cannot serve is refused with the
reason. Pickled weights are read only when asked for, and then nothing but tensors. Knows no persona.
"""

import hashlib
import re
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec
import torch
from peft import LoraConfig
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor

from doppel.adapters.lora_file import Lora, layers_of, scaling_of
from doppel.adapters.versions import PEFT_CONFIG, WEIGHTS, AdapterRefused
from doppel.errors import UserError
from doppel.i18n import tr
from doppel.models.base import BUNDLED, BaseIdentity, identify

PICKLED = "adapter_model.bin"

_KEY = re.compile(r"^(?:base_model\.model\.)?(?P<layer>.+)\.lora_(?P<side>[AB])(?:\.[A-Za-z0-9_\-]+)?\.weight$")
# Settings of PEFT's first versions that changed what is computed; the others it has dropped since did not.
_OLD_SETTINGS = ("enable_lora",)
_BUNDLED_NAMES = ("gemma-3-270m",)


class PeftAdapter(msgspec.Struct, frozen=True):
    """An adapter that says nothing of doppel.

    Attributes:
        lora: what it computes; its weights have the names that PEFT gives today.
        digest: SHA-256 of the file with the weights.
        base: the base model it names, if it does.
        unknown: settings that are none of PEFT's, which mean nothing.
    """

    lora: Lora
    digest: str
    base: str | None
    unknown: list[str]


def read_peft_adapter(folder: Path, *, pickled: bool) -> PeftAdapter:
    """Reads a folder with adapter_config.json and adapter_model.safetensors.

    Args:
        folder: where they lie; links are followed, as a hub's cache is made of them.
        pickled: read an old adapter_model.bin where there is no adapter_model.safetensors.

    Raises:
        UserError: it is no folder with an adapter. AdapterRefused: it is damaged, or no plain LoRA.
    """
    if not (folder / PEFT_CONFIG).is_file():
        raise UserError(tr("{path}: no folder with an adapter ({name} is missing)", path=folder, name=PEFT_CONFIG))
    found = _settings(folder)
    kind = found.get("peft_type")
    if kind != "LORA":
        raise AdapterRefused(tr("{path}: is of type {kind}; doppel serves LoRA", path=folder, kind=str(kind)[:40]))
    if old := next((name for name in _OLD_SETTINGS if found.get(name)), None):
        raise AdapterRefused(tr("{path}: uses {setting}, which doppel does not serve", path=folder, setting=old))
    known = LoraConfig().to_dict().keys()
    scaling = scaling_of(folder, msgspec.json.encode({name: found[name] for name in found if name in known}))
    if scaling.r < 1 or not scaling.lora_alpha > 0:
        raise AdapterRefused(tr("{path}: {name} cannot be read", path=folder, name=PEFT_CONFIG))
    tensors, digest = _tensors(folder, pickled=pickled)
    weights = _named(folder, tensors)
    lora = Lora(f"foreign-{digest[:12]}", folder, scaling, weights, layers_of(folder, weights, scaling.r))
    base = found.get("base_model_name_or_path")
    unknown = sorted(name for name in found if name not in known and found[name])
    return PeftAdapter(lora, digest, base if isinstance(base, str) and base else None, unknown)


def write_lora(folder: Path, lora: Lora, base: BaseIdentity) -> None:
    """Writes a LoRA as PEFT would, with nothing in its settings but what it computes and its base's id."""
    save_file(lora.weights, folder / WEIGHTS, metadata={"format": "pt"})
    settings = LoraConfig(
        **msgspec.structs.asdict(lora.scaling),
        target_modules=sorted(lora.layers),
        task_type="CAUSAL_LM",
        base_model_name_or_path=base.id,
        inference_mode=True,
    )
    settings.save_pretrained(str(folder))


def check_named_base(found: PeftAdapter, base: BaseIdentity) -> None:
    """Raises AdapterRefused when an adapter names another base model; one that names none may fit any."""
    if not _is_same_base(found.base, base):
        raise AdapterRefused(
            tr(
                "{path}: made for the base model {theirs}, and model.base is {ours}; if these are the same weights, "
                "use `doppel adapters import --force`",
                path=found.lora.folder,
                theirs=found.base,
                ours=base.id,
            )
        )


def _settings(folder: Path) -> dict[str, Any]:
    try:
        return msgspec.json.decode((folder / PEFT_CONFIG).read_bytes(), type=dict[str, Any])
    except (OSError, msgspec.MsgspecError, RecursionError):
        raise AdapterRefused(tr("{path}: {name} cannot be read", path=folder, name=PEFT_CONFIG)) from None


def _tensors(folder: Path, *, pickled: bool) -> tuple[dict[str, Tensor], str]:
    """The weights as they were saved, and the digest of their file."""
    path = folder / WEIGHTS
    if path.is_file():
        try:
            content = path.read_bytes()
            return load(content), hashlib.sha256(content).hexdigest()
        except (OSError, SafetensorError, KeyError):
            raise AdapterRefused(tr("{path}: {name} cannot be read", path=folder, name=WEIGHTS)) from None
    path = folder / PICKLED
    if not path.is_file():
        raise UserError(tr("{path}: no folder with an adapter ({name} is missing)", path=folder, name=WEIGHTS))
    if not pickled:
        raise AdapterRefused(
            tr("{path}: its weights are pickled; `doppel adapters import` makes safetensors of them", path=folder)
        )
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # noqa: BLE001 a hostile or damaged pickle fails in every possible way
        raise AdapterRefused(
            tr("{path}: {name} is damaged, or holds more than tensors, and is not read", path=folder, name=PICKLED)
        ) from None
    if not isinstance(content, dict) or not all(_is_plain(name, value) for name, value in content.items()):
        raise AdapterRefused(tr("{path}: {name} is no list of named tensors", path=folder, name=PICKLED))
    return content, digest


def _is_plain(name: Any, value: Any) -> bool:
    return isinstance(name, str) and isinstance(value, Tensor) and value.layout == torch.strided


def _named(folder: Path, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights under the names of today's PEFT, each in memory of its own. Other names are left to the checks."""
    weights: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        match = _KEY.match(key)
        name = f"base_model.model.{match['layer']}.lora_{match['side']}.weight" if match else key
        if name in weights:
            raise AdapterRefused(tr("{path}: holds {name} twice", path=folder, name=name))
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor.float()).all()):
            raise AdapterRefused(tr("{path}: {name} holds numbers that are not finite", path=folder, name=key))
        weights[name] = tensor.detach().clone(memory_format=torch.contiguous_format)
    return weights


def _is_same_base(name: str | None, base: BaseIdentity) -> bool:
    """Whether a base is meant by a name: by its weights if that is a folder here, else by the last part of the name.

    Folders above do not count, as everybody keeps models elsewhere.
    """
    if name is None:
        return True
    folder = Path(name).expanduser()
    with suppress(OSError):  # whatever the name is, it need not be one that a file could have
        if any(folder.glob("*.safetensors")):
            return identify(folder, name).digest == base.digest
    ours = {_last(base.id), *(_BUNDLED_NAMES if base.id == BUNDLED else ())}
    return _last(name) in ours


def _last(name: str) -> str:
    return PurePosixPath(name.replace("\\", "/")).name.lower()
