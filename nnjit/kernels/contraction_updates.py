"""y = f(a.T @ b) where the product itself goes nowhere: the gradient of a Dense layer's kernel and
what an optimizer makes of it.

Some rows of the product at a time lie in scratch, as they would in memory, while the tail runs over
all of them in one loop. So parameters and their slots are read and written once, and the gradient
is never written to memory.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

from nnjit.kernels import target
from nnjit.kernels.asking_tile import SHIFT
from nnjit.kernels.blocks import (
    Dim,
    Panel,
    Tiles,
    call,
    check_symbols,
    choose,
    defined,
    filled,
    grain,
    lanes_of,
    panels,
    product,
    symbols_of,
)
from nnjit.kernels.contraction_rows import Rows, blocks_of_rows
from nnjit.kernels.recipe import Epilogue, Recipe, Step
from nnjit.kernels.template import Template, indent

SUM_BYTES = 32 * 1024  # of sums in scratch at a time, if that is a tile's rows or more
LONG = 256  # steps of a reduction that are summed at a time: their part of b stays in L2
MOST_BYTES = 256 * 1024  # of sums in scratch where a reduction is longer
CHUNKS = 8  # of a longer reduction, to aim for: each reads all of b
LEAST = 1 << 14  # elements from which it pays; smaller updates are done together
LONGEST = 4096  # columns: a tile's rows of sums then stay in L2

# variables of this kernel, which no symbol may be called
NAMES = (
    "lo hi tid a b bias mask residual y scratch i j o q first last step at at_sums ask pace k0 "
    "count group"
)


def update_applies(M: Dim, N: Dim, K: Dim, dtype: str) -> bool:
    """May what becomes of a.T @ b (M, N) be computed where it is: here, or in `contraction_sums`
    where rows of a and b are copied?
    """
    if not isinstance(M, int) or not isinstance(N, int):
        return False
    if dtype == "b2" and not target.multiplies_blocks():  # what copies pairs has no room for sums
        return False
    return M * N >= LEAST and N <= LONGEST


@dataclass(frozen=True)
class Update:
    """One kernel: a (K, M), b (K, N); rows of a tile; rows of sums in scratch; what its tail reads
    and writes at each element, which its tiles ask for.
    """

    M: int
    N: int
    K: Dim
    dtype: str
    epilogue: Epilogue
    rows: int
    several: int
    asked: tuple[str, ...]

    @property
    def cut(self) -> bool:
        """Whether the reduction may be long."""
        return self.epilogue.tail is not None and (isinstance(self.K, str) or self.K > LONG)

    @property
    def large(self) -> int:
        """Rows of sums in scratch where it is long."""
        most = max(1, MOST_BYTES // (self.rows * self.N * target.itemsize(self.dtype)))
        return max(1, min(most, -(-self.M // (CHUNKS * self.rows)))) * self.rows

    @property
    def scratch(self) -> int:
        """Elements of sums of a thread."""
        if self.epilogue.tail is None:
            return 0
        return max(self.several, self.large if self.cut else 0) * self.N

    def grain(self) -> Dim:
        least = grain(product(2, self.N, self.K), self.rows)
        if not self.cut:
            return least
        return f"{least} if {self.K} <= {LONG} else {max(least, self.large)}"

    def more(self, tiles: Tiles, panel: Panel) -> list[str]:
        """What `count` steps from k0 on add to the sums of whole tiles of rows; fewer rows were
        summed at once.
        """
        N, rows = self.N, range(self.rows)
        options = {"rows_a": tuple(rows), "rows_c": tuple(r * N for r in rows),
                   "step_a": self.M, "step_b": N, "init": "load"}  # fmt: skip
        args = ["1", "count", "a", f"k0 * {self.M} + i", "0", "b", f"k0 * {N} + o", "0",
                "scratch", f"at + (i - first) * {N} + o"]  # fmt: skip
        return [f"for i in range(first, last - {self.rows - 1}, {self.rows}):",
                *indent(call(tiles.get(self.rows, panel, **options), args))]  # fmt: skip

    def tile_call(
        self, tiles: Tiles, asking: Tiles, panel: Panel, rows: int, i: str = "i"
    ) -> list[str]:
        """Rows i.. of the product, the columns of a panel at o."""
        ep, N, pace = self.epilogue, self.N, f"pace * {panel.width}"
        options = {
            "rows_a": tuple(range(rows)), "rows_c": tuple(r * N for r in range(rows)),
            "step_a": self.M, "step_b": N, "init": ep.tile_options()["init"], "final": ep.final,
        }  # fmt: skip
        whole = f"{i} * {N} + o"
        out = ["scratch", f"at + ({i} - first) * {N} + o"] if ep.tail else ["y", whole]
        count = "count" if self.cut and rows == self.rows else str(self.K)
        args = ["1", count, "a", i, "0", "b", "o", "0", *out,
                *ep.tile_arguments("o", whole)]  # fmt: skip
        if not self.asked or rows < self.rows:
            return call(tiles.get(rows, panel, **options), args)
        # tile by tile, one stretch after the other of what the tail runs over
        place = f"ask = first * {N} + o * {'group' if self.cut else self.several}"
        if self.cut or self.several > self.rows:
            place += f" + ({i} - first) * {panel.width}"
        tile = asking.get(rows, panel, asks=len(self.asked), **options)
        more = [word for name in self.asked for word in (name, "ask")]
        return [place, *call(tile, [*args, *more, pace])]

    def tail(self) -> list[str]:
        """The tail over all rows at once, or row by row where it reads at the column."""
        ep, N = self.epilogue, self.N
        if ep.tail is None:
            return []
        if any("COLUMN" in line for line in ep.tail("q + j", "COLUMN")):
            loop = ep.lines(f"i * {N}", "", N, f"at + (i - first) * {N}")
            return ["for i in range(first, last):", *indent(loop)]
        return ep.lines(f"first * {N}", "", f"(last - first) * {N}", "at")


def update_template(
    name: str, M: int, N: int, K: Dim, dtype: str, ep: Epilogue, formula: str
) -> Recipe:
    """a (K, M), b (K, N). Roles: a, b, mask or residual, out, the epilogue's extra params.

    out and residual may be the same memory; so may what the tail reads and writes at one place.
    """
    tiles, asking = Tiles(dtype), Tiles(dtype, "asking_tile")
    size = target.itemsize(dtype)
    rows, vectors = choose(M, N, dtype)
    several = max(1, SUM_BYTES // (rows * N * size)) * rows
    u = Update(M, N, K, dtype, ep, rows, several, ep.asked(dtype))
    pace, group = f"{rows << SHIFT} // max({K}, 1)", str(several)
    body = [f"at = tid * {u.scratch}"] if ep.tail else []
    if u.cut:
        group = "group"
        body.append(f"group = {several} if {K} <= {LONG} else {u.large}")
        pace += f" if {K} <= {LONG} else 0"
    body += [f"pace = {pace}"] if u.asked else []
    body += [f"for first in range(lo, hi, {group}):", f"    last = min(hi, first + {group})"]
    begin: list[str] = []
    more: list[str] = []
    for panel in panels(N, vectors, lanes_of(dtype)):
        block = functools.partial(u.tile_call, tiles, asking, panel)
        # what is in scratch, and complete, may be computed twice; what is read and written may not
        again = ep.tail is not None and not u.cut
        begin += [panel.loop(), *indent(blocks_of_rows(rows, Rows("first", "last"), block, again))]
        if u.cut:
            more += [panel.loop(), *indent(u.more(tiles, panel))]
    if u.cut:
        body += [
            f"    count = min({LONG}, {K})",
            *indent(begin),
            f"    for k0 in range({LONG}, {K}, {LONG}):",
            f"        count = min({LONG}, {K} - k0)",
            *indent(more, 2),
        ]
    else:
        body += indent(begin)
    body += indent(u.tail())
    template = Template(
        name=name,
        doc=filled(
            f"{name}: y = {formula}\na ({K}, {M}), b ({K}, {N}) -> y ({M}, {N}); rows lo..hi of y"
            + f"; the product of {several} rows at a time lies in scratch" * (ep.tail is not None)
            + f", of {u.large} where {K} is above {LONG}" * u.cut
            + "." * (ep.tail is not None)
        ),
        imports=(*ep.imports, *defined(asking, tiles)),
        symbols=check_symbols(name, symbols_of(K), NAMES, ep.extra_params),
        params=(("a", dtype), ("b", dtype), *ep.params(dtype), ("y", dtype), *ep.extra_params,
                *([("scratch", dtype)] if ep.tail else [])),
        body=tuple(body),
        trip=M,
        scratch=u.scratch * size,
        grain=u.grain(),
    )  # fmt: skip
    roles = ("a", "b", *ep.inputs(), "out", *(n for n, _ in ep.extra_params))
    return Recipe((Step(template, roles + ("scratch",) * (ep.tail is not None)),))
