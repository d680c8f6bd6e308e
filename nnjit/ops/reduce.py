"""Reductions over axes, and the statistics that are made of them.

Attrs: axes (sorted, counted from 0) and keepdims. Names are NumPy's; inside of this module the
built-ins `sum`, `max`, `min`, `any` and `all` are hidden by them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nnjit.errors import ShapeError
from nnjit.graph import Node, extent_node
from nnjit.ops.base import (
    TAKES,
    as_node,
    cast_to,
    common_dtype,
    computed,
    no_gradient,
    number_dtype,
)
from nnjit.ops.elementwise import as_bool, equal, not_equal, sqrt, square, where
from nnjit.ops.view import broadcast_to, reshape
from nnjit.spec import Dim, Spec, normal_axes, product

Axes = int | Sequence[int] | None


def _rule(name: str, needs_element: bool) -> Callable[..., Spec]:
    def rule(x: Spec, *, axes: tuple[int, ...], keepdims: bool) -> Spec:
        normal_axes(axes, x.rank, name)
        number_dtype(name, (x,))
        if needs_element and 0 in [x.dims[a] for a in axes]:
            raise ShapeError(f"{name}: no element to choose along axes {axes} of {x}")
        return x.with_shape(reduced(x.dims, axes, keepdims))

    return rule


def reduced(shape: Sequence[Dim], axes: Sequence[int], keepdims: bool) -> tuple[Dim, ...]:
    """The shape that is left of `shape` when axes are reduced."""
    if keepdims:
        return tuple(1 if i in axes else d for i, d in enumerate(shape))
    return tuple(d for i, d in enumerate(shape) if i not in axes)


def spread(y: Node, x: Node, axes: Sequence[int]) -> Node:
    """The reduced y, back to where it broadcasts against x."""
    return reshape(y, reduced(x.shape, axes, True))


def _reduction(
    name: str, numpy: Callable, grad: Callable, doc: str, needs_element: bool = False
) -> Callable[..., Node]:
    op = computed(
        name, "reduce", _rule(name, needs_element), numpy, grad,
        lambda node: node.inputs[0].spec.size, doc,
    )  # fmt: skip

    def call(x: Any, axis: Axes = None, keepdims: bool = False) -> Node:
        x = as_node(x)
        x = cast_to(x, common_dtype([x], "number") if x.dtype != "uint8" else TAKES["number"])
        return op(x, axes=normal_axes(axis, x.rank, name), keepdims=bool(keepdims))

    call.__name__ = call.__qualname__ = name
    call.__doc__ = doc
    return call


# ------------------------------------------------------------------------------------ sum and prod
def _wide(x: np.ndarray) -> Any:
    """float32 is summed in float64, so that the meaning has no rounding of its own order."""
    return np.float64 if x.dtype.kind == "f" else x.dtype


def _sum_grad(dy: Node, y: Node, x: Node) -> Node:
    return broadcast_to(spread(dy, x, y.attrs["axes"]), x.shape)


def _prod_grad(dy: Node, y: Node, x: Node) -> Node:
    """The product of the other elements; with one zero only that element has a gradient."""
    axes = y.attrs["axes"]
    zero = equal(x, 0)
    zeros = sum(zero, axes, True)
    others = prod(where(zero, 1, x), axes, True)
    rest = where(equal(zeros, 0), others / where(zero, 1, x), where(zero, others, 0))
    return spread(dy, x, axes) * where(zeros > 1, 0, rest)


sum = _reduction(
    "sum", lambda m, x, axes, keepdims: x.sum(axes, dtype=_wide(x), keepdims=keepdims),
    _sum_grad, "the sum over axes (default all)",
)  # fmt: skip
prod = _reduction(
    "prod", lambda m, x, axes, keepdims: x.prod(axes, dtype=_wide(x), keepdims=keepdims),
    _prod_grad, "the product over axes (default all)",
)  # fmt: skip


def sum_to(x: Node, shape: Sequence[Dim]) -> Node:
    """x summed to the shape that it was broadcast from."""
    if x.shape == tuple(shape):
        return x
    lead = x.rank - len(shape)
    ones = [lead + i for i, d in enumerate(shape) if d == 1 and x.shape[lead + i] != 1]
    return reshape(sum(x, [*range(lead), *ones]), shape)


def _count(x: Node, axis: Axes, where_: str) -> Node:
    axes = normal_axes(axis, x.rank, where_)
    return extent_node(product([x.shape[a] for a in axes]), x.dtype)


def mean(x: Any, axis: Axes = None, keepdims: bool = False) -> Node:
    """The mean over axes (default all), in floating point; NaN where there is no element."""
    x = as_node(x)
    x = cast_to(x, common_dtype([x], "float"))
    return sum(x, axis, keepdims) / _count(x, axis, "mean")


def var(x: Any, axis: Axes = None, keepdims: bool = False) -> Node:
    """The variance over axes (default all), divided by the number of elements."""
    x = as_node(x)
    return mean(square(x - mean(x, axis, True)), axis, keepdims)


def std(x: Any, axis: Axes = None, keepdims: bool = False) -> Node:
    """The standard deviation over axes (default all)."""
    return sqrt(var(x, axis, keepdims))


# ------------------------------------------------------------------------------------- max and min
def _lowest(x: np.ndarray) -> Any:
    return -math.inf if x.dtype.kind == "f" else np.iinfo(x.dtype).min


def _highest(x: np.ndarray) -> Any:
    return math.inf if x.dtype.kind == "f" else np.iinfo(x.dtype).max


def _share_grad(dy: Node, y: Node, x: Node) -> Node:
    """dy shared equally among the elements that are the extreme one."""
    axes = y.attrs["axes"]
    won = cast_to(equal(x, spread(y, x, axes)), x.dtype)
    return won * (spread(dy, x, axes) / sum(won, axes, True))


max = _reduction(
    "max", lambda m, x, axes, keepdims: x.max(axes, keepdims=keepdims, initial=_lowest(x)),
    _share_grad, "the largest element over axes (default all); NaN wins; ties share the gradient",
    needs_element=True,
)  # fmt: skip
min = _reduction(
    "min", lambda m, x, axes, keepdims: x.min(axes, keepdims=keepdims, initial=_highest(x)),
    _share_grad, "the smallest element over axes (default all); NaN wins; ties share the gradient",
    needs_element=True,
)  # fmt: skip


def any(x: Any, axis: Axes = None, keepdims: bool = False) -> Node:
    """True where some element over axes is not 0."""
    return not_equal(sum(as_bool(x), axis, keepdims), 0)


def all(x: Any, axis: Axes = None, keepdims: bool = False) -> Node:
    """True where every element over axes is not 0."""
    return equal(sum(equal(cast_to(as_bool(x), "int32"), 0), axis, keepdims), 0)


# ------------------------------------------------------------------------------- argmax and argmin
def _arg_rule(x: Spec, *, axis: int, keepdims: bool) -> Spec:
    normal_axes(axis, x.rank, "argmax")
    if x.dims[axis] == 0:
        raise ShapeError(f"argmax: no element to choose along axis {axis} of {x}")
    return Spec(reduced(x.dims, (axis,), keepdims), "int32")


def _arg(name: str, numpy: Callable, doc: str) -> Callable[..., Node]:
    def meaning(m: Any, x: np.ndarray, axis: int, keepdims: bool) -> np.ndarray:
        if x.shape[axis] == 0:
            return np.zeros(m.shape, np.int32)
        return numpy(x, axis=axis, keepdims=keepdims).astype(np.int32)

    op = computed(
        name, "reduce", _arg_rule, meaning, no_gradient, lambda n: n.inputs[0].spec.size, doc
    )

    def call(x: Any, axis: int | None = None, keepdims: bool = False) -> Node:
        x = as_node(x)
        if axis is None:
            flat = op(reshape(x, (x.spec.size,)), axis=0, keepdims=False)
            return reshape(flat, [1] * x.rank) if keepdims else flat
        (axis,) = normal_axes(axis, x.rank, name)
        return op(x, axis=axis, keepdims=bool(keepdims))

    call.__name__ = call.__qualname__ = name
    call.__doc__ = doc
    return call


argmax = _arg(
    "argmax", np.argmax, "int32 index of the largest element along an axis (default: of all); "
    "the first of equals; NaN wins",
)  # fmt: skip
argmin = _arg(
    "argmin", np.argmin, "int32 index of the smallest element along an axis (default: of all); "
    "the first of equals; NaN wins",
)  # fmt: skip
