"""Memory for regions and control blocks."""

from __future__ import annotations

import contextlib
import ctypes
import mmap

import numpy as np

ALIGNMENT = 64
HUGE_PAGE = 1 << 21
HUGE_FROM = 1 << 20  # bytes from which a region asks for huge pages: fewer TLB misses in its loops


def aligned(nbytes: int) -> np.ndarray:
    """A zeroed (nbytes,) uint8 array that starts on a 64-byte boundary; pages come when touched.

    A region of 1 MiB or more lies in huge pages where the system gives them.
    """
    if nbytes >= HUGE_FROM and hasattr(mmap, "MADV_HUGEPAGE"):
        size = -(-nbytes // HUGE_PAGE) * HUGE_PAGE + HUGE_PAGE
        pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        with contextlib.suppress(OSError):  # advice: a kernel without huge pages refuses it
            pages.madvise(mmap.MADV_HUGEPAGE)
        return _from_boundary(np.frombuffer(pages, np.uint8), nbytes, HUGE_PAGE)
    return _from_boundary(np.zeros(nbytes + ALIGNMENT, np.uint8), nbytes, ALIGNMENT)


def _from_boundary(raw: np.ndarray, nbytes: int, boundary: int) -> np.ndarray:
    start = -raw.ctypes.data % boundary
    return raw[start : start + nbytes]


def give_back() -> None:
    """Have the C library return freed memory to the system, where it can (glibc)."""
    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
