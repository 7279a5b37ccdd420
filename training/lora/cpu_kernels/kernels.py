"""The loops of a training step that are not matrix products, each one pass over memory.

Arrays are C-ordered NumPy views of tensors, float32 or bfloat16 (as uint16, see `numbers`); statistics are
float32. Loops over rows are shared among the threads. Knows no autograd and no model.
"""

from typing import Any

import numpy as np
from numba import njit, prange

from training.lora.cpu_kernels.floats import exp, load, pack, sigmoid, sigmoids

_compiled = njit(parallel=True, fastmath=True, cache=True, nogil=True)

_ZERO, _ONE, _TWO, _THREE = (np.float32(value) for value in (0, 1, 2, 3))
_GELU, _CUBE = np.float32(0.7978845608028654), np.float32(0.044715)  # sqrt(2 / pi); Hendrycks & Gimpel 2016
_LEAST = np.float32(-3e38)


@_compiled
def rms_norm(x: Any, weight: Any, epsilon: Any, out: Any, scale: Any) -> None:
    """`out = x / rms(x) * weight` by rows; `scale` (N,) receives 1 / rms.

    x, out: (N, D). weight: (D,) float32. epsilon: float32, added to the mean square.
    """
    rows, width = x.shape
    for i in prange(rows):
        total = _ZERO
        for j in range(width):
            value = load(x[i, j])
            total += value * value
        inverse = _ONE / np.sqrt(total / np.float32(width) + epsilon)
        scale[i] = inverse
        for j in range(width):
            out[i, j] = pack(out, load(x[i, j]) * inverse * weight[j])


@_compiled
def rms_norm_backward(gradient: Any, x: Any, weight: Any, scale: Any, out: Any) -> None:
    """Gradient of `rms_norm` with respect to x, from the gradient of its output; all (N, D)."""
    rows, width = x.shape
    for i in prange(rows):
        inverse = scale[i]
        dot = _ZERO
        for j in range(width):
            dot += load(gradient[i, j]) * weight[j] * load(x[i, j])
        share = dot * inverse * inverse / np.float32(width)
        for j in range(width):
            out[i, j] = pack(out, inverse * (load(gradient[i, j]) * weight[j] - load(x[i, j]) * share))


@_compiled
def gelu_product(gate: Any, up: Any, out: Any) -> None:
    """`out = gelu(gate) * up`, gelu by its tanh approximation; all (N, D).

    (1 + tanh(u)) / 2 is the sigmoid of 2u, which keeps its digits where it is near 0.
    """
    rows, width = gate.shape
    for i in prange(rows):
        for j in range(width):
            g = load(gate[i, j])
            out[i, j] = pack(out, g * sigmoid(_TWO * _GELU * (g + _CUBE * g * g * g)) * load(up[i, j]))


@_compiled
def gelu_product_backward(gradient: Any, gate: Any, up: Any, to_gate: Any, to_up: Any) -> None:
    """Gradients of `gelu_product`; all (N, D)."""
    rows, width = gate.shape
    for i in prange(rows):
        for j in range(width):
            g, d = load(gate[i, j]), load(gradient[i, j])
            s, rest = sigmoids(_TWO * _GELU * (g + _CUBE * g * g * g))
            slope = s + g * s * rest * _TWO * _GELU * (_ONE + _THREE * _CUBE * g * g)
            to_up[i, j] = pack(to_up, d * g * s)
            to_gate[i, j] = pack(to_gate, d * load(up[i, j]) * slope)


@_compiled
def silu_product(gate: Any, up: Any, out: Any) -> None:
    """`out = silu(gate) * up`; all (N, D)."""
    rows, width = gate.shape
    for i in prange(rows):
        for j in range(width):
            g = load(gate[i, j])
            out[i, j] = pack(out, g * sigmoid(g) * load(up[i, j]))


@_compiled
def silu_product_backward(gradient: Any, gate: Any, up: Any, to_gate: Any, to_up: Any) -> None:
    """Gradients of `silu_product`; all (N, D)."""
    rows, width = gate.shape
    for i in prange(rows):
        for j in range(width):
            g, d = load(gate[i, j]), load(gradient[i, j])
            s, rest = sigmoids(g)
            to_up[i, j] = pack(to_up, d * g * s)
            to_gate[i, j] = pack(to_gate, d * load(up[i, j]) * s * (_ONE + g * rest))


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
                a, b = load(x[i, h, j]), load(x[i, h, j + half])
                c, s = load(cos[i, j]), sign * load(sin[i, j])
                out[i, h, j] = pack(out, a * c - b * s)
                out[i, h, j + half] = pack(out, b * c + a * s)


@_compiled
def causal_softmax(scores: Any, heads: Any, first: Any, window: Any, factor: Any) -> None:
    """Softmax of `factor * scores` by rows, in place, over the columns a row may see.

    scores: (L * heads, C); row r belongs to position p = first + r // heads of its columns, and sees the columns
    p - window + 1 .. p; what it may not see becomes 0.
    """
    rows, columns = scores.shape
    for i in prange(rows):
        end = min(columns, first + i // heads + 1)
        start = max(0, end - window)
        largest = _LEAST
        for j in range(start, end):
            largest = max(largest, load(scores[i, j]))
        total = _ZERO
        for j in range(start, end):
            total += exp((load(scores[i, j]) - largest) * factor)
        inverse = _ONE / total
        for j in range(start, end):
            scores[i, j] = pack(scores, exp((load(scores[i, j]) - largest) * factor) * inverse)
        for j in range(start):
            scores[i, j] = pack(scores, _ZERO)
        for j in range(end, columns):
            scores[i, j] = pack(scores, _ZERO)


@_compiled
def causal_softmax_backward(weights: Any, gradient: Any, heads: Any, first: Any, window: Any, factor: Any) -> None:
    """Gradient of `causal_softmax` with respect to `scores`, written over `gradient`; both (L * heads, C)."""
    rows, columns = weights.shape
    for i in prange(rows):
        end = min(columns, first + i // heads + 1)
        start = max(0, end - window)
        dot = _ZERO
        for j in range(start, end):
            dot += load(weights[i, j]) * load(gradient[i, j])
        for j in range(start, end):
            gradient[i, j] = pack(gradient, load(weights[i, j]) * (load(gradient[i, j]) - dot) * factor)
        for j in range(start):
            gradient[i, j] = pack(gradient, _ZERO)
        for j in range(end, columns):
            gradient[i, j] = pack(gradient, _ZERO)


@_compiled
def online_exp(logits: Any, largest: Any, total: Any, scale: Any) -> None:
    """One block of columns of a softmax whose normaliser is still growing (Milakov & Gimelshein 2018).

    logits: (N, C), replaced by e^(logits - largest). largest, total: (N,) float32, the running maximum and the
    running sum of exponentials, updated. scale: (N,) float32, by how much what was summed before has to shrink.
    """
    rows, columns = logits.shape
    for i in prange(rows):
        best = largest[i]
        for j in range(columns):
            best = max(best, load(logits[i, j]))
        shrink = exp(largest[i] - best)
        added = _ZERO
        for j in range(columns):
            weight = exp(load(logits[i, j]) - best)
            added += weight
            logits[i, j] = pack(logits, weight)
        largest[i] = best
        scale[i] = shrink
        total[i] = total[i] * shrink + added
