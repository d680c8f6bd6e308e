"""A tile that asks for memory while it multiplies: what is read and written after it then lies in
the nearest cache, though it comes from far away.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from nnjit.kernels import target
from nnjit.kernels.tile import TileShape, numpy_tile

SHIFT = 16  # bits of a pace behind the point


def asking_tile(
    *,
    asks: int,
    rows_a: Iterable[int],
    rows_c: Iterable[int],
    vectors: int,
    lanes: int,
    dtype: str,
    step_a: int = 1,
    step_b: int = 0,
    tail: int = 0,
    init: str = "zero",
    final: str = "store",
    level: int = 1,
) -> Callable[..., None]:
    """A tile with one tap whose arguments go on with `asks` pairs (p, poff), and pace.

    At step k the cache line of p[poff + (k * pace >> SHIFT)] is asked for, of each p: requests
    spread over the reduction do not stand in the way of its own. level: of the cache that it comes
    to, 1 or 2. All else is as in `tile.tile`.
    """
    rows_a, rows_c = tuple(rows_a), tuple(rows_c)
    shape = TileShape(
        rows_a, rows_c, vectors, lanes, ((0, 0, 0, len(rows_c)),), step_a, step_b, tail, init,
        final, 0, dtype, (), dtype, False,
    )  # fmt: skip
    if target.jitting:
        from nnjit.kernels.asking_llvm import asking_intrinsic

        return asking_intrinsic(shape, asks, level)
    run, count = numpy_tile(shape), len(shape.arguments())

    def plain(*args: Any) -> None:
        if len(args) != count + 2 * asks + 1:
            raise TypeError(f"asking_tile takes {count + 2 * asks + 1} arguments, got {len(args)}")
        run(*args[:count])

    return plain
