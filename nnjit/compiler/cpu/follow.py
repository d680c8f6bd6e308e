"""What of the Nodes after a contraction its tile does in registers: bias, ReLU, its mask, a factor,
a residual, the rounding to bfloat16. The rest is left for the tail.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from nnjit.compiler.cpu.values import Key, Values
from nnjit.compiler.groups import Group
from nnjit.graph import CONSTANT, Node

if TYPE_CHECKING:
    from nnjit.compiler.cpu.lower import Lowering


@dataclass
class Follow:
    """What follows a contraction: the in-register part and the Nodes that are left for the tail."""

    current: Node  # what y holds when the tile stores it
    bias: Key | None = None
    final: str = "store"
    operand: Key | None = None  # of the final: mask or residual
    rest: list[Node] = field(default_factory=list)


def analyse(low: Lowering, group: Group, head: Node, values: Values, beside: bool = True) -> Follow:
    """Take bias, ReLU, its mask, a factor and a residual out of the Nodes that follow the head, and
    the rounding to bfloat16 if nothing else is left. beside: whether to take what reads a value
    laid out like the result.
    """
    stored_nodes = set(low.materialised(group, [head]))
    follow = Follow(head)
    nodes = list(values.nodes)

    def only_user(n: Node) -> Node | None:
        inside = [u for u in nodes for k in values.keys[u] if k is n]
        return inside[0] if len(inside) == 1 and n not in stored_nodes else None

    def step(n: Node) -> None:
        follow.current = n
        nodes.remove(n)

    last = {len(group.domain) - 1}
    u = only_user(head)
    if u is not None and u.op.name == "add":
        other = next(k for k in values.keys[u] if k is not head)
        if isinstance(other, tuple) and {a for a in other[1] if a >= 0} == last:
            follow.bias = other
            step(u)

    def operand(key: Key) -> Key | None:
        """A value in memory that the tile reads beside its result; its widening is left out."""
        wide = key if isinstance(key, Node) and key in nodes and key.op.name == "cast" else None
        if wide is not None and wide.inputs[0].dtype == "bfloat16" and only_user(wide) is not None:
            key = values.keys[wide][0]
        fits = isinstance(key, tuple) and key[0].dtype in (head.dtype, "bfloat16")
        if not fits or not whole(key, group):
            return None
        if wide is not None:
            nodes.remove(wide)
        return key

    u = only_user(follow.current)
    if u is not None and u.op.name == "relu":
        follow.final = "relu"
        step(u)
    elif u is not None and beside and u.op.name == "add":
        follow.operand = operand(next(k for k in values.keys[u] if k is not follow.current))
        if follow.operand is not None:
            follow.final = "add"
            step(u)
            u = only_user(follow.current)
            if u is not None and u.op.name == "relu":
                follow.final = "add_relu"
                step(u)
    elif u is not None and beside and u.op.name == "multiply" and head.op.name == "matmul":
        follow.operand = operand(next(k for k in values.keys[u] if k is not follow.current))
        if follow.operand is not None:
            follow.final = "mul"
            step(u)
    elif u is not None and beside and u.op.name == "where" and not follow.bias:
        mask = relu_mask(u, follow.current, values)
        if mask is not None and only_user(u.inputs[0]) is u:
            follow.operand = operand(mask)
        if follow.operand is not None:
            follow.final = "mask"
            nodes.remove(u.inputs[0])
            step(u)
    if [(n.op.name, n.dtype) for n in nodes] == [("cast", "bfloat16")] and only_user(
        follow.current
    ) is nodes[0]:
        step(nodes[0])
    follow.rest = nodes
    return follow


def whole(key: Key, group: Group) -> bool:
    """Is this use laid out like the result?"""
    real = [i for i, d in enumerate(group.domain) if d != 1]
    return isinstance(key, tuple) and [a for a in key[1] if a >= 0] == real


def relu_mask(n: Node, current: Node, values: Values) -> Key | None:
    """The m of where(m > 0, current, 0)."""
    condition, yes, no = n.inputs
    zero = no.op is CONSTANT and no.attrs["value"].size == 1 and no.attrs["value"].item() == 0
    computed = condition in values.keys and condition.op.name == "greater"
    if not (zero and yes is current and computed):
        return None
    key, against = values.keys[condition]
    is_zero = (
        isinstance(against, Node) and against.op is CONSTANT and against.attrs["value"].item() == 0
    )
    return key if is_zero else None
