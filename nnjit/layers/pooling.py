"""2-D pooling on (batch, height, width, channels); Keras' names and defaults."""

from __future__ import annotations

from typing import Any

from nnjit import ops
from nnjit.errors import ShapeError
from nnjit.graph import Node
from nnjit.layers.base import REGISTRY, Layer
from nnjit.layers.convolution import Pair, check_padding, pair
from nnjit.layers.core import channels_last
from nnjit.spec import shape_text


def _image(layer: Layer, x: Node) -> None:
    if x.rank != 4:
        raise ShapeError(
            f"{layer.path}: expected (batch, height, width, channels), got {shape_text(x.shape)}"
        )


class _Pooling(Layer):
    """Windows of pool_size, `strides` (default: pool_size) apart."""

    def __init__(
        self,
        pool_size: Pair = (2, 2),
        strides: Pair | None = None,
        padding: str = "valid",
        data_format: str | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.pool_size = pair(self, "pool_size", pool_size)
        self.strides = self.pool_size if strides is None else pair(self, "strides", strides)
        self.padding = check_padding(self, padding, explicit=False)
        channels_last(self, data_format)

    def call(self, x):
        _image(self, x)
        return self._pool(x, self.pool_size, strides=self.strides, padding=self.padding)

    def _pool(self, x: Node, *args: Any, **options: Any) -> Node:
        raise NotImplementedError


@REGISTRY.named("MaxPool2D")
class MaxPooling2D(_Pooling):
    """The largest value of each window; padded positions do not count."""

    def _pool(self, x, *args, **options):
        return ops.max_pool(x, *args, **options)


@REGISTRY.named("AvgPool2D")
class AveragePooling2D(_Pooling):
    """The mean of each window; padded positions do not count."""

    def _pool(self, x, *args, **options):
        return ops.average_pool(x, *args, **options)


class _GlobalPooling(Layer):
    """Over height and width; keepdims keeps them as 1."""

    def __init__(self, data_format: str | None = None, keepdims: bool = False, **kwargs: Any):
        super().__init__(**kwargs)
        channels_last(self, data_format)
        self.keepdims = bool(keepdims)

    def call(self, x):
        _image(self, x)
        return self._pool(x, axis=(1, 2), keepdims=self.keepdims)

    def _pool(self, x: Node, **options: Any) -> Node:
        raise NotImplementedError


@REGISTRY.named("GlobalAvgPool2D")
class GlobalAveragePooling2D(_GlobalPooling):
    """The mean of each channel."""

    def _pool(self, x, **options):
        return ops.mean(x, **options)


@REGISTRY.named("GlobalMaxPool2D")
class GlobalMaxPooling2D(_GlobalPooling):
    """The largest value of each channel."""

    def _pool(self, x, **options):
        return ops.max(x, **options)
