"""Recurrences as kernel text: the matrix products of one time step for a block of batch rows.

Rows of a batch do not need each other, so a chunk of them runs through all time steps alone and no
thread waits. Each block of rows does a product panel after panel of the packed matrix: a panel is
read once from L2 and serves all rows of the block. Each element is one chain of fused
multiply-adds over k, whichever tile it falls into.
"""

from __future__ import annotations

from dataclasses import dataclass

from nnjit.kernels import target
from nnjit.kernels.blocks import Tiles, call, choose, panels
from nnjit.kernels.contraction_rows import UNROLL, Rows, blocks_of_rows
from nnjit.kernels.packing import pack, pack_transposed, packed_size
from nnjit.kernels.template import Template, indent

BLOCK = 32  # rows that run through all time steps together: what they hold stays in L2
GRAIN = 16  # rows worth a chunk: two tiles or more


@dataclass(frozen=True)
class Operand:
    """A parameter that has rows: element (i, j) of a block lies at (row + i) * width + j.

    row: '' where i counts the rows of the batch itself, else text such as 'at'.
    """

    name: str
    width: int
    row: str = ""

    def start(self, i: str) -> str:
        """The index of row i's first element."""
        row = f"({self.row} + {i})" if self.row else i
        return f"{row} * {self.width}" if self.width != 1 else row


@dataclass(frozen=True)
class StepProduct:
    """y = a @ w for rows first..last, w (depth, columns) packed."""

    a: Operand
    w: str
    y: Operand
    depth: int
    columns: int
    dtype: str


def vectors_of(columns: int, dtype: str) -> int:
    """Vectors of a panel of a matrix with so many columns."""
    return choose(BLOCK, columns, dtype)[1]


def pack_matrix(depth: int, columns: int, transposed: bool, dtype: str) -> tuple[Template, int]:
    """The kernel that packs a product's matrix, and the elements that it writes.

    transposed: the matrix is stored as (columns, depth).
    """
    make = pack_transposed if transposed else pack
    size = packed_size(depth, columns, dtype)
    assert isinstance(size, int)
    return make(depth, columns, vectors_of(columns, dtype), dtype), size


def product_lines(p: StepProduct, tiles: Tiles) -> list[str]:
    """Panels of w outside, tiles of rows inside."""
    rows, vectors = choose(BLOCK, p.columns, p.dtype)
    lines = []
    for panel in panels(p.columns, vectors, target.lanes(p.dtype)):

        def block(count: int, i: str = "i", panel=panel) -> list[str]:
            name = tiles.get(
                count,
                panel,
                rows_a=tuple(r * p.a.width for r in range(count)),
                rows_c=tuple(r * p.y.width for r in range(count)),
                step_b=panel.width,
                static_k=p.depth if p.depth <= UNROLL else 0,
            )
            at_w = f"o * {p.depth}" if p.depth != 1 else "o"
            out = f"{p.y.start(i)} + o"
            return call(
                name,
                ["1", str(p.depth), p.a.name, p.a.start(i), "0", p.w, at_w, "0", p.y.name, out],
            )

        lines.append(panel.loop())
        lines += indent(blocks_of_rows(rows, Rows("first", "last"), block, again=True))
    return lines
