"""Reverse mode: from a Node to its gradients, as Nodes.

The rule of each op is with the op; here they are chained. Broadcasting is undone once for all: a
gradient wider than its operand is summed to the operand's shape. Gradient Nodes carry the scope of
the Node that they belong to.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from nnjit.errors import DTypeError, GraphError, ShapeError
from nnjit.graph import Node, current_scope, enter, siblings, walk
from nnjit.ops.join import full_like
from nnjit.ops.reduce import sum_to
from nnjit.spec import FLOATS, computed_as


def gradients(output: Node, wrt: Sequence[Node], cotangent: Node | None = None) -> list[Node]:
    """d(output)/d(each of wrt), weighted with `cotangent` (default ones: the sum of output).

    Zeros where output does not depend on one of wrt. Only paths that lead from wrt to output are
    differentiated, so what is not asked for costs nothing.
    """
    for x in (output, *wrt):
        if x.dtype not in FLOATS:
            raise DTypeError(f"gradients: {x!r} is not floating point")
    if cotangent is None:
        cotangent = full_like(output, 1)
    elif cotangent.spec != output.spec:
        raise ShapeError(f"gradients: cotangent {cotangent.spec} for an output {output.spec}")
    found = pull_back({output: cotangent}, wrt)
    return [full_like(x, 0) if g is None else g for x, g in zip(wrt, found, strict=True)]


def is_float(x: Node) -> bool:
    """Whether x may have a gradient; that of a bfloat16 value is float32."""
    return computed_as(x.dtype) in FLOATS


def pull_back(cotangents: Mapping[Node, Node], wrt: Sequence[Node]) -> list[Node | None]:
    """Gradients of wrt from those of several outputs, added up; None where there is none."""
    return _backward(cotangents, wrt, through=True)


def _backward(
    cotangents: Mapping[Node, Node], wrt: Sequence[Node], through: bool
) -> list[Node | None]:
    """Gradients of wrt, None where there is none; `through`: paths may lead through a wrt."""
    targets = set(wrt)
    order = _between(cotangents, targets, through)
    families = siblings(order)
    total: dict[Node, Node] = dict(cotangents)
    for node in reversed(order):
        # of a family the first in order comes last here: then every gradient has arrived
        members = [n for n in families.get(node, [node]) if n in total]
        if families.get(node, [node])[0] is not node or not members:
            continue
        if node in targets and not through:
            continue
        outer = current_scope()
        with enter(replace(outer, name=node.scope)):
            pulled = _pull(members, [total[n] for n in members])
            for x, g in zip(node.inputs, pulled, strict=True):
                if g is None:
                    continue
                g = sum_to(g, x.shape)
                if g.spec != x.spec.with_dtype(computed_as(x.dtype)):
                    raise GraphError(f"gradient of {node!r}: {g.spec} for {x.spec}")
                total[x] = total[x] + g if x in total else g
    return [total.get(x) for x in wrt]


def _between(outputs: Iterable[Node], targets: set[Node], through: bool) -> list[Node]:
    """Nodes on a path from targets to outputs that have inputs on such a path, inputs first."""
    active = set(targets)
    order = []
    for node in walk(outputs):
        inside = node in targets and not through
        if not inside and is_float(node) and any(x in active for x in node.inputs):
            active.add(node)
            order.append(node)
    return order


def _pull(members: Sequence[Node], dys: Sequence[Node]) -> Sequence[Node | None]:
    """The gradient of each input of a Node or a family; None for those that have none."""
    node, dy = members[0], dys[0]
    if node.op.family_grad is not None:
        found = node.op.family_grad(members, dys)
        return [g if is_float(x) else None for x, g in zip(node.inputs, found, strict=True)]
    if node.op.grad is not None:
        return [
            g if is_float(x) else None
            for x, g in zip(node.inputs, node.op.grad(node, dy), strict=True)
        ]
    if node.op.expand is not None:
        whole = node.op.expand(*node.inputs, **node.attrs)
        found = _backward({whole: dy}, list(dict.fromkeys(node.inputs)), through=False)
        once = dict(zip(dict.fromkeys(node.inputs), found, strict=True))
        return [once.pop(x, None) for x in node.inputs]
    raise GraphError(f"{node!r} in {node.scope!r} has no gradient")
