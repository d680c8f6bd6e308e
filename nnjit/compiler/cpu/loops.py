"""Loop groups as kernels: elementwise trees, and rows with reductions over their last axes
(softmax, norms, losses).

A row kernel runs its inner loop in stages: a stage ends where a reduction's result is needed.
Values that a later stage needs again are recomputed if cheap, read back if they were stored anyway,
and kept in per-thread scratch otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence

from nnjit.compiler.cpu.access import Access, Loop, collapse, depth, index_text
from nnjit.compiler.cpu.reduce import Accumulator
from nnjit.compiler.cpu.text import dim_text, load, stored, sum_text, times
from nnjit.compiler.cpu.values import Key, Lines, Values, bare, is_costly, is_number
from nnjit.compiler.cpu.wide import Wide, wide_rows
from nnjit.graph import Node
from nnjit.spec import Dim, Extent, product

SMALL_TRIP = 16  # leading loops are joined into the trip until it has at least this many indices


class LoopKernel:
    """Writes one loop group. `outputs` are its Nodes that need a buffer."""

    def __init__(self, values: Values, outputs: list[Node]):
        self.v, self.outputs = values, outputs
        self.lines = Lines()
        group = values.group
        accesses = [*values.access.values(), *(values.own_access(n) for n in outputs)]
        accesses += [values.own_access(n) for n in values.nodes if n.op.kind == "random"]
        pins = {group.nodes[n][n.attrs["axis"]] for n in values.nodes if n.op.kind == "index"}
        for axis in pins - {-1}:
            accesses.append(Access(guards=[(axis, "")]))
        self.loops = collapse(group.domain, accesses, values.inner)
        self.rows = [loop for loop in self.loops if not loop.reduced]
        self.inner = [loop for loop in self.loops if loop.reduced]
        self.trip: Dim = 1
        self.results: dict[Node, str] = {}  # parameters that take reductions, in sink kernels
        self.slots: list[Node] = []  # cells that are kept in scratch between stages
        self.wide: Wide | None = None

    @property
    def one_loop(self) -> bool:
        """Is it one loop, over elements of which none are summed or set against others?"""
        return len(self.loops) == 1 and not self.v.group.inner

    @property
    def is_flat(self) -> bool:
        """Does each index do the same to its own elements, wherever these lie?"""
        group = self.v.group
        if not self.one_loop or group.kind != "loop":
            return False
        if any(n.op.kind in ("index", "random") for n in self.v.nodes):
            return False
        axis = self.loops[0].axes[-1]
        every = [*self.v.access.values(), *(self.v.own_access(n) for n in self.outputs)]
        return not any(a.offset or a.pinned or a.coefs.get(axis, 0) not in (0, 1) for a in every)

    # -- headers
    def open_chunk(self, loops: Sequence[Loop]) -> None:
        """The loop over lo..hi, and the variables of the loops that it stands for."""
        self.trip = product([loop.extent for loop in loops])
        if not loops:
            return
        if len(loops) == 1:
            self.lines.loop(loops[0].name, "lo", "hi")
            return
        self.lines.loop("t", "lo", "hi")
        for k, loop in enumerate(loops):
            below = product([x.extent for x in loops[k + 1 :]])
            text = "t" if below == 1 else f"t // ({dim_text(below)})"
            self.lines.add(f"{loop.name} = {text}" + (f" % ({dim_text(loop.extent)})" if k else ""))

    def leading(self) -> int:
        """How many of the row loops the trip stands for: all but the last, fewer where the first is
        long.
        """
        most = len(self.rows) if self.inner or len(self.rows) == 1 else len(self.rows) - 1
        for count in range(1, most):
            trip = product([loop.extent for loop in self.rows[:count]])
            if isinstance(trip, Extent) or trip >= SMALL_TRIP:
                return count
        return most

    def load_uses(self, level: int, keys: Sequence[Key], uses: dict[Key, int]) -> None:
        """Bind the uses whose index is known once `level` loops are open."""
        for key in keys:
            if isinstance(key, tuple) and depth(self.v.access[key], self.loops) == level:
                self.v.bind_use(key, self.loops, uses.get(key, 1), self.lines)

    # -- elementwise
    def write(self) -> None:
        """The whole body."""
        self.seed_lines()
        if self.v.group.inner:
            self.write_rows()
        else:
            self.write_map()

    def seed_lines(self) -> None:
        """Seed and step of each random state, read once."""
        states = [n.inputs[0] for n in self.v.nodes if n.op.kind == "random"]
        sizes = {self.v.params[self.v.fusion.base(s)]: s.shape[0] for s in states}
        for name, size in sizes.items():
            self.lines.add(f"{name}_seed = {name}[0]")
            self.lines.add(f"{name}_step = {name}[1]")
            if size == 3:
                self.lines.add(f"{name}_first = {name}[2]")

    def write_map(self) -> None:
        uses = self.v.occurrences(self.v.nodes)
        keys = list(self.v.access)
        count = self.leading() if self.rows else 0
        self.load_uses(0, keys, uses)
        fits = len(self.rows) == 2 or count <= len(self.rows) - 2
        self.wide = wide_rows(self.v, self.rows, self.outputs) if fits else None
        if self.wide:
            self.write_wide(self.wide, count, keys, uses)
            return
        self.open_chunk(self.rows[:count])
        for level in range(1, len(self.rows) + 1):
            if level > count:
                loop = self.rows[level - 1]
                self.lines.loop(loop.name, "0", dim_text(loop.extent))
            if level >= count:
                for known in range(1 if level == count else level, level + 1):
                    self.load_uses(known, keys, uses)
        self.bind_nodes(self.v.nodes, uses)
        self.store(self.outputs)

    def write_wide(self, wide: Wide, count: int, keys: list[Key], uses: dict[Key, int]) -> None:
        """Some rows at a time as one wide row; the rest one by one."""
        *outer, row, column = self.rows
        low, high = ("0", dim_text(row.extent)) if outer else ("lo", "hi")
        self.open_chunk(outer[:count] if outer else [])
        for level, loop in enumerate(outer, 1):
            if level > count:
                self.lines.loop(loop.name, "0", dim_text(loop.extent))
            self.load_uses(level, keys, uses)
        if not outer:
            self.trip = row.extent
        wide.prepare(self.v, self.rows, self.lines)
        base, span = self.lines.level, high if outer else "(hi - lo)"
        for step in (wide.rows, 1):
            first = low if step > 1 else f"{high} - {span} % {wide.rows}"
            last = f"{high} - {step - 1}" if step > 1 else high
            self.lines.loop(row.name, first, last, str(step) if step > 1 else "")
            self.lines.loop(column.name, "0", str(step * wide.columns))
            if step > 1:
                wide.bind(self.v, column.name, self.lines)
            plain = [k for k in keys if step == 1 or k not in wide.repeated]
            for level in (len(self.rows) - 1, len(self.rows)):
                self.load_uses(level, plain, uses)
            self.bind_nodes(self.v.nodes, uses)
            self.store(self.outputs)
            self.lines.level = base

    def bind_nodes(self, nodes: Sequence[Node], uses: dict[Key, int]) -> None:
        for n in nodes:
            count = uses.get(n, 0) + (n in self.outputs)
            text = (
                self.v.load_text(n, self.loops, self.lines)
                if n in self.v.access
                else self.v.expression(n, self.loops)
            )
            alone = n in self.outputs and count == 1
            self.v.bind(n, text, count, self.lines, force=count > 1, alone=alone)

    def store(self, outputs: Sequence[Node]) -> None:
        for n in outputs:
            index = index_text(self.v.own_access(n), self.loops)
            name = self.v.params[n]
            text = bare(self.v.name(n))
            self.lines.add(f"{name}[{index}] = {stored(text, n.dtype)}")

    # -- rows with reductions
    def write_rows(self) -> None:
        stage, cell = self.stages()
        last = max(stage[n] for n in self.v.nodes)
        work = self.schedule(stage, cell, last)
        row_uses = self.v.occurrences(self.v.nodes)
        keys = list(self.v.access)
        self.load_uses(0, keys, row_uses)
        self.open_chunk(self.rows)
        for level in range(1, len(self.rows) + 1):
            self.load_uses(level, keys, row_uses)
        for s in range(last + 1):
            for n in self.v.nodes:
                if not cell[n] and n.op.kind != "reduce" and stage[n] == s:
                    self.bind_row(n, row_uses)
            if s in work:
                self.write_stage(*work[s])
        self.lines.level = 1 if self.rows else 0
        self.store([n for n in self.outputs if not cell[n]])

    def bind_row(self, n: Node, uses: dict[Key, int]) -> None:
        text = (
            self.v.load_text(n, self.loops, self.lines)
            if n in self.v.access
            else self.v.expression(n, self.loops)
        )
        self.v.bind(n, text, 2, self.lines, force=True)

    def stages(self) -> tuple[dict[Node, int], dict[Node, bool]]:
        """For each Node, the stage in which it is known, and whether it varies along the inner
        axes.
        """
        stage: dict[Node, int] = {}
        cell: dict[Node, bool] = {}
        for n in self.v.nodes:
            own = [k for k in self.v.keys[n] if isinstance(k, Node) and k in stage]
            base = max((stage[k] for k in own), default=0)
            cell[n] = n.op.kind != "reduce" and bool(self.v.inner & set(self.v.group.nodes[n]))
            if n.op.kind != "reduce" and not self.v.inner:
                cell[n] = False
            stage[n] = base + (n.op.kind == "reduce")
        return stage, cell

    def schedule(
        self, stage: dict[Node, int], cell: dict[Node, bool], last: int
    ) -> dict[int, tuple[list[Node], list[Node], list[Node]]]:
        """stage -> (cells to compute, reductions to feed, cells to keep), last stage first."""
        reduces: dict[int, list[Node]] = {}
        for n in self.v.nodes:
            if n.op.kind == "reduce":
                reduces.setdefault(stage[n] - 1, []).append(n)
        keep: dict[int, list[Node]] = {}
        out = {}
        for s in range(last, -1, -1):
            tasks = [n for n in self.outputs if cell[n] and stage[n] == s] + keep.get(s, [])
            tasks += [k for r in reduces.get(s, []) for k in self.v.keys[r] if isinstance(k, Node)]
            need: set[Node] = set()
            stack = [n for n in tasks if not is_number(n)]
            while stack:
                n = stack.pop()
                if n in need or not cell.get(n):
                    continue
                need.add(n)
                if stage[n] < s and self.kept(n):
                    if n not in self.outputs and n not in keep.setdefault(stage[n], []):
                        keep[stage[n]].append(n)
                        self.slots.append(n)
                    continue
                stack += [k for k in self.v.keys[n] if isinstance(k, Node) and not is_number(k)]
            if need or s in reduces:
                cells = [n for n in self.v.nodes if n in need]
                out[s] = (cells, reduces.get(s, []), keep.get(s, []))
        self.stage, self.cell = stage, cell
        return out

    def kept(self, n: Node) -> bool:
        """Is n read back in later stages rather than recomputed?"""
        same = not self.slots or self.slots[0].dtype == n.dtype
        return n in self.outputs or (is_costly(n) and same)

    @property
    def row(self) -> Dim:
        """Elements of the inner axes."""
        return product([loop.extent for loop in self.inner])

    def scratch_index(self, n: Node) -> str:
        """Where the current cell of n lies in scratch."""
        terms: list[tuple[str, Dim]] = [("tid", times(self.row, len(self.slots)))]
        terms.append(("", times(self.row, self.slots.index(n))))
        for k, loop in enumerate(self.inner):
            terms.append((loop.name, product([x.extent for x in self.inner[k + 1 :]])))
        return sum_text(terms)

    @property
    def scratch(self) -> tuple[Dim, str] | None:
        """Elements and dtype of one thread's scratch, None where there is none."""
        if self.wide:
            return self.wide.scratch, self.wide.dtype
        return (times(self.row, len(self.slots)), self.slots[0].dtype) if self.slots else None

    def write_stage(self, cells: list[Node], reduces: list[Node], keep: list[Node]) -> None:
        """One pass over the inner axes."""
        s = max((self.stage[n] for n in cells), default=0)
        if reduces:
            s = self.stage[reduces[0]] - 1
        every = [n for n in self.v.nodes if n.op.kind == "reduce"]
        sums = [Accumulator.of(n, f"a{every.index(n)}") for n in reduces]
        base = len(self.rows)
        computed = [n for n in cells if self.stage[n] == s or not self.kept(n)]
        uses = self.v.occurrences([*computed, *reduces])
        for n in keep:
            uses[n] = uses.get(n, 0) + 1
        for a in sums:
            self.lines.add(a.start())
        level = self.lines.level
        for k, loop in enumerate(self.inner):
            self.lines.loop(loop.name, "0", dim_text(loop.extent))
            self.load_uses(base + k + 1, [key for key in self.v.access if key in uses], uses)
        for n in cells:
            if n in computed:
                self.bind_nodes([n], uses)
            else:
                self.v.bind(n, self.read_back(n), uses.get(n, 0), self.lines)
        for n in keep:
            self.lines.add(f"scratch[{self.scratch_index(n)}] = {self.v.name(n)}")
        index = self.inner[-1].name if self.inner else "0"
        for n, a in zip(reduces, sums, strict=True):
            for line in a.add(self.v.name(self.v.keys[n][0]), index):
                self.lines.add(line)
        self.store([n for n in self.outputs if self.cell[n] and self.stage[n] == s])
        self.lines.level = level
        for n, a in zip(reduces, sums, strict=True):
            self.v.names[n] = a.result

    def read_back(self, n: Node) -> str:
        if n in self.outputs:
            return load(self.v.params[n], index_text(self.v.own_access(n), self.loops), n.dtype)
        return f"scratch[{self.scratch_index(n)}]"
