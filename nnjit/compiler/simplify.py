"""Rules that replace a Node by a cheaper one of the same spec and value.

Each rule takes a Node whose inputs are simplified already, and returns another Node or None. Values
stay equal, up to the sign of zero and, for folded constants and sums in another order, rounding.
What would hide a NaN or an infinity (x * 0 -> 0, x - x -> 0) is never done.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from nnjit.compiler import transposes
from nnjit.errors import GraphError
from nnjit.graph import (
    CONSTANT,
    Graph,
    Meaning,
    Node,
    constant,
    current_scope,
    enter,
    rebuilt,
    rewrite,
)
from nnjit.ops.base import OPS
from nnjit.ops.view import broadcast_to, flip, reshape, transpose
from nnjit.spec import FLOATS, Dim, Extent

Rule = Callable[[Node], Node | None]


def simplify(graph: Graph) -> Graph:
    """The graph with the rules applied until none applies."""
    settled: set[Node] = set()  # those to which no rule applies
    changed = True
    while changed:
        changed = False

        def step(node: Node, inputs: tuple[Node, ...]) -> Node:
            nonlocal changed
            node = rebuilt(node, inputs)
            better = node if node in settled else simpler(node)
            changed |= better is not node
            settled.add(better)
            return better

        graph = rewrite(graph, step)
    return graph


def simpler(node: Node) -> Node:
    """The Node after the first rules that apply to it, again until none does."""
    while not node.is_leaf:
        with enter(replace(current_scope(), name=node.scope)):
            found = _first(node)
        if found is None:
            break
        if found.spec != node.spec:
            raise GraphError(f"simplify made {found!r} of {node!r}")
        node = found
    return node


def _first(node: Node) -> Node | None:
    """What the first rule that applies makes of the Node."""
    for rule in (fold, *BY_OP.get(node.op.name, ()), *BY_KIND.get(node.op.kind, ())):
        found = rule(node)
        if found is not None:
            return found
    return None


# --------------------------------------------------------------------------------------- constants
def fold(node: Node) -> Node | None:
    """An op of constants becomes a constant, unless that would be larger than they are."""
    if not node.inputs or any(x.op is not CONSTANT for x in node.inputs):
        return None
    largest = max(x.attrs["value"].size for x in node.inputs)
    size = node.spec.size
    if isinstance(size, Extent) or size > largest or node.op.kind not in FOLDED:
        return None
    if node.dtype == "bfloat16":  # no constant has this dtype
        return None
    meaning = Meaning(node.shape, node.dtype, {})  # type: ignore[arg-type]
    with np.errstate(all="ignore"):
        value = node.op.numpy(meaning, *(x.attrs["value"] for x in node.inputs), **node.attrs)  # type: ignore[misc]
    return constant(np.asarray(value).astype(node.dtype))


FOLDED = ("elementwise", "view", "reduce")


def is_number(x: Node, number: float) -> bool:
    """Whether x is a constant that is this number everywhere."""
    if x.op is not CONSTANT:
        return x.op.name == "broadcast_to" and is_number(x.inputs[0], number)
    value = x.attrs["value"]
    return bool(value.size and (value == number).all())


# -------------------------------------------------------------------------------------- arithmetic
def _neutral(number: float, *sides: int) -> Rule:
    """x op number -> x, where the number stands on one of these sides."""

    def rule(node: Node) -> Node | None:
        for side in sides:
            other = node.inputs[1 - side]
            if is_number(node.inputs[side], number) and other.spec == node.spec:
                return other
        return None

    return rule


def _negated(node: Node) -> Node | None:
    """x * -1 -> -x."""
    for side in (0, 1):
        other = node.inputs[1 - side]
        if is_number(node.inputs[side], -1) and other.spec == node.spec:
            return OPS["negative"](other)
    return None


def _zero_minus(node: Node) -> Node | None:
    """0 - x -> -x."""
    zero, x = node.inputs
    return OPS["negative"](x) if is_number(zero, 0) and x.spec == node.spec else None


def _twice(node: Node) -> Node | None:
    """op(op(x)) -> x."""
    (x,) = node.inputs
    return x.inputs[0] if x.op is node.op else None


def _same_branches(node: Node) -> Node | None:
    """where with a constant condition, or with one value for both branches."""
    condition, a, b = node.inputs
    for known, branch in ((1, a), (0, b)):
        if branch.spec == node.spec and (a is b or is_number(condition, known)):
            return branch
    return None


def _cast(node: Node) -> Node | None:
    """A cast to the same dtype; a cast of a cast of something that both hold exactly."""
    (x,) = node.inputs
    if x.dtype == node.dtype:
        return x
    if x.op.name != "cast":
        return None
    if x.inputs[0].spec == node.spec and node.dtype == "bfloat16" and x.dtype in FLOATS:
        return x.inputs[0]
    if x.inputs[0].dtype in ("bool", "uint8") and x.dtype not in ("bool", "bfloat16"):
        return OPS["cast"](x.inputs[0], dtype=node.dtype)
    return None


def _pass(node: Node) -> Node | None:
    """stop_gradient has done its work."""
    return node.inputs[0]


# ------------------------------------------------------------------------------------------- views
def _same_spec(node: Node) -> Node | None:
    """A reshape, cast or broadcast to what the value already is."""
    (x,) = node.inputs
    return x if x.spec == node.spec else None


def _last_wins(node: Node) -> Node | None:
    """reshape(reshape(x)), broadcast_to(broadcast_to(x)): only the last shape matters."""
    (x,) = node.inputs
    return node.op(x.inputs[0], shape=node.shape) if x.op is node.op else None


def _transpose(node: Node) -> Node | None:
    (x,) = node.inputs
    perm = node.attrs["perm"]
    if x.op is node.op:
        return transpose(x.inputs[0], [x.attrs["perm"][p] for p in perm])
    moving = [p for p in perm if x.shape[p] != 1]
    return reshape(x, node.shape) if moving == sorted(moving) else None


def _whole(node: Node) -> Node | None:
    """A slice of everything."""
    (x,) = node.inputs
    a = node.attrs
    cuts = zip(a["starts"], a["stops"], a["steps"], x.shape, strict=True)
    whole = all(start == 0 and stop == d and step == 1 for start, stop, step, d in cuts)
    return x if whole else None


def _no_widths(node: Node) -> Node | None:
    """A pad by nothing."""
    return node.inputs[0] if not any(map(any, node.attrs["widths"])) else None


def _flip(node: Node) -> Node | None:
    """Two flips of an axis undo each other; an axis of extent 1 need not be flipped."""
    (x,) = node.inputs
    axes = {a for a in node.attrs["axes"] if node.shape[a] != 1}
    if x.op is node.op:
        return _flipped(x.inputs[0], axes ^ set(x.attrs["axes"]))
    return _flipped(x, axes) if len(axes) < len(node.attrs["axes"]) else None


def _flipped(x: Node, axes: set[int]) -> Node:
    return flip(x, sorted(axes)) if axes else x


def _joined(node: Node) -> Node | None:
    """A concatenation of one value; parts of extent 0."""
    axis = node.attrs["axis"]
    parts = [x for x in node.inputs if x.shape[axis] != 0] or [node.inputs[0]]
    if len(parts) == 1:
        return parts[0]
    return node.op(*parts, axis=axis) if len(parts) < len(node.inputs) else None


def _leading_ones(node: Node) -> Node | None:
    """broadcast_to(reshape(x)) where the reshape only writes out what broadcasting implies."""
    x = _without_leading_ones(node.inputs[0])
    return broadcast_to(x, node.shape) if x is not node.inputs[0] else None


def _not_repeated(node: Node) -> Node | None:
    """broadcast_to that repeats nothing is a reshape."""
    (x,) = node.inputs
    return reshape(x, node.shape) if x.spec.size == node.spec.size and x.spec.size != 0 else None


def _without_leading_ones(x: Node) -> Node:
    if x.op.name == "reshape":
        inner = x.inputs[0]
        if x.shape == (1,) * (x.rank - inner.rank) + inner.shape:
            return inner
    return x


def _uniform(node: Node) -> Node | None:
    """A view of one number repeated is that number repeated."""
    (x,) = node.inputs
    if x.op.name != "broadcast_to" or x.inputs[0].spec.size != 1:
        return None
    return broadcast_to(reshape(x.inputs[0], ()), node.shape)


def _transposed_operand(node: Node) -> Node | None:
    """A product of a transposed matrix reads it as it lies."""
    operands, attrs = list(node.inputs), dict(node.attrs)
    for k, flag in enumerate(("transpose_a", "transpose_b")):
        x = operands[k]
        last_two = (*range(x.rank - 2), x.rank - 1, x.rank - 2)
        if x.op.name == "transpose" and tuple(x.attrs["perm"]) == last_two:
            operands[k], attrs[flag] = x.inputs[0], not attrs[flag]
    return node.op(*operands, **attrs) if operands != list(node.inputs) else None


# ---------------------------------------------------------------------- elementwise and reductions
def _narrow(node: Node) -> Node | None:
    """Operands as they were before they were broadcast; the result is broadcast instead."""
    small = tuple(_stripped(x) for x in node.inputs)
    if all(a is b for a, b in zip(small, node.inputs, strict=True)):
        return None
    return broadcast_to(node.op(*small, **node.attrs), node.shape)


def _stripped(x: Node) -> Node:
    return _without_leading_ones(x.inputs[0] if x.op.name == "broadcast_to" else x)


def _of_one(node: Node) -> Node | None:
    """A sum, product or extreme over axes of extent 1, or over none."""
    (x,) = node.inputs
    ones: list[Dim] = [x.shape[a] for a in node.attrs["axes"]]
    return reshape(x, node.shape) if all(d == 1 for d in ones) else None


BY_OP: dict[str, list[Rule]] = {
    "add": [_neutral(0, 0, 1), transposes.added],
    "subtract": [_neutral(0, 1), _zero_minus],
    "multiply": [_neutral(1, 0, 1), _negated],
    "divide": [_neutral(1, 1)],
    "negative": [_twice],
    "logical_not": [_twice],
    "where": [_same_branches],
    "cast": [_cast],
    "stop_gradient": [_pass],
    "reshape": [_same_spec, _last_wins, _uniform],
    "transpose": [_transpose, transposes.rows_in_order, _uniform],
    "scatter_rows": [transposes.rows_as_they_lie],
    "slice": [_whole, _uniform, transposes.cut],
    "pad": [_no_widths],
    "flip": [_flip, _uniform],
    "matmul": [_transposed_operand],
    "concatenate": [_joined, transposes.joined],
    "broadcast_to": [_same_spec, _last_wins, _not_repeated, _leading_ones],
    **{name: [_of_one] for name in ("sum", "prod", "max", "min")},
}
BY_KIND: dict[str, list[Rule]] = {"elementwise": [_narrow]}
