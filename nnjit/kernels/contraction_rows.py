"""The loops of a matrix product: panels of columns, blocks of rows, pieces of the reduction."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from nnjit.kernels.asking_tile import SHIFT
from nnjit.kernels.blocks import Panel, Tiles, call, product, text, total
from nnjit.kernels.contraction_product import Phase, Product, most_b, phases, whole_b
from nnjit.kernels.template import indent

GROUP = 4  # tiles of rows that then go over all panels
UNROLL = 16  # reductions up to this length are unrolled completely, where their code stays short:
UNROLLED = 128  # multiplications of vectors; LLVM takes half a second for twice as many, no faster


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
    out = f"({at.row} + i) * {text(p.N)} + o" if at.row else f"i * {text(p.N)} + o"
    tail = p.epilogue.lines(out, "o", panel.columns)
    if tail and len(parts) == 1 and p.rows > 1:
        return rows_and_tail(p, tiles, panel, parts[0], at, ahead, tail)
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
    if tail:
        lines += [f"for i in range({at.first}, {at.last}):", *indent(tail)]
    return lines


def rows_and_tail(
    p: Product, tiles: Tiles, panel: Panel, phase: Phase, at: Rows, ahead: Ahead | None,
    tail: list[str],
) -> list[str]:  # fmt: skip
    """Rows of one tile at a time: what the tail reads and writes beside them is asked for, then
    they are multiplied, then the tail runs over them.
    """
    few, ep, code = Rows("g", "stop", at.a, at.b, at.row), p.epilogue, p.codes[2]

    def block(rows: int, i: str = "i") -> list[str]:
        return tile_call(p, tiles, panel, phase, rows, i, few)

    at_y = f"({at.row} + i) * {text(p.N)} + o" if at.row else f"i * {text(p.N)} + o"
    names = [name for name in ep.asked(code) if name != "y"]
    asks = [f"{tiles.asks.get(code, panel.width, ep.writes(n))}({n}, {at_y})" for n in names]
    whole = block(p.rows, "g")
    left = p.M % p.rows if p.block_a and isinstance(p.M, int) else 0
    rest = block(left, "g") if left else fewer_rows(p.rows, few, block, not ep.operand)
    if ahead:
        led = tile_call(p, ahead.tiles, panel, phase, p.rows, "g", few, ahead=ahead.rows)
        whole = [f"if g == {at.first}:", *indent(led), "else:", *indent(whole)]
    return [
        f"for g in range({at.first}, {at.last}, {p.rows}):",
        f"    stop = min({at.last}, g + {p.rows})",
        *indent(["for i in range(g, stop):", *indent(asks)] if asks else []),
        f"    if stop - g == {p.rows}:",
        *indent(whole, 2),
        "    else:",
        *indent(rest, 2),
        "    for i in range(g, stop):",
        *indent(tail, 2),
    ]


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
    if again:
        return [
            *lines,
            f"if ({last} - {first}) % {rows} != 0:",
            f"    if {last} - {first} >= {rows}:",
            f"        i = {last} - {rows}",
            *indent(block(rows), 2),
            "    else:",
            *indent(fewer_rows(rows, at, block, again), 2),
        ]
    start = f"{last} - ({last} - {first}) % {rows}"
    if left:
        return [*lines, f"i = {start}", f"if i < {last}:", *indent(block(left))]
    return lines + fewer_rows(rows, replace(at, first=start), block, again)


def fewer_rows(rows: int, at: Rows, block: Callable[[int], list[str]], again: bool) -> list[str]:
    """Fewer rows than those of a tile: half as many, then one by one."""
    first, last = at.first, at.last
    half = rows // 2 if rows > 3 else 0
    if not again:
        lines = [f"i = {first}"]
        if half:
            lines += [f"if {last} - i >= {half}:", *indent(block(half)), f"    i += {half}"]
        return [*lines, f"for i in range(i, {last}):", *indent(block(1))]
    rest = [f"for i in range({first}, {last}):", *indent(block(1))]
    if not half:
        return rest
    return [
        f"if {last} - {first} >= {half}:",
        f"    step = max(1, {last} - {first} - {half})",
        f"    for i in range({first}, {last} - {half - 1}, step):",
        *indent(block(half), 2),
        "else:",
        *indent(rest),
    ]


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
