"""Pooling of (batch, steps, channels) and (batch, height, width, channels); Keras' names and
defaults.
"""

from __future__ import annotations

from typing import Any, ClassVar

from nnjit import ops
from nnjit.graph import Node
from nnjit.layers.base import REGISTRY, Layer
from nnjit.layers.convolution_base import Numbers, check_known, check_padding, check_rank, numbers
from nnjit.layers.core import channels_last


class _Pooling(Layer):
    """Windows of pool_size, `strides` (default: pool_size) apart."""

    spatial: ClassVar[int]

    def __init__(
        self,
        pool_size: Numbers = 2,
        strides: Numbers | None = None,
        padding: str = "valid",
        data_format: str | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        n = self.spatial
        self.pool_size = numbers(self, "pool_size", pool_size, n)
        self.strides = self.pool_size if strides is None else numbers(self, "strides", strides, n)
        self.padding = check_padding(self, padding, n)
        channels_last(self, data_format)

    def call(self, x):
        check_rank(self, x.shape, self.spatial)
        check_known(self, x, range(1, self.spatial + 1))
        return self._pool(x, self.pool_size, strides=self.strides, padding=self.padding)

    def _pool(self, x: Node, *args: Any, **options: Any) -> Node:
        raise NotImplementedError


class _MaxPooling(_Pooling):
    def _pool(self, x, *args, **options):
        return ops.max_pool(x, *args, **options)


class _AveragePooling(_Pooling):
    def _pool(self, x, *args, **options):
        return ops.average_pool(x, *args, **options)


@REGISTRY.named("MaxPool1D")
class MaxPooling1D(_MaxPooling):
    """The largest value of each window of steps; padded positions do not count."""

    spatial = 1


@REGISTRY.named("MaxPool2D")
class MaxPooling2D(_MaxPooling):
    """The largest value of each window; padded positions do not count."""

    spatial = 2


@REGISTRY.named("AvgPool1D")
class AveragePooling1D(_AveragePooling):
    """The mean of each window of steps; padded positions do not count."""

    spatial = 1


@REGISTRY.named("AvgPool2D")
class AveragePooling2D(_AveragePooling):
    """The mean of each window; padded positions do not count."""

    spatial = 2


class _GlobalPooling(Layer):
    """Over all spatial axes; keepdims keeps them as 1."""

    spatial: ClassVar[int]

    def __init__(self, data_format: str | None = None, keepdims: bool = False, **kwargs: Any):
        super().__init__(**kwargs)
        channels_last(self, data_format)
        self.keepdims = bool(keepdims)

    def call(self, x):
        check_rank(self, x.shape, self.spatial)
        return self._pool(x, axis=tuple(range(1, self.spatial + 1)), keepdims=self.keepdims)

    def _pool(self, x: Node, **options: Any) -> Node:
        raise NotImplementedError


class _GlobalAveragePooling(_GlobalPooling):
    def _pool(self, x, **options):
        return ops.mean(x, **options)


class _GlobalMaxPooling(_GlobalPooling):
    def _pool(self, x, **options):
        return ops.max(x, **options)


@REGISTRY.named("GlobalAvgPool1D")
class GlobalAveragePooling1D(_GlobalAveragePooling):
    """The mean of each channel over the steps, with a mask (batch, steps) over those it keeps: NaN
    where it keeps none. The number of steps may be open.
    """

    spatial = 1
    supports_masking = True

    def call(self, x, mask=None):
        if mask is None:
            return super().call(x)
        check_rank(self, x.shape, self.spatial)
        kept = ops.expand_dims(ops.cast(mask, "bool"), 2)
        total = ops.sum(ops.where(kept, x, 0.0), axis=1, keepdims=self.keepdims)
        return total / ops.sum(ops.cast(kept, x.dtype), axis=1, keepdims=self.keepdims)

    def compute_mask(self, inputs, previous_mask=None):
        """None: there are no steps any more."""
        return None


@REGISTRY.named("GlobalAvgPool2D")
class GlobalAveragePooling2D(_GlobalAveragePooling):
    """The mean of each channel."""

    spatial = 2


@REGISTRY.named("GlobalMaxPool1D")
class GlobalMaxPooling1D(_GlobalMaxPooling):
    """The largest value of each channel over the steps, which may be open in number."""

    spatial = 1


@REGISTRY.named("GlobalMaxPool2D")
class GlobalMaxPooling2D(_GlobalMaxPooling):
    """The largest value of each channel."""

    spatial = 2
