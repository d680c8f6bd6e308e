"""Axis maps: which loop each axis of a value runs along.

A map gives, for each axis of a Node, the domain axis of the loops that it follows, -1 where its
extent is 1. Views that rename axes only change maps.
"""

from __future__ import annotations

from collections.abc import Sequence

from nnjit.compiler.groups import Group
from nnjit.graph import Node
from nnjit.spec import Dim

POINTWISE = ("elementwise", "index", "random")
INDEX_VIEWS = ("slice", "pad", "flip")  # read a buffer at computed indices
AXIS_VIEWS = ("transpose", "broadcast_to")  # rename axes


def identity_map(shape: Sequence[Dim]) -> tuple[int, ...]:
    """Each axis is its own domain axis; an extent of 1 has none."""
    return tuple(-1 if d == 1 else i for i, d in enumerate(shape))


def unit_axes(n: Node) -> tuple[int, ...] | None:
    """For a reshape that only adds or drops axes of extent 1: the output axis of each input axis
    (-1: dropped).
    """
    if n.op.name != "reshape":
        return None
    source, target = n.inputs[0].shape, n.shape
    real = [i for i, d in enumerate(target) if d != 1]
    kept = [d for d in source if d != 1]
    if kept != [target[i] for i in real]:
        return None
    position = iter(real)
    return tuple(next(position) if d != 1 else -1 for d in source)


def input_maps(n: Node, axes: Sequence[int], inner: Sequence[int]) -> list[tuple[int, ...]]:
    """The axis map of each input of n, when n itself has this one; `inner` are the domain's reduced
    axes.
    """
    if n.op.kind == "random":
        return [(-1,)]  # (seed, step), read once
    if n.op.kind in POINTWISE:
        return [broadcast_map(x, n, axes) for x in n.inputs]
    x = n.inputs[0]
    if n.op.name == "transpose":
        out = [0] * x.rank
        for position, source in enumerate(n.attrs["perm"]):
            out[source] = axes[position]
        return [tuple(out)]
    if n.op.name == "broadcast_to":
        return [broadcast_map(x, n, axes)]
    if n.op.name == "reshape":
        target = unit_axes(n)
        assert target is not None
        return [tuple(axes[t] if t >= 0 else -1 for t in target)]
    if n.op.kind == "reduce":
        return [reduce_map(n, axes, inner)]
    raise AssertionError(n)


def broadcast_map(x: Node, n: Node, axes: Sequence[int]) -> tuple[int, ...]:
    """NumPy's rule: axes align on the right, an extent of 1 is repeated."""
    lead = n.rank - x.rank
    return tuple(-1 if d == 1 else axes[lead + i] for i, d in enumerate(x.shape))


def reduced_axes(n: Node) -> tuple[int, ...]:
    """The axes that a reduce Node sums over."""
    return n.attrs["axes"] if "axes" in n.attrs else (n.attrs["axis"],)


def reduce_map(n: Node, axes: Sequence[int], inner: Sequence[int]) -> tuple[int, ...]:
    gone, rank = reduced_axes(n), n.inputs[0].rank
    kept = iter(range(rank) if n.attrs["keepdims"] else range(n.rank))
    out, reduced = [], iter(inner)
    for axis, d in enumerate(n.inputs[0].shape):
        if axis in gone:
            out.append(next(reduced) if d != 1 else -1)
            if n.attrs["keepdims"]:
                next(kept)
        else:
            out.append(axes[next(kept)])
    return tuple(out)


def is_row_reduce(n: Node) -> bool:
    """A reduction over the last axes, with something before them: fused into loops over rows."""
    if n.op.kind != "reduce":
        return False
    x, gone = n.inputs[0], reduced_axes(n)
    trailing = gone == tuple(range(x.rank - len(gone), x.rank))
    return trailing and any(d != 1 for d in x.shape[: x.rank - len(gone)])


def use_map(n: Node, u: Node, g: Group) -> tuple[int, ...] | None:
    """The axis map of n as its user u in g reads it; None where u reads it in two ways."""
    inner = range(len(g.domain) - g.inner, len(g.domain))
    if g.kind == "sink" and u.op.kind == "reduce":
        return tuple(-1 if d == 1 else i for i, d in enumerate(n.shape))
    maps = input_maps(u, g.nodes[u], tuple(i for i in inner if g.domain[i] != 1))
    found = {m for x, m in zip(u.inputs, maps, strict=True) if x is n}
    return found.pop() if len(found) == 1 else None
