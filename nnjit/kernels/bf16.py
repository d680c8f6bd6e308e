"""bfloat16 in kernel text: the upper half of a float32, kept as a bit pattern of 16 bits (code b2).

`bf16_load(bits) -> f4`, `bf16_round(f4) -> bits` and `bf16_pair(bits, bits) -> u4` (the first in
the lower half) are scalars in kernel text and vectorise like the functions of `math`; `expand` and
`shorten` are the first two for NumPy arrays.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nnjit.bfloat16 import from_bits as expand
from nnjit.bfloat16 import to_bits as shorten
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


def pair(first: Value, second: Value) -> Value:
    """Two of them as one number of 32 bits."""
    return convert(first, "u4") | (convert(second, "u4") << 16)


def paired(first: Any, second: Any) -> Any:
    return np.uint32(first) | (np.uint32(second) << np.uint32(16))


bf16_load = Function("bf16_load", load, expand, ("u2",), "f4")
bf16_round = Function("bf16_round", rounded_half, shorten, ("f4",), "u2")
bf16_pair = Function("bf16_pair", pair, paired, ("u2", "u2"), "u4")
