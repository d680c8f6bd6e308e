"""The passes from a whole step as written to the graph that is lowered. Each is Graph -> Graph.

None changes a result by more than rounding; `PASSES` is their order.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import replace

from nnjit.compiler.borders import crop_dead_borders
from nnjit.compiler.patterns import mask_before_unpool
from nnjit.compiler.reshapes import lift_over_reshapes
from nnjit.compiler.simplify import simplify
from nnjit.graph import CONSTANT, EXTENT, Graph, Node, current_scope, enter, rebuilt, rewrite

__all__ = ["PASSES", "expand", "prune", "share", "simplify"]

# a + b is b + a bit by bit; of maximum that is not true of +0 and -0.
COMMUTATIVE = ("add", "multiply", "equal", "not_equal", "logical_and", "logical_or")


def expand(graph: Graph) -> Graph:
    """Composites written out, until none is left; what they become keeps their scope."""

    def rule(node: Node, inputs: tuple[Node, ...]) -> Node:
        if node.op.expand is None:
            return rebuilt(node, inputs)
        with enter(replace(current_scope(), name=node.scope)):
            return node.op.expand(*inputs, **node.attrs)

    while any(n.op.expand is not None for n in graph.nodes()):
        graph = rewrite(graph, rule)
    return graph


def share(graph: Graph) -> Graph:
    """Equal subexpressions become one Node, the first; random ops too, which are pure functions."""
    known: dict[Hashable, Node] = {}
    new: dict[Node, Node] = {}
    for node in graph.nodes():
        inputs = tuple(new[x] for x in node.inputs)
        new[node] = known.setdefault(_key(node, inputs), rebuilt(node, inputs))
    return Graph(
        graph.name,
        {name: new[n] for name, n in graph.outputs.items()},
        {leaf: new[n] for leaf, n in graph.updates.items()},
    )


def _key(node: Node, inputs: tuple[Node, ...]) -> Hashable:
    """What two Nodes must have in common to be the same value."""
    if node.op is CONSTANT:
        value = node.attrs["value"]
        return CONSTANT, value.dtype.name, value.shape, value.tobytes()
    if node.op is EXTENT:
        return EXTENT, node.attrs["dim"], node.spec
    if node.is_leaf or node.op.kind == "call":
        return node
    attrs = tuple(sorted((k, repr(v)) for k, v in node.attrs.items()))
    operands = [id(x) for x in inputs]
    if node.op.name in COMMUTATIVE:
        operands.sort()
    return node.op, tuple(operands), attrs, node.spec


def prune(graph: Graph) -> Graph:
    """Updates that leave their leaf as it is are dropped, and with them what only they needed."""
    kept = {leaf: value for leaf, value in graph.updates.items() if value is not leaf}
    return Graph(graph.name, dict(graph.outputs), kept)


PASSES: list[Callable[[Graph], Graph]] = [
    expand,
    simplify,
    share,
    mask_before_unpool,
    lift_over_reshapes,
    share,
    crop_dead_borders,
    prune,
]
