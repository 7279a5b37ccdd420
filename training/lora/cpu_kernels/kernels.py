"""The loops of a training step that are not matrix products, each in one pass over memory.

Arrays are C-ordered NumPy views of tensors, float32 or bfloat16 (as uint16, see `floats`); statistics are float32.
Loops over rows run in parallel.
"""

from typing import Any

import numpy as np
from numba import njit, prange

from training.lora.cpu_kernels.floats import cast_to, exp, sigmoid, sigmoid_pair, to_float

_compiled = njit(parallel=True, fastmath=True, cache=True, nogil=True)

_ZERO, _ONE, _TWO, _THREE = (np.float32(value) for value in (0, 1, 2, 3))
_GELU_SCALE, _GELU_CUBIC = np.float32(0.7978845608028654), np.float32(0.044715)  # sqrt(2 / pi); Hendrycks & Gimpel 2016
_LOWEST = np.float32(-3e38)


@_compiled
def rms_norm(x: Any, weight: Any, epsilon: Any, out: Any, scale: Any) -> None:
    """`out = x / rms(x) * weight` by rows; `scale` (N,) receives 1 / rms.

    x, out: (N, D). weight: (D,) float32. epsilon: float32, added to the mean square.
    """
    rows, width = x.shape
    for i in prange(rows):
        total = _ZERO
        for j in range(width):
            value = to_float(x[i, j])
            total += value * value
        inverse = _ONE / np.sqrt(total / np.float32(width) + epsilon)
        scale[i] = inverse
        for j in range(width):
            out[i, j] = cast_to(out, to_float(x[i, j]) * inverse * weight[j])


@_compiled
def rms_norm_backward(gradient: Any, x: Any, weight: Any, scale: Any, out: Any) -> None:
    """Gradient of `rms_norm` with respect to x, from the gradient of its output; all (N, D)."""
    rows, width = x.shape
    for i in prange(rows):
        inverse = scale[i]
        dot = _ZERO
        for j in range(width):
            dot += to_float(gradient[i, j]) * weight[j] * to_float(x[i, j])
        share = dot * inverse * inverse / np.float32(width)
        for j in range(width):
            out[i, j] = cast_to(out, inverse * (to_float(gradient[i, j]) * weight[j] - to_float(x[i, j]) * share))


@_compiled
def gelu_product(gate: Any, up: Any, out: Any) -> None:
    """`out = gelu(gate) * up`, gelu by its tanh approximation; all (N, D).

    Computed as sigmoid(2u) = (1 + tanh(u)) / 2, which stays precise near 0.
    """
    rows, width = gate.shape
    for i in prange(rows):
        for j in range(width):
            g = to_float(gate[i, j])
            out[i, j] = cast_to(
                out, g * sigmoid(_TWO * _GELU_SCALE * (g + _GELU_CUBIC * g * g * g)) * to_float(up[i, j])
            )


@_compiled
def gelu_product_backward(gradient: Any, gate: Any, up: Any, to_gate: Any, to_up: Any) -> None:
    """Gradients of `gelu_product`; all (N, D)."""
    rows, width = gate.shape
    for i in prange(rows):
        for j in range(width):
            g, d = to_float(gate[i, j]), to_float(gradient[i, j])
            s, complement = sigmoid_pair(_TWO * _GELU_SCALE * (g + _GELU_CUBIC * g * g * g))
            slope = s + g * s * complement * _TWO * _GELU_SCALE * (_ONE + _THREE * _GELU_CUBIC * g * g)
            to_up[i, j] = cast_to(to_up, d * g * s)
            to_gate[i, j] = cast_to(to_gate, d * to_float(up[i, j]) * slope)


@_compiled
def silu_product(gate: Any, up: Any, out: Any) -> None:
    """`out = silu(gate) * up`; all (N, D)."""
    rows, width = gate.shape
    for i in prange(rows):
        for j in range(width):
            g = to_float(gate[i, j])
            out[i, j] = cast_to(out, g * sigmoid(g) * to_float(up[i, j]))


@_compiled
def silu_product_backward(gradient: Any, gate: Any, up: Any, to_gate: Any, to_up: Any) -> None:
    """Gradients of `silu_product`; all (N, D)."""
    rows, width = gate.shape
    for i in prange(rows):
        for j in range(width):
            g, d = to_float(gate[i, j]), to_float(gradient[i, j])
            s, complement = sigmoid_pair(g)
            to_up[i, j] = cast_to(to_up, d * g * s)
            to_gate[i, j] = cast_to(to_gate, d * to_float(up[i, j]) * s * (_ONE + g * complement))


@_compiled
def rotate(x: Any, cos: Any, sin: Any, sign: Any, out: Any) -> None:
    """Rotary position embedding of halves: `out = x * cos + sign * [-x2, x1] * sin`.

    x, out: (N, H, D). cos, sin: (N, D), their halves alike. sign: float32, 1 forwards and -1 for the gradient.
    """
    rows, heads, width = x.shape
    half = width // 2
    for i in prange(rows):
        for h in range(heads):
            for j in range(half):
                a, b = to_float(x[i, h, j]), to_float(x[i, h, j + half])
                c, s = to_float(cos[i, j]), sign * to_float(sin[i, j])
                out[i, h, j] = cast_to(out, a * c - b * s)
                out[i, h, j + half] = cast_to(out, b * c + a * s)


@_compiled
def causal_softmax(scores: Any, heads: Any, first: Any, window: Any, factor: Any) -> None:
    """Softmax of `factor * scores` by rows, in place, over the columns that a row sees.

    scores: (L * heads, C). Row r belongs to position p = first + r // heads and sees columns p - window + 1 .. p;
    the others become 0.
    """
    rows, columns = scores.shape
    for i in prange(rows):
        end = min(columns, first + i // heads + 1)
        start = max(0, end - window)
        largest = _LOWEST
        for j in range(start, end):
            largest = max(largest, to_float(scores[i, j]))
        total = _ZERO
        for j in range(start, end):
            total += exp((to_float(scores[i, j]) - largest) * factor)
        inverse = _ONE / total
        for j in range(start, end):
            scores[i, j] = cast_to(scores, exp((to_float(scores[i, j]) - largest) * factor) * inverse)
        for j in range(start):
            scores[i, j] = cast_to(scores, _ZERO)
        for j in range(end, columns):
            scores[i, j] = cast_to(scores, _ZERO)


@_compiled
def causal_softmax_backward(weights: Any, gradient: Any, heads: Any, first: Any, window: Any, factor: Any) -> None:
    """Gradient of `causal_softmax` with respect to `scores`, written over `gradient`; both (L * heads, C)."""
    rows, columns = weights.shape
    for i in prange(rows):
        end = min(columns, first + i // heads + 1)
        start = max(0, end - window)
        dot = _ZERO
        for j in range(start, end):
            dot += to_float(weights[i, j]) * to_float(gradient[i, j])
        for j in range(start, end):
            gradient[i, j] = cast_to(gradient, to_float(weights[i, j]) * (to_float(gradient[i, j]) - dot) * factor)
        for j in range(start):
            gradient[i, j] = cast_to(gradient, _ZERO)
        for j in range(end, columns):
            gradient[i, j] = cast_to(gradient, _ZERO)


@_compiled
def online_exp(logits: Any, largest: Any, total: Any, scale: Any) -> None:
    """One block of columns of an online softmax (Milakov & Gimelshein 2018).

    logits: (N, C), replaced by e^(logits - largest). largest, total: (N,) float32, the running maximum and the
    running sum of exponentials, updated. scale: (N,) float32, receives the factor for earlier sums.
    """
    rows, columns = logits.shape
    for i in prange(rows):
        new_largest = largest[i]
        for j in range(columns):
            new_largest = max(new_largest, to_float(logits[i, j]))
        rescale = exp(largest[i] - new_largest)
        added = _ZERO
        for j in range(columns):
            weight = exp(to_float(logits[i, j]) - new_largest)
            added += weight
            logits[i, j] = cast_to(logits, weight)
        largest[i] = new_largest
        scale[i] = rescale
        total[i] = total[i] * rescale + added
