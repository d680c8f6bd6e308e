"""The body of a scan after the passes, and the order of what one time step does.

A step alternates products and passes. A pass goes over the columns of a row and writes what the
next product reads, stacked results and next carries; whatever else it needs it computes on the
spot. A next carry is written over the old one where nothing reads that one afterwards; else it
waits in a buffer of its own until the step is over.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

from nnjit.compiler.cpu.scan_cells import Cells, segments
from nnjit.compiler.cpu.values import is_costly
from nnjit.compiler.passes import PASSES
from nnjit.errors import GraphError
from nnjit.graph import Graph, Node, walk


@dataclass(frozen=True, eq=False)
class Body:
    """One time step. next: None for a carry that nobody needs; stacked: number among the step's
    Nodes -> Node.
    """

    carries: tuple[Node, ...]
    inputs: tuple[Node, ...]
    constants: tuple[Node, ...]
    next: tuple[Node | None, ...]
    stacked: dict[int, Node]
    order: list[Node]

    @cached_property
    def products(self) -> list[Node]:
        """In an order in which they can be computed."""
        found = [n for n in self.order if n.op.name == "matmul"]
        for n in found:
            check_operand(n, self)
        return found


def body_of(step, stacked: Iterable[int], last: Iterable[int]) -> Body:
    """The part of a Step that these results need, optimised."""
    nodes = step.nodes()
    outputs = {f"next {k}": n for k, n in enumerate(step.next)}
    outputs |= {f"all {k}": nodes[k] for k in stacked}
    graph = Graph("step", outputs)
    for run in PASSES:
        graph = run(graph)
    every = graph.outputs
    live = {f"all {k}" for k in stacked} | {f"next {k}" for k in last}
    while True:
        order = walk(every[name] for name in every if name in live)
        found = set(order)
        more = {f"next {k}" for k, c in enumerate(step.carries) if c in found} - live
        if not more:
            break
        live |= more
    names = [f"next {k}" for k in range(len(step.carries))]
    return Body(
        tuple(step.carries), tuple(step.inputs), tuple(step.constants),
        tuple(every[name] if name in live else None for name in names),
        {k: every[f"all {k}"] for k in stacked}, order,
    )  # fmt: skip


@dataclass(eq=False)
class Pass:
    """An elementwise pass before product number `position`, and the Nodes that it writes."""

    position: int
    outputs: list[Node] = field(default_factory=list)
    cells: Cells | None = None


@dataclass(eq=False)
class Schedule:
    """What a step does in order, and where its values are kept.

    homes: Nodes that have memory for each row, besides stacked results: products, operands of
    products and what several passes need. direct: products that are written over a carry. waiting:
    carries whose next value waits until the end of the step.
    """

    body: Body
    passes: list[Pass] = field(default_factory=list)
    homes: list[Node] = field(default_factory=list)
    direct: dict[Node, int] = field(default_factory=dict)
    waiting: set[int] = field(default_factory=set)

    def pass_before(self, position: int) -> Pass | None:
        return next((p for p in self.passes if p.position == position), None)


def schedule(body: Body) -> Schedule:
    """Passes as late as the products allow, what they write as early as they allow."""
    s = Schedule(body)
    products = body.products
    end = len(products)
    ready = readiness(body)
    leaves = {*body.carries, *body.inputs, *body.constants}
    at: dict[Node, int] = {}  # the position of the pass that writes a Node

    def assign(n: Node, latest: int) -> None:
        if n in at or n.op.name == "matmul":
            return
        fits = [p for p in s.passes if ready[n] <= p.position <= latest]
        found = min(fits, key=lambda p: p.position, default=None)
        if found is None:
            found = Pass(latest)
            s.passes.append(found)
            s.passes.sort(key=lambda p: p.position)
        found.outputs.append(n)
        at[n] = found.position

    stacked = list(dict.fromkeys(body.stacked.values()))
    nexts = list(dict.fromkeys(n for c, n in next_pairs(body) if n is not c))
    for k, product in enumerate(products):
        a = product.inputs[0]
        if a not in leaves and a.op.name != "matmul":
            assign(a, k)
            if a not in stacked and a not in s.homes:
                s.homes.append(a)
    for n in [*stacked, *nexts]:
        assign(n, end)
    place_products(s)
    for n in products:
        if is_copied(s, n):
            if s.pass_before(end) is None:
                s.passes.append(Pass(end))
            s.passes[-1].outputs.append(n)
    share_costly(s)
    for p in s.passes:
        known = known_before(s, p.position)
        p.cells = Cells(p.outputs, known, segments(p.outputs, known))
    find_waiting(s)
    return s


def next_pairs(body: Body) -> list[tuple[Node, Node]]:
    """(carry, next) of the carries that are needed."""
    return [(c, n) for c, n in zip(body.carries, body.next, strict=True) if n is not None]


def readiness(body: Body) -> dict[Node, int]:
    """How many products must be done before each Node."""
    out: dict[Node, int] = {}
    number = {n: k for k, n in enumerate(body.products)}
    for n in body.order:
        before = max((out[x] for x in n.inputs), default=0)
        out[n] = number[n] + 1 if n in number else before
    return out


def check_operand(product: Node, body: Body) -> None:
    """GraphError unless the second operand is a constant of the scan and the first is plain."""
    a, w = product.inputs
    if product.attrs["transpose_a"] or a.rank != 2 or w not in body.constants:
        raise GraphError(
            f"scan: the body has {product!r} of {a!r} and {w!r}; a product in a body takes rows "
            "(batch, k) times one of the scan's constants"
        )


def place_products(s: Schedule) -> None:
    """Products that are stacked lie there; one that is a next carry is written over it if nothing
    later reads the old one; others get memory of their own.
    """
    body, products = s.body, s.body.products
    for k, p in enumerate(products):
        if p in body.stacked.values():
            continue
        if p in body.next:
            i = body.next.index(p)
            carry = body.carries[i]
            operand = any(q.inputs[0] is carry for q in products[k:])
            if not operand and not any(carry in reads(s, q) for q in s.passes if q.position > k):
                s.direct[p] = i
                continue
        s.homes.append(p)


def reads(s: Schedule, p: Pass) -> set[Node]:
    """The Nodes that a pass needs, those that it can load last."""
    return set(walk(p.outputs, stop=known_before(s, p.position)))


def is_copied(s: Schedule, product: Node) -> bool:
    """Is the product wanted elsewhere than where it is written?"""
    stacked = list(s.body.stacked.values()).count(product)
    targets = [i for i, n in enumerate(s.body.next) if n is product]
    return stacked > 1 or any(s.direct.get(product) != i for i in targets)


def known_before(s: Schedule, position: int) -> set[Node]:
    """The Nodes that can be loaded in a pass: leaves, earlier products, what earlier passes wrote
    into memory that stays.
    """
    stays = {*s.homes, *s.body.stacked.values()}
    earlier = [n for q in s.passes if q.position < position for n in q.outputs if n in stays]
    return {*s.body.products, *earlier}


def share_costly(s: Schedule) -> None:
    """Costly Nodes that two passes would compute get memory in the first of them."""
    seen: dict[Node, Pass] = {}
    for p in sorted(s.passes, key=lambda p: p.position):
        known = known_before(s, p.position)
        inside = [n for n in walk(p.outputs, stop=known) if n not in known and is_costly(n)]
        for n in inside:
            first = seen.setdefault(n, p)
            if first is not p and n not in s.homes:
                s.homes.append(n)
                if n not in first.outputs:
                    first.outputs.append(n)


def find_waiting(s: Schedule) -> None:
    """Carries that are read after their next value is known, or elsewhere in the same pass."""
    body, products = s.body, s.body.products
    for i, (carry, n) in enumerate(zip(body.carries, body.next, strict=True)):
        if n is None or n is carry or s.direct.get(n) == i:
            continue
        home = next(p for p in s.passes if n in p.outputs)
        later = any(
            product.inputs[0] is carry
            for k, product in enumerate(products) if k >= home.position
        )  # fmt: skip
        for p in s.passes:
            assert p.cells is not None
            if p.position > home.position:
                later |= carry in p.cells.loads()
        assert home.cells is not None
        if later or not home.cells.safe_over(carry, n):
            s.waiting.add(i)
