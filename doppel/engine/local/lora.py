"""LoRA adapters beside one base model: attach, switch, detach.

Everything here belongs on the thread that runs the model.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import nn
from transformers import PreTrainedModel

from doppel.adapters.lora_file import Lora, check_fits, linear_layers
from doppel.engine.local.lora_layers import AdaptedLinear, InForce


class Adapters:
    """The LoRAs attached to one base model, of which one or none is in force, or one for each row.

    Args:
        model: the base; those of its linear layers that an adapter changes are replaced by ours.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        self._linear = linear_layers(model)
        self._adapted: dict[str, AdaptedLinear] = {}
        self._in_force = InForce()

    def attach(self, lora: Lora) -> None:
        """Adds an adapter without putting it in force. Raises AdapterRefused, the model being as before."""
        check_fits(lora, self._linear)
        for layer in lora.layers:
            down, up = (lora.weights[f"base_model.model.{layer}.lora_{side}.weight"] for side in "AB")
            self._adapt(layer).attach(lora.name, down, up, lora.scaling.factor, self._model.dtype)

    def activate(self, name: str | None) -> None:
        """Puts one adapter in force; None leaves the base model alone."""
        self._in_force.everywhere(name)

    @contextmanager
    def in_rows(self, names: Sequence[str | None]) -> Iterator[None]:
        """Puts an adapter in force for each row of a batch while the model runs; None: the base model alone."""
        if len(set(names)) == 1:
            self._in_force.everywhere(names[0])
        else:
            self._in_force.in_rows(names)
        try:
            yield
        finally:
            self._in_force.everywhere(None)

    def detach(self, name: str) -> None:
        """Forgets an adapter and frees its weights, even one that was attached only in part."""
        for layer in self._adapted.values():
            layer.loras.pop(name, None)

    def _adapt(self, layer: str) -> AdaptedLinear:
        """The layer of that name as one of ours."""
        if layer not in self._adapted:
            parent, _, child = layer.rpartition(".")
            linear = self._model.get_submodule(layer)
            assert isinstance(linear, nn.Linear)
            self._adapted[layer] = AdaptedLinear(linear, self._in_force)
            setattr(self._model.get_submodule(parent), child, self._adapted[layer])
        return self._adapted[layer]
