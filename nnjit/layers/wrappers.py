"""Layers around a layer: Wrapper, the base of all such; TimeDistributed."""

from __future__ import annotations

from typing import Any

import numpy as np

from nnjit import ops
from nnjit.errors import ArgumentError, ShapeError
from nnjit.graph import Node
from nnjit.layers.base import REGISTRY, Layer, Variable
from nnjit.layers.calls import leaves, masked, tree_map
from nnjit.spec import shape_text


class Wrapper(Layer):
    """Base class: a layer that holds one, `layer`. Weights are those of that layer."""

    def __init__(self, layer: Layer, **kwargs: Any):
        super().__init__(**kwargs)
        if not isinstance(layer, Layer):
            raise ArgumentError(f"{self.name}: layer={layer!r}: expected a layer")
        self.layer = layer

    @property
    def input_dtype(self) -> str:
        return self.layer.input_dtype

    def _cast(self, value: Any) -> Any:
        # the layer inside casts for itself
        return ops.as_node(value) if isinstance(value, np.ndarray | Variable) else value


@REGISTRY.named()
class TimeDistributed(Wrapper):
    """The same layer for each time step of (batch, time, …): (batch * time, …) is what it sees.

    A mask (batch, time, …) reaches a layer inside that looks at masks, step by step. It is passed
    on; where the results have other axes than it, a step counts if any of it does. A
    BatchNormalization inside takes its statistics over all steps at once.
    """

    supports_masking = True

    def call(self, x, mask=None):
        values = leaves(x)
        if any(v.rank < 3 for v in values):
            shapes = " and ".join(shape_text(v.shape) for v in values)
            raise ShapeError(f"{self.path}: expected (batch, time, features …), got {shapes}")
        batch, time = values[0].shape[:2]
        masks: list[Any] = []
        tree_map(masks.append, mask)
        merged = iter([self._merged(v, m) for v, m in zip(values, masks, strict=True)])
        y = self.layer(tree_map(lambda v: next(merged) if isinstance(v, Node) else v, x))

        def parted(v: Any) -> Any:
            if not isinstance(v, Node):
                return v
            if v.rank == 0 or v.shape[0] != batch * time:
                raise ShapeError(
                    f"{self.path}: {self.layer.name} made {shape_text(v.shape)} of its "
                    f"{shape_text((batch * time,))} samples"
                )
            v = ops.reshape(v, (batch, time, *v.shape[1:]))
            return v if not masks or masks[0] is None else masked(v, _fitting(masks[0], v))

        return tree_map(parted, y)

    def _merged(self, x: Node, mask: Node | None) -> Node:
        """x without the time axis, with its mask where that says something of a single step."""
        batch, time = x.shape[:2]
        y = ops.reshape(x, (batch * time, *x.shape[2:]))
        if mask is None:
            return y
        if mask.rank < 2 or mask.shape[:2] != x.shape[:2]:
            raise ShapeError(
                f"{self.path}: expected a mask ({shape_text(x.shape[:2])}, …), "
                f"got {shape_text(mask.shape)}"
            )
        if mask.rank == 2 and y.rank > 2:
            return y
        return masked(y, ops.reshape(mask, (batch * time, *mask.shape[2:])))


def _fitting(mask: Node, y: Node) -> Node:
    """A mask (batch, time, …) for a result (batch, time, …)."""
    if y.shape[: mask.rank] == mask.shape:
        return mask
    return ops.any(mask, axis=tuple(range(2, mask.rank)))
