"""The order of samples: a permutation that depends on (rows, seed, epoch) alone, so a resumed run
continues exactly.
"""

from __future__ import annotations

import numpy as np


def permutation(rows: int, seed: int, epoch: int) -> np.ndarray:
    """0 … rows-1 in an order keyed by (seed, epoch), int64.

    Sorting Philox's raw 64-bit output, whose stream never changes, keeps the order equal across
    NumPy versions.
    """
    key = np.array([seed, epoch], np.uint64)
    return np.argsort(np.random.Philox(key=key).random_raw(rows), kind="stable")
