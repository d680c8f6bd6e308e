"""Convolutions of (batch, steps, channels) and (batch, height, width, channels); Keras' names,
defaults, weight shapes.
"""

from __future__ import annotations

from typing import Any

from nnjit import ops
from nnjit.errors import ArgumentError, ShapeError
from nnjit.layers.base import REGISTRY
from nnjit.layers.convolution_base import Convolution, Numbers, Padding
from nnjit.layers.core import positive, settings


class _Conv(Convolution):
    """Each output channel reads all input channels (of its group)."""

    def __init__(
        self,
        filters: int,
        kernel_size: Numbers,
        strides: Numbers = 1,
        padding: Padding = "valid",
        data_format: str | None = None,
        dilation_rate: Numbers = 1,
        groups: int = 1,
        activation: Any = None,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        bias_constraint: Any = None,
        **kwargs: Any,
    ):
        super().__init__(activity_regularizer=activity_regularizer, **kwargs)
        bias = (bias_initializer, bias_regularizer, bias_constraint)
        self._settle(
            kernel_size, strides, padding, data_format, dilation_rate, activation, use_bias, bias
        )
        self.filters = positive(self, "filters", filters)
        self.groups = positive(self, "groups", groups)
        if self.filters % self.groups:
            raise ArgumentError(
                f"{self.name}: filters={filters} must be a multiple of groups={groups}"
            )
        self._kernel = settings(kernel_initializer, kernel_regularizer, kernel_constraint)

    def build(self, input_shape):
        channels = self._channels(input_shape)
        if channels % self.groups:
            raise ShapeError(
                f"{self.path}: {channels} channels are not a multiple of groups={self.groups}"
            )
        shape = (*self.kernel_size, channels // self.groups, self.filters)
        self.kernel = self._weight("kernel", shape, self._kernel)
        self._add_bias(self.filters)

    def call(self, x):
        self._check(x, same_extent=True)
        y = ops.conv(
            x, self.kernel, strides=self.strides, padding=self.padding,
            dilation_rate=self.dilation_rate, groups=self.groups,
        )  # fmt: skip
        return self._finish(y)


@REGISTRY.named("convolution1d")
class Conv1D(_Conv):
    """Convolution over steps. Weights: kernel (size, channels / groups, filters), bias (filters,).

    padding: 'valid', 'same' (Keras' rule: the odd step is behind), 'causal' (a step sees itself and
    those before), or ((before, behind),). With strides=1 and a padding that keeps it, the number of
    steps may be open.
    """

    spatial = 1
    paddings = ("valid", "same", "causal")


@REGISTRY.named("convolution2d")
class Conv2D(_Conv):
    """Convolution. Weights: kernel (kh, kw, channels / groups, filters), bias (filters,).

    padding: 'valid', 'same' (Keras' rule: the odd row is at the bottom), or ((top, bottom), (left,
    right)).
    """

    spatial = 2


class _DepthwiseConv(Convolution):
    """Each channel by itself."""

    def __init__(
        self,
        kernel_size: Numbers,
        strides: Numbers = 1,
        padding: Padding = "valid",
        depth_multiplier: int = 1,
        data_format: str | None = None,
        dilation_rate: Numbers = 1,
        activation: Any = None,
        use_bias: bool = True,
        depthwise_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        depthwise_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        depthwise_constraint: Any = None,
        bias_constraint: Any = None,
        **kwargs: Any,
    ):
        super().__init__(activity_regularizer=activity_regularizer, **kwargs)
        bias = (bias_initializer, bias_regularizer, bias_constraint)
        self._settle(
            kernel_size, strides, padding, data_format, dilation_rate, activation, use_bias, bias
        )
        self.depth_multiplier = positive(self, "depth_multiplier", depth_multiplier)
        self._kernel = settings(depthwise_initializer, depthwise_regularizer, depthwise_constraint)

    def build(self, input_shape):
        channels = self._channels(input_shape)
        shape = (*self.kernel_size, channels, self.depth_multiplier)
        self.kernel = self._weight("kernel", shape, self._kernel)
        self._add_bias(channels * self.depth_multiplier)

    def call(self, x):
        self._check(x, same_extent=True)
        y = ops.depthwise_conv(
            x, self.kernel, strides=self.strides, padding=self.padding,
            dilation_rate=self.dilation_rate,
        )  # fmt: skip
        return self._finish(y)


@REGISTRY.named("depthwise_convolution1d")
class DepthwiseConv1D(_DepthwiseConv):
    """Each channel convolved with filters of its own. Weights: kernel (size, channels,
    depth_multiplier), bias (channels * depth_multiplier,); output channel c * depth_multiplier +
    m.
    """

    spatial = 1


@REGISTRY.named("depthwise_convolution2d")
class DepthwiseConv2D(_DepthwiseConv):
    """Each channel convolved with filters of its own. Weights: kernel (kh, kw, channels,
    depth_multiplier), bias (channels * depth_multiplier,); output channel c * depth_multiplier +
    m.
    """

    spatial = 2


class _SeparableConv(Convolution):
    """A depthwise convolution, then one with a window of 1 that mixes channels."""

    def __init__(
        self,
        filters: int,
        kernel_size: Numbers,
        strides: Numbers = 1,
        padding: Padding = "valid",
        data_format: str | None = None,
        dilation_rate: Numbers = 1,
        depth_multiplier: int = 1,
        activation: Any = None,
        use_bias: bool = True,
        depthwise_initializer: Any = "glorot_uniform",
        pointwise_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        depthwise_regularizer: Any = None,
        pointwise_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        depthwise_constraint: Any = None,
        pointwise_constraint: Any = None,
        bias_constraint: Any = None,
        **kwargs: Any,
    ):
        super().__init__(activity_regularizer=activity_regularizer, **kwargs)
        bias = (bias_initializer, bias_regularizer, bias_constraint)
        self._settle(
            kernel_size, strides, padding, data_format, dilation_rate, activation, use_bias, bias
        )
        self.filters = positive(self, "filters", filters)
        self.depth_multiplier = positive(self, "depth_multiplier", depth_multiplier)
        self._depthwise = settings(
            depthwise_initializer, depthwise_regularizer, depthwise_constraint
        )
        self._pointwise = settings(
            pointwise_initializer, pointwise_regularizer, pointwise_constraint
        )

    def build(self, input_shape):
        channels, many = self._channels(input_shape), self.depth_multiplier
        shape = (*self.kernel_size, channels, many)
        self.depthwise_kernel = self._weight("depthwise_kernel", shape, self._depthwise)
        shape = (*[1] * self.spatial, channels * many, self.filters)
        self.pointwise_kernel = self._weight("pointwise_kernel", shape, self._pointwise)
        self._add_bias(self.filters)

    def call(self, x):
        self._check(x, same_extent=True)
        y = ops.separable_conv(
            x, self.depthwise_kernel, self.pointwise_kernel, strides=self.strides,
            padding=self.padding, dilation_rate=self.dilation_rate,
        )  # fmt: skip
        return self._finish(y)


@REGISTRY.named("separable_convolution1d")
class SeparableConv1D(_SeparableConv):
    """DepthwiseConv1D, then Conv1D of size 1. Weights: depthwise_kernel (size, channels,
    depth_multiplier), pointwise_kernel (1, channels * depth_multiplier, filters), bias (filters,).
    """

    spatial = 1


@REGISTRY.named("separable_convolution2d")
class SeparableConv2D(_SeparableConv):
    """DepthwiseConv2D, then Conv2D of size 1. Weights: depthwise_kernel (kh, kw, channels,
    depth_multiplier), pointwise_kernel (1, 1, channels * depth_multiplier, filters), bias
    (filters,).
    """

    spatial = 2
