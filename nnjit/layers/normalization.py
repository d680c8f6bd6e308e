"""BatchNormalization with Keras' names and defaults; what all normalisations share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nnjit import ops
from nnjit.errors import ArgumentError, ShapeError
from nnjit.graph import Node
from nnjit.layers.base import REGISTRY, Layer, Variable
from nnjit.layers.core import known, settings
from nnjit.spec import Dim, shape_text

MASK_EPSILON = 1e-7  # added to the number of values that a mask leaves, as in Keras


class Affine(Layer):
    """What normalisations share: epsilon, and the weights gamma and beta."""

    supports_masking = True
    gamma: Variable | None = None
    beta: Variable | None = None

    def _options(self, epsilon: float, center: bool, scale: bool, beta: tuple, gamma: tuple):
        """beta, gamma: initializer, regularizer and constraint of each."""
        if isinstance(epsilon, bool) or not isinstance(epsilon, int | float) or epsilon < 0:
            raise ArgumentError(f"{self.name}: epsilon={epsilon!r}: expected a number from 0")
        self.epsilon, self.center, self.scale = float(epsilon), bool(center), bool(scale)
        self._beta, self._gamma = settings(*beta), settings(*gamma)

    def _add_affine(self, shape: Sequence[int]) -> None:
        for name, wanted, given in (
            ("gamma", self.scale, self._gamma),
            ("beta", self.center, self._beta),
        ):
            if wanted:
                initializer, regularizer, constraint = given
                weight = self.add_weight(
                    shape, initializer, name, regularizer=regularizer, constraint=constraint
                )
                setattr(self, name, weight)


def along(axes: Sequence[int], shape: Sequence[Dim], *weights: Any) -> list[Any]:
    """Weights over `axes`, laid out to broadcast against `shape`; None stays None."""
    laid = [d if i in axes else 1 for i, d in enumerate(shape)][min(axes) :]
    return [None if w is None else ops.reshape(w, laid) for w in weights]


def check_extents(layer: Layer, x: Node, axes: Sequence[int], expected: Sequence[int]) -> None:
    """ShapeError unless x has these extents on these axes."""
    if [x.shape[a] for a in axes] != list(expected):
        raise ShapeError(
            f"{layer.path}: expected {shape_text(expected)} on axes {tuple(axes)}, "
            f"got {shape_text(x.shape)}"
        )


def axes_of(layer: Layer, axis: int | Sequence[int], shape: Sequence[int | None]) -> list[int]:
    """Axes counted from 0, sorted; ShapeError where the input has no such axis."""
    given = [axis] if isinstance(axis, int) else list(axis)
    if any(not -len(shape) <= a < len(shape) for a in given):
        raise ShapeError(f"{layer.path}: no axis {axis} in {shape_text(shape)}")
    out = sorted(a % len(shape) for a in given)
    if len(set(out)) < len(out):
        raise ShapeError(f"{layer.path}: axis={axis} names an axis twice")
    return out


def one_axis(layer: Layer, axis: Any) -> int:
    """axis as an int, or ArgumentError."""
    if isinstance(axis, bool) or not isinstance(axis, int):
        raise ArgumentError(f"{layer.name}: axis={axis!r}: expected a whole number")
    return axis


@REGISTRY.named()
class BatchNormalization(Affine):
    """(x - mean) / sqrt(variance + epsilon) * gamma + beta, over all axes but `axis`.

    Training uses the batch's mean and (biased) variance, without masked positions, and moves the
    kept ones towards them by 1 - momentum; inference, and a layer with trainable=False, uses the
    kept ones. Weights: gamma, beta, moving_mean, moving_variance, each (channels,).
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
        renorm: bool = False,
        synchronized: bool = False,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if synchronized:
            raise ArgumentError(f"{self.name}: synchronized=True: there is one device only")
        if renorm:
            raise ArgumentError(f"{self.name}: renorm=True: batch renormalisation is not supported")
        self.axis, self.momentum = one_axis(self, axis), float(momentum)
        self._options(
            epsilon, center, scale,
            (beta_initializer, beta_regularizer, beta_constraint),
            (gamma_initializer, gamma_regularizer, gamma_constraint),
        )  # fmt: skip
        self._moving = [
            settings(m, None, None)[0]
            for m in (moving_mean_initializer, moving_variance_initializer)
        ]

    def build(self, input_shape):
        (axis,) = axes_of(self, self.axis, input_shape)
        shape = (known(self, input_shape, axis),)
        self._add_affine(shape)
        mean, variance = self._moving
        self.moving_mean = self.add_weight(shape, mean, "moving_mean", trainable=False)
        self.moving_variance = self.add_weight(shape, variance, "moving_variance", trainable=False)

    def call(self, x, training=False, mask=None):
        (axis,) = axes_of(self, self.axis, x.shape)
        check_extents(self, x, [axis], self.moving_mean.shape)
        x = ops.cast(x, self.dtype)
        training = training and self.trainable
        if training:
            mean, variance = self._moments(x, axis, mask)
            self._move(self.moving_mean, mean)
            self._move(self.moving_variance, variance)
        else:
            mean, variance = self.moving_mean.node, self.moving_variance.node
        given = (mean, variance, self.beta, self.gamma)
        mean, variance, beta, gamma = along([axis], x.shape, *given)
        return ops.batch_normalization(
            x, mean, variance, 0.0 if beta is None else beta, 1.0 if gamma is None else gamma,
            self.epsilon, own=training and mask is None,
        )  # fmt: skip

    def _moments(self, x: Node, axis: int, mask: Node | None) -> tuple[Node, Node]:
        """Mean and variance of each channel, without masked positions."""
        axes = tuple(a for a in range(x.rank) if a != axis)
        if mask is None:
            return ops.moments(x, axes)
        if mask.rank != x.rank - 1:
            raise ShapeError(
                f"{self.path}: expected a mask of rank {x.rank - 1}, got {shape_text(mask.shape)}"
            )
        kept = ops.expand_dims(mask, -1)
        whole = ops.broadcast_to(ops.cast(kept, x.dtype), x.shape)
        count = ops.sum(whole, axes) + MASK_EPSILON
        mean = ops.sum(ops.where(kept, x, 0), axes) / count
        off = x - along([axis], x.shape, mean)[0]
        return mean, ops.sum(ops.where(kept, ops.square(off), 0), axes) / count

    def _move(self, kept: Variable, batch: Node) -> None:
        old = kept.current
        kept.update(old * self.momentum + ops.stop_gradient(batch) * (1 - self.momentum))
