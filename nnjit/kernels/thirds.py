"""Products of float32 in the matrix registers of AMX, which multiply pairs of bfloat16.

A float32 number has 24 bits, a bfloat16 eight: each number is the sum of three, its thirds. Of the
nine products of thirds the six largest are added up, in float32 (Henry, Tang, Heinecke, "Leveraging
the bfloat16 artificial intelligence datatype for higher-precision computations", 2019). What is
left out is at most 2**-24 of a product, as much as the rounding of a multiplication; sums are
rounded fewer times than in a chain of multiply-adds, so results are about as near to the exact ones
(`tests/kernels/test_thirds.py` compares). Denormal thirds count as 0: of numbers below 1e-33 some
bits are lost. A tile with sums that are not finite is summed again in float32 out of the thirds.

Laid out, operands lie in blocks of 32 numbers along k: for each, all first thirds, all second, all
third ones. `split_thirds` and `product_tile` are Numba functions in a compile worker, elsewhere
NumPy.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from nnjit.kernels import target
from nnjit.kernels.amx_tile import MOST_ROWS, SIDE
from nnjit.kernels.bf16 import expand
from nnjit.kernels.tile import FINALS, INITS, finished

DEEP = 2 * SIDE  # numbers along k of a block
ROWS = MOST_ROWS  # of a block of A
#: which thirds of A and B are multiplied, the smallest products first
PRODUCTS = ((0, 2), (0, 1), (1, 1), (1, 0), (2, 0), (0, 0))


def block_size(lines: int) -> int:
    """Pairs of a block of 32 numbers of so many lines: rows of A, or columns of B."""
    return 3 * SIDE * lines


def split_thirds(*, side: str, along: bool, lines: int) -> Callable[..., None]:
    """A function (src, at, ld, count, depth, dst, to) that lays out an operand of a product.

    side: "a" for rows of A (pairs along k lie beside each other), "b" for columns of B. along:
    whether the numbers of a line follow each other along k in src, lines ld apart; else numbers
    along k are ld apart, and lines beside each other. lines: of the block in dst, a multiple of 16;
    `count` of them exist in src, and `depth` numbers along k. What does not exist is 0, or
    for rows of A what it was.
    """
    if side not in ("a", "b") or lines % SIDE or not 0 < lines <= ROWS:
        raise ValueError(
            f"split_thirds(side={side!r}, lines={lines}): a or b, and {SIDE} or {ROWS} lines"
        )
    if target.jitting:
        from nnjit.kernels.thirds_llvm import split_intrinsic

        return split_intrinsic(side, along, lines)

    def run(src: Any, at: int, ld: int, count: int, depth: int, dst: Any, to: int) -> None:
        blocks = -(-depth // DEEP)
        numbers = np.zeros((lines, DEEP * blocks), np.float32)
        line, k = np.arange(count)[:, None], np.arange(depth)
        numbers[:count, :depth] = src[at + (line * ld + k if along else line + k * ld)]
        bits = np.stack(thirds_of(numbers)).reshape(3, lines, blocks, SIDE, 2)
        pairs = bits[..., 0] | bits[..., 1].astype(np.uint32) << 16
        order = (2, 0, 1, 3) if side == "a" else (2, 0, 3, 1)
        laid = dst[to : to + blocks * block_size(lines)].reshape(
            (blocks, 3, *((lines, SIDE) if side == "a" else (SIDE, lines)))
        )
        kept = count if side == "a" else laid.shape[2]
        laid[:, :, :kept] = pairs.transpose(order)[:, :, :kept]

    return run


def thirds_of(x: Any) -> tuple[Any, Any, Any]:
    """Bits of three bfloat16 whose sum is x; inf and NaN are their first, and numbers that no
    bfloat16 is near to (from 3.39e38 on) lose what follows it.
    """

    def nearest(y: Any) -> Any:
        return (y.view(np.uint32) + np.uint32(0x8000)) & np.uint32(0xFFFF0000)

    with np.errstate(all="ignore"):
        first = nearest(x)
        left = x - first.view(np.float32)
        finite = np.isfinite(left)
        first = np.where(finite, first, x.view(np.uint32))
        left = np.where(finite, left, np.float32(0))
        second = nearest(left)
        third = (left - second.view(np.float32)).view(np.uint32)
    return tuple((bits >> 16).astype(np.uint16) for bits in (first, second, third))  # type: ignore[return-value]


def whole_registers() -> Callable[[], None]:
    """A function () that gives the registers of this thread the shapes that tiles expect."""
    if target.jitting:
        from nnjit.kernels.thirds_tile_llvm import configure_intrinsic

        return configure_intrinsic()
    return lambda: None


def product_tile(
    *, vectors: int, tail: int = 0, init: str = "zero", final: str = "store", asks: int = 0
) -> Callable[..., None]:
    """A function (depth, a, at_a, b, at_b, y, at_y, ld, rows[, e, at_e][, m, at_m][, p0, ..., at_p,
    ld_p]): rows x columns of y, ld apart, from a block of rows of A and a panel of B, laid out as
    `split_thirds` does.

    init, final, e and m are those of `tile.tile`; tail: columns of the last vector, 0 for all. What
    is added to (init "load" or "bias") is added at the end. NaN and inf propagate as in float32.
    asks: how many more arrays are asked for, rows ld_p apart from at_p on, for what follows.
    """
    if vectors not in (1, 2) or init not in INITS or final not in FINALS:
        raise ValueError(
            f"product_tile(vectors={vectors}, init={init!r}, final={final!r}): 1 or 2 vectors, "
            f"init of {INITS} and final of {FINALS} are expected"
        )
    names = arguments(init, final, asks)
    if target.jitting:
        from nnjit.kernels.thirds_tile_llvm import product_intrinsic

        return product_intrinsic(names, vectors, tail, init, final)

    def run(*args: Any) -> None:
        v = dict(zip(names, args, strict=True))
        blocks, width = -(-v["depth"] // DEEP), vectors * SIDE
        columns = width - SIDE + tail if tail else width
        at_y = v["at_y"] + np.arange(v["rows"])[:, None] * v["ld"] + np.arange(columns)
        of_a, of_b = (
            expand(v[n][v[at] : v[at] + blocks * block_size(lines)].view(np.uint16))
            for n, at, lines in (("a", "at_a", ROWS), ("b", "at_b", width))
        )
        a = of_a.reshape(blocks, 3, ROWS, DEEP)
        b = of_b.reshape(blocks, 3, SIDE, width, 2)
        with np.errstate(all="ignore"):
            x = a[:, :, : v["rows"]].sum(1).transpose(1, 0, 2).reshape(v["rows"], -1)
            z = b.sum(1).transpose(0, 1, 3, 2).reshape(-1, width)[:, :columns]
            acc = x @ z
            if init == "load":
                acc = acc + v["y"][at_y]
            elif init == "bias":
                acc = acc + v["e"][v["at_e"] : v["at_e"] + columns]
            m = v["m"][v["at_m"] + at_y - v["at_y"]] if "m" in v else None
            v["y"][at_y] = finished(final, acc, m)

    return run


def arguments(init: str, final: str, asks: int) -> list[str]:
    """Names of the arguments of a tile."""
    names = ["depth", "a", "at_a", "b", "at_b", "y", "at_y", "ld", "rows"]
    names += ["e", "at_e"] * (init == "bias")
    names += ["m", "at_m"] * (final in ("mask", "mul", "add", "add_relu"))
    return names + [f"p{n}" for n in range(asks)] + ["at_p", "ld_p"] * (asks > 0)
