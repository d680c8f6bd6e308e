"""dtype_policy: in which precision the products of a step are taken.

"mixed_bfloat16": the operands of matrix products and convolutions are rounded to bfloat16, forward
and backward; products are added up in float32, and so are all other values: weights, optimizer
slots, normalisations, softmax and attention, recurrences, losses and metrics. What a device stores
in 16 bits beyond that is its own affair (`compiler.halves`).
"""

from __future__ import annotations

from nnjit.errors import ArgumentError, nearest
from nnjit.graph import Graph, Node, rebuilt, rewrite
from nnjit.ops.base import OPS

POLICIES = ("float32", "mixed_bfloat16")
PRODUCTS = ("matmul", "conv2d", "conv2d_dx", "conv2d_dw")
MOVES = ("reshape", "transpose", "broadcast_to")  # they move 16 bits where what follows takes them
EXACT = ("loss", "metrics", "optimizer")  # scopes of a step that stay float32 as a whole


def check_policy(policy: str) -> str:
    """The policy, or an ArgumentError with the nearest name."""
    if policy not in POLICIES:
        raise ArgumentError(f"dtype_policy={policy!r}{nearest(policy, POLICIES)}")
    return policy


def with_policy(graph: Graph, policy: str) -> Graph:
    """The step in this precision; every float32 result keeps its dtype."""
    return graph if policy == "float32" else Rounding().rewritten(graph)


def takes_bfloat16(n: Node) -> bool:
    """Is n a product whose operands are rounded? Float64 ones and grouped convolutions are not."""
    if n.op.name not in PRODUCTS or n.inputs[0].dtype != "float32":
        return False
    return n.attrs.get("groups", 1) == 1 and n.scope.partition("/")[0] not in EXACT


class Rounding:
    """The bfloat16 form of each value that a product reads; one, however many read it."""

    def __init__(self) -> None:
        self.known: dict[Node, Node] = {}

    def rewritten(self, graph: Graph) -> Graph:
        def rule(n: Node, inputs: tuple[Node, ...]) -> Node:
            if not takes_bfloat16(n):
                return rebuilt(n, inputs)
            return Node(
                n.op, tuple(self.half(x, n.scope) for x in inputs), n.attrs, n.spec, n.scope
            )

        return rewrite(graph, rule)

    def half(self, x: Node, scope: str) -> Node:
        """x rounded to bfloat16, before it is moved."""
        if x not in self.known:
            spec = x.spec.with_dtype("bfloat16")
            if x.op.name in MOVES:
                found = Node(x.op, (self.half(x.inputs[0], scope),), x.attrs, spec, x.scope)
            else:
                found = Node(OPS["cast"], (x,), {"dtype": "bfloat16"}, spec, x.scope or scope)
            self.known[x] = found
        return self.known[x]
