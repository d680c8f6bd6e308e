"""2-D convolutions of (batch, height, width, channels); Keras' names, defaults, weight shapes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from nnjit import activations, ops
from nnjit.errors import ArgumentError, ShapeError, nearest
from nnjit.graph import Node
from nnjit.layers.base import REGISTRY, Layer
from nnjit.layers.core import channels_last, known, last_axis, positive, settings
from nnjit.spec import shape_text

Pair = int | Sequence[int]
Padding = str | Sequence[Sequence[int]]


def pair(layer: Layer, option: str, value: Any) -> tuple[int, int]:
    """A number twice, or two numbers; ArgumentError names layer and option."""
    values = (value, value) if not isinstance(value, list | tuple) else tuple(value)
    if len(values) != 2:
        raise ArgumentError(f"{layer.name}: {option}={value!r}: expected a number or two numbers")
    return positive(layer, option, values[0]), positive(layer, option, values[1])


def check_padding(layer: Layer, padding: Any, explicit: bool = True) -> Any:
    """'valid', 'same', or ((top, bottom), (left, right))."""
    if isinstance(padding, str):
        if padding.lower() not in ("valid", "same"):
            raise ArgumentError(
                f"{layer.name}: padding={padding!r}{nearest(padding, ('valid', 'same'))}"
            )
        return padding.lower()
    try:
        (top, bottom), (left, right) = padding
        if explicit and min(top, bottom, left, right) >= 0:
            return (int(top), int(bottom)), (int(left), int(right))
    except (TypeError, ValueError):
        pass
    wanted = "'valid' or 'same'" + (" or ((top, bottom), (left, right))" if explicit else "")
    raise ArgumentError(f"{layer.name}: padding={padding!r}: expected {wanted}")


class _Conv(Layer):
    """What Conv2D and DepthwiseConv2D share: settings, bias, activation."""

    activation: Callable[[Node], Node]
    use_bias: bool
    _kernel: tuple  # initializer, regularizer, constraint
    _bias: tuple

    def _geometry(self, kernel_size, strides, padding, data_format, dilation_rate) -> None:
        self.kernel_size = pair(self, "kernel_size", kernel_size)
        self.strides = pair(self, "strides", strides)
        self.dilation_rate = pair(self, "dilation_rate", dilation_rate)
        self.padding = check_padding(self, padding)
        channels_last(self, data_format)
        if max(self.strides) > 1 and max(self.dilation_rate) > 1:
            raise ArgumentError(
                f"{self.name}: strides={self.strides} and dilation_rate={self.dilation_rate}: "
                "only one of them may be more than 1"
            )

    def _weights(self, kernel: tuple[int, ...], outputs: int) -> None:
        initializer, regularizer, constraint = self._kernel
        self.kernel = self.add_weight(
            kernel, initializer, "kernel", regularizer=regularizer, constraint=constraint
        )
        self.bias = None
        if self.use_bias:
            initializer, regularizer, constraint = self._bias
            self.bias = self.add_weight(
                (outputs,), initializer, "bias", regularizer=regularizer, constraint=constraint
            )

    def _channels(self, input_shape: Sequence[int | None]) -> int:
        if len(input_shape) != 4:
            raise ShapeError(
                f"{self.path}: expected (batch, height, width, channels), "
                f"got {shape_text(input_shape)}"
            )
        self.channels = known(self, input_shape)
        return self.channels

    def _finish(self, y):
        return self.activation(y if self.bias is None else y + self.bias)


@REGISTRY.named("convolution2d")
class Conv2D(_Conv):
    """Convolution. Weights: kernel (kh, kw, channels / groups, filters), bias (filters,).

    padding: 'valid', 'same' (Keras' rule: the odd row is at the bottom), or ((top, bottom), (left,
    right)).
    """

    def __init__(
        self,
        filters: int,
        kernel_size: Pair,
        strides: Pair = (1, 1),
        padding: Padding = "valid",
        data_format: str | None = None,
        dilation_rate: Pair = (1, 1),
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
        self._geometry(kernel_size, strides, padding, data_format, dilation_rate)
        self.filters = positive(self, "filters", filters)
        self.groups = positive(self, "groups", groups)
        if self.filters % self.groups:
            raise ArgumentError(
                f"{self.name}: filters={filters} must be a multiple of groups={groups}"
            )
        self.activation, self.use_bias = activations.get(activation), use_bias
        self._kernel = settings(kernel_initializer, kernel_regularizer, kernel_constraint)
        self._bias = settings(bias_initializer, bias_regularizer, bias_constraint)

    def build(self, input_shape):
        channels = self._channels(input_shape)
        if channels % self.groups:
            raise ShapeError(
                f"{self.path}: {channels} channels are not a multiple of groups={self.groups}"
            )
        self._weights((*self.kernel_size, channels // self.groups, self.filters), self.filters)

    def call(self, x):
        last_axis(self, x, self.channels, rank=4)
        y = ops.conv(
            ops.cast(x, self.dtype), self.kernel, strides=self.strides, padding=self.padding,
            dilation_rate=self.dilation_rate, groups=self.groups,
        )  # fmt: skip
        return self._finish(y)


@REGISTRY.named("depthwise_convolution2d")
class DepthwiseConv2D(_Conv):
    """Each channel convolved with filters of its own. Weights: kernel (kh, kw, channels,
    depth_multiplier), bias (channels * depth_multiplier,); output channel c * depth_multiplier +
    m.
    """

    def __init__(
        self,
        kernel_size: Pair,
        strides: Pair = (1, 1),
        padding: Padding = "valid",
        depth_multiplier: int = 1,
        data_format: str | None = None,
        dilation_rate: Pair = (1, 1),
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
        self._geometry(kernel_size, strides, padding, data_format, dilation_rate)
        self.depth_multiplier = positive(self, "depth_multiplier", depth_multiplier)
        self.activation, self.use_bias = activations.get(activation), use_bias
        self._kernel = settings(depthwise_initializer, depthwise_regularizer, depthwise_constraint)
        self._bias = settings(bias_initializer, bias_regularizer, bias_constraint)

    def build(self, input_shape):
        channels = self._channels(input_shape)
        kernel = (*self.kernel_size, channels, self.depth_multiplier)
        self._weights(kernel, channels * self.depth_multiplier)

    def call(self, x):
        last_axis(self, x, self.channels, rank=4)
        y = ops.depthwise_conv(
            ops.cast(x, self.dtype), self.kernel, strides=self.strides, padding=self.padding,
            dilation_rate=self.dilation_rate,
        )  # fmt: skip
        return self._finish(y)
