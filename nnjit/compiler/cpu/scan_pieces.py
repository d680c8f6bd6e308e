"""A scan of few rows: threads share the columns of the state, and meet after every time step.

A step is a run of parts: products, and the pass that follows them. In a part, piece p does its own
columns of all of them; nobody reads what another piece writes in the same part. Between parts every
piece waits for the others: parts are the stages of the launch. Before the first step a stage puts
the initial state in place, after the last one a stage gives the last state. Carries that a step
reads elsewhere than it writes them lie in two buffers that take turns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from nnjit.compiler.cpu.scan_body import Pass, Schedule, next_pairs
from nnjit.compiler.cpu.scan_text import ScanText, factor
from nnjit.compiler.cpu.scan_views import Key, width
from nnjit.compiler.cpu.text import dim_text, sum_text, text_of
from nnjit.compiler.cpu.values import Lines
from nnjit.graph import CONSTANT, PARAMETER, Node, walk
from nnjit.kernels.blocks import Tiles, product, total
from nnjit.kernels.recurrent import (
    GRAIN,
    Gates,
    Operand,
    StepProduct,
    pack_gates,
    pieces_width,
    product_lines,
)
from nnjit.kernels.target import CODES, itemsize

FEW = GRAIN + 1  # rows: fewer are one chunk where threads share rows
LEAST_BYTES = 192 << 10  # of the matrices: a step takes longer than a stage costs


@dataclass(frozen=True, eq=False)
class Part:
    """Products, then the pass that uses them."""

    products: tuple[Node, ...]
    last: Pass


@dataclass(frozen=True, eq=False)
class Cut:
    """A step by pieces of columns. units: columns of each pass."""

    units: int
    width: int
    parts: tuple[Part, ...]
    gates: dict[Node, Gates]

    @property
    def pieces(self) -> int:
        return -(-self.units // self.width)


def cut(plan: Schedule) -> Cut | None:
    """None where a piece would need what others make in the same part, where there is one piece, or
    nothing is handed from step to step.
    """
    products, found = plan.body.products, parts(plan)
    cells = [p.cells for p in plan.passes if p.cells is not None]
    lengths = {s.length for c in cells for s in c.pieces}
    handed = any(c is not n for c, n in next_pairs(plan.body))
    if not products or not handed or found is None or len(lengths) != 1:
        return None
    (units,) = lengths
    dtypes = {n.dtype for n in products}
    if len(dtypes) > 1 or any(n in p.outputs for p in plan.passes for n in products):
        return None
    keys = {k for c in cells for k in c.keys(c.pieces) if k.node in products}
    firsts = {n: tuple(sorted({k.first for k in keys if k.node is n})) for n in products}
    if any(k.step != 1 for k in keys) or not all(apart(f, units) for f in firsts.values()):
        return None
    (dtype,) = {CODES[d] for d in dtypes}
    size = pieces_width(units, max(map(len, firsts.values())), dtype)
    gates = {
        n: Gates(width(n.inputs[0]), width(n), f, units, size, dtype) for n, f in firsts.items()
    }
    return Cut(units, size, tuple(found), gates) if size < units else None


def parts(plan: Schedule) -> list[Part] | None:
    """None where a product has no home of its own, reads another, or has no pass after it."""
    out: list[Part] = []
    waiting: list[Node] = []
    for k, n in enumerate([*plan.body.products, None]):
        found = plan.pass_before(k)
        if found is not None:
            out.append(Part(tuple(waiting), found))
            waiting = []
        if n is not None:
            if n not in plan.homes or n.inputs[0].op.name == "matmul":
                return None
            waiting.append(n)
    return None if waiting else out


def apart(firsts: Sequence[int], units: int) -> bool:
    """Whether runs of `units` columns from these on do not overlap."""
    return bool(firsts) and all(b - a >= units for a, b in pairwise(firsts))


def worth_pieces(scan: ScanText) -> bool:
    """Whether the matrices are made of parameters that stay (they are packed once), and large."""
    products = scan.body.products
    leaves = [n for n in walk(scan.outer[p.inputs[1]] for p in products) if n.is_leaf]
    if any(n.op not in (PARAMETER, CONSTANT) or n in scan.low.graph.updates for n in leaves):
        return False
    bytes_of = [width(p.inputs[0]) * width(p) * itemsize(CODES[p.dtype]) for p in products]
    return sum(bytes_of) >= LEAST_BYTES


class PiecesScan(ScanText):
    """Pieces of columns, stage after stage. An index of the launch is a piece of a stage, GRAIN
    times.
    """

    def __init__(self, scan: ScanText, how: Cut):
        super().__init__(scan.low, scan.nodes, scan.plan, scan.params)
        self.cut = how
        self.rows = self.batch if isinstance(self.batch, int) else FEW  # of its buffers
        self.initial: list[tuple[Operand, Operand]] = []  # (to, from)
        self.final: list[tuple[Operand, Operand]] = []

    @property
    def stages(self) -> int | str:
        """Their number, as templates take it."""
        found = total(product(text_of(self.time), len(self.cut.parts)), 1 + bool(self.final))
        return int(found) if found.isdigit() else found

    @property
    def trip(self) -> int | str:
        """Indices of all stages."""
        return product(self.cut.pieces * GRAIN, self.stages)

    # -- memory
    def work(self, name: str, size: int, dtype: str, copies: int = 1) -> str:
        """A parameter with `size` elements for each row."""
        b = self.low.work(f"scan {name}", copies * self.rows * size, dtype)
        return self.params.add(name, b, written=True)

    def bind(self) -> None:
        self.bind_inputs()
        self.pack()
        self.bind_carries()
        for k, n in enumerate(self.plan.homes):
            if n in self.cut.gates:
                gates = self.cut.gates[n]
                size = gates.pieces * gates.row
                self.home(n, Operand(self.work(f"g{k}", size, n.dtype), size))
            else:
                self.home(n, Operand(self.work(f"e{k}", width(n), n.dtype), width(n)))
        self.bind_stacked()

    def pack(self) -> None:
        """One launch for each matrix."""
        made: dict[tuple, str] = {}
        for p, gates in self.cut.gates.items():
            matrix, turned = self.outer[p.inputs[1]], p.attrs["transpose_b"]
            key = matrix, turned, gates
            if key not in made:
                packed = self.low.work("packed gates", gates.size, p.dtype)
                template, buffers = pack_gates(gates, turned), [self.low.buffer(matrix), packed]
                self.low.emit(template, buffers, [1], self.nodes, "pack scan")
                made[key] = self.params.add(f"m{len(made)}", packed)
            self.matrices[p] = made[key]

    def bind_carries(self) -> None:
        """Where carries are read and written, and what the first and last stage copy."""
        for i, (carry, n) in enumerate(zip(self.body.carries, self.body.next, strict=True)):
            if n is None:
                continue
            size, b = width(carry), self.results.get(("last", i))
            start = Operand(self.params.add(f"h{i}", self.low.buffer(self.first[i])), size)
            last = None if b is None else self.low.buffer(b)
            if n is carry:
                self.places[carry] = start
            elif self.in_place(i, carry):
                name = f"s{i}"
                if last is None:
                    name = self.work(name, size, carry.dtype)
                else:
                    name = self.params.add(f"c{i}", last, written=True)
                self.places[carry] = Operand(name, size)
                self.initial.append((self.places[carry], start))
                self.targets.setdefault(n, []).append(self.places[carry])
                continue
            else:
                name = self.work(f"s{i}", size, carry.dtype, copies=2)
                self.places[carry] = Operand(name, size, "old")
                self.initial.append((Operand(name, size), start))
                self.targets.setdefault(n, []).append(Operand(name, size, "new"))
            if last is not None:
                result = Operand(self.params.add(f"c{i}", last, written=True), size)
                self.final.append((result, self.places[carry]))

    def in_place(self, i: int, carry: Node) -> bool:
        """Whether a piece reads of a carry only what it writes itself, and before it does."""
        cells = [p.cells for p in self.plan.passes if p.cells is not None]
        keys = [k for c in cells for k in c.keys(c.pieces) if k.node is carry]
        operand = any(p.inputs[0] is carry for p in self.body.products)
        return i not in self.plan.waiting and not operand and all(k.step for k in keys)

    # -- text
    def write(self, lines: Lines, tiles: dict[str, Tiles]) -> None:
        """The stages: the initial state, the parts of each step, the last state."""
        c, count = self.cut, len(self.cut.parts)
        lines.loop("index", f"lo // {GRAIN}", f"hi // {GRAIN}")
        lines.add(f"stage, p = index // {c.pieces}, index % {c.pieces}")
        lines.add(f"first, last = 0, {factor(self.batch)}")
        self.begin_stage(lines)
        inside = lines.level
        self.branch(lines, "if stage == 0:")
        self.copies(lines, self.initial)
        if self.final:
            lines.level = inside
            self.branch(lines, f"elif stage > {dim_text(self.time * count)}:")
            self.copies(lines, self.final)
        for k, part in enumerate(c.parts):
            lines.level = inside
            last = k == count - 1
            self.branch(lines, "else:" if last else f"elif (stage - 1) % {count} == {k}:")
            for n in part.products:
                for line in product_lines(self.piece(n), tiles[n.dtype]):
                    lines.add(line)
            self.write_pass(lines, part.last)

    def piece(self, n: Node) -> StepProduct:
        """The columns of a product that piece p does."""
        a, g = self.places[n.inputs[0]], self.cut.gates[n]
        starts = f"p * {g.depth * g.row}", f"p * {g.row}"
        return StepProduct(a, self.matrices[n], self.places[n], g.depth, g.row, g.dtype, *starts)

    def begin_stage(self, lines: Lines) -> None:
        """The time, the place of its rows, the buffers that take turns, the piece's columns; `old`
        is also right after the last step.
        """
        c, count = self.cut, len(self.cut.parts)
        lines.add("t = stage - 1" if count == 1 else f"t = (stage - 1) // {count}")
        if any(place.row == "old" for place in self.places.values()):
            lines.add(f"old = t % 2 * {self.rows}")
            lines.add(f"new = {self.rows} - old")
        if self.reverse:
            lines.add(f"t = {factor(self.time)} - 1 - t")
        lines.add(f"at = t * {factor(self.batch)}")
        lines.add(f"j0 = p * {c.width}")
        if c.units % c.width:
            lines.add(f"j1 = min(j0 + {c.width}, {c.units})")

    def branch(self, lines: Lines, line: str) -> None:
        lines.add(line)
        lines.level += 1

    def copies(self, lines: Lines, pairs: Sequence[tuple[Operand, Operand]]) -> None:
        """Each piece a share of the columns."""
        many = self.cut.pieces
        for to, source in pairs:
            bounds = f"p * {to.width} // {many}", f"(p + 1) * {to.width} // {many}"
            if to.width == 1:
                bounds = "0", ""
            self.copy(lines, to, source, bounds)

    def columns(self, length: int) -> tuple[str, str]:
        return "j0", "j1" if self.cut.units % self.cut.width else f"j0 + {self.cut.width}"

    def load(self, key: Key) -> str:
        """Products lie piece after piece."""
        if key.node not in self.cut.gates:
            return super().load(key)
        gates, place = self.cut.gates[key.node], self.places[key.node]
        inside = gates.firsts.index(key.first) * gates.width
        shift = gates.row - gates.width
        index = sum_text([("i", place.width), ("p", shift), ("j", 1), ("", inside)])
        return f"{place.name}[{index}]"
