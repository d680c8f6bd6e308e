"""Penalties on weights and activations that are added to the loss; Keras' names and defaults."""

from __future__ import annotations

from nnjit import ops
from nnjit.errors import ArgumentError
from nnjit.graph import Node
from nnjit.registry import Configurable, Registry

REGISTRY = Registry("regularizer")
get = REGISTRY.get


class Regularizer(Configurable):
    """Base class: override `__call__(x) -> scalar Node`."""

    kind = "regularizer"

    def __call__(self, x: Node) -> Node:
        raise NotImplementedError(f"{type(self).__name__} does not define __call__(x)")

    def _check(self, **values: float) -> None:
        for name, value in values.items():
            if not isinstance(value, int | float) or not 0 <= value < float("inf"):
                raise ArgumentError(
                    f"{type(self).__name__}: {name}={value!r}: expected a number of at least 0"
                )


@REGISTRY.named("l1_l2")
class L1L2(Regularizer):
    """l1 * sum(|x|) + l2 * sum(x * x)."""

    def __init__(self, l1: float = 0.0, l2: float = 0.0):
        self._check(l1=l1, l2=l2)
        self.l1, self.l2 = float(l1), float(l2)

    def __call__(self, x: Node) -> Node:
        total = ops.as_node(0.0)
        if self.l1:
            total = self.l1 * ops.sum(ops.abs(x))
        if self.l2:
            squares = self.l2 * ops.sum(x * x)
            total = total + squares if self.l1 else squares
        return ops.cast(total, x.dtype)


@REGISTRY.named()
class L1(L1L2):
    """l1 * sum(|x|)."""

    def __init__(self, l1: float = 0.01):
        super().__init__(l1=l1)


@REGISTRY.named()
class L2(L1L2):
    """l2 * sum(x * x)."""

    def __init__(self, l2: float = 0.01):
        super().__init__(l2=l2)
