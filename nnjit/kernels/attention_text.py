"""What the attention kernels share: sizes, addresses, and the text of their inner steps.

A block is `width` queries of one head. Its values lie transposed in scratch: q.T (depth, width) and
scores (keys, width), so that the tile reads K, V and the rest where they are, and softmax runs over
whole vectors of queries whatever the number of keys is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nnjit.kernels import target
from nnjit.kernels.blocks import Dim, Panel, Tiles, call, panels, product, symbols_of, text
from nnjit.kernels.template import indent

# variables of these kernels, which no symbol may be called
NAMES = """lo hi tid q k v mask out lse dout dq dk dv scratch t w n h g i i0 j j0 r e s x y c o zero
    rows keys count at_q at_k at_v at_o to_q to_k to_v to_o qt st dt ds acc top
    base shrink total unit inner"""


@dataclass(frozen=True)
class Attention:
    """q (batch, queries, heads, d), k (batch, keys, kv, d), v (batch, keys, kv, dv).

    mask: the extents of its four axes, each 1 or that of (batch, heads, queries, keys).
    """

    batch: Dim
    queries: Dim
    keys: Dim
    heads: int
    kv: int
    d: int
    dv: int
    scale: float
    causal: bool
    mask: tuple[Dim, Dim, Dim, Dim] | None
    dtype: str

    @property
    def lanes(self) -> int:
        return target.lanes(self.dtype)

    @property
    def width(self) -> int:
        """Queries of a block: two vectors, or one where there are no more."""
        few = isinstance(self.queries, int) and self.queries <= self.lanes
        return self.lanes if few else 2 * self.lanes

    @property
    def rows(self) -> int:
        """Rows of a tile."""
        return 8 if target.registers() == 32 else 4

    @property
    def group(self) -> int:
        """Query heads of a key head."""
        return self.heads // self.kv

    @property
    def blocks(self) -> Dim:
        """Blocks of queries."""
        if isinstance(self.queries, int):
            return -(-self.queries // self.width)
        return f"({text(self.queries)} + {self.width - 1}) // {self.width}"

    @property
    def even(self) -> bool:
        """Are all blocks of queries and keys whole tiles, whatever the batch?"""
        times = (self.queries, self.keys)
        return all(isinstance(t, int) and t % self.rows == 0 for t in times)

    def columns(self, depth: int) -> int:
        """The row of an accumulator of so many columns: whole vectors."""
        return -(-depth // self.lanes) * self.lanes

    def last_key(self) -> str:
        """How many keys the block of `rows` queries from i0 sees."""
        return f"min({self.keys}, i0 + rows)" if self.causal else str(self.keys)

    @property
    def symbols(self) -> tuple[str, ...]:
        return symbols_of(self.batch, self.queries, self.keys, *(self.mask or ()))

    @property
    def name(self) -> str:
        """The part of a kernel's name that tells shapes apart."""
        words: list[Dim] = [self.queries]
        words += [self.keys] if self.keys != self.queries else []
        words += [f"h{self.heads}" + (f"by{self.kv}" if self.kv != self.heads else "")]
        words += [f"d{self.d}"] + ([f"dv{self.dv}"] if self.dv != self.d else [])
        words += ["causal"] * self.causal + ["mask"] * (self.mask is not None) + [self.dtype]
        return "_".join(str(w).replace(" * ", "x") for w in words)

    def shapes(self) -> str:
        """The operands' shapes for docstrings."""
        lines = f"q {shape(self.batch, self.queries, self.heads, self.d)}, "
        lines += f"k {shape(self.batch, self.keys, self.kv, self.d)}, "
        lines += f"v {shape(self.batch, self.keys, self.kv, self.dv)}"
        return lines + (f", mask {shape(*self.mask)}" if self.mask else "")


def shape(*dims: Dim) -> str:
    return f"({', '.join(map(str, dims))})"


class Scratch:
    """Parts of a thread's scratch: their places as names that the kernel defines."""

    def __init__(self, dtype: str):
        self.dtype, self.size = dtype, 0
        self.places: dict[str, int] = {}

    def take(self, name: str, elements: int) -> str:
        """A part of at least so many elements; its start is the variable `name`."""
        self.places[name] = self.size
        self.size += -(-elements // 16) * 16
        return name

    def lines(self) -> list[str]:
        """The definitions of all places."""
        first, *rest = self.places
        lines = [f"{first} = tid * {self.size}"]
        return lines + [f"{name} = {first} + {self.places[name]}" for name in rest]


class Text:
    """Writes the steps of one kernel; `tiles` and `blocks` collect what it must define."""

    def __init__(self, a: Attention):
        self.a, self.tiles, self.scratch = a, Tiles(a.dtype), Scratch(a.dtype)
        self.transposes: dict[str, str] = {}
        self.prefetches: dict[str, str] = {}

    # -- memory
    def ask_for(self, name: str, start: str, row: int, depth: int,
                write: bool = False) -> list[str]:  # fmt: skip
        """Prefetch a tile's rows of an array from `start` on, `row` elements from one to the next.

        Rows of one head are a few cache lines here and there: the CPU does not foresee them. A few
        at a time, since a core waits when it has asked for many.
        """
        function = f"ask_to_write_{depth}" if write else f"ask_for_{depth}"
        options = f'elements={depth}, dtype="{self.a.dtype}"' + ", write=True" * write
        self.prefetches[function] = f"prefetch({options})"
        return [
            f"for e in range({self.a.rows}):",
            f"    {function}({name}, {start} + e * {row})",
        ]

    def ask_for_keys(self, name: str, start: str, row: int, depth: int,
                     write: bool = False) -> list[str]:  # fmt: skip
        """The same in a loop over tiles of keys: those with the numbers of this block's queries."""
        return [
            f"if i0 <= j0 + r < i0 + {self.a.width}:",
            *indent(self.ask_for(name, f"{start} + (j0 + r) * {row}", row, depth, write)),
        ]

    # -- tiles
    def scores(self, to: str, b: str, name: str, start: str, row: int, depth: int,
               also: Sequence[str] = ()) -> list[str]:  # fmt: skip
        """scratch[to][r, j] = row r of `name` @ column j of b, for `count` keys from j0.

        With a causal attention the queries before a tile's first key are left out. also: lines to
        run with each tile of keys.
        """
        a = self.a
        panel = Panel(0, a.width, a.width // a.lanes, a.lanes)

        def tile(rows: int, panel: Panel, r: str, shift: int = 0) -> list[str]:
            name_ = self.tiles.get(
                rows, panel, rows_a=tuple(i * row for i in range(rows)),
                rows_c=tuple(i * a.width for i in range(rows)), step_b=a.width,
            )  # fmt: skip
            plus = f" + {shift}" if shift else ""
            return call(name_, [
                "1", str(depth), name, f"{start} + {r} * {row}", "0", "scratch", b + plus, "0",
                "scratch", f"{to} + {r} * {a.width}{plus}",
            ])  # fmt: skip

        whole = tile(a.rows, panel, "r")
        if a.causal and panel.vectors == 2:
            half = Panel(0, a.lanes, 1, a.lanes)
            whole = [
                f"if j0 + r < i0 + {a.lanes}:", *indent(whole),
                "else:", *indent(tile(a.rows, half, "r", a.lanes)),
            ]  # fmt: skip
        return self.each_key([*whole, *also], [] if a.even else tile(1, panel, "r"))

    def each_key(self, whole: list[str], single: list[str]) -> list[str]:
        """`whole` for each tile of keys of the block, from r; `single` for each key left over."""
        a = self.a
        lines = [f"for r in range(0, count - {a.rows - 1}, {a.rows}):", *indent(whole)]
        if a.even:
            return lines
        rest = f"for r in range(count // {a.rows} * {a.rows}, count):"
        return [*lines, rest, *indent(single)]

    def from_keys(self, left: str, b: str, start: str, row: int, depth: int, to: str,
                  also: Sequence[str] = ()) -> list[str]:  # fmt: skip
        """scratch[to][i] += column i of `left` @ b, over the `count` keys of the block. also: lines
        to run with each tile of queries.
        """
        a = self.a
        columns = a.columns(depth)
        lines = [f"for i in range(0, rows, {a.rows}):"]
        length = "count"
        if a.causal:
            length = "c"
            lines.append(f"    c = min(count, i0 + i + {a.rows} - j0)")
        for p in panels(depth, 2, a.lanes):
            tile = self.tiles.get(
                a.rows, p, rows_a=tuple(range(a.rows)), step_a=a.width, step_b=row, init="load",
                rows_c=tuple(i * columns for i in range(a.rows)),
            )  # fmt: skip
            step = call(tile, [
                "1", length, "scratch", f"{left} + i", "0", b, f"{start} + o", "0",
                "scratch", f"{to} + i * {columns} + o",
            ])  # fmt: skip
            lines += indent([p.loop(), *indent(step)])
        return [*lines, *indent(list(also))]

    # -- rows
    def scaled(self, factor: str, source: tuple[str, str, int], depth: int,
               to: tuple[str, str, int]) -> list[str]:  # fmt: skip
        """Row i of `to` = scratch[factor] * row i of `source`, i < rows: products of depth 1.

        source, to: the buffer, where its first row starts, and from one row to the next.
        """
        lines = ["for i in range(rows):"]
        for p in panels(depth, 4, self.a.lanes):
            tile = self.tiles.get(1, p, rows_a=(0,), rows_c=(0,))
            ends = [(name, f"{start} + i * {row} + o") for name, start, row in (source, to)]
            step = call(tile, ["1", "1", "scratch", factor, "0", *ends[0], "0", *ends[1]])
            lines += indent([p.loop(), *indent(step)])
        return lines

    def pack(self, to: str, through: str, factor: str, source: tuple[str, str, int],
             depth: int) -> list[str]:  # fmt: skip
        """scratch[to][e, j] = scratch[factor] * element e of row j, for `rows` rows; 0 behind.

        The rows are gathered at `through`, and from there transposed in registers.
        """
        a, pitch = self.a, self.a.columns(depth)
        block = f"transpose_{a.lanes}x{a.lanes}"
        self.transposes[block] = f'transpose_block(lanes={a.lanes}, dtype="{a.dtype}")'
        lines = self.scaled(factor, source, depth, ("scratch", through, pitch))
        if not (isinstance(a.queries, int) and a.queries % a.width == 0):
            lines += [
                f"for j in range(rows * {pitch}, {a.width * pitch}):",
                f"    scratch[{through} + j] = {a.dtype}(0.0)",
            ]
        return [
            *lines,
            f"for e in range(0, {pitch}, {a.lanes}):",
            f"    for j in range(0, {a.width}, {a.lanes}):",
            *indent(call(block, [
                "scratch", f"{through} + j * {pitch} + e", str(pitch), "scratch",
                f"{to} + e * {a.width} + j", str(a.width),
            ]), 2),
        ]  # fmt: skip

    # -- masks
    def hide(self, to: str) -> list[str]:
        """-inf as the score of a key that a query does not see."""
        a = self.a
        lines: list[str] = []
        value = f"-{a.dtype}(inf)"
        if a.causal:
            lines += [
                "for r in range(max(0, i0 + 1 - j0), count):",
                "    for j in range(min(rows, j0 + r - i0)):",
                f"        scratch[{to} + r * {a.width} + j] = {value}",
            ]
        if a.mask is not None:
            n, h, i, j = mask_strides(a.mask)
            at = terms(("n", n), ("h", h), ("(i0 + j)", i), ("(j0 + r)", j))
            if i == 0:
                order = ["for r in range(count):", f"    if mask[{at}] == 0:",
                         "        for j in range(rows):"]  # fmt: skip
            else:
                order = ["for j in range(rows):", "    for r in range(count):",
                         f"        if mask[{at}] == 0:"]  # fmt: skip
            lines += [*order, f"            scratch[{to} + r * {a.width} + j] = {value}"]
        return lines

    def imports(self) -> tuple[str, ...]:
        lines = list(self.tiles.imports())
        if self.transposes:
            lines = ["from nnjit.kernels.tile import tile, transpose_block", *lines[1:]]
            lines += [f"{name} = {made}" for name, made in self.transposes.items()]
        if self.prefetches:
            lines = ["from nnjit.kernels.prefetch import prefetch", *lines]
            lines += [f"{name} = {made}" for name, made in self.prefetches.items()]
        return tuple(lines)


def mask_strides(dims: tuple[Dim, ...]) -> list[Dim]:
    """Elements between neighbours along each axis; 0 along an axis of extent 1."""
    out: list[Dim] = []
    for axis, d in enumerate(dims):
        out.append(0 if d == 1 else product(*dims[axis + 1 :]))
    return out


def terms(*pairs: tuple[str, Dim]) -> str:
    """'n * 12 + j' without what is 0."""
    words = [name if c == 1 else f"{name} * {text(c)}" for name, c in pairs if c != 0]
    return " + ".join(words) or "0"
