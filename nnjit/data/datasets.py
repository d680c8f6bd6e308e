"""Data sets that come with nnjit."""

from __future__ import annotations

import numpy as np

from nnjit.data.sources import load_source


def digits() -> tuple[np.ndarray, np.ndarray]:
    """(x, y): 1,797 handwritten digits, x (1797, 8, 8) uint8 from 0 to 16, y (1797,) uint8 from 0
    to 9.

    UCI Optical Recognition of Handwritten Digits, E. Alpaydin and C. Kaynak, CC BY 4.0.
    """
    data = load_source("digits")
    assert data.y is not None
    return data.x, data.y
