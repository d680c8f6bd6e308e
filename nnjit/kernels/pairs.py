"""Blocks of pairs of bfloat16 turned in registers, for packing; NumPy meaning where not jitting."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from nnjit.kernels import target
from nnjit.kernels.bf16 import shorten

Block = Callable[[Any, int, int, Any, int, int], None]


def transpose_pairs(*, lanes: int, source: str = "b2") -> Block:
    """A function (src, soff, ld_src, dst, doff, ld_dst): pair dst[c*ld_dst + r] = elements
    r*ld_src + 2c and + 1 of src, for a block of lanes rows and lanes pairs.

    Offsets count elements in src, which is bfloat16 (b2) or float32 (f4, rounded), and pairs in
    dst. lanes is a power of two.
    """
    check("transpose_pairs", lanes, source)
    if target.jitting:
        from nnjit.kernels.pairs_llvm import transpose_pairs_intrinsic

        return transpose_pairs_intrinsic(lanes, source)

    def run(src: Any, soff: int, ld_src: int, dst: Any, doff: int, ld_dst: int) -> None:
        rows = src[soff + np.arange(lanes)[:, None] * ld_src + np.arange(2 * lanes)]
        bits = rows if source == "b2" else shorten(rows)
        pairs = np.ascontiguousarray(bits).view(np.uint32)
        dst[doff + np.arange(lanes)[:, None] * ld_dst + np.arange(lanes)] = pairs.T

    return run


def pair_block(*, lanes: int, source: str = "b2") -> Block:
    """A function (src, soff, ld_src, dst, doff, ld_dst): pair dst[c*ld_dst + r] = the elements c of
    rows 2r and 2r + 1 of src, ld_src apart, for a block of lanes pairs of rows and lanes columns.

    All else as in `transpose_pairs`.
    """
    check("pair_block", lanes, source)
    if target.jitting:
        from nnjit.kernels.pairs_llvm import pair_block_intrinsic

        return pair_block_intrinsic(lanes, source)

    def run(src: Any, soff: int, ld_src: int, dst: Any, doff: int, ld_dst: int) -> None:
        rows = src[soff + np.arange(2 * lanes)[:, None] * ld_src + np.arange(lanes)]
        bits = rows if source == "b2" else shorten(rows)
        pairs = np.ascontiguousarray(bits.T).view(np.uint32)
        dst[doff + np.arange(lanes)[:, None] * ld_dst + np.arange(lanes)] = pairs

    return run


def check(name: str, lanes: int, source: str) -> None:
    """ValueError for what these functions do not take."""
    if lanes & (lanes - 1) or source not in ("b2", "f4"):
        raise ValueError(
            f"{name}(lanes={lanes}, source={source!r}): a power of two, and b2 or f4, are expected"
        )
