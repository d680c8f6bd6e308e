"""y = a.T @ b with a long reduction, as in the gradient of a Dense layer's kernel: sums over rows.

A chunk is a part of the rows and of the columns of y, so nothing is summed across threads. Some
hundred rows of b at a time, and of a where they are long, are copied to scratch: read in place,
rows whose distance is a power of two would evict each other from the caches. y holds the sums in
between, or scratch where an optimizer makes of them what y becomes. Of bfloat16, two rows at a time
become one of pairs.
"""

from __future__ import annotations

from dataclasses import dataclass

from nnjit.kernels import target
from nnjit.kernels.blocks import (
    Dim,
    Panel,
    Tiles,
    call,
    check_symbols,
    choose,
    filled,
    halved,
    lanes_of,
    panels,
    split,
    symbols_of,
    text,
)
from nnjit.kernels.packing_pairs import by_parity, imports, paired
from nnjit.kernels.recipe import Epilogue, Recipe, Step
from nnjit.kernels.template import Template, indent

BLOCK = 128  # rows that are copied at once: a panel of b then stays in L1
COPIED_A = 2048  # bytes between rows of a above which they are copied: each chunk does it again
PART = 384  # rows of y in a chunk: those of a block then stay in L2
LEAST = 32  # rows and columns of y for which copying pays
LONG_ROW = 1024  # bytes between rows of a or b from which copying them pays
FAR_ROW = 4096  # ... where there may be few rows, whose places in the caches are the same
DEEP = 512  # rows of a and b from which copying them pays
PAIRS = 128  # bfloat16: pairs of rows from which they are copied
CHUNKS = 8  # to aim for, so that several threads share the work

# variables of this kernel, which no symbol may be called
NAMES = (
    "lo hi tid a b y scratch t u o i j k k0 q s d first last start end row rows count left columns "
    "at_a at_b at_y at_sums"
)


def sums_apply(M: Dim, N: Dim, K: Dim, dtype: str, epilogue: Epilogue) -> bool:
    """Is this the better template? M and N are static, rows long, K is long, and nothing but a tail
    follows.
    """
    if not isinstance(M, int) or not isinstance(N, int) or min(M, N) < LEAST:
        return False
    if epilogue.final != "store" or epilogue.bias:
        return False
    if dtype == "b2":  # pairs are made of rows, so these are copied in any case
        return not target.multiplies_blocks() and (isinstance(K, str) or K > PAIRS)
    widest = max(M, N) * target.itemsize(dtype)
    if isinstance(K, int):
        return widest >= LONG_ROW and K > DEEP
    if not K.isidentifier():
        return widest >= LONG_ROW
    # a batch alone is mostly short, and then in place is faster unless rows meet in the caches
    return any(n * target.itemsize(dtype) % FAR_ROW == 0 for n in (M, N))


@dataclass(frozen=True)
class Sums:
    """The sizes of one kernel. Rows of y are cut into tiles of two sizes at most, `large` of them
    of the first; parts: how many chunks along rows and columns. apart: a chunk's sums are in
    scratch.
    """

    M: int
    N: int
    K: Dim
    dtype: str
    sizes: tuple[int, ...]
    panels: tuple[Panel, ...]
    parts: tuple[int, int]
    stored: tuple[str, str]
    apart: bool = False

    @property
    def depth(self) -> Dim:
        """Steps along k: rows of a and b, or pairs of them."""
        return halved(self.K) if self.dtype == "b2" else self.K

    @property
    def large(self) -> int:
        return self.sizes.count(self.sizes[0])

    @property
    def count(self) -> int:
        """Panels of columns."""
        return sum((int(p.end) - int(p.first)) // p.width for p in self.panels)

    @property
    def rows(self) -> int:
        """The most rows of y in a chunk."""
        return -(-len(self.sizes) // self.parts[0]) * self.sizes[0]

    @property
    def copies_a(self) -> bool:
        return self.dtype == "b2" or self.M * target.itemsize(self.dtype) > COPIED_A

    @property
    def width_a(self) -> int:
        """Elements between rows of the copy of a: the rows of a chunk, no power of two apart."""
        lanes = lanes_of(self.dtype)
        return (-(-self.rows // lanes) | 1) * lanes if self.copies_a else 0

    @property
    def width_b(self) -> int:
        return max(p.width for p in self.panels)

    @property
    def width_y(self) -> int:
        """Elements between rows of the sums: of y, or of the most columns of a chunk."""
        return -(-self.count // self.parts[1]) * self.width_b if self.apart else self.N

    @property
    def scratch(self) -> int:
        """Elements for each thread."""
        sums = self.rows * self.width_y if self.apart else 0
        return BLOCK * (self.width_a + self.width_b) + sums

    def column_of(self, panel: str) -> str:
        """The first column of a panel, given its number; N of the one behind the last."""
        wide, narrow = self.panels[0].width, self.panels[-1].width
        many = sum((int(p.end) - int(p.first)) // wide for p in self.panels if p.width == wide)
        more = f" + min({panel}, {many}) * {wide - narrow}" if wide > narrow else ""
        return f"min({self.N}, {panel} * {narrow}{more})"

    def row_of(self, tile: str) -> str:
        """The first row of a tile, given its number."""
        if self.large == len(self.sizes):
            return f"{tile} * {self.sizes[0]}"
        return f"{tile} * {self.sizes[-1]} + min({tile}, {self.large})"


def sums_of(
    M: int, N: int, K: Dim, dtype: str, stored: tuple[str, str], apart: bool = False
) -> Sums:
    """How this product is cut."""
    # measured: 4 x 4 beats the wider tiles here, as long as its 16 sums fit the registers
    rows, vectors = (4, 4) if target.registers() == 32 else choose(M, N, dtype, exact=True)
    sizes = tuple(size for _, size in split(M, rows))
    cut = tuple(panels(N, vectors, lanes_of(dtype)))
    count = sum((int(p.end) - int(p.first)) // p.width for p in cut)
    down = -(-M // PART)
    parts = (down, min(count, -(-CHUNKS // down)))
    codes = (stored[0] or dtype, stored[1] or dtype)
    return Sums(M, N, K, dtype, sizes, cut, parts, codes, apart)


def sums_template(
    name: str, M: int, N: int, K: Dim, dtype: str, epilogue: Epilogue, formula: str,
    stored: tuple[str, str] = ("", ""),
) -> Recipe:  # fmt: skip
    """y (M, N) = a.T @ b; a (K, M), b (K, N). Roles: a, b, out, the epilogue's extra params.

    stored: dtype codes of a and b; of bfloat16 (b2) either may be float32, and y is. What is apart
    is so as in `contraction_updates`.
    """
    apart = epilogue.apart and epilogue.tail is not None
    s, tiles = sums_of(M, N, K, dtype, stored, apart), Tiles(dtype)
    pairs = dtype == "b2"
    down, across = s.parts
    body = [
        *([f"at_a = tid * {s.scratch}"] if s.copies_a else []),
        f"at_b = {f'at_a + {BLOCK * s.width_a}' if s.copies_a else f'tid * {s.scratch}'}",
        *([f"at_y = at_b + {BLOCK * s.width_b}"] if apart else []),
        "for t in range(lo, hi):",
        f"    first = t // {across} * {len(s.sizes)} // {down}",
        f"    last = (t // {across} + 1) * {len(s.sizes)} // {down}",
        f"    start = t % {across} * {s.count} // {across}",
        f"    end = (t % {across} + 1) * {s.count} // {across}",
        f"    row = {s.row_of('first')}",
        f"    rows = {s.row_of('last')} - row",
        *([f"    left = {s.column_of('start')}"] if apart else []),
        f"    for k0 in range(0, max({s.depth}, 1), {BLOCK}):",
        f"        count = min({BLOCK}, {s.depth} - k0)",
        *(["        for k in range(count):"] if s.copies_a else []),
        *indent(rows_of_a(s, tiles), 3),
        *indent(columns_of(s, tiles), 2),
        *indent(tail_of(s, epilogue)),
    ]
    template = Template(
        name=name,
        doc=filled(
            f"{name}: y = {formula}\na ({K}, {M}), b ({K}, {N}) -> y ({M}, {N}); lo..hi: "
            f"{down} x {across} parts of y; {'a and b are' if s.copies_a else 'b is'} copied "
            f"{BLOCK} rows{' of pairs' * pairs} "
            f"at a time{'; the product of a part lies in scratch' * apart}."
        ),
        imports=(*epilogue.imports, *pair_imports(s), *tiles.imports()),
        symbols=check_symbols(name, symbols_of(K), NAMES, epilogue.extra_params),
        params=(("a", s.stored[0]), ("b", s.stored[1]), ("y", "f4" if pairs else dtype),
                *epilogue.extra_params, ("scratch", "u4" if pairs else dtype)),
        body=tuple(body),
        trip=down * across,
        scratch=s.scratch * (4 if pairs else target.itemsize(dtype)),
    )  # fmt: skip
    roles = ("a", "b", "out", *(n for n, _ in epilogue.extra_params), "scratch")
    return Recipe((Step(template, roles),))


def pair_imports(s: Sums) -> tuple[str, ...]:
    if s.dtype != "b2":
        return ()
    return (imports("f4" if "f4" in s.stored else "b2"),)


def rows_of_a(s: Sums, tiles: Tiles) -> list[str]:
    """A chunk's rows in one row of a, or in two of them."""
    if s.dtype == "b2":
        return pair_rows_of_a(s)
    return copy_rows(s, tiles) if s.copies_a else []


def pair_rows_of_a(s: Sums) -> list[str]:
    """The pairs of a chunk's rows in two rows of a."""
    return pair_up(s, "a", s.stored[0], s.M, "row", "rows", f"at_a + k * {s.width_a}")


def pair_up(
    s: Sums, source: str, code: str, columns: int, first: str, count: str, place: str
) -> list[str]:
    """Elements `first`.. of two rows of a source, as pairs, to scratch."""
    bodies = [
        [f"for j in range({count}):",
         f"    scratch[d + j] = {paired(code, 's + j', second, source)}"]
        for second in (f"s + j + {columns}", "")
    ]  # fmt: skip
    return [
        f"s = (k0 + k) * {2 * columns} + {first}",
        f"d = {place}",
        *by_parity(s.K, f"k0 + k == {text(s.K)} // 2", *bodies),
    ]


def copy_rows(s: Sums, tiles: Tiles) -> list[str]:
    """The rows of a chunk of one row of a: four vectors at a time, one, what is left."""
    lanes = target.lanes(s.dtype)
    source, place = f"(k0 + k) * {s.M} + row + j", f"at_a + k * {s.width_a} + j"
    lines = []
    for vectors, low, high in (
        (4, "0", f"rows // {4 * lanes} * {4 * lanes}"),
        (1, f"rows // {4 * lanes} * {4 * lanes}", f"rows // {lanes} * {lanes}"),
    ):
        step = vectors * lanes
        lines += [
            f"for j in range({low}, {high}, {step}):",
            *indent(copy(tiles, Panel(0, 0, vectors, lanes), "a", source, place)),
        ]
    rest = copy(tiles, Panel(0, 0, 1, lanes, "run"), "a", source, place, ["rows - j"])
    return [*lines, f"for j in range(rows // {lanes} * {lanes}, rows, {lanes}):", *indent(rest)]


def copy(
    tiles: Tiles, panel: Panel, source: str, at: str, place: str, width: list[str] | None = None
) -> list[str]:
    """Copy one row of a panel to scratch: a tile that adds up nothing to what it starts with."""
    name = tiles.get(1, panel, rows_a=(0,), rows_c=(0,), init="bias")
    args = ["0", "0", source, "0", "0", source, "0", "0", "scratch", place, source, at]
    return call(name, [*args, *(width or [])])


def panel_loops(s: Sums) -> list[tuple[Panel, list[str]]]:
    """Each kind of panels with the line that runs over those in start..end."""
    out, before = [], 0
    for p in s.panels:
        many = (int(p.end) - int(p.first)) // p.width
        lines = [
            f"for u in range(max(start, {before}), min(end, {before + many})):",
            f"    o = {p.first} + (u - {before}) * {p.width}"
            if before
            else f"    o = u * {p.width}",
        ]
        out.append((p, lines))
        before += many
    return out


def columns_of(s: Sums, tiles: Tiles) -> list[str]:
    """Panel after panel: copy its rows of b, then add their products to y."""
    lines: list[str] = []
    for p, loop in panel_loops(s):
        place = f"at_b + k * {p.width}"
        if s.dtype == "b2":
            rows = pair_up(s, "b", s.stored[1], s.N, "o", str(p.columns), place)
        else:
            rows = copy(tiles, p, "b", f"(k0 + k) * {s.N} + o", place)
        lines += [
            *loop,
            "    for k in range(count):",
            *indent(rows, 2),
            "    if k0 == 0:",
            *indent(rows_of(s, p, "zero", tiles), 2),
            "    else:",
            *indent(rows_of(s, p, "load", tiles), 2),
        ]
    return lines


def rows_of(s: Sums, panel: Panel, init: str, tiles: Tiles) -> list[str]:
    """The tiles first..last of rows: those of the larger size, then those of the smaller one."""
    lines: list[str] = []
    for size in dict.fromkeys(s.sizes):
        tile = tiles.get(
            size, panel, rows_a=tuple(range(size)),
            rows_c=tuple(r * s.width_y for r in range(size)), step_a=s.width_a or s.M,
            step_b=panel.width, init=init,
        )  # fmt: skip
        low, high = "first", "last"
        if s.large < len(s.sizes):
            larger = size == s.sizes[0]
            low = low if larger else f"max(first, {s.large})"
            high = f"min(last, {s.large})" if larger else high
        sums = ["y", f"i * {s.N} + o"]
        if s.apart:
            sums = ["scratch", f"at_y + (i - row) * {s.width_y} + o - left"]
        of_a = ["scratch", "at_a + i - row"] if s.copies_a else ["a", f"k0 * {s.M} + i"]
        args = ["1", "count", *of_a, "0", "scratch", "at_b", "0", *sums]
        lines += [
            f"for q in range({low}, {high}):",
            f"    i = {s.row_of('q')}",
            *indent(call(tile, args)),
        ]
    return lines


def tail_of(s: Sums, epilogue: Epilogue) -> list[str]:
    """What follows elementwise, once the sums are complete."""
    if s.apart:
        sums = f"at_y + (i - row) * {s.width_y}"
        tail = epilogue.lines(f"i * {s.N} + left", "left", "columns", sums)
        return [f"columns = {s.column_of('end')} - left", "for i in range(row, row + rows):",
                *indent(tail)]  # fmt: skip
    lines: list[str] = []
    for panel, loop in panel_loops(s):
        tail = epilogue.lines(f"i * {s.N} + o", "o", panel.columns)
        if tail:
            lines += [*loop, "    for i in range(row, row + rows):", *indent(tail, 2)]
    return lines
