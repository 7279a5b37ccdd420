"""Reads the LoRA of a published adapter into memory, verifies it, and checks that it fits a base model.

These are the last checks before an adapter is served. Files are not opened by PEFT, which would fall back to pickle.
"""

import hashlib
import re
from pathlib import Path
from typing import Any

import msgspec
import torch
from peft import LoraConfig
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from doppel.adapters.versions import PEFT_CONFIG, WEIGHTS, AdapterRefused, Manifest, check_base, read_manifest
from doppel.i18n import tr
from doppel.models.base import BaseIdentity
from doppel.transcript import FORMAT

_KEY = re.compile(r"^base_model\.model\.(?P<layer>.+)\.lora_(?P<side>[AB])\.weight$")
# Settings that matter only in training, or that PEFT fills in.
_IGNORED_SETTINGS = frozenset(
    {
        *("auto_mapping", "base_model_name_or_path", "revision", "task_type", "peft_type", "peft_version"),
        *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "inference_mode"),
        *("lora_dropout", "init_lora_weights", "ensure_weight_tying", "runtime_config"),
    }
)
# Values of `init_lora_weights` that leave the base's weights unchanged; others, like PiSSA, change them.
_PLAIN_INITS = ("gaussian", "orthogonal", "eva")


class Scaling(msgspec.Struct, frozen=True):
    """Rank and scaling of a LoRA: the only settings that matter besides the weights."""

    r: int
    lora_alpha: float
    use_rslora: bool = False

    @property
    def factor(self) -> float:
        """The factor of the product of B and A."""
        return self.lora_alpha / (self.r**0.5 if self.use_rslora else self.r)


class Lora(msgspec.Struct, frozen=True):
    """A verified LoRA in memory.

    Attributes:
        name: version and digest, so unique per content; valid as a module name.
        folder: its source, for messages.
        scaling: rank and scaling.
        weights: by PEFT's names.
        layers: (inputs, outputs) by name of the adapted layer.
        transcript, template: from its manifest.
    """

    name: str
    folder: Path
    scaling: Scaling
    weights: dict[str, Tensor]
    layers: dict[str, tuple[int, int]]
    transcript: str = FORMAT
    template: str = ""


def read_lora(folder: Path, base: BaseIdentity) -> Lora:
    """Reads an adapter, with every check that needs no model.

    Raises:
        AdapterRefused: the adapter is damaged, of another base, or not a plain LoRA.
    """
    manifest = read_manifest(folder)
    check_base(folder, manifest, base)
    scaling = parse_scaling(folder, _read_verified(folder, PEFT_CONFIG, manifest))
    try:
        weights = load(_read_verified(folder, WEIGHTS, manifest))
    except (SafetensorError, KeyError) as error:
        raise AdapterRefused(tr("{path}: {name} cannot be read", path=folder, name=WEIGHTS)) from error
    version = re.sub(r"[^0-9A-Za-z]", "-", manifest.version)
    name = f"{version}-{manifest.files[WEIGHTS][:12]}-{manifest.files[PEFT_CONFIG][:4]}"
    layers = adapted_layers(folder, weights, scaling.r)
    return Lora(name, folder, scaling, weights, layers, manifest.transcript, manifest.template)


def linear_layers(model: PreTrainedModel) -> dict[str, tuple[int, int]]:
    """(inputs, outputs) of each linear layer by name, of a model without adapters."""
    return {
        name: (module.in_features, module.out_features)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
    }


def base_layers(folder: Path) -> dict[str, tuple[int, int]]:
    """`linear_layers` of a prepared base, without reading its weights."""
    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    with torch.device("meta"):
        return linear_layers(AutoModelForCausalLM.from_config(config))


def check_fits(lora: Lora, linear: dict[str, tuple[int, int]]) -> None:
    """Raises AdapterRefused if a LoRA adapts a layer that the base does not have, or that has another size there."""
    for layer, (inputs, outputs) in lora.layers.items():
        if layer not in linear:
            raise AdapterRefused(
                tr("{path}: made for another base model: this one has no layer {layer}", path=lora.folder, layer=layer)
            )
        if linear[layer] != (inputs, outputs):
            raise AdapterRefused(
                tr(
                    "{path}: made for another base model: {layer} is {theirs} in the adapter but {ours} in this base",
                    path=lora.folder,
                    layer=layer,
                    theirs=f"{inputs}×{outputs}",
                    ours="×".join(map(str, linear[layer])),
                )
            )


def _read_verified(folder: Path, name: str, manifest: Manifest) -> bytes:
    """A file's content, digested after reading, so that a change since `read_manifest` is noticed."""
    try:
        content = (folder / name).read_bytes()
    except OSError as error:
        raise AdapterRefused(tr("{path}: {name} cannot be read", path=folder, name=name)) from error
    if hashlib.sha256(content).hexdigest() != manifest.files[name]:
        raise AdapterRefused(tr("{path}: {name} is damaged (its digest differs)", path=folder, name=name))
    return content


def parse_scaling(folder: Path, content: bytes) -> Scaling:
    """Rank and scaling in an adapter_config.json; all other settings must be those of a plain LoRA.

    Raises:
        AdapterRefused: they are not, or the content is damaged.
    """
    try:
        settings = msgspec.json.decode(content, type=dict[str, Any])
        scaling = msgspec.convert(settings, Scaling)
    except msgspec.MsgspecError:
        raise AdapterRefused(tr("{path}: {name} cannot be read", path=folder, name=PEFT_CONFIG)) from None
    defaults = LoraConfig().to_dict()
    allowed = {*Scaling.__struct_fields__, *_IGNORED_SETTINGS}
    unsupported = [
        key for key, value in settings.items() if key not in allowed and value and value != defaults.get(key)
    ]
    if isinstance(init := settings.get("init_lora_weights"), str) and init not in _PLAIN_INITS:
        unsupported.append("init_lora_weights")
    if unsupported:
        raise unsupported_setting(folder, unsupported[0])
    return scaling


def unsupported_setting(folder: Path, setting: str) -> AdapterRefused:
    """The error for a setting in adapter_config.json that makes an adapter more than a plain LoRA."""
    return AdapterRefused(
        tr(
            "{path}: {setting} is set in adapter_config.json, which doppel does not support; train a LoRA without it",
            path=folder,
            setting=setting,
        )
    )


def adapted_layers(folder: Path, weights: dict[str, Tensor], rank: int) -> dict[str, tuple[int, int]]:
    """(inputs, outputs) of each adapted layer, from A of shape (rank, inputs) and B of shape (outputs, rank).

    Raises:
        AdapterRefused: these are not the weights of a plain LoRA of that rank.
    """
    sizes: dict[str, dict[str, int]] = {}
    for key, tensor in weights.items():
        match = _KEY.match(key)
        if match is None:
            raise AdapterRefused(
                tr(
                    "{path}: {name} is not a LoRA weight (…lora_A.weight or …lora_B.weight of a linear layer); train a "
                    "LoRA of linear layers only",
                    path=folder,
                    name=key,
                )
            )
        rank_axis = 0 if match["side"] == "A" else 1
        if tensor.dim() != 2 or tensor.shape[rank_axis] != rank or not tensor.is_floating_point():
            raise AdapterRefused(
                tr(
                    "{path}: {name} has shape {shape}, which does not match rank {rank} in adapter_config.json; "
                    "the two files may not belong together",
                    path=folder,
                    name=key,
                    shape="×".join(map(str, tensor.shape)),
                    rank=rank,
                )
            )
        sizes.setdefault(match["layer"], {})[match["side"]] = tensor.shape[1 - rank_axis]
    for layer, sides in sizes.items():
        if len(sides) != 2:
            raise AdapterRefused(
                tr(
                    "{path}: {layer} has only one of its two LoRA matrices (A and B); save the adapter again",
                    path=folder,
                    layer=layer,
                )
            )
    if not sizes:
        raise AdapterRefused(tr("{path}: {name} cannot be read", path=folder, name=WEIGHTS))
    return {layer: (sides["A"], sides["B"]) for layer, sides in sizes.items()}
