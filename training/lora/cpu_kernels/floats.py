"""Reads and writes bfloat16 and float32 inside compiled loops; exp and sigmoid that vectorise.

numba has no bfloat16, so such tensors come as uint16 arrays of the same bits. They are widened on reading and rounded
to nearest even on writing; every loop computes in float32.
"""

from typing import Any

import numpy as np
from numba import types
from numba.extending import overload, register_jitable

_LOG2E = np.float32(1.4426950408889634)
_LN2_HIGH = np.float32(0.693359375)
_LN2_LOW = np.float32(-2.12194440e-4)
_LOWEST = np.float32(-87.0)
_HIGHEST = np.float32(88.0)
_HALF, _ONE = np.float32(0.5), np.float32(1)
_SATURATED = np.float32(50)  # beyond it a sigmoid is 0 or 1
_EXP_POLYNOMIAL = tuple(
    np.float32(c) for c in (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1)
)
_BIAS, _MANTISSA = np.int32(127), np.int32(23)
_SHIFT, _CARRY, _LAST = np.uint32(16), np.uint32(0x7FFF), np.uint32(1)


def to_float(stored: Any) -> Any:
    """The float32 value of an array element, bfloat16 or float32. Only for compiled code."""
    raise NotImplementedError


def cast_to(array: Any, value: Any) -> Any:
    """A float32 as an element of `array`, rounded to nearest even if that is bfloat16. Only for compiled code."""
    raise NotImplementedError


@overload(to_float, inline="always")
def _to_float(stored):  # type: ignore[no-untyped-def]  # numba compares the argument lists, annotations included
    if stored == types.uint16:
        return lambda stored: np.uint32(np.uint32(stored) << _SHIFT).view(np.float32)
    return lambda stored: np.float32(stored)  # noqa: PLW0108  # numba compiles a function, not a type


@overload(cast_to, inline="always")
def _cast_to(array, value):  # type: ignore[no-untyped-def]
    if array.dtype == types.uint16:

        def rounded(array, value):  # type: ignore[no-untyped-def]
            bits = np.float32(value).view(np.uint32)
            return np.uint16((bits + _CARRY + ((bits >> _SHIFT) & _LAST)) >> _SHIFT)

        return rounded
    return lambda array, value: np.float32(value)


@register_jitable(inline="always")
def exp(x: Any) -> Any:
    """e^x in float32, to about 1e-7 relative; the polynomial is Cephes' expf. Below -87 it is about 1e-38."""
    x = min(max(x, _LOWEST), _HIGHEST)
    n = np.floor(x * _LOG2E + _HALF)
    r = (x - n * _LN2_HIGH) - n * _LN2_LOW
    p = _EXP_POLYNOMIAL[0]
    p = p * r + _EXP_POLYNOMIAL[1]
    p = p * r + _EXP_POLYNOMIAL[2]
    p = p * r + _EXP_POLYNOMIAL[3]
    p = p * r + _EXP_POLYNOMIAL[4]
    p = p * r + _HALF
    p = p * r * r + r + _ONE
    return p * np.int32((np.int32(n) + _BIAS) << _MANTISSA).view(np.float32)


@register_jitable(inline="always")
def sigmoid_pair(x: Any) -> Any:
    """sigmoid(x) and 1 - sigmoid(x), both in full precision; 0 and 1 beyond ±50."""
    e = exp(min(max(-x, -_SATURATED), _SATURATED))  # no product with it overflows, in whatever order
    s = _ONE / (_ONE + e)
    return s, e * s


@register_jitable(inline="always")
def sigmoid(x: Any) -> Any:
    """1 / (1 + e^-x) in float32."""
    return _ONE / (_ONE + exp(-x))
