"""The gradient of a scan: a scan the other way through time, made from the gradient of its step.

At each time it gets the gradients of what was stacked, and values of the forward step: results of
products and expensive functions are stacked by the forward scan, everything cheap is computed
again. Gradients of matrices are one product of stacked values over all times and samples, those of
other constants are sums of stacked values. All of it is Nodes, so it has a gradient itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from nnjit.graph import Node, input_node, rebuilt, walk
from nnjit.ops.base import OPS
from nnjit.ops.contraction import matmul
from nnjit.ops.join import full_like
from nnjit.ops.reduce import sum_to
from nnjit.ops.step import Step, make_step
from nnjit.ops.view import broadcast_to, reshape
from nnjit.spec import DTYPES, FLOATS, Dim, product

Cotangents = dict[tuple[str, int], Node]


def scan_grad(nodes: Sequence[Node], dys: Sequence[Node]) -> list[Node | None]:
    """One gradient per input of the scan that these Nodes are results of."""
    whole = Whole(nodes[0])
    cotangents: Cotangents = {}
    for n, dy in zip(nodes, dys, strict=True):
        key = n.attrs["result"]
        cotangents[key] = cotangents[key] + dy if key in cotangents else dy
    return Backward(whole, cotangents).gradients()


@dataclass(frozen=True, eq=False)
class Whole:
    """A scan as a whole: any of its Nodes, and what it can be asked for."""

    node: Node

    @property
    def step(self) -> Step:
        return self.node.attrs["step"]

    def result(self, kind: str, i: int) -> Node:
        return self.node.op(*self.node.inputs, **{**self.node.attrs, "result": (kind, i)})

    def stacked(self, n: Node) -> Node:
        """A Node of the body at all times."""
        if n in self.step.inputs:
            return self.node.inputs[len(self.step.carries) + self.step.inputs.index(n)]
        return self.result("all", self.step.place(n))


@dataclass(eq=False)
class Body:
    """A copy of a step's body in which constants of elementwise functions are spread to the shape
    of their use, so that their gradients can be stacked before they are summed.
    """

    step: Step
    new: dict[Node, Node] = field(default_factory=dict)
    spread: dict[Node, Node] = field(default_factory=dict)  # leaf of the use's shape -> constant
    products: dict[Node, Node] = field(default_factory=dict)  # Node of the copy -> original

    def __post_init__(self) -> None:
        constants = set(self.step.constants)
        uses: dict[tuple[Node, tuple[Dim, ...]], Node] = {}

        def use(x: Node, shape: tuple[Dim, ...]) -> Node:
            if x not in constants:
                return self.new[x]
            leaf = uses.get((x, shape))
            if leaf is None:
                leaf = uses[x, shape] = input_node("", x.spec.with_shape(shape))
                self.spread[leaf] = x
            return leaf

        for n in self.step.nodes():
            if n.is_leaf:
                self.new[n] = n
            elif n.op.name == "matmul":
                self.new[n] = rebuilt(n, (self.new[n.inputs[0]], n.inputs[1]))
                self.products[self.new[n]] = n
            else:
                wide = n.op.kind in ("elementwise", "composite")
                self.new[n] = rebuilt_wide(
                    n, tuple(use(x, n.shape if wide else x.shape) for x in n.inputs)
                )
        self.ends = [use(r, r.shape) for r in self.step.next]

    def of(self, i: int) -> Node:
        """The copy of Node i of the step."""
        n = self.step.nodes()[i]
        if n in self.step.constants:
            return next((leaf for leaf, x in self.spread.items() if x is n), n)
        return self.new[n]


def rebuilt_wide(n: Node, inputs: tuple[Node, ...]) -> Node:
    """The Node with inputs that may be wider than before, of the same spec."""
    if all(a is b for a, b in zip(inputs, n.inputs, strict=True)):
        return n
    return n.op(*inputs, **n.attrs)


# ------------------------------------------------------------------------------------ what to keep
def costly(n: Node) -> bool:
    """Is a Node worth storing rather than computing again?"""
    return n.op.name == "matmul" or n.op.kind == "composite" or "_{t}(" in (n.op.expr or "")


def kept(body: Body, wanted: Sequence[Node]) -> list[Node]:
    """The Nodes of the body that are stored, so that `wanted` can be computed from them."""
    saved: dict[Node, None] = {}
    carries = set(body.step.carries)

    def must(n: Node) -> bool:
        return n in carries or (not n.is_leaf and costly(n) and varies(n))

    def varies(n: Node) -> bool:
        return any(x in carries or x in body.step.inputs for x in walk([n]))

    def sources(n: Node) -> dict[Node, None]:
        if n in saved or (n.is_leaf and n not in carries):
            return {}
        return {n: None} if must(n) else {s: None for x in n.inputs for s in sources(x)}

    for n in wanted:
        if must(n):
            saved[n] = None
    for n in wanted:
        missing = sources(n)
        better = missing and n.dtype in FLOATS and size(missing) >= size([n])
        saved |= {n: None} if better else missing
    return list(saved)


def size(nodes: Sequence[Node] | Mapping[Node, None]) -> int:
    """Bytes per sample."""
    return sum(int(product(n.shape[1:])) * DTYPES[n.dtype] for n in nodes)  # type: ignore


# ------------------------------------------------------------------------------------ the gradient
class Backward:
    """The scan that goes back, and the gradients that are made of what it stacks."""

    def __init__(self, whole: Whole, cotangents: Cotangents):
        self.whole, self.step, self.cotangents = whole, whole.step, cotangents
        self.body = Body(self.step)
        self.carries = [input_node("", c.spec) for c in self.step.carries]
        self.asked = sorted(i for kind, i in cotangents if kind == "all")
        nodes = self.step.nodes()
        self.dys = [input_node("", nodes[i].spec) for i in self.asked]
        self.found = self._pulled()
        self._make()

    def _pulled(self) -> dict[Node, Node]:
        """Gradients of the carries, inputs, spread constants and products of one step."""
        from nnjit.autodiff import pull_back

        total: dict[Node, Node] = {}
        ends = [*self.body.ends, *(self.body.of(i) for i in self.asked)]
        for n, dy in zip(ends, [*self.carries, *self.dys], strict=True):
            total[n] = total[n] + dy if n in total else dy
        inputs = [x for x in self.step.inputs if x.dtype in FLOATS]
        wrt = [*self.step.carries, *inputs, *self.body.spread, *self.body.products]
        wrt = [x for x in wrt if x.dtype in FLOATS]
        found = pull_back(total, wrt)
        return {x: g for x, g in zip(wrt, found, strict=True) if g is not None}

    def _make(self) -> None:
        """The step back: its leaves, their outer values and its roots."""
        step, body = self.step, self.body
        next_ = [self.found[c] if c in self.found else full_like(c, 0) for c in step.carries]
        self.results = [x for x in self.found if x not in step.carries]
        roots = [*next_, *(self.found[x] for x in self.results)]
        forward = set(body.new.values()) | set(step.leaves) | set(body.spread)
        wanted = {r: None for r in roots if r in forward}
        for n in walk(roots, forward):
            if n not in forward:
                wanted |= {x: None for x in n.inputs if x in forward}
        order = walk(list(wanted))
        saved = kept(body, [n for n in order if n in wanted])
        original = {copy: n for n, copy in body.new.items()}
        residuals = {n: input_node("", n.spec) for n in saved}
        stacks = [self.whole.stacked(original[n]) for n in saved]
        outer = step.split(self.whole.node.inputs)[2]
        values = dict(zip(step.constants, outer, strict=True))
        new: dict[Node, Node] = dict(residuals)
        for n in walk(roots, residuals):
            if n in body.spread:
                new[n] = broadcast_to(values[body.spread[n]], n.shape)
            elif n not in new:
                new[n] = (
                    values.get(n, n) if n.is_leaf else rebuilt(n, tuple(new[x] for x in n.inputs))
                )
        used = [x for x in step.inputs if x in new]
        sequences = [self.cotangents["all", i] for i in self.asked] + stacks
        sequences += [self.whole.stacked(x) for x in used]
        inputs = [*self.dys, *residuals.values(), *used]
        if not inputs:  # the number of steps must be told
            inputs, sequences = [step.inputs[0]], [self.whole.stacked(step.inputs[0])]
        count = len(next_)
        news = [new[r] for r in roots]
        self.back, constants = make_step(self.carries, inputs, news[:count], news[count:])
        starts = [
            self.cotangents["last", i] if ("last", i) in self.cotangents else full_like(x, 0)
            for i, x in enumerate(step.split(self.whole.node.inputs)[0])
        ]
        self.operands = (*starts, *sequences, *constants)

    def result(self, kind: str, i: int) -> Node:
        reverse = not self.whole.node.attrs["reverse"]
        return OPS["scan"](*self.operands, step=self.back, reverse=reverse, result=(kind, i))

    def stacked(self, x: Node) -> Node | None:
        """The gradient of a value of the step at all times."""
        if x not in self.found:
            return None
        return self.result("all", self.back.place(self.back.results[self.results.index(x)]))

    def gradients(self) -> list[Node | None]:
        """One per input of the scan."""
        carries: list[Node | None] = [self.result("last", i) for i in range(len(self.carries))]
        inputs = [self.stacked(x) for x in self.step.inputs]
        return carries + inputs + [self.constant(c) for c in self.step.constants]

    def constant(self, c: Node) -> Node | None:
        """The gradient of a constant: what its uses give, added up over all times and samples."""
        total: Node | None = None
        for leaf, x in self.body.spread.items():
            dy = self.stacked(leaf) if x is c else None
            if dy is not None:
                total = plus(total, sum_to(dy, c.shape))
        for copy, n in self.body.products.items():
            dz = self.stacked(copy) if n.inputs[1] is c else None
            if dz is not None:
                a, dz = rows(self.whole.stacked(n.inputs[0])), rows(dz)
                left, right = (dz, a) if n.attrs["transpose_b"] else (a, dz)
                total = plus(total, matmul(left, right, transpose_a=True))
        return total


def plus(a: Node | None, b: Node) -> Node:
    return b if a is None else a + b


def rows(x: Node) -> Node:
    """(time, batch, k) as (time * batch, k)."""
    return reshape(x, (product(x.shape[:2]), x.shape[2]))
