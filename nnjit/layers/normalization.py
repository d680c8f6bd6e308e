"""BatchNormalization with Keras' names, defaults and weight order."""

from __future__ import annotations

from typing import Any

from nnjit import ops
from nnjit.errors import ArgumentError, ShapeError
from nnjit.graph import Node
from nnjit.layers.base import REGISTRY, Layer
from nnjit.layers.core import known, settings
from nnjit.spec import shape_text


@REGISTRY.named()
class BatchNormalization(Layer):
    """(x - mean) / sqrt(variance + epsilon) * gamma + beta, over all axes but `axis`.

    Training uses the batch's mean and (biased) variance and moves the kept ones towards them by 1 -
    momentum; inference, and a layer with trainable=False, uses the kept ones. Weights: gamma, beta,
    moving_mean, moving_variance, each (channels,).
    """

    def __init__(
        self,
        axis: int = -1,
        momentum: float = 0.99,
        epsilon: float = 1e-3,
        center: bool = True,
        scale: bool = True,
        beta_initializer: Any = "zeros",
        gamma_initializer: Any = "ones",
        moving_mean_initializer: Any = "zeros",
        moving_variance_initializer: Any = "ones",
        beta_regularizer: Any = None,
        gamma_regularizer: Any = None,
        beta_constraint: Any = None,
        gamma_constraint: Any = None,
        synchronized: bool = False,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if synchronized:
            raise ArgumentError(f"{self.name}: synchronized=True: there is one device only")
        if not isinstance(axis, int):
            raise ArgumentError(f"{self.name}: axis={axis!r}: expected a whole number")
        self.axis, self.momentum, self.epsilon = axis, float(momentum), float(epsilon)
        self.center, self.scale = center, scale
        self._beta = settings(beta_initializer, beta_regularizer, beta_constraint)
        self._gamma = settings(gamma_initializer, gamma_regularizer, gamma_constraint)
        self._moving = [
            settings(m, None, None)[0]
            for m in (moving_mean_initializer, moving_variance_initializer)
        ]

    def build(self, input_shape):
        if not -len(input_shape) <= self.axis < len(input_shape):
            raise ShapeError(f"{self.path}: no axis {self.axis} in {shape_text(input_shape)}")
        shape = (known(self, input_shape, self.axis),)
        self.gamma = self._affine("gamma", shape, self._gamma) if self.scale else None
        self.beta = self._affine("beta", shape, self._beta) if self.center else None
        mean, variance = self._moving
        self.moving_mean = self.add_weight(shape, mean, "moving_mean", trainable=False)
        self.moving_variance = self.add_weight(shape, variance, "moving_variance", trainable=False)

    def _affine(self, name: str, shape: tuple[int, ...], given: tuple):
        initializer, regularizer, constraint = given
        return self.add_weight(
            shape, initializer, name, regularizer=regularizer, constraint=constraint
        )

    def call(self, x, training=False):
        axis = self.axis % x.rank
        channels = self.moving_mean.shape[0]
        if x.shape[axis] != channels:
            raise ShapeError(
                f"{self.path}: expected axis {self.axis} of {channels}, got {shape_text(x.shape)}"
            )
        x = ops.cast(x, self.dtype)

        def along(v: Any) -> Node:
            """v laid along `axis`."""
            return ops.reshape(v, (channels, *(1,) * (x.rank - 1 - axis)))

        if training and self.trainable:
            axes = tuple(a for a in range(x.rank) if a != axis)
            mean = ops.mean(x, axis=axes)
            centered = x - along(mean)
            variance = ops.mean(centered * centered, axis=axes)
            self._move(self.moving_mean, mean)
            self._move(self.moving_variance, variance)
        else:
            mean, variance = self.moving_mean.node, self.moving_variance.node
            centered = x - along(mean)
        scale = ops.rsqrt(variance + self.epsilon)
        if self.gamma is not None:
            scale = scale * self.gamma
        y = centered * along(scale)
        return y if self.beta is None else y + along(self.beta)

    def _move(self, kept, batch) -> None:
        old = kept.current
        kept.update(old * self.momentum + ops.stop_gradient(batch) * (1 - self.momentum))
