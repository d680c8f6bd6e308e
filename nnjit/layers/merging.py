"""Layers of several inputs: Add, Subtract, Multiply, Average, Maximum, Minimum, Concatenate."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any

from nnjit import ops
from nnjit.errors import ArgumentError, ShapeError
from nnjit.graph import Node
from nnjit.layers.base import REGISTRY, Layer
from nnjit.spec import broadcast, shape_text


class _Merge(Layer):
    """One value from a list of values that broadcast."""

    LEAST = 2

    def call(self, inputs: Sequence[Node]) -> Node:
        if not isinstance(inputs, list | tuple) or len(inputs) < self.LEAST:
            raise ArgumentError(f"{self.path}: expected a list of at least {self.LEAST} values")
        return self._merge(list(inputs))

    def _merge(self, inputs: list[Node]) -> Node:
        broadcast([x.shape for x in inputs], self.path)
        return reduce(self._pair, inputs)

    def _pair(self, a: Node, b: Node) -> Node:
        raise NotImplementedError


@REGISTRY.named()
class Add(_Merge):
    """The sum of all inputs."""

    def _pair(self, a, b):
        return a + b


@REGISTRY.named()
class Subtract(_Merge):
    """The first input less the second."""

    def _merge(self, inputs):
        if len(inputs) != 2:
            raise ArgumentError(f"{self.path}: expected two values, got {len(inputs)}")
        return super()._merge(inputs)

    def _pair(self, a, b):
        return a - b


@REGISTRY.named()
class Multiply(_Merge):
    """The product of all inputs."""

    def _pair(self, a, b):
        return a * b


@REGISTRY.named()
class Average(Add):
    """The mean of all inputs."""

    def _merge(self, inputs):
        return super()._merge(inputs) * (1 / len(inputs))


@REGISTRY.named()
class Maximum(_Merge):
    """The largest of all inputs."""

    def _pair(self, a, b):
        return ops.maximum(a, b)


@REGISTRY.named()
class Minimum(_Merge):
    """The smallest of all inputs."""

    def _pair(self, a, b):
        return ops.minimum(a, b)


@REGISTRY.named()
class Concatenate(_Merge):
    """All inputs behind one another along `axis`."""

    LEAST = 1

    def __init__(self, axis: int = -1, **kwargs: Any):
        super().__init__(**kwargs)
        self.axis = axis

    def _merge(self, inputs):
        try:
            return ops.concatenate(inputs, axis=self.axis)
        except ShapeError:
            shapes = " and ".join(shape_text(x.shape) for x in inputs)
            raise ShapeError(
                f"{self.path}: shapes {shapes} may differ in axis {self.axis} only"
            ) from None
