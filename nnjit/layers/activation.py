"""Activations that are layers because they have settings; Keras' names and defaults."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nnjit import ops
from nnjit.errors import ArgumentError, ShapeError
from nnjit.graph import current_scope
from nnjit.layers.base import REGISTRY, Layer
from nnjit.layers.core import settings
from nnjit.spec import broadcast, normal_axes, shape_text


@REGISTRY.named()
class ReLU(Layer):
    """max(x, 0); above max_value cut off; below threshold negative_slope * (x - threshold)."""

    supports_masking = True

    def __init__(
        self,
        max_value: float | None = None,
        negative_slope: float = 0.0,
        threshold: float = 0.0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        for option, value in {
            "max_value": max_value, "negative_slope": negative_slope, "threshold": threshold,
        }.items():  # fmt: skip
            if (value is None and option != "max_value") or (value is not None and value < 0):
                raise ArgumentError(f"{self.name}: {option}={value!r}: expected at least 0")
        self.max_value, self.negative_slope, self.threshold = max_value, negative_slope, threshold

    def call(self, x):
        if not self.negative_slope and not self.threshold:
            y = ops.relu(x)
        else:
            low = self.negative_slope * (x - self.threshold)
            y = ops.where(x > self.threshold, x, low)
        return y if self.max_value is None else ops.minimum(y, self.max_value)


@REGISTRY.named()
class LeakyReLU(Layer):
    """x, or negative_slope * x below 0."""

    supports_masking = True

    def __init__(self, negative_slope: float = 0.3, **kwargs: Any):
        super().__init__(**kwargs)
        if negative_slope is None or negative_slope < 0:
            raise ArgumentError(
                f"{self.name}: negative_slope={negative_slope!r}: expected at least 0"
            )
        self.negative_slope = negative_slope

    def call(self, x):
        return ops.where(x > 0, x, self.negative_slope * x)


@REGISTRY.named()
class ELU(Layer):
    """x, or alpha * (e ** x - 1) below 0."""

    supports_masking = True

    def __init__(self, alpha: float = 1.0, **kwargs: Any):
        super().__init__(**kwargs)
        self.alpha = alpha

    def call(self, x):
        # the minimum keeps the branch that is not taken from overflowing
        return ops.where(x > 0, x, self.alpha * ops.expm1(ops.minimum(x, 0.0)))


@REGISTRY.named()
class PReLU(Layer):
    """x, or alpha * x below 0. Weights: alpha, of the input's shape but batch, 1 on shared_axes."""

    supports_masking = True

    def __init__(
        self,
        alpha_initializer: Any = "zeros",
        alpha_regularizer: Any = None,
        alpha_constraint: Any = None,
        shared_axes: Sequence[int] | int | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self._alpha = settings(alpha_initializer, alpha_regularizer, alpha_constraint)
        shared = [shared_axes] if isinstance(shared_axes, int) else list(shared_axes or [])
        self.shared_axes = tuple(shared)

    def build(self, input_shape):
        shape = list(input_shape[1:])
        for axis in self.shared_axes:
            if not 1 <= axis < len(input_shape):
                raise ArgumentError(f"{self.path}: shared_axes={self.shared_axes}: no axis {axis}")
            shape[axis - 1] = 1
        initializer, regularizer, constraint = self._alpha
        self.alpha = self.add_weight(
            shape, initializer, "alpha", regularizer=regularizer, constraint=constraint
        )

    def call(self, x):
        return ops.where(x > 0, x, self.alpha * x)


@REGISTRY.named()
class Softmax(Layer):
    """Softmax over one axis or several. A mask given in the call, broadcastable to the input, says
    which values take part; the others give 0. The mask of a sequence is only passed on.
    """

    supports_masking = True

    def __init__(self, axis: int | Sequence[int] = -1, **kwargs: Any):
        super().__init__(**kwargs)
        self.axis = axis if isinstance(axis, int) else tuple(axis)

    def call(self, x, mask=None):
        if mask is not None and mask.rank < x.rank and current_scope().masks.get(x) is mask:
            mask = None
        if mask is not None:
            if broadcast([x.shape, mask.shape], self.path) != x.shape:
                raise ShapeError(
                    f"{self.path}: a mask of shape {shape_text(mask.shape)} does not fit "
                    f"{shape_text(x.shape)}"
                )
            x = ops.where(mask, x, -1e30)
        if isinstance(self.axis, int):
            y = ops.softmax(x, axis=self.axis)
        else:
            axes = normal_axes(self.axis, x.rank, self.path)
            y = ops.exp(x - ops.logsumexp(x, axis=axes, keepdims=True))
        return y if mask is None else ops.where(mask, y, 0.0)
