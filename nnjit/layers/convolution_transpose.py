"""Transposed convolutions: images and sequences grow by the strides; as Keras 3 cuts the ends."""

from __future__ import annotations

from typing import Any

from nnjit import ops
from nnjit.errors import ArgumentError
from nnjit.layers.base import REGISTRY
from nnjit.layers.convolution_base import Convolution, Numbers, numbers
from nnjit.layers.core import positive, settings


class _ConvTranspose(Convolution):
    """The gradient of a convolution with respect to its input, as a layer."""

    explicit = False

    def __init__(
        self,
        filters: int,
        kernel_size: Numbers,
        strides: Numbers = 1,
        padding: str = "valid",
        output_padding: Numbers | None = None,
        data_format: str | None = None,
        dilation_rate: Numbers = 1,
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
        self.output_padding = None
        if output_padding is not None:
            self.output_padding = numbers(self, "output_padding", output_padding, self.spatial, 0)
            if any(p >= s for p, s in zip(self.output_padding, self.strides, strict=True)):
                raise ArgumentError(
                    f"{self.name}: output_padding={output_padding!r}: expected less than the "
                    f"strides, {self.strides}"
                )
        self._kernel = settings(kernel_initializer, kernel_regularizer, kernel_constraint)

    def build(self, input_shape):
        shape = (*self.kernel_size, self.filters, self._channels(input_shape))
        self.kernel = self._weight("kernel", shape, self._kernel)
        self._add_bias(self.filters)

    def call(self, x):
        self._check(x)
        y = ops.conv_transpose(
            x, self.kernel, strides=self.strides, padding=self.padding,
            output_padding=self.output_padding, dilation_rate=self.dilation_rate,
        )  # fmt: skip
        return self._finish(y)


@REGISTRY.named("convolution1d_transpose")
class Conv1DTranspose(_ConvTranspose):
    """Steps grow by `strides`. Weights: kernel (size, filters, channels), bias (filters,).

    padding 'same': steps * strides; 'valid': steps * strides + max(size - strides, 0), size with
    dilation_rate counted in. output_padding (less than strides) gives the extent itself: (steps -
    1) * strides + output_padding + size ('valid') or size % 2 ('same').
    """

    spatial = 1


@REGISTRY.named("convolution2d_transpose")
class Conv2DTranspose(_ConvTranspose):
    """Height and width grow by `strides`. Weights: kernel (kh, kw, filters, channels), bias
    (filters,).

    padding 'same': extent * strides; 'valid': extent * strides + max(size - strides, 0), size with
    dilation_rate counted in. output_padding (less than strides) gives the extent itself: (extent -
    1) * strides + output_padding + size ('valid') or size % 2 ('same').
    """

    spatial = 2
