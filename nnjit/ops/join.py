"""Concatenation and what is made of it, values that repeat, and index ramps."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from nnjit.errors import ArgumentError, ShapeError
from nnjit.graph import Node
from nnjit.ops.base import as_node, computed, fixed, no_gradient, number_dtype, promote, view
from nnjit.ops.elementwise import cast, equal
from nnjit.ops.indexing import index
from nnjit.ops.view import broadcast_to, expand_dims, reshape
from nnjit.spec import (
    Dim,
    Extent,
    Spec,
    add,
    check_dtype,
    computed_as,
    divide,
    normal_axes,
    shape_text,
)


def _concatenate_rule(*specs: Spec, axis: int) -> Spec:
    first = specs[0]
    normal_axes(axis, first.rank, "concatenate")
    texts = " and ".join(shape_text(s.dims) for s in specs)
    total: Dim | None = 0
    for s in specs:
        if s.rank != first.rank or any(
            a != b for i, (a, b) in enumerate(zip(s.dims, first.dims, strict=True)) if i != axis
        ):
            raise ShapeError(f"concatenate: {texts} differ elsewhere than on axis {axis}")
        total = add(total, s.dims[axis])  # type: ignore[arg-type]
        if total is None:
            raise ShapeError(f"concatenate: {texts}: the extents of axis {axis} have no sum")
    return first.with_shape([*first.dims[:axis], total, *first.dims[axis + 1 :]])  # type: ignore


def _concatenate_grad(dy: Node, y: Node, *xs: Node) -> list[Node]:
    """dy cut into the parts; parts of a run-time axis are cut as multiples of their symbol."""
    axis = y.attrs["axis"]
    total = y.shape[axis]
    unit = Extent(1, total.symbols) if isinstance(total, Extent) else 1
    before, behind = y.shape[:axis], y.shape[axis + 1 :]
    split = (lambda k: (k, unit)) if isinstance(unit, Extent) else (lambda k: (k,))
    count = [divide(x.shape[axis], unit) for x in xs]
    dy = reshape(dy, (*before, *split(divide(total, unit)), *behind))
    out, start = [], 0
    for x, n in zip(xs, count, strict=True):
        part = index(dy, (*[slice(None)] * axis, slice(start, start + n)))  # type: ignore
        out.append(reshape(part, x.shape))
        start += n  # type: ignore[operator]
    return out


_concatenate = view(
    "concatenate", _concatenate_rule, lambda m, *xs, axis: np.concatenate(xs, axis),
    _concatenate_grad, "values one behind the other along an axis",
)  # fmt: skip


def concatenate(values: Sequence[Any], axis: int = -1) -> Node:
    """Values joined along an axis; their dtypes are promoted."""
    if not values:
        raise ArgumentError("concatenate: at least one value expected")
    nodes = promote(*[as_node(v) for v in values])
    (axis,) = normal_axes(axis, nodes[0].rank, "concatenate")
    return nodes[0] if len(nodes) == 1 else _concatenate(*nodes, axis=axis)


def stack(values: Sequence[Any], axis: int = 0) -> Node:
    """Values of one shape joined along a new axis."""
    nodes = [as_node(v) for v in values]
    (place,) = normal_axes(axis, nodes[0].rank + 1 if nodes else 1, "stack")
    return concatenate([expand_dims(n, place) for n in nodes], place)


def split(x: Any, parts: int | Sequence[int], axis: int = -1) -> list[Node]:
    """Equal parts (an int), or the parts between these places, along an axis."""
    x = as_node(x)
    (axis,) = normal_axes(axis, x.rank, "split")
    n = fixed("split", f"the extent of axis {axis}", x.shape[axis])
    if isinstance(parts, int):
        if parts < 1 or n % parts:
            raise ShapeError(f"split: axis {axis} of {shape_text(x.shape)} into {parts} parts")
        parts = range(n // parts, n, n // parts) if n else [0] * (parts - 1)
    limits = [0, *parts, n]
    return [x[(*[slice(None)] * axis, slice(a, b))] for a, b in pairwise(limits)]


def repeat(x: Any, times: int, axis: int) -> Node:
    """Each element `times` times along an axis: nearest-neighbour upsampling."""
    x = as_node(x)
    (axis,) = normal_axes(axis, x.rank, "repeat")
    before, n, behind = x.shape[:axis], x.shape[axis], x.shape[axis + 1 :]
    wide = broadcast_to(reshape(x, (*before, n, 1, *behind)), (*before, n, times, *behind))
    return reshape(wide, (*before, n * times, *behind))


def tile(x: Any, times: int, axis: int) -> Node:
    """The whole of x `times` times along an axis."""
    x = as_node(x)
    (axis,) = normal_axes(axis, x.rank, "tile")
    before, n, behind = x.shape[:axis], x.shape[axis], x.shape[axis + 1 :]
    wide = broadcast_to(reshape(x, (*before, 1, n, *behind)), (*before, times, n, *behind))
    return reshape(wide, (*before, n * times, *behind))


# ------------------------------------------------------------------------------------------- index
def _iota_numpy(m: Any, shape: Any, axis: int, dtype: str) -> np.ndarray:
    ramp = np.arange(m.shape[axis]).astype(m.dtype)
    return np.broadcast_to(
        ramp.reshape([-1 if i == axis else 1 for i in range(len(shape))]), m.shape
    )


_iota = computed(
    "iota", "index", lambda *, shape, axis, dtype: Spec(shape, dtype), _iota_numpy, no_gradient,
    lambda node: 0, "the index along an axis",
)  # fmt: skip


def iota(shape: Sequence[Dim], axis: int = -1, dtype: str = "int32") -> Node:
    """A value of this shape that holds each element's index along `axis`."""
    (axis,) = normal_axes(axis, len(shape), "iota")
    number_dtype("iota", (Spec((), check_dtype(dtype)),))
    return _iota(shape=tuple(shape), axis=axis, dtype=check_dtype(dtype))


def full(shape: Sequence[Dim], value: Any, dtype: str = "float32") -> Node:
    """A value of this shape that is one number everywhere."""
    return broadcast_to(as_node(value, check_dtype(dtype)), tuple(shape))


def full_like(x: Any, value: Any) -> Node:
    """One number in the shape and dtype of x; float32 for bfloat16."""
    x = as_node(x)
    return full(x.shape, value, computed_as(x.dtype))


def one_hot(labels: Any, classes: int, dtype: str = "float32") -> Node:
    """labels.shape + (classes,): 1 at the label, all 0 for labels out of range."""
    labels = as_node(labels)
    if labels.dtype not in ("int32", "int64"):
        labels = cast(labels, "int32")
    shape = (*labels.shape, classes)
    return cast(equal(iota(shape, dtype=labels.dtype), expand_dims(labels, -1)), dtype)
