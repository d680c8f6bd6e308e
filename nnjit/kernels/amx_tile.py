"""A tile of pairs of bfloat16 in the matrix registers of AMX (Intel, from Sapphire Rapids on): the
processor multiplies 16 rows by 16 columns, 16 pairs deep, in 16 cycles.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable

from nnjit.kernels import target
from nnjit.kernels.blocks import Dim
from nnjit.kernels.tile import RUNTIME, TileShape, numpy_tile

SIDE = 16  # rows and columns of a register
MOST_ROWS, MOST_VECTORS = 2 * SIDE, 2  # four of the eight registers hold sums


def amx_tile(
    *,
    rows_a: Iterable[int],
    rows_c: Iterable[int],
    vectors: int,
    lanes: int,
    dtype: str,
    step_a: int = 1,
    step_b: int = 0,
    tail: int | str = 0,
    init: str = "zero",
    final: str = "store",
    static_k: int = 0,
    runtime: tuple[str, ...] = (),
    out: str = "f4",
) -> Callable[..., None]:
    """A tile of pairs with one tap whose rows of A are equally far apart and run along k, 16 pairs
    in a row; the next 16 follow 16 * step_a pairs further on.

    At most 32 rows and 2 vectors of 16 lanes; kc pairs of all R steps, and whole registers of B in
    memory. The sums of 16 pairs, the first numbers of each apart from the second, are added to the
    result, so they are not those of `tile.tile` to the last bit; denormal numbers count as 0. All
    else is as there.
    """
    rows_a, rows_c = tuple(rows_a), tuple(rows_c)
    apart = {b - a for a, b in itertools.pairwise(rows_a)}
    if dtype != "b2" or lanes != SIDE or vectors > MOST_VECTORS or len(rows_a) > MOST_ROWS:
        raise ValueError(
            f"amx_tile(dtype={dtype!r}, vectors={vectors}, lanes={lanes}, {len(rows_a)} rows): "
            f"pairs (b2), at most {MOST_VECTORS} vectors of {SIDE} lanes and {MOST_ROWS} rows"
        )
    if len(apart) > 1 or len(rows_a) != len(rows_c) or "step_a" in runtime:
        raise ValueError(f"amx_tile(rows_a={rows_a}, runtime={runtime}): rows equally far apart")
    ordered = tuple(name for name in RUNTIME if name in runtime)
    shape = TileShape(
        rows_a, rows_c, vectors, lanes, ((0, 0, 0, len(rows_c)),), step_a, step_b, tail, init,
        final, static_k, dtype, ordered, out, False,
    )  # fmt: skip
    if target.jitting:
        from nnjit.kernels.amx_llvm import amx_intrinsic

        return amx_intrinsic(shape)
    return numpy_tile(shape, SIDE)


def choose(rows: Dim, columns: Dim) -> tuple[int, int]:
    """Rows and vectors of the largest tile for a rows x columns result."""
    most = MOST_VECTORS if isinstance(columns, str) else min(MOST_VECTORS, -(-columns // SIDE))
    return MOST_ROWS if isinstance(rows, str) else max(1, min(MOST_ROWS, rows)), max(1, most)
