"""Normalisation within each sample: layer, group, RMS and unit; Keras' names and defaults."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nnjit import ops
from nnjit.errors import ArgumentError, ShapeError
from nnjit.layers.base import REGISTRY, Layer
from nnjit.layers.core import known
from nnjit.layers.normalization import Affine, along, axes_of, check_extents, one_axis
from nnjit.spec import shape_text


def several_axes(layer: Layer, axis: Any) -> int | list[int]:
    """axis as an int or a list of ints, or ArgumentError."""
    given = axis if isinstance(axis, list | tuple) else [axis]
    if not given or any(isinstance(a, bool) or not isinstance(a, int) for a in given):
        raise ArgumentError(
            f"{layer.name}: axis={axis!r}: expected a whole number, or several in a list"
        )
    return axis if isinstance(axis, int) else list(axis)


@REGISTRY.named()
class LayerNormalization(Affine):
    """(x - mean) / sqrt(variance + epsilon) * gamma + beta, mean and variance over `axis`.

    Weights: gamma and beta, with the extents of these axes (in ascending order).
    """

    def __init__(
        self,
        axis: int | Sequence[int] = -1,
        epsilon: float = 1e-3,
        center: bool = True,
        scale: bool = True,
        beta_initializer: Any = "zeros",
        gamma_initializer: Any = "ones",
        beta_regularizer: Any = None,
        gamma_regularizer: Any = None,
        beta_constraint: Any = None,
        gamma_constraint: Any = None,
        rms_scaling: bool = False,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if rms_scaling:
            raise ArgumentError(
                f"{self.name}: rms_scaling=True is not supported: use RMSNormalization"
            )
        self.axis = several_axes(self, axis)
        self._options(
            epsilon, center, scale,
            (beta_initializer, beta_regularizer, beta_constraint),
            (gamma_initializer, gamma_regularizer, gamma_constraint),
        )  # fmt: skip

    def build(self, input_shape):
        axes = axes_of(self, self.axis, input_shape)
        self._extents = [known(self, input_shape, a) for a in axes]
        self._add_affine(self._extents)

    def call(self, x):
        axes = axes_of(self, self.axis, x.shape)
        check_extents(self, x, axes, self._extents)
        gamma, beta = along(axes, x.shape, self.gamma, self.beta)
        return ops.layer_normalization(
            ops.cast(x, self.dtype), 1.0 if gamma is None else gamma,
            0.0 if beta is None else beta, axes, self.epsilon,
        )  # fmt: skip


@REGISTRY.named()
class RMSNormalization(Layer):
    """x / sqrt(mean(x**2) + epsilon) * scale, the mean over `axis`.

    Weights: scale, with the extents of these axes (in ascending order).
    """

    def __init__(self, axis: int | Sequence[int] = -1, epsilon: float = 1e-6, **kwargs: Any):
        super().__init__(**kwargs)
        self.axis, self.epsilon = several_axes(self, axis), float(epsilon)

    def build(self, input_shape):
        axes = axes_of(self, self.axis, input_shape)
        self.scale = self.add_weight([known(self, input_shape, a) for a in axes], "ones", "scale")

    def call(self, x):
        axes = axes_of(self, self.axis, x.shape)
        check_extents(self, x, axes, self.scale.shape)
        (scale,) = along(axes, x.shape, self.scale)
        return ops.rms_normalization(ops.cast(x, self.dtype), scale, axes, self.epsilon)


@REGISTRY.named()
class GroupNormalization(Affine):
    """As LayerNormalization over all axes but the first, but for each of `groups` groups of
    neighbouring channels apart; groups=-1: each channel. Weights: gamma and beta, (channels,).
    """

    def __init__(
        self,
        groups: int = 32,
        axis: int = -1,
        epsilon: float = 1e-3,
        center: bool = True,
        scale: bool = True,
        beta_initializer: Any = "zeros",
        gamma_initializer: Any = "ones",
        beta_regularizer: Any = None,
        gamma_regularizer: Any = None,
        beta_constraint: Any = None,
        gamma_constraint: Any = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if isinstance(groups, bool) or not isinstance(groups, int) or (groups < 1 and groups != -1):
            raise ArgumentError(
                f"{self.name}: groups={groups!r}: expected a whole number from 1, or -1"
            )
        self.groups, self.axis = groups, one_axis(self, axis)
        self._options(
            epsilon, center, scale,
            (beta_initializer, beta_regularizer, beta_constraint),
            (gamma_initializer, gamma_regularizer, gamma_constraint),
        )  # fmt: skip

    def build(self, input_shape):
        (axis,) = axes_of(self, self.axis, input_shape)
        if axis == 0:
            raise ShapeError(f"{self.path}: axis={self.axis} is the batch axis")
        self._channels = known(self, input_shape, axis)
        if self.groups > self._channels or self._channels % self.groups:
            raise ShapeError(
                f"{self.path}: groups={self.groups} does not divide the {self._channels} channels "
                f"of {shape_text(input_shape)}"
            )
        self._add_affine([self._channels])

    def call(self, x):
        (axis,) = axes_of(self, self.axis, x.shape)
        check_extents(self, x, [axis], [self._channels])
        groups = self._channels if self.groups == -1 else self.groups
        gamma, beta = along([axis], x.shape, self.gamma, self.beta)
        return ops.group_normalization(
            ops.cast(x, self.dtype), groups, 1.0 if gamma is None else gamma,
            0.0 if beta is None else beta, axis, self.epsilon,
        )  # fmt: skip


@REGISTRY.named()
class UnitNormalization(Layer):
    """x / |x|, |x| the square root of the sum of squares over `axis`; zeros stay zeros."""

    supports_masking = True

    def __init__(self, axis: int | Sequence[int] = -1, **kwargs: Any):
        super().__init__(**kwargs)
        self.axis = several_axes(self, axis)

    def call(self, x):
        axes = axes_of(self, self.axis, x.shape)
        return ops.unit_normalization(ops.cast(x, self.dtype), axes)
