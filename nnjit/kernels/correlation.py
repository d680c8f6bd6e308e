"""Correlations of channels-last images by the tile: what a convolution and its input gradient have
in common.

Tile rows are columns of y; the reduction runs over kernel rows (clipped when running), kernel
columns (taps, clipped in the text) and channels. Nothing is padded, copied or unfolded.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from nnjit.kernels.blocks import (
    Panel,
    Tiles,
    call,
    check_symbols,
    filled,
    grain,
    lanes_of,
    padded,
    panels,
    product,
    split,
    symbols_of,
    total,
)
from nnjit.kernels.contraction_rows import UNROLL
from nnjit.kernels.geometry import Axis
from nnjit.kernels.recipe import Epilogue
from nnjit.kernels.template import Template, indent

# variables of these kernels, which no symbol may be called
NAMES = "lo hi tid a b bias mask residual y scratch row R r r0 top image n h g i j m o q t out"


@dataclass(frozen=True)
class Correlation:
    """y[n, h, w, :] = sum over taps of a[n, rows, columns, :] . b[kernel row, kernel column]; one
    class list an axis.

    a (batch, H, W, C) and y (batch, HO, WO, O) in `groups` groups; b (KH, KW, C / groups, O),
    packed or as it is. dtype b2: a and b hold pairs of bfloat16 along the channels, and C counts
    pairs. out: the dtype of y; a float32 kernel may round its rows to bfloat16, without a tail.
    """

    batch: int | str
    H: int
    W: int
    C: int
    HO: int
    WO: int
    O: int  # noqa: E741
    KH: int
    KW: int
    groups: int
    rows: tuple[Axis, ...]
    columns: tuple[Axis, ...]
    packed: bool
    dtype: str
    most: int
    vectors: int
    epilogue: Epilogue
    out: str

    @property
    def CG(self) -> int:
        return self.C // self.groups

    @property
    def OG(self) -> int:
        return self.O // self.groups

    @property
    def rounds(self) -> bool:
        """Whether a row of y lies in scratch before it is stored as bfloat16: the tile cannot."""
        return self.out == "b2" != self.dtype

    def unit(self, p: Panel) -> int:
        """Elements between rows of b."""
        return p.width if self.packed else self.O


def correlate(name: str, c: Correlation, doc: str) -> Template:
    """The kernel of a correlation. Trip: the rows of all images, batch * HO."""
    tiles, ep = Tiles(c.dtype), c.epilogue
    body = [f"row = tid * {c.WO * c.O}"] * c.rounds
    body += ["for t in range(lo, hi):", f"    n = t // {c.HO}", f"    h = t - n * {c.HO}"]
    for axis in c.rows:
        lines = row_start(c, axis) + one_row(c, axis, tiles)
        if axis.step > 1:
            lines = [f"if h % {axis.step} == {axis.first}:", *indent(lines)]
        body += indent(lines)
    if c.rounds:
        body += [
            f"    out = t * {c.WO * c.O}",
            f"    for i in range({c.WO * c.O}):",
            "        y[out + i] = bf16_round(scratch[row + i])",
        ]
    body += indent(ep.pixels(f"t * {c.WO * c.O}", c.WO, c.O))
    flops = 2 * c.WO * c.O * c.CG * c.KH * c.KW
    symbols = check_symbols(name, symbols_of(c.batch), NAMES, ep.extra_params)
    note = "\nb is packed in panels;" * c.packed
    operands = (("a", c.dtype), ("b", "u4" if c.dtype == "b2" else c.dtype))
    inputs = replace(ep, beside=ep.beside or c.dtype) if c.rounds else ep
    scratch = (("scratch", c.dtype),) * c.rounds
    rounding = ("from nnjit.kernels.bf16 import bf16_round",) * c.rounds
    return Template(
        name=name,
        doc=filled(f"{name}: {doc};{note} rows lo..hi of all images."),
        imports=(*ep.imports, *rounding, *tiles.imports()),
        symbols=symbols,
        params=(*operands, *inputs.params(c.out), ("y", c.out), *ep.extra_params, *scratch),
        body=tuple(body),
        trip=product(c.batch, c.HO),
        scratch=4 * c.WO * c.O * c.rounds,
        grain=grain(flops),
    )


def row_start(c: Correlation, axis: Axis) -> list[str]:
    """Kernel rows r0..r0+R-1 that fall on the image, and where the first one reads: `top`."""
    m = "h" if axis.step == 1 else f"h // {axis.step}"
    top = total(m if axis.in_step == 1 else f"{m} * {axis.in_step}", axis.in_first)
    if not axis.taps:
        return ["r0 = R = 0", f"image = n * {c.H * c.W * c.C}"]
    if axis.inside(c.H):
        return [f"image = (n * {c.H} + {top}) * {c.W * c.C}"]
    step = axis.tap_step
    low, high = (
        ("-top", f"{c.H} - top")
        if step == 1
        else (f"-(top // {step})", f"({c.H - 1} - top) // {step} + 1")
    )
    shift = "r0" if step == 1 else f"r0 * {step}"
    return [
        f"top = {top}",
        f"r0 = max(0, {low})",
        f"R = min({axis.taps}, {high}) - r0",
        f"image = (n * {c.H} + top + {shift}) * {c.W * c.C}",
    ]


def one_row(c: Correlation, axis: Axis, tiles: Tiles) -> list[str]:
    """One row of y: groups, panels, classes of columns, blocks of columns."""
    lines = []
    for p in panels(c.OG, c.vectors, lanes_of(c.dtype)):
        inner = []
        for columns in c.columns:
            for start, last, size, taps, kc in column_blocks(c, columns, p):
                body = block_call(c, axis, columns, p, tiles, size, taps, kc)
                inner += [f"for j in range({start}, {last + 1}, {size}):", *indent(body)]
        lines += [p.loop(), *indent(inner)]
    return [f"for g in range({c.groups}):", *indent(lines)] if c.groups > 1 else lines


def column_blocks(c: Correlation, axis: Axis, p: Panel) -> list[tuple]:
    """(first j, last j, size, taps, kc) of the blocks of columns; equal neighbours are one run."""
    out: list[tuple] = []
    for start, size in split(axis.count, c.most):
        taps, kc = taps_of(c, axis, p, start, size)
        if out and out[-1][2:] == (size, taps, kc):
            out[-1] = (out[-1][0], start, size, taps, kc)
        else:
            out.append((start, start, size, taps, kc))
    return out


def taps_of(c: Correlation, axis: Axis, p: Panel, start: int, size: int) -> tuple[tuple, int]:
    """The tile's taps for a block of columns, and the length of each: all kernel columns in one
    where none is clipped.
    """
    taps = []
    row = c.CG * c.unit(p)
    for t in range(axis.taps):
        lo, hi = axis.rows(c.W, start, size, t)
        if lo < hi:
            taps.append(
                (t * axis.tap_step * c.C, (axis.kernel_first + t * axis.kernel_step) * row, lo, hi)
            )
    whole = len(taps) == axis.taps > 0 and all(t[2:] == (0, size) for t in taps)
    if whole and c.groups == 1 and (axis.taps == 1 or axis.tap_step == axis.kernel_step == 1):
        return ((0, axis.kernel_first * row, 0, size),), axis.taps * c.C
    return tuple(taps), c.CG


def block_call(
    c: Correlation,
    axis: Axis,
    columns: Axis,
    p: Panel,
    tiles: Tiles,
    size: int,
    taps: tuple,
    kc: int,
) -> list[str]:
    """The tile for `size` output columns from j, columns of b from o."""
    ep, unit = c.epilogue, c.unit(p)
    name = tiles.get(
        size,
        p,
        rows_a=tuple(i * columns.in_step * c.C for i in range(size)),
        rows_c=tuple(i * columns.step * c.O for i in range(size)),
        step_b=unit,
        taps=None if taps == ((0, 0, 0, size),) else taps,
        static_k=kc if kc * max(1, len(taps)) <= UNROLL else 0,
        out=c.dtype if c.rounds else c.out,
        **ep.tile_options(),
    )
    inside = axis.inside(c.H)
    column = f"g * {c.OG} + o" if c.groups > 1 else "o"
    x = f"j * {columns.in_step * c.C}" if columns.in_step * c.C > 1 else "j"
    at_a = total("image", x, *([f"g * {c.CG}"] if c.groups > 1 else []), columns.in_first * c.C)
    kernel_row = c.KW * c.CG * unit
    skip = [] if inside else [f"r0 * {axis.kernel_step * kernel_row}"]
    depth = c.KH * c.KW * c.CG
    if c.packed:
        group = [f"g * {product(depth, padded(c.OG, lanes_of(c.dtype)))}"] if c.groups > 1 else []
        at_b = total(*group, f"o * {depth}", *skip, axis.kernel_first * kernel_row)
    else:
        at_b = total(column, *skip, axis.kernel_first * kernel_row)
    x = f"j * {columns.step}" if columns.step > 1 else "j"
    out = f"out = (t * {c.WO} + {total(x, columns.first)}) * {c.O} + {column}"
    args = [
        str(axis.taps) if inside else "R",
        str(kc),
        "a",
        at_a,
        str(axis.tap_step * c.W * c.C),
        "b",
        at_b,
        str(axis.kernel_step * kernel_row),
        *(("scratch", f"row + out - t * {c.WO * c.O}") if c.rounds else ("y", "out")),
        *ep.tile_arguments(column, "out"),
    ]
    return [out, *call(name, args)]
