"""The loops of a matrix product: panels of columns, blocks of rows, pieces of the reduction."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from nnjit.kernels import target
from nnjit.kernels.amx_tile import MOST_ROWS
from nnjit.kernels.asking_tile import SHIFT
from nnjit.kernels.blocks import Dim, Panel, Tiles, call, lanes_of, panels, product, text, total
from nnjit.kernels.recipe import Epilogue
from nnjit.kernels.template import indent

SMALL_B = 256 * 1024  # bytes of b that stay in L2
AMX_B = 1280 * 1024  # ... of a CPU with AMX, which has 2 MB
MANY_ROWS = 256
GROUP = 4  # tiles of rows that then go over all panels
DEPTH = 4096  # bytes of a reduction after which its sums go through memory; from four times as much
UNROLL = 16  # reductions up to this length are unrolled completely, where their code stays short:
UNROLLED = 128  # multiplications of vectors; LLVM takes half a second for twice as many, no faster
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


@dataclass(frozen=True)
class Rows:
    """Rows first..last of a matrix; a, b, row: where it starts in a, b and (in rows) y."""

    first: str
    last: str
    a: str = ""
    b: str = ""
    row: str = ""


@dataclass(frozen=True)
class Ahead:
    """The first tile of each panel asks for b, `rows` rows further on. tiles: where such tiles are
    kept.
    """

    tiles: Tiles
    rows: int


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


def several_rows(p: Product, tiles: Tiles) -> list[str]:
    """All panels for a few rows at a time where b stays in L2 anyway; else all rows of the chunk
    for each panel.
    """
    if p.row_a == 1 or not 0 < whole_b(p) <= most_b(p) or len(p.panels()) < 2:
        return row_blocks(p, tiles, Rows("lo", "hi"))
    group = GROUP * p.rows
    return [
        f"for first in range(lo, hi, {group}):",
        f"    last = min(hi, first + {group})",
        *indent(row_blocks(p, tiles, Rows("first", "last"))),
    ]


def row_blocks(p: Product, tiles: Tiles, at: Rows) -> list[str]:
    """These rows of one matrix, panel after panel."""
    lines = []
    for panel in p.panels():
        lines += [panel.loop(), *indent(panel_rows(p, tiles, panel, at))]
    return lines


def panel_rows(
    p: Product, tiles: Tiles, panel: Panel, at: Rows, ahead: Ahead | None = None
) -> list[str]:
    """These rows of the panel of columns at o."""
    lines: list[str] = []
    parts = phases(p)
    if p.sums:
        return scratch_rows(p, tiles, panel, parts[0], at)
    for phase in parts:

        def block(rows: int, i: str = "i", phase: Phase = phase) -> list[str]:
            return tile_call(p, tiles, panel, phase, rows, i, at)

        # where y is read, no row may be done twice
        again = len(parts) == 1 and not p.epilogue.operand and not p.block_a
        left = p.M % p.rows if p.block_a and isinstance(p.M, int) else 0
        body = blocks_of_rows(p.rows, at, block, again, ahead is not None, left)
        if ahead:
            body = lead(p, panel, phase, at, ahead) + body
        lines += [phase.loop, *indent(body)] if phase.loop else body
    out = f"({at.row} + i) * {text(p.N)} + o" if at.row else f"i * {text(p.N)} + o"
    tail = p.epilogue.lines(out, "o", panel.columns)
    if tail:
        lines += [f"for i in range({at.first}, {at.last}):", *indent(tail)]
    return lines


def scratch_rows(p: Product, tiles: Tiles, panel: Panel, phase: Phase, at: Rows) -> list[str]:
    """Some rows at a time: their sums go to scratch, the tail makes y and the rest of them."""
    few, width = Rows("g", "stop", at.a, at.b, at.row), panel.width
    start = f"tid * {p.scratch}"

    def block(rows: int, i: str = "i") -> list[str]:
        return tile_call(p, tiles, panel, phase, rows, i, few, f"{start} + (i - g) * {width}")

    out = f"({at.row} + i) * {text(p.N)} + o" if at.row else f"i * {text(p.N)} + o"
    tail = p.epilogue.lines(out, "o", panel.columns, f"{start} + (i - g) * {width}")
    return [
        f"for g in range({at.first}, {at.last}, {p.sum_rows}):",
        f"    stop = min({at.last}, g + {p.sum_rows})",
        *indent(blocks_of_rows(p.rows, few, block, not p.block_a)),
        "    for i in range(g, stop):",
        *indent(tail, 2),
    ]


def lead(p: Product, panel: Panel, phase: Phase, at: Rows, ahead: Ahead) -> list[str]:
    """The first full tile of these rows, which asks for b."""
    tile = tile_call(p, ahead.tiles, panel, phase, p.rows, at.first, at, ahead=ahead.rows)
    return [f"if {at.last} - {at.first} >= {p.rows}:", *indent(tile)]


def blocks_of_rows(
    rows: int, at: Rows, block: Callable[[int], list[str]], again: bool, led: bool = False,
    left: int = 0,
) -> list[str]:  # fmt: skip
    """Full tiles, then what is left. led: the first full tile is done.

    again: rows may be done twice, so that is one more tile that overlaps its neighbour (two of half
    the rows where there is no neighbour). Else fewer rows at a time; left: how many there are, if
    any, where that is known.
    """
    first, last = at.first, at.last
    if rows == 1:
        return [f"for i in range({first}, {last}):", *indent(block(1))]
    start = f"{first} + {rows}" if led else first
    lines = [f"for i in range({start}, {last} - {rows - 1}, {rows}):", *indent(block(rows))]
    half = rows // 2 if rows > 3 else 0
    if again:
        rest = [f"for i in range({first}, {last}):", *indent(block(1))]
        if half:
            rest = [
                f"if {last} - {first} >= {half}:",
                f"    step = max(1, {last} - {first} - {half})",
                f"    for i in range({first}, {last} - {half - 1}, step):",
                *indent(block(half), 2),
                "else:",
                *indent(rest),
            ]
        return [
            *lines,
            f"if ({last} - {first}) % {rows} != 0:",
            f"    if {last} - {first} >= {rows}:",
            f"        i = {last} - {rows}",
            *indent(block(rows), 2),
            "    else:",
            *indent(rest, 2),
        ]
    lines += [f"i = {last} - ({last} - {first}) % {rows}"]
    if left:
        return [*lines, f"if i < {last}:", *indent(block(left))]
    if half:
        lines += [f"if {last} - i >= {half}:", *indent(block(half)), f"    i += {half}"]
    return [*lines, f"for i in range(i, {last}):", *indent(block(1))]


def tile_call(
    p: Product, tiles: Tiles, panel: Panel, phase: Phase, rows: int, i: str, at: Rows,
    sums: str = "", ahead: int = 0,
) -> list[str]:  # fmt: skip
    """One block of y: `rows` rows at i (of the matrix), the columns of `panel` at o; or, at `sums`,
    of a scratch as wide as the panel. ahead: the tile asks for b, so many rows further on.
    """
    ep, step_b = p.epilogue, p.step_b(panel)
    row_c = panel.width if sums else p.N
    strides = {"row_a": p.row_a, "row_c": row_c, "step_a": p.step_a, "step_b": step_b}
    run_time = [
        n
        for n, d in strides.items()
        if isinstance(d, str) and not (rows == 1 and n.startswith("row"))
    ]
    fixed = {n: d if isinstance(d, int) else int(n.startswith("row")) for n, d in strides.items()}
    short = isinstance(p.K, int) and p.K <= UNROLL and p.K * rows * panel.vectors <= UNROLLED
    options = {
        "rows_a": tuple(r * fixed["row_a"] for r in range(rows)),
        "rows_c": tuple(r * fixed["row_c"] for r in range(rows)),
        "step_a": fixed["step_a"], "step_b": fixed["step_b"], "static_k": p.K if short else 0,
        "runtime": tuple(run_time), "init": phase.init, "final": phase.final,
        "out": ("f4" if p.dtype == "b2" else p.dtype) if sums else p.codes[2],
    }  # fmt: skip
    if ahead:
        options |= {"asks": panel.vectors, "level": 2}
    name = tiles.get(rows, panel, **options)
    at_a = total(at.a or 0, p.place_a(i), product(phase.start, p.step_a))
    at_b = total(at.b or 0, f"o * {text(p.K)}" if p.packed else "o", product(phase.start, step_b))
    at_y = f"({at.row} + {i}) * {text(p.N)} + o" if at.row else f"{i} * {text(p.N)} + o"
    operands = ["bias", "o"] if phase.init == "bias" else []
    operands += [ep.operand, at_y] if ep.operand and phase.last else []
    args = [
        "1",
        str(phase.count),
        "a",
        at_a,
        "0",
        "b",
        at_b,
        "0",
        "scratch" if sums else "y",
        sums or at_y,
        *operands,
        *(str(strides[n]) for n in run_time),
        *([str(panel.columns)] if panel.tail == "run" else []),
    ]
    if ahead:
        assert isinstance(step_b, int)
        for v in range(panel.vectors):
            args += ["b", total(at_b, ahead * step_b + v * panel.lanes)]
        args.append(f"{step_b} << {SHIFT}")
    return call(name, args)
