"""Recurrences as kernel text: the matrix products of one time step for a block of batch rows.

Rows of a batch do not need each other, so a chunk of them runs through all time steps alone and no
thread waits. Each block of rows does a product panel after panel of the packed matrix: a panel is
read once from L2 and serves all rows of the block. Each element is one chain of fused
multiply-adds over k, whichever tile it falls into.

Few rows are done by pieces of columns instead: a piece has the same run of columns of every gate,
and of the state that is made of them.
"""

from __future__ import annotations

from dataclasses import dataclass

from nnjit.kernels import target
from nnjit.kernels.blocks import Tiles, call, choose, filled, panels, total
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
    """y = a @ w for rows first..last, w (depth, columns) packed. at_w, at_y: where w and a row of y
    begin, if not at 0.
    """

    a: Operand
    w: str
    y: Operand
    depth: int
    columns: int
    dtype: str
    at_w: str = ""
    at_y: str = ""


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
            at_w = total(p.at_w or 0, f"o * {p.depth}" if p.depth != 1 else "o")
            out = total(p.y.start(i), p.at_y or 0, "o")
            return call(
                name,
                ["1", str(p.depth), p.a.name, p.a.start(i), "0", p.w, at_w, "0", p.y.name, out],
            )

        lines.append(panel.loop())
        lines += indent(blocks_of_rows(rows, Rows("first", "last"), block, again=True))
    return lines


# ------------------------------------------------------------------------------------------- pieces
WIDE = 16  # vectors of columns of a piece, about


@dataclass(frozen=True)
class Gates:
    """The columns of a matrix (depth, columns) in pieces: piece p is a matrix of columns f + p *
    width to f + (p + 1) * width for each f of `firsts`, with zeros from f + units on.
    """

    depth: int
    columns: int
    firsts: tuple[int, ...]
    units: int
    width: int
    dtype: str

    @property
    def pieces(self) -> int:
        return -(-self.units // self.width)

    @property
    def row(self) -> int:
        """Columns of a piece."""
        return len(self.firsts) * self.width

    @property
    def size(self) -> int:
        """Elements of all pieces."""
        return self.pieces * self.depth * self.row


def pieces_width(units: int, gates: int, dtype: str) -> int:
    """Columns of a piece of each gate: whole vectors, four pieces or more where there are as many
    vectors.
    """
    lanes = target.lanes(dtype)
    return lanes * max(1, min(WIDE // gates, -(-units // lanes) // 4))


def runs(g: Gates) -> list[tuple[int, int, int, int, int]]:
    """Columns of a piece that come from one f and lie in one panel: (f, from, to, start of the
    panel, its width).
    """
    out = []
    for panel in panels(g.row, vectors_of(g.row, g.dtype), target.lanes(g.dtype)):
        assert isinstance(panel.first, int)
        assert isinstance(panel.end, int)
        for o in range(panel.first, panel.end, panel.width):
            for q, first in enumerate(g.firsts):
                start, end = max(o - q * g.width, 0), min(o + panel.width - q * g.width, g.width)
                if start < end:
                    out.append((first, start, end, o, panel.width))
    return out


def pack_gates(g: Gates, transposed: bool) -> Template:
    """src (depth, columns), or (columns, depth) if transposed, -> dst: each piece packed in panels.
    Trip: pieces.
    """
    body = ["for p in range(lo, hi):", f"    for k in range({g.depth}):"]
    beyond = f" if u < {g.units} else {g.dtype}(0)" if g.units % g.width else ""
    for first, start, end, o, wide in runs(g):
        column = total("u", first)
        at = f"({column}) * {g.depth} + k" if transposed else f"k * {g.columns} + {column}"
        inside = total("j", g.firsts.index(first) * g.width - o)
        body += [
            f"        for j in range({start}, {end}):",
            f"            u = p * {g.width} + j",
            f"            d = ({total(f'p * {g.row}', o)}) * {g.depth} + k * {wide} + {inside}",
            f"            dst[d] = src[{at}]{beyond}",
        ]
    turned = "transposed_" * transposed
    return Template(
        name=f"pack_gates_{turned}{g.depth}_{g.columns}_{g.units}_{g.width}_{g.dtype}",
        doc=filled(
            f"src {'transposed ' * transposed}({g.depth}, {g.columns}) -> dst, packed in panels:\n"
            f"{g.pieces} matrices of {g.width} columns of the {g.units} from each of "
            f"{list(g.firsts)} on."
        ),
        imports=(),
        symbols=(),
        params=(("src", g.dtype), ("dst", g.dtype)),
        body=tuple(body),
        trip=g.pieces,
    )
