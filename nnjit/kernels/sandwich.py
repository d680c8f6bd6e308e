"""Small matrices around blocks of vectors: y = L d L^T, the transforms of Winograd's convolution.

`sandwich(...)` returns a function (src, soff, dst, doff[, step][, e, eoff][, m, moff]) that reads a
square block d of vectors, multiplies it by the literal matrix L from both sides, and stores the
result; all in registers. In a compile worker it is a Numba intrinsic (see `sandwich_llvm`),
elsewhere the NumPy meaning below. Pointers may have any type: what they point at is said by the
transform.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from nnjit.kernels import target
from nnjit.kernels.bf16 import expand, shorten
from nnjit.kernels.tile import FINALS

Matrix = tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Sandwich:
    """Everything of a transform that is a literal of its machine code; see `sandwich`."""

    matrix: Matrix
    reads: tuple[int, int]
    writes: tuple[int, int]
    stored: tuple[int, int]
    edge: bool
    lanes: int
    tail: int
    bias: bool
    final: str
    dtype: str
    source: str
    to: str
    operand: str
    quick: bool
    stepped: bool

    @property
    def reads_m(self) -> bool:
        return self.final in ("mask", "add", "add_relu")

    def arguments(self) -> list[str]:
        """Names of the call's arguments, in order."""
        names = ["src", "soff", "dst", "doff"] + ["odd"] * (self.to == "pairs")
        names += ["step"] * self.stepped
        names += ["r0", "r1", "c0", "c1"] * self.edge
        return names + ["e", "eoff"] * self.bias + ["m", "moff"] * self.reads_m


def sandwich(
    *,
    matrix: Matrix,
    reads: tuple[int, int],
    writes: tuple[int, int],
    stored: tuple[int, int] | None = None,
    edge: bool = False,
    lanes: int,
    tail: int = 0,
    bias: bool = False,
    final: str = "store",
    dtype: str = "f4",
    source: str = "",
    to: str = "",
    operand: str = "",
    quick: bool = False,
    stepped: bool = False,
) -> Callable[..., None]:
    """y = matrix @ d @ matrix.T, elementwise over `lanes` neighbouring elements.

    d[i][j] lies at soff + i * reads[0] + j * reads[1], y[i][j] goes to doff + i * writes[0] + j *
    writes[1]; of y only the first stored[0] x stored[1], all by default. edge: only d[r0:r1, c0:c1]
    exists, run-time numbers, and the rest is zero; none of it is read. tail: lanes in use, 0 for
    all. bias adds the vector at e. final: store, relu, mask (0 where not m > 0), add (m), add_relu;
    m is laid out like the result. source, to, operand: what src, dst and m hold, dtype by default,
    or b2; arithmetic is in dtype. to="pairs": dst holds pairs of b2, 32 bits each; with odd = 0 the
    result becomes the lower half and the upper one zero, with odd = 1 only the upper half is set.
    quick: bfloat16 are rounded by the instruction of AVX512_BF16, which makes denormals zero.
    stepped: reads and writes count steps of so many elements, a run-time number.
    """
    if final not in FINALS:
        raise ValueError(f"sandwich(final={final!r}): expected one of {', '.join(FINALS)}")
    stored = stored or (len(matrix), len(matrix))
    shape = Sandwich(
        matrix, reads, writes, stored, edge, lanes, tail, bias, final, dtype,
        source or dtype, to or dtype, operand or dtype, quick, stepped,
    )  # fmt: skip
    if target.jitting:
        from nnjit.kernels.sandwich_llvm import sandwich_intrinsic

        return sandwich_intrinsic(shape)
    return numpy_sandwich(shape)


def numpy_sandwich(s: Sandwich) -> Callable[..., None]:
    """The meaning on flat NumPy arrays."""
    names, size, width = s.arguments(), len(s.matrix[0]), s.tail or s.lanes
    columns, limits = np.arange(width), ("r0", "r1", "c0", "c1")

    def run(*args: Any) -> None:
        v = dict(zip(names, args, strict=True))
        d = np.zeros((size, size, width), target.DTYPES[s.dtype][0])
        step = v.get("step", 1)
        r0, r1, c0, c1 = (v.get(k, n) for k, n in zip(limits, (0, size, 0, size), strict=True))
        for i in range(r0, r1):
            for j in range(c0, c1):
                at = v["soff"] + (i * s.reads[0] + j * s.reads[1]) * step + columns
                d[i, j] = taken(v["src"], s.source, at)
        with np.errstate(all="ignore"):
            y = times(s.matrix, times(s.matrix, d).swapaxes(0, 1)).swapaxes(0, 1)
            for i, j in np.ndindex(*s.stored):
                value, at = y[i, j], (i * s.writes[0] + j * s.writes[1]) * step
                if s.bias:
                    value = value + v["e"][v["eoff"] + columns]
                if s.reads_m:
                    m = taken(v["m"], s.operand, v["moff"] + at + columns)
                    value = np.where(m > 0, value, 0) if s.final == "mask" else value + m
                if s.final.endswith("relu"):
                    value = np.maximum(value, 0)
                put(v["dst"], s.to, v["doff"] + at + columns, value, v.get("odd", 0))

    return run


def viewed(array: np.ndarray, code: str) -> np.ndarray:
    """The array's memory as elements of this dtype code."""
    return array.view("uint32" if code == "pairs" else target.storage(code))


def taken(array: np.ndarray, code: str, at: np.ndarray) -> np.ndarray:
    """Its elements as numbers."""
    values = viewed(array, code)[at]
    return expand(values) if code == "b2" else values


def put(array: np.ndarray, code: str, at: np.ndarray, value: np.ndarray, odd: int) -> None:
    """Stores numbers; see `sandwich` for pairs."""
    to = viewed(array, code)
    if code == "pairs":
        half = shorten(value).astype(np.uint32)
        to[at] = half << np.uint32(16) | to[at] & np.uint32(0xFFFF) if odd else half
    else:
        to[at] = shorten(value) if code == "b2" else value


def times(matrix: Matrix, d: np.ndarray) -> np.ndarray:
    """matrix @ d along the first axis; zeros of the matrix read nothing."""
    rows = []
    for row in matrix:
        value = np.zeros(d.shape[1:], d.dtype)
        for c, x in zip(row, d, strict=True):
            if c:
                value = value + d.dtype.type(c) * x
        rows.append(value)
    return np.stack(rows)
