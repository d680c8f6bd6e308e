"""Constraints on weights, applied right after the optimizer's update; Keras' names and defaults."""

from __future__ import annotations

from collections.abc import Sequence

from nnjit import ops
from nnjit.errors import ArgumentError
from nnjit.graph import Node
from nnjit.registry import Configurable, Registry

REGISTRY = Registry("constraint")
get = REGISTRY.get

EPSILON = 1e-7


class Constraint(Configurable):
    """Base class: override `__call__(w) -> Node` of the same shape."""

    kind = "constraint"

    def __call__(self, w: Node) -> Node:
        raise NotImplementedError(f"{type(self).__name__} does not define __call__(w)")


def _norm(w: Node, axis: int | Sequence[int]) -> Node:
    return ops.sqrt(ops.sum(w * w, axis=axis, keepdims=True))


def _axis(axis: int | Sequence[int]) -> int | tuple[int, ...]:
    return axis if isinstance(axis, int) else tuple(axis)


@REGISTRY.named()
class MaxNorm(Constraint):
    """Norm over `axis` at most max_value. axis 0 for Dense, (0, 1, 2) for Conv2D."""

    def __init__(self, max_value: float = 2, axis: int | Sequence[int] = 0):
        self.max_value, self.axis = float(max_value), _axis(axis)

    def __call__(self, w: Node) -> Node:
        norm = _norm(w, self.axis)
        return w * (ops.clip(norm, 0.0, self.max_value) / (norm + EPSILON))


@REGISTRY.named("non_neg")
class NonNeg(Constraint):
    """Negative values become 0."""

    def __call__(self, w: Node) -> Node:
        return ops.maximum(w, 0.0)


@REGISTRY.named()
class UnitNorm(Constraint):
    """Norm over `axis` 1."""

    def __init__(self, axis: int | Sequence[int] = 0):
        self.axis = _axis(axis)

    def __call__(self, w: Node) -> Node:
        return w / (_norm(w, self.axis) + EPSILON)


@REGISTRY.named()
class MinMaxNorm(Constraint):
    """Norm over `axis` drawn into [min_value, max_value], at once (rate 1) or a part of the way."""

    def __init__(
        self,
        min_value: float = 0.0,
        max_value: float = 1.0,
        rate: float = 1.0,
        axis: int | Sequence[int] = 0,
    ):
        if not 0 < rate <= 1:
            raise ArgumentError(f"MinMaxNorm: rate={rate!r}: expected more than 0, at most 1")
        if min_value > max_value:
            raise ArgumentError(f"MinMaxNorm: min_value={min_value!r} is above max_value")
        self.min_value, self.max_value = float(min_value), float(max_value)
        self.rate, self.axis = float(rate), _axis(axis)

    def __call__(self, w: Node) -> Node:
        norm = _norm(w, self.axis)
        wanted = self.rate * ops.clip(norm, self.min_value, self.max_value)
        return w * ((wanted + (1 - self.rate) * norm) / (norm + EPSILON))
