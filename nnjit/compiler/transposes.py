"""Rules of `simplify` that move a transpose behind what reads it, where it may meet its opposite.

Recurrent layers work time-major on values that are batch-major outside: between two of them, and
between an embedding and one, nothing is left of that.
"""

from __future__ import annotations

from nnjit.graph import Node
from nnjit.ops.view import transpose


def common(node: Node) -> tuple[int, ...] | None:
    """The order of axes, if all inputs are transposes by the same."""
    op, perm = node.inputs[0].op, node.inputs[0].attrs.get("perm")
    same = perm is not None and all(x.op is op and x.attrs["perm"] == perm for x in node.inputs)
    return perm if same else None


def rows_in_order(node: Node) -> Node | None:
    """Rows taken from a table and then transposed are taken in that order."""
    (x,) = node.inputs
    *order, last = node.attrs["perm"]
    if x.op.name != "take_rows" or last != x.rank - 1:
        return None
    table, index = x.inputs
    return x.op(table, transpose(index, order))


def rows_as_they_lie(node: Node) -> Node | None:
    """Rows that were transposed are added up in the order in which they lie."""
    index, dy = node.inputs
    if dy.op.name != "transpose" or dy.attrs["perm"][-1] != dy.rank - 1:
        return None
    back = [dy.attrs["perm"].index(axis) for axis in range(index.rank)]
    return node.op(transpose(index, back), dy.inputs[0], **node.attrs)


def joined(node: Node) -> Node | None:
    """A concatenation of values transposed alike is transposed afterwards."""
    perm = common(node)
    if perm is None:
        return None
    return transpose(
        node.op(*(x.inputs[0] for x in node.inputs), axis=perm[node.attrs["axis"]]), perm
    )


def added(node: Node) -> Node | None:
    """A sum of two values transposed alike is transposed afterwards."""
    perm = common(node)
    if perm is None or node.inputs[0].shape != node.inputs[1].shape:
        return None
    return transpose(node.op(*(x.inputs[0] for x in node.inputs)), perm)


def cut(node: Node) -> Node | None:
    """A part of a transposed value is cut first."""
    perm = common(node)
    if perm is None:
        return None
    back = [perm.index(axis) for axis in range(node.rank)]
    attrs = {k: tuple(v[axis] for axis in back) for k, v in node.attrs.items()}
    return transpose(node.op(node.inputs[0].inputs[0], **attrs), perm)
