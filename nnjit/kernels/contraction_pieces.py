"""Products by a b that does not stay in the nearer caches: pieces of rows and columns.

All rows of a group of blocks use a panel of columns before it leaves the cache, so b comes from far
once for each group, and who reads a panel first asks for its rows ahead of time. Threads share the
columns of a group, then its rows.
"""

from __future__ import annotations

from dataclasses import dataclass

from nnjit.kernels.blocks import Dim, Panel, Tiles, parts, product, total
from nnjit.kernels.contraction_product import Product, most_b, whole_b
from nnjit.kernels.contraction_rows import UNROLL, Ahead, Rows, panel_rows
from nnjit.kernels.template import indent

BLOCK_ROWS = 64  # about so many rows in a block: their part of a stays in L2
FEW_PANELS = 8  # below this, half as many rows, so that many threads find pieces
GROUP_BYTES = 512 * 1024  # of a in a group of blocks: it stays in L2 while panel follows panel
GROUP_ROWS = 128
NOMINAL = 1024  # steps of a reduction whose length is not known
AHEAD = 32  # rows of b that are asked for before they are needed


@dataclass(frozen=True)
class Pieces:
    """`count` panels of columns, blocks of `rows` rows, `several` of which are a group. The indices
    of a group go over the blocks of its first panel, then of the next: those that follow each other
    are one run of rows.
    """

    count: int
    rows: int
    several: int

    @classmethod
    def of(cls, p: Product) -> Pieces | None:
        """None where b is small, or the columns are not known in this way."""
        large = p.block_a or whole_b(p) > most_b(p)
        if p.batch is not None or p.row_a == 1 or not large or isinstance(p.N, str):
            return None
        count = sum(map(panel_count, p.panels()))
        if count < 2:
            return None
        least = BLOCK_ROWS if count >= FEW_PANELS else BLOCK_ROWS // 2
        rows = max(1, least // p.rows) * p.rows
        rows = min(rows, p.M) if isinstance(p.M, int) else rows
        size = rows * p.size * (p.K if isinstance(p.K, int) else NOMINAL)
        several = max(1, min(GROUP_BYTES // max(1, size), GROUP_ROWS // max(1, rows)))
        if isinstance(p.M, int):  # groups of about the same size
            blocks = -(-p.M // max(1, rows))
            several = -(-blocks // max(1, -(-blocks // several)))
        return cls(count, rows, several)

    @property
    def group(self) -> int:
        """Pieces of a group."""
        return self.count * self.several

    def trip(self, rows: Dim) -> Dim:
        return product(parts(rows, max(1, self.rows * self.several)), self.group)

    def lines(self, p: Product, tiles: Tiles, asking: Tiles) -> list[str]:
        """The pieces lo to hi: group after group, those from `left` to `right` of it."""
        size, several, rows = self.group, self.several, self.rows
        lines = [
            f"for group in range(lo // {size}, (hi + {size - 1}) // {size}):",
            f"    left, right = max(0, lo - group * {size}), min({size}, hi - group * {size})",
        ]
        ends = f"max(0, left - t * {several})", f"min({several}, right - t * {several})"
        start, end, of_left, of_right = "group", "(group + 1)", "left", "right"
        if several > 1:
            start, end = (f"(group * {several} + {n})" for n in ends)
            of_left, of_right = f"left // {several}", f"(right + {several - 1}) // {several}"
        at = 0
        for panel in p.panels():
            assert isinstance(panel.first, int)
            column = panel.first - at * panel.width
            low, at = at, at + panel_count(panel)
            lines += [
                f"    for t in range(max({of_left}, {low}), min({of_right}, {at})):",
                f"        first = min({p.M}, {start} * {rows})",
                f"        last = min({p.M}, {end} * {rows})",
                f"        o = {total(f't * {panel.width}', column)}",
                *indent(panel_rows(p, tiles, panel, Rows("first", "last"), ahead(p, asking)), 2),
            ]
        return lines


def ahead(p: Product, asking: Tiles) -> Ahead | None:
    """How the first tile of a block asks for its panel: by rows that follow each other at long
    distances no CPU looks ahead itself. The tiles below find the panel in L2.
    """
    if p.dtype == "b2" or p.rows < 2 or not isinstance(p.K, int) or p.K <= UNROLL:
        return None
    return Ahead(asking, AHEAD)


def panel_count(panel: Panel) -> int:
    assert isinstance(panel.first, int)
    assert isinstance(panel.end, int)
    return -(-(panel.end - panel.first) // panel.width)
