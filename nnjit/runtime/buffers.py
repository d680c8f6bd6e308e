"""Memory for regions and control blocks."""

from __future__ import annotations

import numpy as np

ALIGNMENT = 64


def aligned(nbytes: int) -> np.ndarray:
    """A zeroed (nbytes,) uint8 array that starts on a 64-byte boundary; pages come when touched."""
    raw = np.zeros(nbytes + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + nbytes]
