"""Several short rows as one wide row.

A loop over few columns costs more around it than in it, and a sum over rows waits for its own store
of the row before. Where rows follow each other in memory, some of them are one row of many columns;
values that depend on the column alone are repeated in scratch to that width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import gcd

from nnjit.compiler.cpu.access import Access, Loop, index_text
from nnjit.compiler.cpu.text import load
from nnjit.compiler.cpu.values import Key, Lines, Values
from nnjit.graph import Node
from nnjit.spec import Dim, Extent

# Columns up to which rows are short, and least columns of a wide row. LLVM unrolls a loop of few
# simple turns completely, and then no longer makes vectors of it.
SUMS, MAPS, COPIES = (32, 64), (32, 128), (64, 128)
VECTOR = 16  # a wide row is a multiple of this
MOST = 512  # columns of a wide row
FEWEST = 8  # wide rows, where their number is known
WORK = 1 << 15  # elements of the domain from which it pays; a symbol counts as 32


def is_big(loops: Sequence[Loop]) -> bool:
    """Is there work enough to split or to prepare?"""
    size = 1
    for loop in loops:
        extent = loop.extent
        size *= extent.factor * 32 if isinstance(extent, Extent) else extent
    return size >= WORK


@dataclass(frozen=True)
class Wide:
    """`rows` rows of `columns` as one.

    sums: wide rows of scratch that hold sums. repeated: the uses that depend on the column and not
    on the row, each one more wide row of scratch. dtype: of scratch.
    """

    rows: int
    columns: int
    repeated: tuple[Key, ...]
    sums: int
    dtype: str

    @property
    def width(self) -> int:
        return self.rows * self.columns

    @property
    def scratch(self) -> int:
        """Elements of one thread's scratch."""
        return self.width * (self.sums + len(self.repeated))

    def place(self, row: int, index: str) -> str:
        """An element of a wide row of scratch."""
        return f"scratch[own + {f'{row * self.width} + ' if row else ''}{index}]"

    def prepare(self, values: Values, loops: Sequence[Loop], lines: Lines) -> None:
        """Where this thread's scratch begins, and what is repeated in it."""
        lines.add(f"own = tid * {self.scratch}")
        if not self.repeated:
            return
        column = loops[-1]
        lines.loop("z", "0", str(self.width))
        one = [*loops[:-1], Loop(f"z % {self.columns}", column.extent, column.axes)]
        for k, key in enumerate(self.repeated):
            assert isinstance(key, tuple)
            name = values.params[values.fusion.base(key[0])]
            text = load(name, index_text(values.access[key], one), key[0].dtype)
            lines.add(f"{self.place(self.sums + k, 'z')} = {text}")
        lines.level -= 1

    def bind(self, values: Values, index: str, lines: Lines) -> None:
        """Name what is repeated, inside of a wide row."""
        for k, key in enumerate(self.repeated):
            values.bind(key, self.place(self.sums + k, index), 2, lines)


def wide_rows(
    values: Values, loops: Sequence[Loop], outputs: Sequence[Node], sums: Sequence[str] = ()
) -> Wide | None:
    """How the last two loops become wide rows; None where they cannot, or need not.

    sums: the dtypes of sums over rows that scratch is to hold.
    """
    if len(loops) < 2 or not is_big(loops):
        return None
    row, column = loops[-2:]
    columns = column.extent
    computes = any(n.op.kind != "view" for n in values.nodes)
    few, least = SUMS if sums else MAPS if computes else COPIES
    if isinstance(columns, Extent) or columns > few:
        return None
    rows = VECTOR // gcd(columns, VECTOR)
    while rows * columns < least:
        rows *= 2
    if rows * columns > MOST or not (isinstance(row.extent, Extent) or row.extent >= FEWEST * rows):
        return None
    if any(n.op.kind == "index" for n in values.nodes):
        return None
    every = [*values.access.values(), *(values.own_access(n) for n in outputs)]
    if not all(fits(a, row, column) for a in every):
        return None
    own, down = set(column.axes), set(row.axes)
    repeated = tuple(k for k, a in values.access.items() if a.axes & own and not a.axes & down)
    dtypes = {*sums, *(k[0].dtype for k in repeated if isinstance(k, tuple))}
    if len(dtypes) != 1 or "bool" in dtypes or not all(isinstance(k, tuple) for k in repeated):
        return None
    return Wide(rows, columns, repeated, len(sums), dtypes.pop())


def fits(a: Access, row: Loop, column: Loop) -> bool:
    """Do rows follow each other, or does the index not depend on the row?"""
    down: Dim = a.coefs.get(row.axes[-1], 0)
    right: Dim = a.coefs.get(column.axes[-1], 0)
    if a.pinned & {*row.axes, *column.axes}:
        return False
    return (down, right) in ((0, 0), (0, 1), (column.extent, 1))
