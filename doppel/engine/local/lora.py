"""LoRA adapters on one base model: attach, activate, detach. Used only on the inference thread."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import nn
from transformers import PreTrainedModel

from doppel.adapters.lora_file import Lora, check_fits, linear_layers
from doppel.engine.local.lora_layers import ActiveAdapters, LoraLinear


class LoraAdapters:
    """The LoRAs attached to one base model. One is active for the whole batch, or one per row, or none.

    Args:
        model: the base; linear layers that an adapter changes are replaced by `LoraLinear`.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        self._linear = linear_layers(model)
        self._adapted: dict[str, LoraLinear] = {}
        self._active = ActiveAdapters()

    def attach(self, lora: Lora) -> None:
        """Adds an adapter without activating it. Raises AdapterRefused and leaves the model unchanged."""
        check_fits(lora, self._linear)
        for layer in lora.layers:
            down, up = (lora.weights[f"base_model.model.{layer}.lora_{side}.weight"] for side in "AB")
            self._adapt(layer).attach(lora.name, down, up, lora.scaling.factor, self._model.dtype)

    def activate(self, name: str | None) -> None:
        """Activates one adapter for all rows; None: the base model alone."""
        self._active.set_all(name)

    @contextmanager
    def use_rows(self, names: Sequence[str | None]) -> Iterator[None]:
        """Activates an adapter per row of a batch while the context lasts; None: the base model alone."""
        if len(set(names)) == 1:
            self._active.set_all(names[0])
        else:
            self._active.set_rows(names)
        try:
            yield
        finally:
            self._active.set_all(None)

    def detach(self, name: str) -> None:
        """Removes an adapter and frees its weights, also one that was attached only partly."""
        for layer in self._adapted.values():
            layer.loras.pop(name, None)

    def _adapt(self, layer: str) -> LoraLinear:
        """Replaces the layer of that name by a `LoraLinear`, once."""
        if layer not in self._adapted:
            parent, _, child = layer.rpartition(".")
            linear = self._model.get_submodule(layer)
            assert isinstance(linear, nn.Linear)
            self._adapted[layer] = LoraLinear(linear, self._active)
            setattr(self._model.get_submodule(parent), child, self._adapted[layer])
        return self._adapted[layer]
