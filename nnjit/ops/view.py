"""Ops that only say where elements stand: reshape, transpose, slice, flip, pad, broadcast_to.

Concatenation is in `join`, x[...] in `indexing`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nnjit.errors import ShapeError
from nnjit.graph import Node, constant
from nnjit.ops.base import OPS, as_node, fixed, view
from nnjit.ops.elementwise import equal, where
from nnjit.spec import (
    Dim,
    Extent,
    Spec,
    broadcast,
    divide,
    normal_axes,
    product,
    shape_text,
    symbol,
)

Triple = tuple[Dim, Dim, int]


# ----------------------------------------------------------------------------------------- reshape
def _reshape_rule(x: Spec, *, shape: tuple[Dim, ...]) -> Spec:
    if product(shape) != x.size:
        raise ShapeError(
            f"reshape: {shape_text(x.dims)} has {x.size} elements, "
            f"{shape_text(shape)} has {product(shape)}"
        )
    return x.with_shape(shape)


_reshape = view(
    "reshape", _reshape_rule, lambda m, x, shape: x.reshape(m.shape),
    lambda dy, y, x: reshape(dy, x.shape), "the elements, row-major, in another shape",
)  # fmt: skip


def reshape(x: Any, shape: Any) -> Node:
    """x in another shape; one entry may be -1."""
    x = as_node(x)
    dims = [_dim(d) for d in (shape if isinstance(shape, Sequence) else (shape,))]
    if dims.count(-1) > 1:
        raise ShapeError(f"reshape: {shape_text(dims)} has more than one -1")
    if -1 in dims:
        at = dims.index(-1)
        rest = divide(x.spec.size, product(dims[:at] + dims[at + 1 :]))
        if rest is None:
            raise ShapeError(
                f"reshape: {shape_text(x.shape)} has {x.spec.size} elements, "
                f"which do not fit into {shape_text(dims)}"
            )
        dims[at] = rest
    return x if tuple(dims) == x.shape else _reshape(x, shape=tuple(dims))


def _dim(d: Any) -> Dim:
    return d if isinstance(d, Extent) else symbol(d) if isinstance(d, str) else int(d)


def flatten(x: Any) -> Node:
    """(batch, everything else)."""
    x = as_node(x)
    return reshape(x, (x.shape[0], product(x.shape[1:])))


def expand_dims(x: Any, axis: int | Sequence[int]) -> Node:
    """x with axes of extent 1 inserted; `axis` counts in the result."""
    x = as_node(x)
    axes = (axis,) if isinstance(axis, int) else tuple(axis)
    places = normal_axes(axes, x.rank + len(axes), "expand_dims")
    rest = iter(x.shape)
    return reshape(x, [1 if i in places else next(rest) for i in range(x.rank + len(axes))])


def squeeze(x: Any, axis: int | Sequence[int] | None = None) -> Node:
    """x without axes of extent 1: the given ones, or all."""
    x = as_node(x)
    if axis is None:
        axis = [i for i, d in enumerate(x.shape) if d == 1]
    axes = normal_axes(axis, x.rank, "squeeze")
    for i in axes:
        if x.shape[i] != 1:
            raise ShapeError(f"squeeze: axis {i} of {shape_text(x.shape)} is not 1")
    return reshape(x, [d for i, d in enumerate(x.shape) if i not in axes])


# --------------------------------------------------------------------------------------- transpose
def _transpose_rule(x: Spec, *, perm: tuple[int, ...]) -> Spec:
    if sorted(perm) != list(range(x.rank)):
        raise ShapeError(f"transpose: axes {perm} are no order of the {x.rank} axes of {x}")
    return x.with_shape([x.dims[p] for p in perm])


_transpose = view(
    "transpose", _transpose_rule, lambda m, x, perm: x.transpose(perm),
    lambda dy, y, x: transpose(dy, [int(i) for i in np.argsort(y.attrs["perm"])]),
    "the axes in another order",
)  # fmt: skip


def transpose(x: Any, axes: Sequence[int] | None = None) -> Node:
    """x with its axes in this order; default: reversed."""
    x = as_node(x)
    perm = tuple(range(x.rank))[::-1] if axes is None else tuple(a + x.rank * (a < 0) for a in axes)
    return x if perm == tuple(range(x.rank)) and x.rank == len(perm) else _transpose(x, perm=perm)


def moveaxis(x: Any, source: int, to: int) -> Node:
    """x with one axis at another place."""
    x = as_node(x)
    (source,) = normal_axes(source, x.rank, "moveaxis")
    (to,) = normal_axes(to, x.rank, "moveaxis")
    order = [i for i in range(x.rank) if i != source]
    return transpose(x, [*order[:to], source, *order[to:]])


def swapaxes(x: Any, a: int, b: int) -> Node:
    """x with two axes exchanged."""
    x = as_node(x)
    order = list(range(x.rank))
    order[a], order[b] = order[b], order[a]
    return transpose(x, order)


# ------------------------------------------------------------------------------------- slice, flip
def _slice_rule(
    x: Spec, *, starts: tuple[Dim, ...], stops: tuple[Dim, ...], steps: tuple[int, ...]
) -> Spec:
    if not len(starts) == len(stops) == len(steps) == x.rank:
        raise ShapeError(f"slice: one start, stop and step per axis of {x} expected")
    out: list[Dim] = []
    for axis, (dim, a, b, step) in enumerate(zip(x.dims, starts, stops, steps, strict=True)):
        if (a, b, step) == (0, dim, 1):
            out.append(dim)
            continue
        # An extent is at least its factor (for symbols of 1 and more), and only that is safe.
        limit = dim.factor if isinstance(dim, Extent) else dim
        if isinstance(a, Extent) or isinstance(b, Extent) or not 0 <= a <= b <= limit or step < 1:
            raise ShapeError(f"slice: {a}:{b}:{step} on axis {axis} of {shape_text(x.dims)}")
        out.append(-(-(b - a) // step))
    return x.with_shape(out)


def _slice_numpy(m: Any, x: np.ndarray, starts: Any, stops: Any, steps: Any) -> np.ndarray:
    whole = (slice(None) if isinstance(b, Extent) else slice(a, b, s)
             for a, b, s in zip(starts, stops, steps, strict=True))  # fmt: skip
    return x[tuple(whole)]


def _slice_grad(dy: Node, y: Node, x: Node) -> Node:
    """Zeros around dy; on a run-time axis, where the zeros have no number, by comparing indices."""
    starts, steps = y.attrs["starts"], y.attrs["steps"]
    widths = []
    for axis, (dim, n) in enumerate(zip(x.shape, y.shape, strict=True)):
        if dim == n:
            widths.append((0, 0, 0))
        elif isinstance(dim, Extent):
            widths.append((0, 0, 0))
            dy = _placed(dy, axis, dim, range(starts[axis], y.attrs["stops"][axis], steps[axis]))
        else:
            n = fixed("slice", "its extent", n)
            span = (n - 1) * steps[axis] + 1 if n else 0
            first = starts[axis] if n else 0
            widths.append((first, dim - first - span, steps[axis] - 1 if n else 0))
    return pad(dy, widths)


def _placed(dy: Node, axis: int, dim: Extent, places: range) -> Node:
    """Elements of dy along an axis at places of a run-time axis, zeros elsewhere."""
    shape = (*dy.shape[:axis], dim, *dy.shape[axis + 1 :])
    here = OPS["iota"](shape=shape, axis=axis, dtype="int32")
    out = broadcast_to(constant(0, dy.dtype), shape)
    for i, place in enumerate(places):
        whole: list[Triple] = [(0, d, 1) for d in dy.shape]
        whole[axis] = (i, i + 1, 1)
        out = where(equal(here, place), cut(dy, whole), out)
    return out


_slice = view(
    "slice", _slice_rule, _slice_numpy, _slice_grad,
    "every step-th element of starts..stops, per axis; a run-time axis whole or its first elements",
)  # fmt: skip


def cut(x: Node, cuts: list[Triple]) -> Node:
    if all(c == (0, d, 1) for c, d in zip(cuts, x.shape, strict=True)):
        return x
    starts, stops, steps = zip(*cuts, strict=True)
    return _slice(x, starts=starts, stops=stops, steps=steps)


def _flip_rule(x: Spec, *, axes: tuple[int, ...]) -> Spec:
    normal_axes(axes, x.rank, "flip")
    return x


_flip = view(
    "flip", _flip_rule, lambda m, x, axes: np.flip(x, axes),
    lambda dy, y, x: flip(dy, y.attrs["axes"]), "elements in reverse order along axes",
)  # fmt: skip


def flip(x: Any, axis: int | Sequence[int] | None = None) -> Node:
    """x in reverse order along `axis` (one, several, default all)."""
    x = as_node(x)
    return _flip(x, axes=normal_axes(axis, x.rank, "flip"))


# --------------------------------------------------------------------------------------------- pad
def _pad_rule(x: Spec, *, widths: tuple[tuple[int, int, int], ...], value: float) -> Spec:
    if len(widths) != x.rank:
        raise ShapeError(f"pad: {len(widths)} widths for the {x.rank} axes of {x}")
    out: list[Dim] = []
    for axis, (dim, (low, high, interior)) in enumerate(zip(x.dims, widths, strict=True)):
        if (low + high, interior) == (0, 0) and (isinstance(dim, Extent) or low == 0):
            out.append(dim)
            continue
        if min(low, high, interior) < 0:
            raise ShapeError(f"pad: negative width {(low, high, interior)} on axis {axis} of {x}")
        n = fixed("pad", f"the extent of axis {axis}", dim)
        out.append(low + high + n + interior * max(n - 1, 0))
    return x.with_shape(out)


def _pad_numpy(m: Any, x: np.ndarray, widths: Any, value: float) -> np.ndarray:
    out = np.full(m.shape, value, x.dtype)
    source, target = [], []
    for n, size, (low, _, interior) in zip(x.shape, m.shape, widths, strict=True):
        first = max(-low, 0)
        stop = n if interior else max(min(n, size - low), first)
        start, count = low + first, stop - first
        source.append(slice(first, stop))
        target.append(slice(start, start + count + interior * max(count - 1, 0), interior + 1))
    out[tuple(target)] = x[tuple(source)]
    return out


def _pad_grad(dy: Node, y: Node, x: Node) -> Node:
    cuts: list[Triple] = []
    back = []
    for dim, (low, high, interior) in zip(x.shape, y.attrs["widths"], strict=True):
        back.append((-low, -high, 0) if isinstance(dim, Extent) else (0, 0, 0))
        if isinstance(dim, Extent) or (low, high, interior) == (0, 0, 0):
            cuts.append((0, dim, 1))
        else:
            cuts.append((low, low + dim + interior * max(dim - 1, 0), interior + 1))
    return cut(pad(dy, back), cuts)


_pad = view(
    "pad", _pad_rule, _pad_numpy, _pad_grad,
    "a value before, behind and between the elements: widths (low, high, interior) per axis; "
    "(low, -low, 0) moves the elements of a run-time axis, those that leave it are lost",
)  # fmt: skip


def pad(x: Any, widths: Sequence[Sequence[int]], value: float = 0) -> Node:
    """x with `value` around it: per axis (low, high), or (low, high, interior).

    A run-time axis keeps its extent: (low, -low) moves its elements by low places, either way.
    """
    x = as_node(x)
    full = tuple((*(int(v) for v in w), 0)[:3] for w in widths)
    if all(w == (0, 0, 0) for w in full) and len(full) == x.rank:
        return x
    return _pad(x, widths=full, value=value)


# --------------------------------------------------------------------------------------- broadcast
def _broadcast_rule(x: Spec, *, shape: tuple[Dim, ...]) -> Spec:
    if len(shape) < x.rank or broadcast([x.dims, shape], "broadcast_to") != tuple(shape):
        raise ShapeError(f"broadcast_to: {shape_text(x.dims)} does not fit {shape_text(shape)}")
    return x.with_shape(shape)


def _broadcast_grad(dy: Node, y: Node, x: Node) -> Node:
    from nnjit.ops.reduce import sum_to

    return sum_to(dy, x.shape)


_broadcast = view(
    "broadcast_to", _broadcast_rule, lambda m, x, shape: np.broadcast_to(x, m.shape),
    _broadcast_grad, "x repeated to a shape by NumPy's rules",
)  # fmt: skip


def broadcast_to(x: Any, shape: Sequence[Dim]) -> Node:
    """x repeated to this shape by NumPy's rules."""
    x = as_node(x)
    return x if x.shape == tuple(shape) else _broadcast(x, shape=tuple(shape))
