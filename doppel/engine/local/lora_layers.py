"""Linear layers with several LoRAs, of which each row of a batch uses one or none.

Computes the same as PEFT with less overhead per token, and attaches in milliseconds.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

_SMALL_PRODUCT = 1 << 22  # multiplications, which take one thread about 0.2 ms


class ActiveAdapters:
    """Which rows of the batch use which adapter; shared by all layers of a model."""

    def __init__(self) -> None:
        self._row_count: int | None = None
        self._rows_by_adapter: dict[str, Tensor | None] = {}

    def set_all(self, name: str | None) -> None:
        """One adapter for all rows of any batch; None: the base alone."""
        self._row_count = None
        self._rows_by_adapter = {} if name is None else {name: None}

    def set_rows(self, names: Sequence[str | None]) -> None:
        """An adapter per row of the following batches."""
        self._row_count = len(names)
        rows_by_adapter: dict[str, list[int]] = {}
        for row, name in enumerate(names):
            if name is not None:
                rows_by_adapter.setdefault(name, []).append(row)
        self._rows_by_adapter = {name: torch.tensor(rows) for name, rows in rows_by_adapter.items()}

    def groups(self, inputs: Tensor) -> Iterable[tuple[str, Tensor | None]]:
        """Adapters with their rows of `inputs`; None: all rows. Raises RuntimeError if the number of rows differs."""
        if self._row_count is not None and len(inputs) != self._row_count:
            raise RuntimeError("this model mixes the rows of a batch; it cannot use several adapters at once")
        return self._rows_by_adapter.items()

    @contextmanager
    def one_thread(self, inputs: Tensor, rank: int) -> Iterator[None]:
        """Computes small products on one thread, where synchronising several would take longer than computing.

        torch does not parallelise a single row anyway.
        """
        is_small = inputs.shape[:-1].numel() > 1 and inputs.numel() * rank <= _SMALL_PRODUCT
        threads = torch.get_num_threads()
        if threads == 1 or inputs.device.type != "cpu" or not is_small:
            yield
            return
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)


class LoraLinear(nn.Module):
    """A linear layer and the LoRAs attached to it.

    Args:
        linear: the base's layer, of any kind that has `in_features` and `out_features`.
        active: shared by all layers of the model.
    """

    def __init__(self, linear: nn.Linear, active: ActiveAdapters) -> None:
        super().__init__()
        self.linear = linear
        self.loras: dict[str, tuple[Tensor, Tensor]] = {}
        """Name → A of shape (inputs, rank) and B of shape (rank, outputs), already scaled."""
        self._active = active

    @property
    def weight(self) -> Tensor:
        """The weight of the base's layer."""
        return self.linear.weight

    @property
    def bias(self) -> Tensor | None:
        """The bias of the base's layer."""
        return self.linear.bias

    def attach(self, name: str, down: Tensor, up: Tensor, factor: float, dtype: torch.dtype) -> None:
        """Adds a LoRA.

        Args:
            down: A, shape (rank, inputs).
            up: B, shape (outputs, rank).
            factor: the LoRA's scaling.
            dtype: to compute in; on a CPU it is float32, which is three times as fast for such small products.
        """
        device = self.linear.weight.device
        if device.type == "cpu":
            dtype = torch.float32
        elif device.type == "meta":  # offloaded until it is used
            device = torch.device("cpu")
        scaled = up.float() * factor
        self.loras[name] = (
            down.t().to(device, dtype).contiguous(),  # the fastest layout for few rows
            scaled.t().to(device, dtype).contiguous(),
        )

    def forward(self, inputs: Tensor) -> Tensor:
        """The base's output plus that of the active LoRAs."""
        outputs: Tensor = self.linear(inputs)
        groups = [(self.loras[name], rows) for name, rows in self._active.groups(inputs) if name in self.loras]
        if groups:
            with self._active.one_thread(inputs, groups[0][0][0].shape[1]):
                for lora, rows in groups:
                    outputs = _add_lora(outputs, inputs, lora, rows)
        return outputs


def _add_lora(outputs: Tensor, inputs: Tensor, lora: tuple[Tensor, Tensor], rows: Tensor | None) -> Tensor:
    """The outputs plus those of a LoRA in some rows; None: all rows."""
    down, up = (matrix.to(inputs.device) for matrix in lora)
    if rows is None:
        return outputs + (inputs.to(down.dtype) @ down @ up).to(outputs.dtype)
    index = rows.to(inputs.device)
    change = inputs[index].to(down.dtype) @ down @ up
    return outputs.index_add(0, index, change.to(outputs.dtype))
