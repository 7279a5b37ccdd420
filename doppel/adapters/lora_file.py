"""Reads the LoRA of a published adapter into memory, verified, and checks that it fits a base model.

The last gate before weights are served: PEFT opens no file here (it would fall back to pickle), and only layers that
the base really has may be adapted, so that a bad adapter is refused before the model is touched.
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
# Settings that mattered in training only, or that PEFT fills in.
_IRRELEVANT = frozenset(
    {
        *("auto_mapping", "base_model_name_or_path", "revision", "task_type", "peft_type", "peft_version"),
        *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "inference_mode"),
        *("lora_dropout", "init_lora_weights", "ensure_weight_tying", "runtime_config"),
    }
)
# Starts that leave the base's weights alone; the others (PiSSA and the like) change them too.
_PLAIN_STARTS = ("gaussian", "orthogonal", "eva")


class Scaling(msgspec.Struct, frozen=True):
    """How a LoRA is weighed against the base: with its layers, taken from the weights, that is all of it."""

    r: int
    lora_alpha: float
    use_rslora: bool = False

    @property
    def factor(self) -> float:
        """What the product of B and A is multiplied by."""
        return self.lora_alpha / (self.r**0.5 if self.use_rslora else self.r)


class Lora(msgspec.Struct, frozen=True):
    """A verified LoRA in memory.

    Attributes:
        name: unique per content: version and digest, with no character that module names forbid.
        folder: where it came from, for messages.
        scaling: rank and weight.
        weights: by the names PEFT saved them under.
        layers: name of each adapted layer → its (inputs, outputs).
        transcript, template: as in its manifest.
    """

    name: str
    folder: Path
    scaling: Scaling
    weights: dict[str, Tensor]
    layers: dict[str, tuple[int, int]]
    transcript: str = FORMAT
    template: str = ""


def read_lora(folder: Path, base: BaseIdentity) -> Lora:
    """Reads an adapter after every check that needs no model. Blocks on the disk.

    Raises:
        AdapterRefused: the folder is damaged, of another base, or holds something other than plain LoRA.
    """
    manifest = read_manifest(folder)
    check_base(folder, manifest, base)
    scaling = scaling_of(folder, _verified(folder, PEFT_CONFIG, manifest))
    try:
        weights = load(_verified(folder, WEIGHTS, manifest))
    except (SafetensorError, KeyError) as error:
        raise AdapterRefused(tr("{path}: {name} cannot be read", path=folder, name=WEIGHTS)) from error
    version = re.sub(r"[^0-9A-Za-z]", "-", manifest.version)
    name = f"{version}-{manifest.files[WEIGHTS][:12]}-{manifest.files[PEFT_CONFIG][:4]}"
    layers = layers_of(folder, weights, scaling.r)
    return Lora(name, folder, scaling, weights, layers, manifest.transcript, manifest.template)


def linear_layers(model: PreTrainedModel) -> dict[str, tuple[int, int]]:
    """Name of each linear layer of a model that has no adapters → its (inputs, outputs)."""
    return {
        name: (module.in_features, module.out_features)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
    }


def base_layers(folder: Path) -> dict[str, tuple[int, int]]:
    """The linear layers of a prepared base, as `linear_layers`, without reading its weights."""
    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    with torch.device("meta"):
        return linear_layers(AutoModelForCausalLM.from_config(config))


def check_fits(lora: Lora, linear: dict[str, tuple[int, int]]) -> None:
    """Raises AdapterRefused when a LoRA adapts a layer that the base does not have, or has in another size."""
    for layer, (inputs, outputs) in lora.layers.items():
        if layer not in linear:
            raise AdapterRefused(
                tr("{path}: adapts {layer}, a layer this base model does not have", path=lora.folder, layer=layer)
            )
        if linear[layer] != (inputs, outputs):
            raise AdapterRefused(
                tr(
                    "{path}: {layer} is {theirs} in the adapter but {ours} in this base model",
                    path=lora.folder,
                    layer=layer,
                    theirs=f"{inputs}×{outputs}",
                    ours="×".join(map(str, linear[layer])),
                )
            )


def _verified(folder: Path, name: str, manifest: Manifest) -> bytes:
    """A file's bytes, which are those of the manifest even if the file changes while we look."""
    try:
        content = (folder / name).read_bytes()
    except OSError as error:
        raise AdapterRefused(tr("{path}: {name} cannot be read", path=folder, name=name)) from error
    if hashlib.sha256(content).hexdigest() != manifest.files[name]:
        raise AdapterRefused(tr("{path}: {name} is damaged (its digest differs)", path=folder, name=name))
    return content


def scaling_of(folder: Path, content: bytes) -> Scaling:
    """What adapter_config.json says of rank and weight; everything else must be as in a plain LoRA.

    Raises:
        AdapterRefused: it is not, or cannot be read.
    """
    try:
        found = msgspec.json.decode(content, type=dict[str, Any])
        scaling = msgspec.convert(found, Scaling)
    except msgspec.MsgspecError:
        raise AdapterRefused(tr("{path}: {name} cannot be read", path=folder, name=PEFT_CONFIG)) from None
    plain = LoraConfig().to_dict()
    own = {*Scaling.__struct_fields__, *_IRRELEVANT}
    extras = [key for key, value in found.items() if key not in own and value and value != plain.get(key)]
    if isinstance(start := found.get("init_lora_weights"), str) and start not in _PLAIN_STARTS:
        extras.append("init_lora_weights")
    if extras:
        raise AdapterRefused(tr("{path}: uses {setting}, which doppel does not serve", path=folder, setting=extras[0]))
    return scaling


def layers_of(folder: Path, weights: dict[str, Tensor], rank: int) -> dict[str, tuple[int, int]]:
    """Each adapted layer's (inputs, outputs), from A of shape (rank, inputs) and B of shape (outputs, rank).

    Raises:
        AdapterRefused: these are not the weights of a plain LoRA of that rank.
    """
    sizes: dict[str, dict[str, int]] = {}
    for key, tensor in weights.items():
        match = _KEY.match(key)
        ranked = 0 if match and match["side"] == "A" else 1
        if match is None or tensor.dim() != 2 or tensor.shape[ranked] != rank or not tensor.is_floating_point():
            raise AdapterRefused(tr("{path}: {name} is not part of a plain LoRA", path=folder, name=key))
        sizes.setdefault(match["layer"], {})[match["side"]] = tensor.shape[1 - ranked]
    for layer, sides in sizes.items():
        if len(sides) != 2:
            raise AdapterRefused(tr("{path}: {name} is not part of a plain LoRA", path=folder, name=layer))
    if not sizes:
        raise AdapterRefused(tr("{path}: {name} cannot be read", path=folder, name=WEIGHTS))
    return {layer: (sides["A"], sides["B"]) for layer, sides in sizes.items()}
