"""Elementwise Nodes and reductions move above a reshape, to the contraction before it.

A Dense layer on (batch, time, features) is a product of (batch * time, features) and a reshape.
What follows the reshape elementwise is done on the product's own rows: bias, activation, residual
and normalisation then share its loops, and the chain runs on one matrix. The reshape itself is
another name for a buffer, so moving it costs nothing.
"""

from __future__ import annotations

from nnjit.compiler.maps import POINTWISE, reduced_axes, unit_axes
from nnjit.graph import PARAMETER, STATE, Graph, Node, rebuilt, users
from nnjit.ops.view import reshape
from nnjit.spec import Dim, product

Shape = tuple[Dim, ...]
JOINED = ("contraction", "elementwise", "reduce")  # what an elementwise Node can share loops with


def lift_over_reshapes(graph: Graph) -> Graph:
    """The graph with f(reshape(x), y) as reshape(f(x, reshape(y))), as far down as it goes."""
    return Lift(graph).run()


class Lift:
    """The state of the pass: the new Node of each Node so far."""

    def __init__(self, graph: Graph):
        self.graph = graph
        self.nodes = graph.nodes()
        self.users = users(self.nodes)
        self.pinned = pinned(self.nodes, self.users)
        self.new: dict[Node, Node] = {}
        self.gone: set[Node] = set()  # computed in another shape, so that nobody needs them here

    def run(self) -> Graph:
        for n in self.nodes:
            self.new[n] = n if n.is_leaf else self.rule(n)
        return Graph(
            self.graph.name,
            {name: self.new[n] for name, n in self.graph.outputs.items()},
            {leaf: self.new[n] for leaf, n in self.graph.updates.items()},
        )

    def rule(self, n: Node) -> Node:
        inputs = tuple(self.new[x] for x in n.inputs)
        plain = rebuilt(n, inputs)
        if n in self.pinned or n.op.kind not in ("elementwise", "reduce"):
            return plain
        whole = n.shape if n.op.kind == "elementwise" else n.inputs[0].shape
        for x in inputs:
            if x.op.name != "reshape" or x.shape != whole or unit_axes(x) is not None:
                continue
            if x.inputs[0].op.kind not in JOINED:
                continue
            lifted = self.lifted(n, whole, x.inputs[0].shape)
            if lifted is not None:
                return lifted
        return plain

    def lifted(self, n: Node, whole: Shape, target: Shape) -> Node | None:
        """n computed where `whole` is called `target`, and renamed back."""
        if n.op.kind == "reduce":
            return self.lifted_reduction(n, whole, target)
        inputs = [self.placed(x, n, whole, target) for x in n.inputs]
        if any(x is None for x in inputs):
            return None
        spec = n.spec.with_shape(target)
        return renamed(Node(n.op, tuple(inputs), n.attrs, spec, n.scope), n.shape)  # type: ignore[arg-type]

    def lifted_reduction(self, n: Node, whole: Shape, target: Shape) -> Node | None:
        lead = merged_axes(whole, target)
        axes, name = reduced_axes(n), n.op.name
        if len(axes) == len(whole) and not name.startswith("arg"):
            inside = tuple(range(len(target)))
        elif lead and all(a >= lead for a in axes):
            inside = tuple(a - lead + 1 for a in axes)
        elif lead and set(range(lead)) <= set(axes) and not name.startswith("arg"):
            inside = (0, *(a - lead + 1 for a in axes if a >= lead))
        else:
            return None
        attrs = dict(n.attrs) | ({"axes": inside} if "axes" in n.attrs else {"axis": inside[0]})
        x = self.placed(n.inputs[0], n, whole, target)
        assert x is not None
        return renamed(Node(n.op, (x,), attrs, n.op.rule(x.spec, **attrs), n.scope), n.shape)

    def placed(self, x: Node, user: Node, whole: Shape, target: Shape) -> Node | None:
        """The operand x as it stands beside `target`; None where it has no such form."""
        y = self.new[x]
        if x.spec.size == 1:
            return y if x.rank <= len(target) else renamed(y, ())
        if x.shape == whole:
            if y.op.name == "reshape" and y.inputs[0].shape == target:
                return y.inputs[0]
            free = all(u not in self.new or u in self.gone for u in self.users[x])
            if free and x.op.kind in POINTWISE and x not in self.pinned:
                self.gone.add(x)
                moved = self.moved(x, whole, target)
                if moved is not None:
                    self.new[x] = renamed(moved, whole)
                    return moved
                self.gone.discard(x)
            return renamed(y, target)
        lead = merged_axes(whole, target)
        if not lead:
            return None
        shape = (1,) * (len(whole) - x.rank) + x.shape
        if shape[:lead] == whole[:lead]:
            return renamed(y, (target[0], *shape[lead:]))
        if all(d == 1 for d in shape[:lead]):
            return renamed(y, shape[lead:]) if x.rank > len(whole) - lead else y
        return None

    def moved(self, x: Node, whole: Shape, target: Shape) -> Node | None:
        """An elementwise x computed in the other shape."""
        if x.op.kind == "random":
            spec = x.spec.with_shape(target)
            return Node(x.op, x.inputs, {**x.attrs, "shape": target}, spec, x.scope)
        if x.op.kind == "index":
            axis = x.attrs["axis"] - merged_axes(whole, target) + 1
            if not merged_axes(whole, target) or axis < 1:
                return None
            attrs = {**x.attrs, "shape": target, "axis": axis}
            return Node(x.op, (), attrs, x.spec.with_shape(target), x.scope)
        inputs = [self.placed(z, x, whole, target) for z in x.inputs]
        if any(z is None for z in inputs):
            return None
        return Node(x.op, tuple(inputs), x.attrs, x.spec.with_shape(target), x.scope)  # type: ignore[arg-type]


def merged_axes(whole: Shape, target: Shape) -> int:
    """How many first axes of `whole` are one of `target`, the others being the same; else 0."""
    tail = len(target) - 1
    lead = len(whole) - tail
    if tail < 0 or lead < 2 or whole[lead:] != target[1:] or product(whole[:lead]) != target[0]:
        return 0
    return lead


def renamed(x: Node, shape: Shape) -> Node:
    """x under another shape; reshapes of reshapes are one."""
    while x.op.name == "reshape":
        x = x.inputs[0]
    return x if x.shape == tuple(shape) else reshape(x, shape)


def pinned(nodes: list[Node], readers: dict[Node, list[Node]]) -> set[Node]:
    """Elementwise Nodes that stay: those on whole parameters or state, and what only they read.

    An optimizer's update runs over a parameter as it lies, whatever shape its gradient came in.
    """
    out: set[Node] = set()
    for n in nodes:
        if n.op.kind == "elementwise" and n.rank:
            whole = [x for x in n.inputs if x.shape == n.shape]
            if any(x in out or x.op in (PARAMETER, STATE) for x in whole):
                out.add(n)
    for n in reversed(nodes):
        if n.op.kind == "elementwise" and readers[n] and all(u in out for u in readers[n]):
            out.add(n)
    return out
