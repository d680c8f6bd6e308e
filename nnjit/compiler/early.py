"""Values that are better computed where their input is made than where they are read.

The gradient of x * f(x) needs f'(x), and computes f once more from x, which is kept for that alone:
GELU's normal_cdf, SiLU's sigmoid. Computed beside f(x), f'(x) shares its expensive part, and is
kept instead of x: as much memory, half of the work.
"""

from __future__ import annotations

from collections.abc import Sequence

from nnjit.graph import Node

EXPENSIVE = (
    "exp", "expm1", "log", "log1p", "tanh", "sigmoid", "softplus", "erf", "normal_cdf",
    "normal_pdf", "sin", "cos", "power",
)  # fmt: skip


def early(
    nodes: Sequence[Node], readers: dict[Node, list[Node]], heads: Sequence[str]
) -> tuple[list[Node], dict[Node, list[Node]]]:
    """The Nodes in an order in which such values, and what only they need, stand right before a
    Node that shares their expensive part; and for each such Node the values.

    heads: the ops after which everything elementwise can be computed at once.
    """
    found: dict[Node, list[Node]] = {}
    moved: dict[Node, Node] = {}
    source = sources(nodes, heads)
    position = {n: i for i, n in enumerate(nodes)}
    for n in nodes:
        if source.get(n) is None or any(source.get(u) is source[n] for u in readers[n]):
            continue  # nothing follows n that belongs to the same head, so it is kept
        below = inside(n, source)
        beside = partner(below, readers, source, n)
        if beside is None or position[beside] > min(position[u] for u in readers[n]):
            continue
        if any(m in moved for m in below):
            continue
        found.setdefault(beside, []).append(n)
        own = {n}
        for m in sorted(below - {n}, key=position.__getitem__, reverse=True):
            if all(u in own for u in readers[m]):
                own.add(m)
        moved |= dict.fromkeys(own, beside)
    return reordered(nodes, moved), found


def sources(nodes: Sequence[Node], heads: Sequence[str]) -> dict[Node, Node | None]:
    """For each elementwise Node, the one head that it follows, all its other operands being
    smaller; None where it reads anything else of its size.
    """
    out: dict[Node, Node | None] = {}
    for n in nodes:
        if n.op.name in heads:
            out[n] = n
        elif n.op.name == "cast" and n.inputs[0].dtype == "bfloat16":
            out[n] = None  # read from memory
        elif n.op.kind == "elementwise":
            whole = {out.get(x) for x in n.inputs if x.shape == n.shape and x.spec.size != 1}
            others = [x for x in n.inputs if x.shape != n.shape and not x.is_leaf]
            out[n] = whole.pop() if len(whole) == 1 and not others else None
    return out


def inside(n: Node, source: dict[Node, Node | None]) -> set[Node]:
    """n and the elementwise Nodes between it and its head."""
    found, stack = {n}, [n]
    while stack:
        for x in stack.pop().inputs:
            if x not in found and x is not source[n] and source.get(x) is source[n]:
                found.add(x)
                stack.append(x)
    return found


def partner(
    below: set[Node], readers: dict[Node, list[Node]], source: dict[Node, Node | None], n: Node
) -> Node | None:
    """A Node of the same head that is kept as well and needs an expensive Node of n's; None if
    anything else reads what is below n, which then is kept anyway.
    """
    out = None
    head = source[n]
    assert head is not None
    for m in (below | {head}) - {n}:
        for u in readers[m]:
            if u in below:
                continue
            if source.get(u) is not head:
                return None
            if m is not head and any(x.op.name in EXPENSIVE for x in inside(m, source)):
                out = u
    return out


def reordered(nodes: Sequence[Node], moved: dict[Node, Node]) -> list[Node]:
    """The Nodes with each of `moved` right before its partner."""
    waiting: dict[Node, list[Node]] = {}
    for n in nodes:
        if n in moved:
            waiting.setdefault(moved[n], []).append(n)
    return [m for n in nodes if n not in moved for m in (*waiting.get(n, ()), n)]
