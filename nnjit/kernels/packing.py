"""Kernels that lay the second operand of a contraction out as column panels, once per step.

A packed operand of `depth` rows and `columns` columns is a sequence of panels (see
`blocks.panels`); a panel that starts at column o lies at o * depth and holds, for each k, its width
of whole vectors. So a tile reads one contiguous stretch per panel. Transposed operands are always
packed: the tile wants columns to be contiguous.
"""

from __future__ import annotations

import re

from nnjit.kernels import target
from nnjit.kernels.blocks import (
    Dim,
    Panel,
    check_symbols,
    filled,
    padded,
    panels,
    product,
    symbols_of,
    text,
)
from nnjit.kernels.template import Template, indent

# variables of these kernels, which no symbol may be called
NAMES = "lo hi tid src dst t o j s d q k i"


def packed_size(depth: Dim, columns: Dim, dtype: str) -> Dim:
    """Elements of a packed operand."""
    return product(depth, padded(columns, target.lanes(dtype)))


def panel_name(*sizes: Dim, vectors: int, dtype: str) -> str:
    """A name from the sizes: equal packings get equal names, whatever kernel they serve."""
    words = "_".join(re.sub(r"\W+", "_", str(d)) for d in sizes)
    return f"{words}_v{vectors}_{dtype}"


def pack(depth: Dim, columns: Dim, vectors: int, dtype: str) -> Template:
    """src (depth, columns) -> dst, packed in panels. Trip: the rows of src."""
    lines = ["for k in range(lo, hi):"]
    for p in panels(columns, vectors, target.lanes(dtype)):
        lines += indent(
            [
                p.loop(),
                f"    for j in range({p.columns}):",
                f"        s = k * {text(columns)} + o + j",
                f"        dst[o * {text(depth)} + k * {p.width} + j] = src[s]",
            ]
        )
    return Template(
        name=f"pack_{panel_name(depth, columns, vectors=vectors, dtype=dtype)}",
        doc=filled(
            f"src ({depth}, {columns}) -> dst: panels of at most {vectors} vectors; "
            "lo..hi: rows of src."
        ),
        imports=(),
        symbols=check_symbols("pack", symbols_of(depth, columns), NAMES),
        params=(("src", dtype), ("dst", dtype)),
        body=tuple(lines),
        trip=depth,
        grain=max(1, 8192 // columns) if isinstance(columns, int) and columns else 8,
    )


def pack_transposed(
    depth: Dim,
    columns: Dim,
    vectors: int,
    dtype: str,
    *,
    planes: int = 1,
    copies: Dim = 1,
    leading: Dim | None = None,
    plane_stride: Dim = 0,
    copy_stride: Dim = 0,
) -> Template:
    """dst[k, j] = src[j * leading + k] packed in panels, a block of lanes x lanes in registers at a
    time.

    leading: elements between rows of src; depth by default. planes: that many matrices,
    plane_stride apart in src, follow each other along the depth of dst in reverse order (kernel
    rows and columns of an input gradient). copies: that many packed operands one after the other,
    copy_stride apart in src (a batch, groups). Trip: copies * vectors of columns.
    """
    lanes = target.lanes(dtype)
    leading = depth if leading is None else leading
    known = [d for d in (depth, columns, leading, plane_stride) if isinstance(d, int)]
    if copies == 1 and len(known) == 4 and all(d and d % lanes == 0 for d in known[:2]):
        return pack_blocks(*known, planes=planes, vectors=vectors, dtype=dtype)
    count: Dim = (
        -(-columns // lanes)
        if isinstance(columns, int)
        else f"(({columns}) + {lanes - 1}) // {lanes}"
    )
    whole = product(planes, depth)
    many = copies != 1
    writer = BlockWriter(depth, dtype, leading, planes, plane_stride)
    lines = ["for t in range(lo, hi):"]
    lines += indent([f"o = t % {text(count)} * {lanes}" if many else f"o = t * {lanes}"])
    source, out = "", ""
    if many:
        source = f"t // {text(count)} * {text(copy_stride)}"
        out = f"t // {text(count)} * {text(product(whole, padded(columns, lanes)))}"
    for p in panels(columns, vectors, lanes):
        lines += indent(
            [f"if {p.first} <= o < {p.end}:", *indent(writer.panel(p, whole, source, out))]
        )
    sizes = [d for d in (copies, columns, depth, leading, copy_stride) if d is not None]
    odd: list[Dim] = [leading] if leading != depth else []
    odd += [planes, plane_stride] if planes > 1 else []
    odd += [copies, copy_stride] if many else []
    words = panel_name(depth, columns, *odd, vectors=vectors, dtype=dtype)
    kind = "batch_" * many + "flip_" * (planes > 1)
    return Template(
        name=f"pack_transposed_{kind}{words}",
        doc=filled(
            f"dst[k, j] = src[j * {leading} + k]: {copies} x {planes} matrices with {columns} rows "
            f"of {depth}, into panels of at most {vectors} vectors; lo..hi: vectors of columns."
        ),
        imports=writer.imports(),
        symbols=check_symbols("pack_transposed", symbols_of(*sizes), NAMES),
        params=(("src", dtype), ("dst", dtype)),
        body=tuple(lines),
        trip=product(copies, count),
        grain=1,
    )


def pack_blocks(
    depth: int, columns: int, leading: int, plane_stride: int, *,
    planes: int, vectors: int, dtype: str,
) -> Template:  # fmt: skip
    """`pack_transposed` of whole blocks, one kernel for all sizes. Panels have two widths at most:
    the first one up to column `wide`.
    """
    lanes = target.lanes(dtype)
    cut = panels(columns, vectors, lanes)
    sizes = {
        "depth": depth, "leading": leading, "planes": planes, "stride": plane_stride,
        "wide": int(cut[0].end), "first": cut[0].width, "second": cut[-1].width,
    }  # fmt: skip
    body = (
        "for t in range(lo, hi):",
        f"    o = t * {lanes}",
        "    width, j = first, o % first",
        "    if o >= wide:",
        "        width, j = second, (o - wide) % second",
        "    for q in range(planes):",
        "        s = o * leading + q * stride",
        "        d = (o - j) * planes * depth + j + (planes - 1 - q) * depth * width",
        f"        for k in range(0, depth, {lanes}):",
        "            block(src, s + k, leading, dst, d + k * width, width)",
    )
    return Template(
        name=f"pack_transposed_blocks_{dtype}",
        doc=filled(
            "dst[k, j] = src[j * leading + k]: matrices with rows of `depth`, `stride` apart, the "
            "last one first, into panels of `first` columns up to column `wide`, then of `second`; "
            f"lo..hi: {lanes} columns."
        ),
        imports=(
            "from nnjit.kernels.tile import transpose_block",
            "",
            f'block = transpose_block(lanes={lanes}, dtype="{dtype}")',
        ),
        symbols=(),
        params=(("src", dtype), ("dst", dtype)),
        body=body,
        trip=columns // lanes,
        sizes=tuple(sizes.items()),
    )


class BlockWriter:
    """Writes the transposition of one vector of columns; collects the block functions it calls."""

    def __init__(self, depth: Dim, dtype: str, leading: Dim, planes: int, plane_stride: Dim):
        self.depth, self.dtype, self.leading = depth, dtype, leading
        self.planes, self.plane_stride = planes, plane_stride
        self.lanes = target.lanes(dtype)
        self.blocks: dict[tuple[int, int], str] = {}

    def imports(self) -> tuple[str, ...]:
        """The module-level lines that define the blocks."""
        lines = ["from nnjit.kernels.tile import transpose_block", ""] if self.blocks else []
        for (rows, columns), name in self.blocks.items():
            edge = "".join(
                f", {n}={v}" for n, v in (("rows", rows), ("columns", columns)) if v != self.lanes
            )
            lines.append(
                f'{name} = transpose_block(lanes={self.lanes}{edge}, dtype="{self.dtype}")'
            )
        return tuple(lines)

    def block(self, rows: int, columns: int) -> str:
        return self.blocks.setdefault((rows, columns), f"transpose_{rows}x{columns}")

    def panel(self, p: Panel, whole: Dim, source: str, out: str) -> list[str]:
        """The vector of columns at o, one of those of panel p: j is its place in the panel."""
        lines = [f"j = {f'(o - {text(p.first)})' if p.first else 'o'} % {p.width}"]
        s = f"{source} + o * {text(self.leading)}" if source else f"o * {text(self.leading)}"
        d = f"(o - j) * {text(whole)} + j"
        d = f"{out} + {d}" if out else d
        if self.planes == 1:
            return [*lines, f"s = {s}", f"d = {d}", *self.block_rows(p)]
        return [
            *lines,
            f"for q in range({self.planes}):",
            f"    s = {s} + q * {text(self.plane_stride)}",
            f"    d = {d} + ({self.planes - 1} - q) * {text(product(self.depth, p.width))}",
            *indent(self.block_rows(p)),
        ]

    def block_rows(self, p: Panel) -> list[str]:
        """All of a matrix in the vector of columns; the last one of a panel may be cut short."""
        if p.tail == "run":
            return self.scalars(p, "0", p.columns)
        if not p.tail or p.vectors == 1:
            return self.vector(p, int(p.tail) or self.lanes)
        assert isinstance(p.end, int)
        return [
            f"if o < {p.end - self.lanes}:",
            *indent(self.vector(p, self.lanes)),
            "else:",
            *indent(self.vector(p, int(p.tail))),
        ]

    def vector(self, p: Panel, rows: int) -> list[str]:
        """All k of `rows` columns of dst (rows of src); what is left of a run-time depth goes one
        by one.
        """
        step, depth = self.lanes, text(self.depth)
        lines = []
        if not isinstance(self.depth, int) or self.depth >= step:
            end = (
                self.depth // step * step
                if isinstance(self.depth, int)
                else f"{depth} // {step} * {step}"
            )
            lines = [
                f"for k in range(0, {end}, {step}):",
                "    " + self.call(self.block(rows, step), p, "k"),
            ]
        if not isinstance(self.depth, int):
            return lines + self.scalars(p, f"{depth} // {step} * {step}", rows)
        if self.depth % step:
            k = self.depth - self.depth % step
            lines.append(self.call(self.block(rows, self.depth % step), p, str(k)))
        return lines

    def call(self, name: str, p: Panel, k: str) -> str:
        s, d = ("s", "d") if k == "0" else (f"s + {k}", f"d + {k} * {p.width}")
        return f"{name}(src, {s}, {text(self.leading)}, dst, {d}, {p.width})"

    def scalars(self, p: Panel, start: str, rows: Dim) -> list[str]:
        return [
            f"for k in range({start}, {self.depth}):",
            f"    for i in range({rows}):",
            f"        dst[d + k * {p.width} + i] = src[s + i * {text(self.leading)} + k]",
        ]
