"""bfloat16 in kernel text: the upper half of a float32, kept as a bit pattern of 16 bits (code b2).

`bf16_load(bits) -> f4` and `bf16_round(f4) -> bits` are scalars in kernel text and vectorise like
the functions of `math`; `expand` and `shorten` are the same for NumPy arrays.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nnjit.kernels.function import Function
from nnjit.kernels.scalar import Value, convert, from_bits, select, to_bits


def load(x: Value) -> Value:
    """The float32 whose upper half x is; exact."""
    return from_bits(convert(x, "u4") << 16)


def rounded_half(x: Value) -> Value:
    """The upper half of float32 x, rounded to nearest even.

    Overflow gives infinity, a NaN stays a (quiet) NaN, denormals are kept.
    """
    bits = to_bits(x)
    bits = bits.made(bits.v, "u4")
    upper = bits >> 16
    nearest = (bits + ((upper & 1) + 0x7FFF)) >> 16
    return convert(select(x == x, nearest, upper | 0x40), "u2")


def expand(bits: Any) -> Any:
    """float32 of an array (or scalar) of bit patterns."""
    return (np.asarray(bits, np.uint16).astype(np.uint32) << np.uint32(16)).view(np.float32)


def shorten(x: Any) -> Any:
    """Bit patterns (uint16) of a float32 array or scalar, rounded like `bf16_round`."""
    x = np.asarray(x, np.float32)
    bits = x.view(np.uint32)
    upper = bits >> np.uint32(16)
    with np.errstate(over="ignore"):
        nearest = (bits + ((upper & np.uint32(1)) + np.uint32(0x7FFF))) >> np.uint32(16)
    return np.where(np.isnan(x), upper | np.uint32(0x40), nearest).astype(np.uint16)


bf16_load = Function("bf16_load", load, expand, ("u2",), "f4")
bf16_round = Function("bf16_round", rounded_half, shorten, ("f4",), "u2")
