"""Reductions over leading or middle axes as kernels, with what feeds them elementwise fused in.

Loops run in memory order. Where the first axis is reduced, a number of partial results fixed by the
kernel is computed (one per trip index) and added up in order by a second kernel, so the result does
not depend on who computes what.
"""

from __future__ import annotations

from collections.abc import Sequence

from nnjit.compiler.cpu.access import Loop
from nnjit.compiler.cpu.loops import LoopKernel
from nnjit.compiler.cpu.reduce import Accumulator
from nnjit.compiler.cpu.text import dim_text
from nnjit.compiler.cpu.values import Key, Lines, Values
from nnjit.compiler.cpu.wide import is_big, wide_rows
from nnjit.compiler.maps import reduced_axes
from nnjit.graph import Node
from nnjit.spec import product

PARTIALS = 32  # partial results where the first axis is reduced and there is work for them
UNROLL = 4  # rows added up before they join the sum in memory


class SinkKernel(LoopKernel):
    """Writes one sink group. All its reductions are over the same axes."""

    def __init__(self, values: Values, outputs: list[Node]):
        sinks = [n for n in values.nodes if n.op.kind == "reduce"]
        values.inner = {a for a in reduced_axes(sinks[0]) if values.group.domain[a] != 1}
        super().__init__(values, [n for n in outputs if n.op.kind != "reduce"])
        self.sinks = sinks
        self.cells = [n for n in values.nodes if n.op.kind != "reduce"]
        self.first = bool(self.loops) and self.loops[0].reduced
        kept = [loop for loop in self.loops if not loop.reduced]
        self.kept_size = product([loop.extent for loop in kept])
        self.sums = [Accumulator.of(n, f"a{k}") for k, n in enumerate(sinks)]
        positions = any(a.kind.startswith("arg") for a in self.sums)
        self.partials = PARTIALS if self.first and is_big(self.loops) and not positions else 1
        self.targets: list[str] = []

    # -- text
    def write_sinks(self, targets: Sequence[str]) -> None:
        """The body; targets are the parameters that take the sums (partials or results)."""
        self.targets = list(targets)
        self.results = dict(zip(self.sinks, targets, strict=True))
        self.uses = self.v.occurrences(self.v.nodes)
        self.seed_lines()
        self.load_uses(0, list(self.v.access), self.uses)
        if not self.loops:
            self.accumulate_locally(0, "=")
            return
        if any(a.kind.startswith("arg") for a in self.sums):
            self.write_positions()
            return
        if self.first:
            self.open_partial()
        else:
            self.open_chunk(self.loops[:1])
            self.load_uses(1, list(self.v.access), self.uses)
        opened = 0 if self.first else 1
        if self.plain_tail(opened):
            self.accumulate_locally(opened, "=")
        else:
            self.zero(opened)
            self.walk(opened)

    def write_positions(self) -> None:
        """argmax, argmin: the kept loops outside, so that one position at a time is looked for."""
        kept = [loop for loop in self.loops if not loop.reduced]
        self.loops = [*kept, *(loop for loop in self.loops if loop.reduced)]
        self.open_chunk(kept)
        for level in range(1, len(kept) + 1):
            self.load_uses(level, list(self.v.access), self.uses)
        if len(kept) < len(self.loops):
            self.first_last = ("0", dim_text(self.loops[-1].extent))
        self.accumulate_locally(len(kept), "=")

    def open_partial(self) -> None:
        self.trip = self.partials
        if self.partials == 1:
            self.first_last = ("0", dim_text(self.loops[0].extent))
            return
        extent = dim_text(self.loops[0].extent)
        self.lines.loop("p", "lo", "hi")
        self.lines.add(f"first = {extent} * p // {self.partials}")
        self.lines.add(f"last = {extent} * (p + 1) // {self.partials}")
        self.first_last = ("first", "last")

    def bounds(self, loop: Loop) -> tuple[str, str]:
        if self.first and loop is self.loops[0]:
            return self.first_last
        return "0", dim_text(loop.extent)

    def plain_tail(self, opened: int) -> bool:
        """Are all loops from here on reduced? Then locals hold the sums."""
        return all(loop.reduced for loop in self.loops[opened:])

    def target_index(self, opened: Sequence[Loop]) -> str:
        """Flat index into the sums, over the kept loops' variables."""
        terms = (
            [f"p * {dim_text(self.kept_size)}"] if self.partials > 1 and self.kept_size != 1 else []
        )
        if self.partials > 1 and self.kept_size == 1:
            terms = ["p"]
        kept = [loop for loop in self.loops if not loop.reduced]
        for k, loop in enumerate(kept):
            if loop not in opened:
                continue
            step = product([x.extent for x in kept[k + 1 :]])
            terms.append(loop.name if step == 1 else f"{loop.name} * {dim_text(step)}")
        return " + ".join(terms) or "0"

    def zero(self, opened: int) -> None:
        """Start the sums in memory."""
        rest = [loop for loop in self.loops[opened:] if not loop.reduced]
        size = product([loop.extent for loop in rest])
        base = self.target_index(self.loops[:opened])
        self.lines.loop("z", "0", dim_text(size))
        for name, a in zip(self.targets, self.sums, strict=True):
            place = "z" if base == "0" else f"{base} + z"
            self.lines.add(f"{name}[{place}] = {a.identity()}")
        self.lines.level -= 1

    def walk(self, opened: int) -> None:
        """Open the loops one by one; the innermost either adds into memory or sums up locally
        first.
        """
        loop = self.loops[opened]
        rest = self.loops[opened:]
        if all(x.reduced for x in rest):
            self.accumulate_locally(opened, "join")
            return
        simple = all(a.kind == "sum" for a in self.sums)
        if loop.reduced and len(rest) == 2 and not rest[1].reduced and simple:
            self.unrolled(opened)
            return
        self.lines.loop(loop.name, *self.bounds(loop))
        self.load_uses(opened + 1, list(self.v.access), self.uses)
        if opened + 1 == len(self.loops):
            self.write_cell()
            self.add_to_memory([[self.v.name(self.v.keys[n][0])] for n in self.sinks])
            self.store(self.outputs)
        else:
            self.walk(opened + 1)
        self.lines.level -= 1

    def unrolled(self, opened: int) -> None:
        """Rows of the last axis, four at a time, so that the sums pass through the cache a quarter
        as often.
        """
        row, column = self.loops[opened:]
        first, last = self.bounds(row)
        wide = self.wide = wide_rows(
            self.v, self.loops, self.outputs, [a.dtype for a in self.sums]
        )  # fmt: skip
        step = UNROLL * (wide.rows if wide else 1)
        if wide:
            wide.prepare(self.v, self.loops, self.lines)
            self.lines.loop("z", "0", str(wide.sums * wide.width))
            self.lines.add(f"{wide.place(0, 'z')} = {self.sums[0].identity()}")
            self.lines.level -= 1
        self.lines.loop(row.name, first, f"{last} - {step - 1}", str(step))
        self.rows_of_four(opened, row, column)
        self.lines.level -= 1
        if wide:
            self.lines.loop("z", "0", str(wide.width), str(wide.columns))
            self.lines.loop(column.name, "0", dim_text(column.extent))
            places = [wide.place(k, f"z + {column.name}") for k in range(wide.sums)]
            self.add_to_memory([[place] for place in places])
            self.lines.level -= 2
        span = last if first == "0" else f"({last} - {first})"
        self.lines.loop(row.name, f"{last} - {span} % {step}", last)
        self.load_uses(opened + 1, list(self.v.access), self.uses)
        self.lines.loop(column.name, "0", dim_text(column.extent))
        self.load_uses(opened + 2, list(self.v.access), self.uses)
        self.write_cell()
        self.add_to_memory([[self.v.name(self.v.keys[n][0])] for n in self.sinks])
        self.store(self.outputs)
        self.lines.level -= 2

    def rows_of_four(self, opened: int, row: Loop, column: Loop) -> None:
        """One step of the loop over rows: what depends on the row alone is loaded first."""
        loops, level = list(self.loops), self.lines.level
        by_column: list[Key] = [
            k for k in self.v.access if isinstance(k, tuple) and self.only(k, column)
        ]
        if self.wide:
            by_column = list(self.wide.repeated)
        others = [k for k in self.v.access if k not in by_column]
        known = []
        for r in range(UNROLL):
            self.loops = [*loops[:opened], self.moved(row, r), column]
            self.load_uses(opened + 1, others, self.uses)
            known.append(dict(self.v.names))
        columns = str(self.wide.width) if self.wide else dim_text(column.extent)
        self.lines.loop(column.name, "0", columns)
        if self.wide:
            self.wide.bind(self.v, column.name, self.lines)
        for key in by_column:
            if not self.wide:
                self.v.bind_use(key, loops, 2, self.lines)
            for names in known:
                names[key] = self.v.names[key]
        values: list[list[str]] = [[] for _ in self.sinks]
        for r in range(UNROLL):
            self.loops, self.v.names = [*loops[:opened], self.moved(row, r), column], known[r]
            self.load_uses(opened + 2, others, self.uses)
            self.write_cell()
            for out, n in zip(values, self.sinks, strict=True):
                fed = self.v.keys[n][0]
                if not self.v.name(fed).startswith("v"):
                    self.v.bind(fed, self.v.name(fed), 2, self.lines, force=True)
                out.append(self.v.name(fed))
            self.store(self.outputs)
        self.loops = loops
        if self.wide:
            for k, (a, terms) in enumerate(zip(self.sums, values, strict=True)):
                place = self.wide.place(k, column.name)
                self.lines.add(f"{place} = {a.join(place, pairwise(terms))}")
        else:
            self.add_to_memory(values)
        self.lines.level = level

    def moved(self, row: Loop, r: int) -> Loop:
        """The loop over rows as the r-th of four sees it."""
        ahead = r * (self.wide.rows if self.wide else 1)
        name = f"({row.name} + {ahead})" if ahead else row.name
        return Loop(name, row.extent, row.axes, True)

    def only(self, key: tuple, column: Loop) -> bool:
        """Does this use depend on the column alone, so that it is loaded once for the four rows?"""
        return bool(self.v.access[key].axes) and self.v.access[key].axes <= set(column.axes)

    def add_to_memory(self, values: list[list[str]]) -> None:
        index = self.target_index(self.loops)
        for name, a, terms in zip(self.targets, self.sums, values, strict=True):
            self.lines.add(f"{name}[{index}] = {a.join(f'{name}[{index}]', pairwise(terms))}")

    def accumulate_locally(self, opened: int, how: str) -> None:
        """All loops that are left are reduced: sum up in locals, then store or join."""
        level = self.lines.level
        for a in self.sums:
            self.lines.add(a.start())
        for k in range(opened, len(self.loops)):
            self.lines.loop(self.loops[k].name, *self.bounds(self.loops[k]))
            self.load_uses(k + 1, list(self.v.access), self.uses)
        self.write_cell()
        index = next((loop.name for loop in self.loops if loop.reduced), "0")
        for n, a in zip(self.sinks, self.sums, strict=True):
            for line in a.add(self.v.name(self.v.keys[n][0]), index):
                self.lines.add(line)
        self.store(self.outputs)
        self.lines.level = level
        place = self.target_index(self.loops[:opened])
        for name, a in zip(self.targets, self.sums, strict=True):
            value = a.result if how == "=" else a.join(f"{name}[{place}]", a.result)
            self.lines.add(f"{name}[{place}] = {value}")

    def write_cell(self) -> None:
        """The elementwise part at one index."""
        self.bind_nodes(self.cells, self.uses)


def pairwise(terms: Sequence[str]) -> str:
    """The sum of terms as text, neighbours first."""
    while len(terms) > 1:
        terms = [f"({' + '.join(terms[i : i + 2])})" for i in range(0, len(terms), 2)]
    return terms[0]


def reduce_partials(sinks: Sequence[Accumulator], size: str, count: str) -> list[str]:
    """Lines of the kernel that joins the partial results p0, p1, … into y0, y1, … in order; size
    and count are texts: elements of a result, and how many there are.
    """
    out = Lines()
    out.loop("i", "lo", "hi")
    for k in range(len(sinks)):
        out.add(f"y{k}[i] = p{k}[i]")
    out.level -= 1
    out.loop("q", "1", count)
    out.loop("i", "lo", "hi")
    for k, a in enumerate(sinks):
        out.add(f"y{k}[i] = {a.join(f'y{k}[i]', f'p{k}[i + q * {size}]')}")
    return out.text
