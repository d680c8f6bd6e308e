"""Products by a b that does not stay in the nearer caches: pieces of rows and columns.

All rows of a block use a panel of columns before it leaves the cache, so b comes from far once for
each block, and who reads a panel first asks for its rows ahead of time. A few rows are one block,
and threads share its columns.
"""

from __future__ import annotations

from dataclasses import dataclass

from nnjit.kernels.blocks import Dim, Panel, Tiles, text, total
from nnjit.kernels.contraction_rows import (
    SMALL_B,
    UNROLL,
    Ahead,
    Product,
    Rows,
    panel_rows,
    whole_b,
)
from nnjit.kernels.template import indent

BLOCK_ROWS = 64  # about so many rows in a block: their part of a stays in L2
FEW_PANELS = 8  # below this, half as many rows, so that many threads find pieces
AHEAD = 32  # rows of b that are asked for before they are needed


@dataclass(frozen=True)
class Pieces:
    """Index t is panel t % `count` of columns for block t // `count` of `rows` rows."""

    count: int
    rows: int

    @classmethod
    def of(cls, p: Product) -> Pieces | None:
        """None where b is small, or the columns are not known in this way."""
        if p.batch is not None or p.row_a == 1 or whole_b(p) <= SMALL_B:
            return None
        count = sum(map(panel_count, p.panels()))
        least = BLOCK_ROWS if count >= FEW_PANELS else BLOCK_ROWS // 2
        rows = max(1, least // p.rows) * p.rows
        return cls(count, min(rows, p.M) if isinstance(p.M, int) else rows) if count > 1 else None

    def trip(self, rows: Dim) -> Dim:
        if isinstance(rows, int):
            return -(-rows // max(1, self.rows)) * self.count
        return f"({text(rows)} + {self.rows - 1}) // {self.rows} * {self.count}"

    def lines(self, p: Product, tiles: Tiles, asking: Tiles) -> list[str]:
        """The pieces lo to hi: block after block, its panels t from `left` to `right`."""
        lines = [
            f"for q in range(lo // {self.count}, (hi + {self.count - 1}) // {self.count}):",
            f"    first, last = q * {self.rows}, min({p.M}, (q + 1) * {self.rows})",
            f"    left, right = lo - q * {self.count}, hi - q * {self.count}",
        ]
        at = 0
        for panel in p.panels():
            assert isinstance(panel.first, int)
            start = panel.first - at * panel.width
            low, at = at, at + panel_count(panel)
            lines += [
                f"    for t in range(max(left, {low}), min(right, {at})):",
                f"        o = {total(f't * {panel.width}', start)}",
                *indent(panel_rows(p, tiles, panel, Rows("first", "last"), ahead(p, asking)), 2),
            ]
        return lines


def ahead(p: Product, asking: Tiles) -> Ahead | None:
    """How the first tile of a block asks for its panel: by rows that follow each other at long
    distances no CPU looks ahead itself. The tiles below find the panel in L2.
    """
    assert isinstance(p.K, int)
    return None if p.dtype == "b2" or p.rows < 2 or p.K <= UNROLL else Ahead(asking, AHEAD)


def panel_count(panel: Panel) -> int:
    assert isinstance(panel.first, int)
    assert isinstance(panel.end, int)
    return -(-(panel.end - panel.first) // panel.width)
