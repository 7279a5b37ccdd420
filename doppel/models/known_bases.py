"""The base models that we recommend, by shape: what each takes in memory and time, without downloading any.

Shapes are those of the published configurations.
"""

import time

import msgspec
import torch

ACTIVATION_BYTES = 2
_RANK = 32
_ADAPTER_BYTES = 2 + 4 + 8 + 2  # working weight, master, AdamW's two moments, gradient
_PROCESS_BYTES = 1.2e9
"""Python, torch and transformers with their libraries, and temporary results."""
_HISTORY_TOKENS = 2_048
_EFFICIENCY = 0.5
"""Of the rate of a large matrix product that a whole training step reaches; 0.64 on two quiet cores (RESULTS.md)."""
_CHECKPOINTING_SLOWDOWN = 4 / 3
_TRIES = 4
_USABLE_MEMORY = 0.9


class KnownBase(msgspec.Struct, frozen=True, kw_only=True):
    """A base model.

    Attributes:
        name: as in `model.base`.
        layers, hidden, intermediate: number and widths of its layers.
        heads, key_value_heads, head_width: of its attention.
        vocabulary: number of tokens.
        is_tied: whether embedding and head are one matrix.
    """

    name: str
    layers: int
    hidden: int
    intermediate: int
    heads: int
    key_value_heads: int
    head_width: int
    vocabulary: int
    is_tied: bool = True

    @property
    def body_parameters(self) -> int:
        """Weights of the layers, each of which multiplies every token."""
        attention = self.hidden * self.head_width * 2 * (self.heads + self.key_value_heads)
        return self.layers * (attention + 3 * self.hidden * self.intermediate)

    @property
    def parameters(self) -> int:
        """All weights."""
        return self.body_parameters + self.vocabulary * self.hidden * (1 if self.is_tied else 2)

    @property
    def adapter_parameters(self) -> int:
        """Weights of a LoRA of rank 32 on all layers."""
        query, key_value = self.heads * self.head_width, self.key_value_heads * self.head_width
        widths = 2 * (self.hidden + query) + 2 * (self.hidden + key_value) + 3 * (self.hidden + self.intermediate)
        return self.layers * _RANK * widths

    def activation_bytes(self) -> float:
        """Kept for backward for each token, all layers together."""
        attention = 3 * self.head_width * (self.heads + 2 * self.key_value_heads)
        return self.layers * ACTIVATION_BYTES * (8 * self.hidden + 5 * self.intermediate + attention)

    def weight_bytes(self, bytes_per_weight: float = 2.0) -> float:
        """Of the loaded base."""
        return self.parameters * bytes_per_weight

    def training_bytes(self, tokens: int, bytes_per_weight: float = 2.0) -> float:
        """To train on micro-batches of so many tokens."""
        return self._training_bytes(tokens * self.activation_bytes(), bytes_per_weight)

    def smallest_training_bytes(self, tokens: int, bytes_per_weight: float = 2.0) -> float:
        """To train on one conversation of so many tokens, computing each layer twice."""
        kept = self.layers * ACTIVATION_BYTES * self.hidden + self.activation_bytes() / self.layers
        return self._training_bytes(tokens * kept, bytes_per_weight)

    def serving_bytes(self, bytes_per_weight: float = 2.0) -> float:
        """To reply: the weights, and keys and values of one chat."""
        cache = self.layers * 2 * self.key_value_heads * self.head_width * ACTIVATION_BYTES * _HISTORY_TOKENS
        return self.weight_bytes(bytes_per_weight) + cache + _PROCESS_BYTES

    def fits(self, memory: int | None, tokens: int, bytes_per_weight: float = 2.0) -> bool | None:
        """Whether it can be trained on conversations of so many tokens; None if the memory is not known."""
        if memory is None:
            return None
        return self.smallest_training_bytes(tokens, bytes_per_weight) <= memory * _USABLE_MEMORY

    def slowdown(self, memory: int | None, tokens: int, bytes_per_weight: float = 2.0) -> float:
        """How many times longer training takes where each layer has to be computed twice; else 1."""
        if memory is None or self.training_bytes(tokens, bytes_per_weight) <= memory * _USABLE_MEMORY:
            return 1.0
        return _CHECKPOINTING_SLOWDOWN

    def training_operations(self) -> float:
        """Floating-point operations of training on a token: forward, and backward to the inputs of each layer."""
        return 4.0 * (self.body_parameters + 2 * self.adapter_parameters) + 4.0 * 0.1 * self.vocabulary * self.hidden

    def _training_bytes(self, activations: float, bytes_per_weight: float) -> float:
        adapter = self.adapter_parameters * _ADAPTER_BYTES
        return self.weight_bytes(bytes_per_weight) + adapter + activations + _PROCESS_BYTES


def _gemma(name: str, *shape: int) -> KnownBase:
    return _base(name, 262_144, *shape)


def _qwen3(name: str, *shape: int, is_tied: bool = True) -> KnownBase:
    return _base(name, 151_936, *shape, is_tied=is_tied)


def _base(name: str, vocabulary: int, *shape: int, is_tied: bool = True) -> KnownBase:
    layers, hidden, intermediate, heads, key_value_heads, head_width = shape
    return KnownBase(
        name=name,
        layers=layers,
        hidden=hidden,
        intermediate=intermediate,
        heads=heads,
        key_value_heads=key_value_heads,
        head_width=head_width,
        vocabulary=vocabulary,
        is_tied=is_tied,
    )


KNOWN_BASES = (
    _gemma("bundled", 18, 640, 2048, 4, 1, 256),
    _qwen3("Qwen/Qwen3-0.6B-Base", 28, 1024, 3072, 16, 8, 128),
    _qwen3("Qwen/Qwen3-1.7B-Base", 28, 2048, 6144, 16, 8, 128),
    _qwen3("Qwen/Qwen3-4B-Base", 36, 2560, 9728, 32, 8, 128),
    _qwen3("Qwen/Qwen3-8B-Base", 36, 4096, 12288, 32, 8, 128, is_tied=False),
    _qwen3("Qwen/Qwen3-14B-Base", 40, 5120, 17408, 40, 8, 128, is_tied=False),
)
"""From small to large: a larger one knows more of the world, and needs more of everything."""


def matrix_rate(device: str, dtype: torch.dtype) -> float:
    """Floating-point operations a second of a large matrix product on this machine; takes well under a second."""
    rows, inner, columns = (1024, 2048, 2048) if device == "cpu" else (4096, 4096, 4096)
    left = torch.ones(rows, inner, dtype=dtype, device=device)
    right = torch.ones(inner, columns, dtype=dtype, device=device)
    best = float("inf")
    for _ in range(_TRIES):  # the first includes the set-up of the kernel
        began = time.perf_counter()
        float((left @ right)[0, 0])  # reading a number waits for the device
        best = min(best, time.perf_counter() - began)
    return 2.0 * rows * inner * columns / best


def largest_base(
    rate: float, memory: int | None, *, bytes_per_weight: float, length: int, tokens: int, hours: float
) -> KnownBase | None:
    """The largest base that fits into memory and is trained on so many tokens in time; None if none is.

    Args:
        rate: of matrix products on this machine.
        memory: of the device, in bytes; None if it is not known.
        bytes_per_weight: of the dtype.
        length: tokens of the longest example.
        tokens: to train on.
        hours: that it may take.
    """
    fitting = [base for base in KNOWN_BASES if base.fits(memory, length, bytes_per_weight) is not False]
    affordable = [
        base
        for base in fitting
        if tokens / training_speed(base, rate) * base.slowdown(memory, length, bytes_per_weight) <= hours * 3600
    ]
    return affordable[-1] if affordable else None


def training_speed(base: KnownBase, rate: float) -> float:
    """Tokens a second of training at a matrix rate."""
    return _EFFICIENCY * rate / base.training_operations()
