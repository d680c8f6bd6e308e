"""The kernel of a scan under construction: its parameters, where values lie, its passes as text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from nnjit.compiler.cpu.naming import dim_word, number, words_of, wrapped
from nnjit.compiler.cpu.scan_body import Body, Pass, Schedule
from nnjit.compiler.cpu.scan_cells import column
from nnjit.compiler.cpu.scan_views import Key, width
from nnjit.compiler.cpu.text import dim_text, load, sum_text
from nnjit.compiler.cpu.values import Lines, is_number
from nnjit.compiler.groups import Buffer
from nnjit.graph import Node
from nnjit.kernels.blocks import Tiles, filled
from nnjit.kernels.recurrent import Operand
from nnjit.kernels.target import CODES
from nnjit.spec import Dim

if TYPE_CHECKING:
    from nnjit.compiler.cpu.lower import Lowering

#: by what is added to i to find a row (`Operand.row`): the name of the sum
ROWS = {"": "i", "at": "r", "old": "old_i", "new": "new_i"}


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


class ScanText:
    """One scan, some way to run it: what all ways share.

    plan: what a step does in order. params: of the kernel, other ways to run it among them.
    """

    def __init__(self, low: Lowering, nodes: Sequence[Node], plan: Schedule, params: Params):
        self.low, self.nodes, self.plan, self.params = low, list(nodes), plan, params
        self.body: Body = plan.body
        node = self.nodes[0]
        self.results = {n.attrs["result"]: n for n in self.nodes}
        carries, inputs = len(self.body.carries), len(self.body.inputs)
        self.first = node.inputs[:carries]
        self.sequences = node.inputs[carries : carries + inputs]
        self.given = node.inputs[carries + inputs :]
        self.reverse = node.attrs["reverse"]
        self.time: Dim = self.sequences[0].shape[0]
        self.batch: Dim = self.first[0].shape[0]
        self.places: dict[Node, Operand] = {}  # where a Node of the body is read
        self.targets: dict[Node, list[Operand]] = {}  # where it is written by passes
        self.matrices: dict[Node, str] = {}

    def bind(self) -> None:
        """Parameters and places of everything; the launches that pack matrices."""
        raise NotImplementedError

    def write(self, lines: Lines, tiles: dict[str, Tiles]) -> None:
        """The body of the kernel."""
        raise NotImplementedError

    # -- memory
    @property
    def outer(self) -> dict[Node, Node]:
        """What the body's constants are in the graph."""
        return dict(zip(self.body.constants, self.given, strict=True))

    def bind_inputs(self) -> None:
        """What the body reads as it is: sequences, constants."""
        body = self.body
        used = {x for p in self.plan.passes if p.cells for x in p.cells.loads()}
        used |= {p.inputs[0] for p in body.products}
        for k, (x, source) in enumerate(zip(body.inputs, self.sequences, strict=True)):
            if x in used:
                name = self.params.add(f"x{k}", self.low.buffer(source))
                self.places[x] = Operand(name, width(x), "at")
        outer = self.outer
        fixed = [n for n in body.order if n in used and (n in outer or n.op.name == "constant")]
        for k, n in enumerate(fixed):
            name = self.params.add(f"b{k}", self.low.buffer(outer.get(n, n)))
            self.places[n] = Operand(name, width(n))

    def bind_stacked(self) -> None:
        """Where stacked results lie."""
        for k, (i, n) in enumerate(self.body.stacked.items()):
            b = self.low.buffer(self.results["all", i])
            self.home(n, Operand(self.params.add(f"y{k}", b, written=True), width(n), "at"))

    def home(self, n: Node, place: Operand) -> None:
        """A place of n; it is read from its first."""
        written_by_tile = n.op.name == "matmul" and n not in self.places
        self.places.setdefault(n, place)
        if not written_by_tile:
            self.targets.setdefault(n, []).append(place)

    # -- text
    def copy(
        self, lines: Lines, target: Operand, source: Operand, columns: tuple[str, str] = ("0", "")
    ) -> None:
        """Rows first..last of one buffer into another, all columns or those from .. to."""
        level = lines.level
        lines.loop("i", "first", "last")
        start, end = target.start("i"), source.start("i")
        if target.width > 1:
            lines.loop("j", columns[0], columns[1] or str(target.width))
            start, end = f"{start} + j", f"{end} + j"
        lines.add(f"{target.name}[{start}] = {source.name}[{end}]")
        lines.level = level

    def write_pass(self, lines: Lines, p: Pass) -> None:
        """The rows of the block, one after the other."""
        assert p.cells is not None
        level = lines.level
        written = [place for n in p.outputs for place in self.targets.get(n, [])]
        read = p.cells.loads()
        lines.loop("i", "first", "last")
        used = {place.row for place in [*written, *(self.places[n] for n in read)]}
        for start in ROWS:
            if start and start in used:
                lines.add(f"{ROWS[start]} = {start} + i")
        names = {place.name for place in written}
        fresh = {n for n in read if self.places[n].name in names}
        p.cells.write(lines, self.load, self.store, fresh, self.columns)
        lines.level = level

    def columns(self, length: int) -> tuple[str, str]:
        """The columns that a pass does of `length` columns."""
        return "0", str(length)

    def load(self, key: Key) -> str:
        """An element of a leaf, a product or an earlier pass."""
        place = self.places[key.node]
        return load(place.name, column(self.row(key.node, place), key), key.node.dtype)

    def row(self, n: Node, place: Operand) -> str:
        """The index of the first element of the row at hand; a value for all rows has one row."""
        if n.rank < 2 or (n.shape[0] == 1 and self.batch != 1):
            return "0"
        return sum_text([(ROWS[place.row], place.width)])

    def store(self, n: Node) -> list[tuple[str, str]]:
        places = self.targets.get(n, [])
        return [(p.name, sum_text([(ROWS[p.row], p.width)])) for p in places]

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

    def doc(self, how: str) -> str:
        """What runs over what, then one formula per Node of the body. how: for which rows."""
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
            f"{self.name()}: {order} of {dim_text(self.time)} {how}; r is a row at time t; "
            "matrices w are packed in panels"
        )
        return "\n".join([head, *wrapped(lines)])


def factor(d: Dim) -> str:
    """A dim as an operand of a product."""
    text = dim_text(d)
    return text if text.isidentifier() or text.isdigit() else f"({text})"
