"""Products of few rows by a large b: reading b is all the work, so threads share the columns."""

from __future__ import annotations

from dataclasses import dataclass

from nnjit.kernels.blocks import Dim, Panel, Tiles, total
from nnjit.kernels.contraction_rows import SMALL_B, Product, Rows, panel_rows, whole_b
from nnjit.kernels.template import indent


@dataclass(frozen=True)
class Pieces:
    """A trip counts rows or, where one tile takes all of them (a single sample is predicted),
    `count` panels of columns, `grain` indices each. rows: those of a tile.
    """

    count: int
    grain: int
    rows: int

    @classmethod
    def of(cls, p: Product, grain: int) -> Pieces | None:
        """None where b is small, or the columns or rows are not known in this way."""
        many = isinstance(p.M, int) and p.rows < p.M
        if p.batch is not None or p.row_a == 1 or whole_b(p) <= SMALL_B or many:
            return None
        count = sum(map(panel_count, p.panels()))
        return cls(count, grain, p.rows) if count > 1 else None

    def trip(self, rows: Dim) -> Dim:
        few = self.count * self.grain
        return few if isinstance(rows, int) else f"({few} if {rows} <= {self.rows} else {rows})"

    def lines(self, p: Product, tiles: Tiles) -> list[str]:
        """Rows first to last of the panels t from `left` to `right`."""
        lines = [f"first, last = 0, {p.M}", f"left, right = lo // {self.grain}, hi // {self.grain}"]
        if not isinstance(p.M, int):
            rows = ["first, last = lo, hi", f"left, right = 0, {self.count}"]
            lines = [f"if {p.M} <= {self.rows}:", *indent(lines), "else:", *indent(rows)]
        at = 0
        for panel in p.panels():
            assert isinstance(panel.first, int)
            low = f"max(left, {at})" if at else "left"
            start = panel.first - at * panel.width
            at += panel_count(panel)
            high = f"min(right, {at})" if at < self.count else "right"
            lines += [
                f"for t in range({low}, {high}):",
                f"    o = {total(f't * {panel.width}', start)}",
                *indent(panel_rows(p, tiles, panel, Rows("first", "last"))),
            ]
        return lines


def panel_count(panel: Panel) -> int:
    assert isinstance(panel.first, int)
    assert isinstance(panel.end, int)
    return -(-(panel.end - panel.first) // panel.width)
