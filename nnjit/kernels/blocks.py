"""How a contraction is cut: register tiles, column panels, and the text of extents that may be
symbols.

A dimension is an int, or an expression of run-time symbols such as "batch" or "batch * 26".
"""

from __future__ import annotations

import functools
import itertools
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field

from nnjit.kernels import target
from nnjit.kernels.template import folded

Dim = int | str


def text(d: Dim) -> str:
    """The dimension as an operand of a product."""
    return str(d) if isinstance(d, int) or re.fullmatch(r"\w+", d) else f"({d})"


def product(*dims: Dim) -> Dim:
    """The product, with the ints multiplied out."""
    number, names = 1, []
    for d in dims:
        if isinstance(d, int):
            number *= d
        else:
            names.append(text(d))
    if not names or number == 0:
        return number
    return " * ".join(names + ([str(number)] if number != 1 else []))


def total(*terms: Dim) -> str:
    """The sum as text, without zeros and with the ints added up."""
    number = sum(t for t in terms if isinstance(t, int))
    words = [t for t in terms if not isinstance(t, int) and t != "0"]
    if number < 0 and words:
        return " + ".join(words) + f" - {-number}"
    return " + ".join(words + ([str(number)] if number or not words else []))


def symbols_of(*dims: Dim | None) -> tuple[str, ...]:
    """The symbols of these dimensions, in order of first use."""
    found: dict[str, None] = {}
    for d in dims:
        if isinstance(d, str):
            found.update(dict.fromkeys(re.findall(r"[A-Za-z_]\w*", d)))
    return tuple(found)


def check_symbols(
    name: str,
    symbols: tuple[str, ...],
    names: str,
    extra_params: tuple[tuple[str, str], ...] = (),
) -> tuple[str, ...]:
    """The symbols, if none is among the kernel's own names (separated by blanks) or params."""
    clash = sorted(set(symbols) & {*names.split(), *(n for n, _ in extra_params)})
    if clash:
        raise ValueError(
            f"{name}: the run-time symbol {clash[0]!r} is a variable of the kernel; rename it"
        )
    return symbols


def filled(doc: str) -> str:
    """A kernel's docstring in lines that fit the page."""
    return "\n".join(s for line in doc.split("\n") for s in textwrap.wrap(line, 96))


def call(name: str, args: Sequence[str]) -> list[str]:
    """A call as lines; a long one is broken."""
    line = f"{name}({', '.join(args)})"
    return [line] if len(line) <= 68 else [f"{name}(", *folded(args, 68), ")"]


def grain(flops: Dim, rows: int = 1) -> int:
    """Indices worth a chunk, a multiple of `rows`: about 2 us of work at 100 GFLOP/s. flops: of one
    index.
    """
    if isinstance(flops, str):
        return rows
    return -(-200_000 // max(1, flops * rows)) * rows


def split(n: int, most: int) -> list[tuple[int, int]]:
    """n cut into the fewest pieces of at most `most`, sizes differing by one at most: (start, size)
    pairs.
    """
    parts = max(1, -(-n // most))
    small, larger = divmod(n, parts)
    pieces = ((small * p + min(p, larger), small + (p < larger)) for p in range(parts))
    return [(start, size) for start, size in pieces if size]


def sizes_of(n: int, most: int) -> dict[int, int]:
    """How many pieces of each size `split` makes; none of nothing."""
    parts = max(1, -(-n // most))
    small, larger = divmod(n, parts)
    counts = ((small + 1, larger), (small, parts - larger))
    return {size: many for size, many in counts if size and many}


@dataclass(frozen=True)
class Panel:
    """A run of equal column panels: columns first..end, `vectors` vectors each.

    tail: columns in use of the last vector (0: all; "run": only known when running). columns: how
    many of a panel's columns exist.
    """

    first: Dim
    end: Dim
    vectors: int
    lanes: int
    tail: int | str = 0
    run_columns: str = ""

    @property
    def width(self) -> int:
        return self.vectors * self.lanes

    @property
    def columns(self) -> Dim:
        if self.tail == "run":
            return self.run_columns
        return self.width - self.lanes + int(self.tail) if self.tail else self.width

    def loop(self, name: str = "o") -> str:
        return f"for {name} in range({self.first}, {self.end}, {self.width}):"


def panels(columns: Dim, vectors: int, lanes: int) -> list[Panel]:
    """Column panels of at most `vectors` vectors: balanced where the count is static, so that none
    is thin.
    """
    if isinstance(columns, str):
        n, width = text(columns), vectors * lanes
        wide, full = f"{n} // {width} * {width}", f"{n} // {lanes} * {lanes}"
        out = [Panel(0, wide, vectors, lanes)]
        if vectors > 1:
            out.append(Panel(wide, full, 1, lanes))
        return [*out, Panel(full, columns, 1, lanes, "run", f"{n} % {lanes}")]
    out = []
    count = -(-columns // lanes)
    for start, size in split(count, vectors):
        tail = columns % lanes if start + size == count else 0
        end = (start + size) * lanes
        if out and out[-1].vectors == size and out[-1].tail == tail == 0:
            out[-1] = Panel(out[-1].first, end, size, lanes)
        else:
            out.append(Panel(start * lanes, end, size, lanes, tail))
    return out


def parts(d: Dim, most: int) -> Dim:
    """How many parts of at most `most`."""
    return -(-d // most) if isinstance(d, int) else f"({d} + {most - 1}) // {most}"


def halved(d: Dim) -> Dim:
    """Pairs of d elements, the last one filled up."""
    return -(-d // 2) if isinstance(d, int) else f"({d} + 1) // 2"


def lanes_of(dtype: str) -> int:
    """Columns of a vector of sums: pairs of bfloat16 (b2) are summed in float32."""
    return target.lanes("f4" if dtype == "b2" else dtype)


def padded(columns: Dim, lanes: int) -> Dim:
    """Columns of the packed panels together: whole vectors."""
    if isinstance(columns, int):
        return -(-columns // lanes) * lanes
    return f"({text(columns)} + {lanes - 1}) // {lanes} * {lanes}"


def tile_cost(rows: int, vectors: int) -> float:
    """Clock cycles of one k step of a tile: two FMAs or two vector loads a cycle, at least 4.5 to
    hide FMA latency.

    The half cycle is the loop itself. Fits the measured order 14x2, 9x3, 8x3 > 28x1 > 8x2 > 8x1 on
    AVX-512 cores.
    """
    return max(rows * vectors, rows + vectors, 9) / 2 + 0.5


def most_rows(vectors: int, registers: int | None = None) -> int:
    """Tile rows that fit the registers with `vectors` vectors a row: (rows + 1) * vectors + 1 <=
    registers.
    """
    return ((registers or target.registers()) - 1) // vectors - 1


def choose(rows: Dim, columns: Dim, dtype: str, exact: bool = False) -> tuple[int, int]:
    """(MR, NV), the tile with the least estimated cycles for a rows x columns result.

    exact: blocks of rows may have two sizes (`split`), as where the columns of an image are cut;
    else every block has MR rows and the last one overlaps. Run-time rows count as 64, because
    batches are mostly multiples of 8; run-time columns as 8 vectors.
    """
    n = rows if isinstance(rows, int) else 64
    vectors = -(-columns // lanes_of(dtype)) if isinstance(columns, int) else 8
    return cheapest(n, vectors, target.registers(), exact)


@functools.lru_cache(maxsize=1024)
def cheapest(n: int, vectors: int, registers: int, exact: bool) -> tuple[int, int]:
    """`choose` for n rows and a number of vectors a row."""
    best = (float("inf"), 0, 0)
    for nv in range(1, min(4, max(1, vectors)) + 1):
        shares = sizes_of(vectors, nv) or {1: 1}
        for mr in range(1, min(most_rows(nv, registers), max(1, n)) + 1):
            blocks = max(1, -(-n // mr))
            sizes = sizes_of(n, mr) if exact else {mr: blocks}
            cost = sum(
                tile_cost(size, v) * many * times
                for v, many in shares.items()
                for size, times in (sizes or {mr: 1}).items()
            )
            best = min(best, (cost, -mr * nv, mr))
    cost, negative, mr = best
    return mr, -negative // mr


@dataclass
class Asks:
    """The requests for memory of one kernel file; equal ones get one name."""

    names: dict[str, str] = field(default_factory=dict)

    def get(self, dtype: str, elements: int, write: bool) -> str:
        """The name of one, with options as in `prefetch.prefetch`."""
        definition = f'prefetch(elements={elements}, dtype="{dtype}", write={write})'
        return self.names.setdefault(definition, f"ask_{elements}" + "_write" * write)

    def imports(self) -> tuple[str, ...]:
        """The module-level lines that define them."""
        made = (f"{name} = {definition}" for definition, name in self.names.items())
        return ("from nnjit.kernels.prefetch import prefetch", "", *made)


@dataclass
class Tiles:
    """The tiles of one kernel file: equal ones get one definition and one name. kind: the function
    that makes them, and its module.
    """

    dtype: str
    kind: str = "tile"
    names: dict[tuple[str, ...], str] = field(default_factory=dict)
    asks: Asks = field(default_factory=Asks)

    def get(self, rows: int, panel: Panel, **options: object) -> str:
        """The name of a tile with these rows and this panel's columns; options as in `tile`."""
        given = {"vectors": panel.vectors, "tail": panel.tail, **options}
        defaults = {
            "tail": 0,
            "init": "zero",
            "final": "store",
            "static_k": 0,
            "runtime": (),
            "taps": None,
            "step_a": 1,
            "step_b": 0,
            "out": "f4" if self.dtype == "b2" else self.dtype,
            "level": 1,
        }
        parts = [
            f"{k}={progression(v)}"
            for k, v in given.items()
            if k not in defaults or v != defaults[k]
        ]
        parts += [f"lanes={panel.lanes}", f'dtype="{self.dtype}"']
        if self.dtype == "b2" and self.kind == "tile" and not target.multiplies_pairs():
            parts.append("emulate=True")
        definition = tuple(parts)
        if definition not in self.names:
            stem = f"{self.kind}_{rows}x{panel.vectors}"
            same = sum(name == stem or name.startswith(stem + "_") for name in self.names.values())
            self.names[definition] = f"{stem}_{same}" if same else stem
        return self.names[definition]

    def imports(self) -> tuple[str, ...]:
        """The module-level lines that define the tiles."""
        if not self.names:
            return ()
        lines = [f"from nnjit.kernels.{self.kind} import {self.kind}", ""]
        for definition, name in self.names.items():
            start = f"{name} = {self.kind}("
            whole = f"{start}{', '.join(definition)})"
            lines += [whole] if len(whole) <= 100 else [start, *folded(definition), ")"]
        return tuple(lines)


def defined(*tiles: Tiles | Asks) -> list[str]:
    """The import lines of all tiles and requests, then their definitions."""
    found = [t.imports() for t in tiles if t.names]
    first = [lines[0] for lines in found]
    return [*first, *([""] if found else []), *(line for lines in found for line in lines[2:])]


def progression(value: object) -> str:
    """A literal; evenly spaced row offsets as a range, strings in double quotes."""
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, tuple) and len(value) > 2 and all(isinstance(v, int) for v in value):
        step = value[1] - value[0]
        if step > 0 and all(b - a == step for a, b in itertools.pairwise(value)):
            return f"range({value[0]}, {value[-1] + step}, {step})"
    return repr(value).replace("'", '"')
