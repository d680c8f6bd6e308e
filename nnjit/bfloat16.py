"""bfloat16 in NumPy, which has no such dtype: the upper 16 bits of a float32.

A buffer holds the bits as uint16. The interpreter holds the values as float32, rounded.
"""

from __future__ import annotations

from typing import Any

import numpy as np


def to_bits(x: Any) -> np.ndarray:
    """float32 to the uint16 bits of the nearest bfloat16, ties to even.

    Denormals are kept, what is too large becomes infinite, and NaN stays NaN (quiet).
    """
    x = np.asarray(x, np.float32)
    bits = x.view(np.uint32)
    nearest = bits + (np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1)))
    quiet = bits | np.uint32(0x400000)
    return (np.where(np.isnan(x), quiet, nearest) >> np.uint32(16)).astype(np.uint16)


def from_bits(bits: Any) -> np.ndarray:
    """uint16 bits to the float32 that they stand for, exactly."""
    return (np.asarray(bits, np.uint16).astype(np.uint32) << np.uint32(16)).view(np.float32)


def rounded(x: np.ndarray) -> np.ndarray:
    """x rounded to bfloat16, as float32; float64 is rounded to float32 first."""
    with np.errstate(all="ignore"):
        return from_bits(to_bits(np.asarray(x).astype(np.float32)))
