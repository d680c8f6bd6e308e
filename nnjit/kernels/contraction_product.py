"""What a matrix product is: its operands as they lie, its tile, and how its reduction is cut."""

from __future__ import annotations

import re
from dataclasses import dataclass

from nnjit.kernels import target
from nnjit.kernels.amx_tile import MOST_ROWS
from nnjit.kernels.blocks import Dim, Panel, lanes_of, panels, text
from nnjit.kernels.recipe import Epilogue

SMALL_B = 256 * 1024  # bytes of b that stay in L2
AMX_B = 1280 * 1024  # ... of a CPU with AMX, which has 2 MB
MANY_ROWS = 256
DEPTH = 4096  # bytes of a reduction after which its sums go through memory; from four times as much
SUM_ROWS = 64  # about so many rows of sums in scratch, while what follows them is computed


@dataclass(frozen=True)
class Product:
    """y[i, j] = sum_k a[i * row_a + k * step_a] * b[k * step_b + j], one of `batch`; strides in
    elements.

    For dtype b2, K and the strides of a and b count pairs. stored: dtype codes of a, b and y, all
    `dtype` by default. steady_b: b is the same in many runs. kind: of its tiles, see `Tiles`.
    block_a: elements of a block of rows of a, if it lies in such (`packing_pairs.pair_transposed`).
    """

    M: Dim
    N: Dim
    K: Dim
    row_a: Dim
    step_a: Dim
    packed: bool
    dtype: str
    batch: Dim | None
    batch_a: bool
    batch_b: bool
    epilogue: Epilogue
    rows: int
    vectors: int
    stored: tuple[str, str, str] = ("", "", "")
    steady_b: bool = False
    kind: str = "tile"
    block_a: Dim = 0

    @property
    def codes(self) -> tuple[str, str, str]:
        """dtype codes of a, b and y."""
        a, b, y = (code or self.dtype for code in self.stored)
        return a, b, y

    @property
    def size(self) -> int:
        """Bytes of a step along k: an element, or a pair."""
        return 4 if self.dtype == "b2" else target.itemsize(self.dtype)

    @property
    def sums(self) -> bool:
        """Whether rows of sums lie in scratch: y has no room for them, or is read by the tail."""
        apart = self.codes[2] == "b2" or self.epilogue.apart
        return apart and self.epilogue.tail is not None

    @property
    def sum_rows(self) -> int:
        """Rows of sums in scratch: whole tiles."""
        return -(-SUM_ROWS // self.rows) * self.rows

    @property
    def scratch(self) -> int:
        """Elements of scratch of a thread."""
        return self.sum_rows * self.vectors * lanes_of(self.dtype) if self.sums else 0

    def place_a(self, i: str) -> str:
        """Where row i of a starts."""
        if self.block_a:
            n = MOST_ROWS
            return f"{i} // {n} * {text(self.block_a)} + {i} % {n} * {text(self.row_a)}"
        return f"{i} * {text(self.row_a)}" if self.row_a != 1 else i

    def panels(self) -> list[Panel]:
        return panels(self.N, self.vectors, lanes_of(self.dtype))

    def step_b(self, p: Panel) -> Dim:
        return p.width if self.packed else self.N


@dataclass(frozen=True)
class Phase:
    """A stretch of the reduction: k from `start`, `count` long; loop: the line that repeats it, if
    any.
    """

    start: Dim
    count: Dim
    init: str
    final: str
    loop: str = ""
    last: bool = True


def phases(p: Product) -> list[Phase]:
    """The reduction whole, or cut where a panel of b would not stay in L2; y holds the sums in
    between.
    """
    ep, most = p.epilogue, DEPTH // p.size
    init, final = ep.tile_options()["init"], ep.final
    if p.codes[2] == "b2" or ep.apart:  # y cannot hold sums, or holds what they are added to
        return [Phase(0, p.K, init, final)]
    if isinstance(p.K, int):
        if 4 * most >= p.K:
            return [Phase(0, p.K, init, final)]
        last = (p.K - 1) // most * most
        return [
            Phase(0, most, init, "store", last=False),
            Phase(
                "k0", most, "load", "store", f"for k0 in range({most}, {last}, {most}):", last=False
            ),
            Phase(last, p.K - last, "load", final),
        ]
    if re.fullmatch(r"\w+|\(\w+ \+ 1\) // 2", p.K) or final != "store" or ep.tail:
        return [Phase(0, p.K, init, final)]
    return [
        Phase(0, f"min({p.K}, {most})", init, "store"),
        Phase(
            "k0",
            f"min({p.K} - k0, {most})",
            "load",
            "store",
            f"for k0 in range({most}, {p.K}, {most}):",
        ),
    ]


def whole_b(p: Product) -> int:
    """Bytes of b; 0 where only a run knows."""
    if isinstance(p.K, int) and isinstance(p.N, int):
        return p.K * p.N * p.size
    return 0


def most_b(p: Product) -> int:
    """Bytes of b that stay in L2. Where AMX multiplies many rows, results take longer than sums:
    writing rows in long runs is worth more than panels of b in L1.
    """
    many = p.M >= MANY_ROWS if isinstance(p.M, int) else "*" in p.M  # a batch alone may be few
    return AMX_B if many and p.kind == "amx_tile" else SMALL_B
