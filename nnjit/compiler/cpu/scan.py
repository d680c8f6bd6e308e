"""Scans: one kernel runs all time steps for a chunk of batch rows and writes every result that is
wanted.

Rows are independent in time, so no thread waits for another; a batch of one row runs on one thread.
The matrices of products are packed by launches of their own. What a step leaves for the next one
lies in buffers of (batch, k): the last carries, where they are wanted, else work memory. A block of
rows goes through all time steps before the next block, so that these rows stay in L2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from nnjit.compiler.cpu.naming import dim_word, number, words_of, wrapped
from nnjit.compiler.cpu.scan_body import Body, Pass, Schedule, body_of, schedule
from nnjit.compiler.cpu.scan_cells import column
from nnjit.compiler.cpu.scan_views import Key, width
from nnjit.compiler.cpu.text import (
    dim_text,
    load,
    math_imports,
    sum_text,
    text_of,
    times,
    used_symbols,
)
from nnjit.compiler.cpu.values import Lines, is_number
from nnjit.compiler.groups import Buffer
from nnjit.graph import Node
from nnjit.kernels.blocks import Tiles, filled
from nnjit.kernels.recurrent import (
    BLOCK,
    GRAIN,
    Operand,
    StepProduct,
    pack_matrix,
    product_lines,
)
from nnjit.kernels.target import CODES
from nnjit.kernels.template import Template
from nnjit.spec import Dim

if TYPE_CHECKING:
    from nnjit.compiler.cpu.lower import Lowering


def launch(low: Lowering, nodes: Sequence[Node]) -> None:
    """Emit the kernels of a scan: `nodes` are the results of one Step that are wanted."""
    ScanKernel(low, list(nodes)).emit()


@dataclass(eq=False)
class Params:
    """Parameters in order: names, dtype codes, buffers, and which are written."""

    names: list[tuple[str, str]] = field(default_factory=list)
    buffers: list[Buffer] = field(default_factory=list)
    writes: list[int] = field(default_factory=list)

    def add(self, name: str, b: Buffer, written: bool = False) -> str:
        """The parameter of a buffer; one that is there already keeps its name."""
        if b in self.buffers:
            at = self.buffers.index(b)
        else:
            at = len(self.buffers)
            self.names.append((name, CODES[b.spec.dtype]))
            self.buffers.append(b)
        if written and at not in self.writes:
            self.writes.append(at)
        return self.names[at][0]


class ScanKernel:
    """One scan under construction."""

    def __init__(self, low: Lowering, nodes: list[Node]):
        self.low, self.nodes = low, nodes
        node = nodes[0]
        step = node.attrs["step"]
        self.results = {n.attrs["result"]: n for n in nodes}
        carries, inputs = len(step.carries), len(step.inputs)
        self.first = node.inputs[:carries]
        self.sequences = node.inputs[carries : carries + inputs]
        self.given = node.inputs[carries + inputs :]
        self.reverse = node.attrs["reverse"]
        self.time: Dim = self.sequences[0].shape[0]
        self.batch: Dim = self.first[0].shape[0]
        stacked = [i for kind, i in self.results if kind == "all"]
        last = [i for kind, i in self.results if kind == "last"]
        self.body: Body = body_of(step, stacked, last)
        self.plan: Schedule = schedule(self.body)
        self.params = Params()
        self.places: dict[Node, Operand] = {}  # where a Node of the body is read
        self.targets: dict[Node, list[Operand]] = {}  # where it is written by passes
        self.initial: dict[int, str] = {}
        self.waiting: dict[int, Operand] = {}
        self.matrices: dict[Node, str] = {}

    # -- memory
    def emit(self) -> None:
        """The launches: packs, then the scan."""
        self.bind_inputs()
        self.pack()
        self.bind_carries()
        self.bind_results()
        lines = Lines()
        by_dtype = {n.dtype: Tiles(CODES[n.dtype]) for n in self.body.products}
        self.write(lines, by_dtype)
        imports = [*math_imports(lines.text)]
        for tiles in by_dtype.values():
            imports += tiles.imports()
        name = self.name()
        template = Template(
            name, self.doc(name), tuple(imports), used_symbols(lines.text, self.low.symbols),
            tuple(self.params.names), tuple(lines.text), text_of(self.batch), grain=GRAIN,
        )  # fmt: skip
        n = self.nodes[0]
        flops = [n.op.flops(n)] if n.op.flops else []
        self.low.emit(template, self.params.buffers, self.params.writes, self.nodes, "scan", flops)

    def work(self, name: str, n: Node) -> Buffer:
        """Memory of one Node's rows."""
        return self.low.work(f"scan {name}", times(self.batch, width(n)), n.dtype)

    def bind_inputs(self) -> None:
        """What the body reads as it is: sequences, constants."""
        body = self.body
        used = {x for p in self.plan.passes if p.cells for x in p.cells.loads()}
        used |= {p.inputs[0] for p in body.products}
        for k, (x, source) in enumerate(zip(body.inputs, self.sequences, strict=True)):
            if x in used:
                name = self.params.add(f"x{k}", self.low.buffer(source))
                self.places[x] = Operand(name, width(x), "at")
        outer = dict(zip(body.constants, self.given, strict=True))
        fixed = [n for n in body.order if n in used and (n in outer or n.op.name == "constant")]
        for k, n in enumerate(fixed):
            name = self.params.add(f"b{k}", self.low.buffer(outer.get(n, n)))
            self.places[n] = Operand(name, width(n))

    def pack(self) -> None:
        """One launch for each matrix, and the parameters of what they write."""
        outer = dict(zip(self.body.constants, self.given, strict=True))
        made: dict[tuple[Node, bool], str] = {}
        for p in self.body.products:
            matrix, turned = outer[p.inputs[1]], p.attrs["transpose_b"]
            if (matrix, turned) not in made:
                depth, columns, code = width(p.inputs[0]), width(p), CODES[p.dtype]
                template, size = pack_matrix(depth, columns, turned, code)
                packed = self.low.work("packed", size, p.dtype)
                self.low.emit(
                    template, [self.low.buffer(matrix), packed], [1], self.nodes, "pack scan"
                )
                made[matrix, turned] = self.params.add(f"w{len(made)}", packed)
            self.matrices[p] = made[matrix, turned]

    def bind_carries(self) -> None:
        """Where carries lie, their initial values, and where next ones wait."""
        for i, (carry, n) in enumerate(zip(self.body.carries, self.body.next, strict=True)):
            if n is None:
                continue
            self.initial[i] = self.params.add(f"h{i}", self.low.buffer(self.first[i]))
            result = self.results.get(("last", i))
            b = self.work(f"carry {i}", carry) if result is None else self.low.buffer(result)
            name = self.params.add(f"c{i}", b, written=True)
            self.places[carry] = Operand(name, width(carry))
            if i in self.plan.waiting:
                b = self.work(f"next {i}", carry)
                self.waiting[i] = Operand(self.params.add(f"n{i}", b, True), width(carry))
            if n is not carry and self.plan.direct.get(n) != i:
                target = self.waiting.get(i, self.places[carry])
                self.targets.setdefault(n, []).append(target)

    def bind_results(self) -> None:
        """Where products, operands and stacked results lie. What has several homes is read from the
        first.
        """
        for product, i in self.plan.direct.items():
            self.places[product] = self.places[self.body.carries[i]]
        for k, n in enumerate(self.plan.homes):
            letter = "z" if n.op.name == "matmul" else "a"
            name = self.params.add(f"{letter}{k}", self.work(f"{letter}{k}", n), written=True)
            self.home(n, Operand(name, width(n)))
        for k, (i, n) in enumerate(self.body.stacked.items()):
            b = self.low.buffer(self.results["all", i])
            self.home(n, Operand(self.params.add(f"y{k}", b, written=True), width(n), "at"))

    def home(self, n: Node, place: Operand) -> None:
        written_by_tile = n.op.name == "matmul" and n not in self.places
        self.places.setdefault(n, place)
        if not written_by_tile:
            self.targets.setdefault(n, []).append(place)

    # -- text
    def write(self, lines: Lines, tiles: dict[str, Tiles]) -> None:
        """The whole body: blocks of rows, time steps, products and passes."""
        lines.loop("first", "lo", "hi", str(BLOCK))
        lines.add(f"last = min(hi, first + {BLOCK})")
        for i, source in self.initial.items():
            carry = self.places[self.body.carries[i]]
            self.copy(lines, carry, Operand(source, carry.width))
        steps = dim_text(self.time)
        if self.reverse:
            first = str(self.time - 1) if isinstance(self.time, int) else f"{steps} - 1"
            lines.loop("t", first, "-1", "-1")
        else:
            lines.loop("t", "0", steps)
        lines.add(f"at = t * {factor(self.batch)}")
        inside = lines.level
        for k, product in enumerate([*self.body.products, None]):
            found = self.plan.pass_before(k)
            if found is not None:
                self.write_pass(lines, found)
                lines.level = inside
            if product is not None:
                for line in product_lines(self.step_product(product), tiles[product.dtype]):
                    lines.add(line)
        for i, waiting in self.waiting.items():
            self.copy(lines, self.places[self.body.carries[i]], waiting)

    def step_product(self, n: Node) -> StepProduct:
        a, y = self.places[n.inputs[0]], self.places[n]
        return StepProduct(a, self.matrices[n], y, a.width, y.width, CODES[n.dtype])

    def copy(self, lines: Lines, target: Operand, source: Operand) -> None:
        """Rows first..last of one buffer into another."""
        level = lines.level
        lines.loop("i", "first", "last")
        index = target.start("i")
        if target.width > 1:
            lines.loop("j", "0", str(target.width))
            index = f"{index} + j"
        lines.add(f"{target.name}[{index}] = {source.name}[{index}]")
        lines.level = level

    def write_pass(self, lines: Lines, p: Pass) -> None:
        """The rows of the block, one after the other."""
        assert p.cells is not None
        written = [place for n in p.outputs for place in self.targets.get(n, [])]
        read = p.cells.loads()
        lines.loop("i", "first", "last")
        stacked = [*written, *(self.places[n] for n in read)]
        if any(place.row for place in stacked):
            lines.add("r = at + i")
        names = {place.name for place in written}
        fresh = {n for n in read if self.places[n].name in names}
        p.cells.write(lines, self.load, self.store, fresh)

    def load(self, key: Key) -> str:
        """An element of a leaf, a product or an earlier pass."""
        place = self.places[key.node]
        return load(place.name, column(self.row(key.node, place), key), key.node.dtype)

    def row(self, n: Node, place: Operand) -> str:
        """The index of the first element of the row at hand; a value for all rows has one row."""
        if n.rank < 2 or (n.shape[0] == 1 and self.batch != 1):
            return "0"
        return sum_text([("r" if place.row else "i", place.width)])

    def store(self, n: Node) -> list[tuple[str, str]]:
        places = self.targets.get(n, [])
        return [(p.name, sum_text([("r" if p.row else "i", p.width)])) for p in places]

    # -- name and docstring
    def name(self) -> str:
        """'scan_256x1024_sigmoid_tanh_f4': the products, telling ops, the dtype."""
        products = [f"{width(p.inputs[0])}x{width(p)}" for p in self.body.products]
        sizes = products or [dim_word(self.body.carries[0].shape[-1])]
        inner = [n for n in self.body.order if n.op.kind == "elementwise"]
        words = words_of(inner) if inner else []
        back = ["reverse"] if self.reverse else []
        code = CODES[self.first[0].dtype]
        return "_".join(["scan", *back, *dict.fromkeys(sizes), *words, code])

    def doc(self, name: str) -> str:
        """What runs over what, then one formula per Node of the body."""
        label: dict[Node, str] = {n: place.name for n, place in self.places.items()}
        lines: list[str] = []
        for n in self.body.order:
            if n.is_leaf:
                continue
            args = [number(x) if is_number(x) else label.get(x, "?") for x in n.inputs]
            if n in self.matrices:
                args[1] = self.matrices[n]
            args += [
                f"{key}={n.attrs[key]}" for key in ("starts", "stops", "axis", "widths")
                if key in n.attrs
            ]  # fmt: skip
            label.setdefault(n, f"t{len(lines)}")
            lines.append(f"{label[n]} = {n.op.name}({', '.join(args)})")
        for i, following in enumerate(self.body.next):
            if following is not None:
                lines.append(f"next {self.places[self.body.carries[i]].name} = {label[following]}")
        order = "t from last to first" if self.reverse else "t from first to last"
        head = filled(
            f"{name}: {order} of {dim_text(self.time)} for each of the rows lo..hi of "
            f"{dim_text(self.batch)}; r is a row at time t; matrices w are packed in panels"
        )
        return "\n".join([head, *wrapped(lines)])


def factor(d: Dim) -> str:
    """A dim as an operand of a product."""
    text = dim_text(d)
    return text if text.isidentifier() or text.isdigit() else f"({text})"
