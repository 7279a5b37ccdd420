"""Linear layers with LoRAs beside them, of which each row of a batch uses one or none.

The same sums as PEFT's, with less to do for each token, and attached in a moment. Knows tensors; knows no files.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

_SMALL = 1 << 22  # products of numbers, which take one thread some 0.2 ms


class InForce:
    """Which rows of the batch use which adapter; every layer of a model looks at the same one."""

    def __init__(self) -> None:
        self._rows: int | None = None
        self._of: dict[str, Tensor | None] = {}

    def everywhere(self, name: str | None) -> None:
        """One adapter in all rows of any batch; None: the base alone."""
        self._rows = None
        self._of = {} if name is None else {name: None}

    def in_rows(self, names: Sequence[str | None]) -> None:
        """An adapter for each row of the batches to come."""
        self._rows = len(names)
        places: dict[str, list[int]] = {}
        for place, name in enumerate(names):
            if name is not None:
                places.setdefault(name, []).append(place)
        self._of = {name: torch.tensor(rows) for name, rows in places.items()}

    def groups(self, inputs: Tensor) -> Iterable[tuple[str, Tensor | None]]:
        """Adapters, with their rows of `inputs`; None: all. Raises RuntimeError when these are not the batch's rows."""
        if self._rows is not None and len(inputs) != self._rows:
            raise RuntimeError("this model mixes the rows of a batch; it cannot use several adapters at once")
        return self._of.items()

    @contextmanager
    def one_thread(self, inputs: Tensor, rank: int) -> Iterator[None]:
        """Has products so small that threads would wait for each other longer than they compute done by one.

        A single row is not shared out anyway.
        """
        is_small = inputs.shape[:-1].numel() > 1 and inputs.numel() * rank <= _SMALL
        threads = torch.get_num_threads()
        if threads == 1 or inputs.device.type != "cpu" or not is_small:
            yield
            return
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)


class AdaptedLinear(nn.Module):
    """A linear layer and the LoRAs attached to it.

    Args:
        linear: the base's layer, of any kind that has `in_features` and `out_features`.
        in_force: shared by all layers of the model.
    """

    def __init__(self, linear: nn.Linear, in_force: InForce) -> None:
        super().__init__()
        self.linear = linear
        self.loras: dict[str, tuple[Tensor, Tensor]] = {}
        """Name → A of shape (inputs, rank) and B of shape (rank, outputs), which is weighed already."""
        self._in_force = in_force

    @property
    def weight(self) -> Tensor:
        """The base's."""
        return self.linear.weight

    @property
    def bias(self) -> Tensor | None:
        """The base's."""
        return self.linear.bias

    def attach(self, name: str, down: Tensor, up: Tensor, factor: float, dtype: torch.dtype) -> None:
        """Adds a LoRA.

        Args:
            down: A, shape (rank, inputs).
            up: B, shape (outputs, rank).
            factor: what their product is multiplied by.
            dtype: to compute in; on a CPU it is float32, in which products so small take a third of the time.
        """
        device = self.linear.weight.device
        if device.type == "cpu":
            dtype = torch.float32
        elif device.type == "meta":  # it is kept elsewhere until it is needed, perhaps by an accelerator
            device = torch.device("cpu")
        weighed = up.float() * factor
        self.loras[name] = (
            down.t().to(device, dtype).contiguous(),  # this way round a product by few rows is quickest
            weighed.t().to(device, dtype).contiguous(),
        )

    def forward(self, inputs: Tensor) -> Tensor:
        """The base's product, and that of the LoRAs in force."""
        outputs: Tensor = self.linear(inputs)
        groups = [(self.loras[name], rows) for name, rows in self._in_force.groups(inputs) if name in self.loras]
        if groups:
            with self._in_force.one_thread(inputs, groups[0][0][0].shape[1]):
                for lora, rows in groups:
                    outputs = _added(outputs, inputs, lora, rows)
        return outputs


def _added(outputs: Tensor, inputs: Tensor, lora: tuple[Tensor, Tensor], rows: Tensor | None) -> Tensor:
    """The base's product and that of a LoRA, in some rows; None: all."""
    down, up = (half.to(inputs.device) for half in lora)
    if rows is None:
        return outputs + (inputs.to(down.dtype) @ down @ up).to(outputs.dtype)
    places = rows.to(inputs.device)
    change = inputs[places].to(down.dtype) @ down @ up
    return outputs.index_add(0, places, change.to(outputs.dtype))
