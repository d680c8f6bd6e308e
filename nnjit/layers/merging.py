"""Layers of several inputs: Add, Subtract, Multiply, Average, Maximum, Minimum, Concatenate, Dot.

Where all inputs have masks, the result is meant wherever one of the inputs is.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any

from nnjit import ops
from nnjit.errors import ArgumentError, ShapeError
from nnjit.graph import Node, constant
from nnjit.layers.base import REGISTRY, Layer
from nnjit.spec import Dim, broadcast, product, shape_text


class _Merge(Layer):
    """One value from a list of values that broadcast; those of lower rank get axes of 1 behind the
    batch axis. masks: one per input, of its rank, or None.
    """

    supports_masking = True

    def call(self, inputs: Sequence[Node], mask: Any = None) -> Node:
        if not isinstance(inputs, list | tuple) or not inputs:
            raise ArgumentError(f"{self.path}: expected a list of at least one value")
        masks = list(mask) if mask is not None else [None] * len(inputs)
        if len(masks) != len(inputs):
            raise ArgumentError(f"{self.path}: {len(masks)} masks for {len(inputs)} values")
        return self._merge(list(inputs), masks)

    def compute_mask(self, inputs, previous_mask=None):
        masks = _list_of_masks(self, inputs, previous_mask)
        if any(m is None for m in masks):
            return None
        return reduce(ops.logical_or, masks)

    def _merge(self, inputs: list[Node], masks: list[Node | None]) -> Node:
        rank = max(x.rank for x in inputs)
        values = [ops.reshape(x, _padded(x.shape, rank)) for x in inputs]
        broadcast([x.shape for x in values], self.path)
        wide = [
            None if m is None else ops.reshape(m, _padded(_over(m, x), rank))
            for m, x in zip(masks, inputs, strict=True)
        ]
        return self._combine(values, wide)

    def _combine(self, values: list[Node], masks: list[Node | None]) -> Node:
        return reduce(self._pair, values)

    def _pair(self, a: Node, b: Node) -> Node:
        raise NotImplementedError


def _list_of_masks(layer: Layer, inputs: Any, masks: Any) -> list[Any]:
    if masks is None:
        return [None] * len(inputs)
    if not isinstance(masks, list | tuple) or len(masks) != len(inputs):
        raise ArgumentError(f"{layer.path}: expected a list of {len(inputs)} masks, got {masks!r}")
    return list(masks)


def _padded(shape: Sequence[Dim], rank: int) -> tuple[Dim, ...]:
    """shape with axes of 1 behind the first one."""
    return (*shape[:1], *(1,) * (rank - len(shape)), *shape[1:])


def _over(mask: Node, x: Node) -> tuple[Dim, ...]:
    """The shape of a mask laid over the first axes of x."""
    return (*mask.shape, *(1,) * (x.rank - mask.rank))


@REGISTRY.named()
class Add(_Merge):
    """The sum of all inputs."""

    def _pair(self, a, b):
        return a + b


@REGISTRY.named()
class Subtract(_Merge):
    """The first input less the second."""

    def _merge(self, inputs, masks):
        if len(inputs) != 2:
            raise ArgumentError(f"{self.path}: expected two values, got {len(inputs)}")
        return super()._merge(inputs, masks)

    def _pair(self, a, b):
        return a - b


@REGISTRY.named()
class Multiply(_Merge):
    """The product of all inputs; a masked factor counts as 1, and where all are masked it is 0."""

    def _combine(self, values, masks):
        known = [m for m in masks if m is not None]
        factors = [
            x if m is None else ops.where(m, x, 1.0) for x, m in zip(values, masks, strict=True)
        ]
        y = super()._combine(factors, masks)
        if len(known) < len(masks):
            return y
        return ops.where(reduce(ops.logical_or, known), y, 0.0)

    def _pair(self, a, b):
        return a * b


@REGISTRY.named()
class Average(Add):
    """The mean of all inputs."""

    def _combine(self, values, masks):
        return super()._combine(values, masks) / len(values)


class _Extreme(_Merge):
    """The most extreme of the values that are not masked."""

    def _combine(self, values, masks):
        y, mask = values[0], masks[0]
        for x, m in zip(values[1:], masks[1:], strict=True):
            x = x if m is None else ops.where(m, x, y)
            y = y if mask is None else ops.where(mask, y, x)
            mask = None if m is None or mask is None else ops.logical_or(mask, m)
            y = self._pair(y, x)
        return y


@REGISTRY.named()
class Maximum(_Extreme):
    """The largest of all inputs."""

    def _pair(self, a, b):
        return ops.maximum(a, b)


@REGISTRY.named()
class Minimum(_Extreme):
    """The smallest of all inputs."""

    def _pair(self, a, b):
        return ops.minimum(a, b)


@REGISTRY.named()
class Concatenate(_Merge):
    """All inputs behind one another along `axis`."""

    def __init__(self, axis: int = -1, **kwargs: Any):
        super().__init__(**kwargs)
        self.axis = axis

    def _merge(self, inputs, masks):
        try:
            return ops.concatenate(inputs, axis=self.axis)
        except ShapeError:
            shapes = " and ".join(shape_text(x.shape) for x in inputs)
            raise ShapeError(
                f"{self.path}: shapes {shapes} may differ in axis {self.axis} only"
            ) from None

    def compute_mask(self, inputs, previous_mask=None):
        masks = _list_of_masks(self, inputs, previous_mask)
        if all(m is None for m in masks):
            return None
        parts = [
            ops.broadcast_to(constant(True) if m is None else ops.reshape(m, _over(m, x)), x.shape)
            for x, m in zip(inputs, masks, strict=True)
        ]
        return ops.any(ops.concatenate(parts, axis=self.axis), axis=-1)


@REGISTRY.named()
class Dot(_Merge):
    """Sums of products along one axis of each of two inputs, for each sample.

    (batch, …without axes[0]…) with (batch, …without axes[1]…) gives (batch, *rest of the first,
    *rest of the second); two vectors give (batch, 1). axes: one number for both or a pair, not 0.
    normalize: both inputs get length 1 along their axes first (the cosine).
    """

    def __init__(self, axes: int | Sequence[int], normalize: bool = False, **kwargs: Any):
        super().__init__(**kwargs)
        pair = (axes, axes) if isinstance(axes, int) else tuple(axes)
        if len(pair) != 2 or not all(isinstance(a, int) for a in pair):
            raise ArgumentError(f"{self.name}: axes={axes!r}: expected a number or a pair of them")
        self.axes = axes if isinstance(axes, int) else pair
        self._pair_of_axes, self.normalize = pair, normalize

    def compute_mask(self, inputs, previous_mask=None):
        return None

    def _merge(self, inputs, masks):
        if len(inputs) != 2:
            raise ArgumentError(f"{self.path}: expected two values, got {len(inputs)}")
        axes = [self._axis(x, a) for x, a in zip(inputs, self._pair_of_axes, strict=True)]
        (a, b), (i, j) = inputs, axes
        if a.shape[i] != b.shape[j] or a.shape[0] != b.shape[0]:
            raise ShapeError(
                f"{self.path}: {shape_text(a.shape)} and {shape_text(b.shape)} differ in the batch "
                f"axis or along axes {i} and {j}"
            )
        if self.normalize:
            a, b = _normalized(a, i), _normalized(b, j)
        first = (*a.shape[1:i], *a.shape[i + 1 :])
        second = (*b.shape[1:j], *b.shape[j + 1 :])
        a = ops.transpose(a, (*(k for k in range(a.rank) if k != i), i))
        b = ops.transpose(b, (*(k for k in range(b.rank) if k != j), j))
        a, b = (ops.reshape(x, (x.shape[0], product(x.shape[1:-1]), x.shape[-1])) for x in (a, b))
        y = ops.matmul(a, ops.transpose(b, (0, 2, 1)))
        return ops.reshape(y, (y.shape[0], *(first + second or (1,))))

    def _axis(self, x: Node, axis: int) -> int:
        found = axis + x.rank if axis < 0 else axis
        if not 1 <= found < x.rank:
            raise ArgumentError(
                f"{self.path}: axes={self.axes}: no axis {axis} beside the batch axis in "
                f"{shape_text(x.shape)}"
            )
        return found


def _normalized(x: Node, axis: int) -> Node:
    """x with length 1 along axis; squared lengths below 1e-14 count as that."""
    return x * ops.rsqrt(ops.maximum(ops.sum(x * x, axis=axis, keepdims=True), 1e-14))
