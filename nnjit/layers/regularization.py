"""Layers that disturb or penalise their input in training; Keras' names and defaults.

Identity is here too: it does neither.
"""

from __future__ import annotations

from typing import Any

from nnjit import ops, regularizers
from nnjit.errors import ArgumentError, ShapeError
from nnjit.graph import Node
from nnjit.layers.base import REGISTRY, Layer
from nnjit.layers.core import Dropout, channels_last, stream
from nnjit.spec import shape_text

# SELU's value far below 0, -scale * alpha: what AlphaDropout puts in the place of a value
ALPHA = -1.7580993408473766


class _Spatial(Dropout):
    """Whole channels are dropped: one choice for all positions."""

    RANK = 3

    def __init__(self, rate: float, seed: int | None = None, **kwargs: Any):
        super().__init__(rate, (None, *(1,) * (self.RANK - 2), None), seed, **kwargs)

    def call(self, x, training=False):
        if x.rank != self.RANK:
            raise ShapeError(f"{self.path}: expected rank {self.RANK}, got {shape_text(x.shape)}")
        return super().call(x, training)


@REGISTRY.named()
class SpatialDropout1D(_Spatial):
    """Dropout of whole channels of (batch, time, channels)."""


@REGISTRY.named()
class SpatialDropout2D(_Spatial):
    """Dropout of whole channels of (batch, height, width, channels)."""

    RANK = 4

    def __init__(
        self, rate: float, data_format: str | None = None, seed: int | None = None, **kwargs: Any
    ):
        super().__init__(rate, seed, **kwargs)
        channels_last(self, data_format)


class _Noise(Layer):
    """Something random in training, nothing in inference."""

    supports_masking = True

    def __init__(self, seed: int | None, **kwargs: Any):
        super().__init__(**kwargs)
        self.seed = seed

    def _share(self, option: str, value: Any, least_out: float) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
            raise ArgumentError(f"{self.name}: {option}={value!r}: expected a number from 0")
        if value >= least_out:
            raise ArgumentError(f"{self.name}: {option}={value!r}: expected less than {least_out}")
        return float(value)

    def _normal(self, x: Node) -> Node:
        return ops.random_normal(x.shape, dtype=x.dtype, stream=stream(self.seed))


@REGISTRY.named()
class GaussianNoise(_Noise):
    """In training, x plus normal numbers of this standard deviation."""

    def __init__(self, stddev: float, seed: int | None = None, **kwargs: Any):
        super().__init__(seed, **kwargs)
        self.stddev = self._share("stddev", stddev, float("inf"))

    def call(self, x, training=False):
        return x + self.stddev * self._normal(x) if training and self.stddev else x


@REGISTRY.named()
class GaussianDropout(_Noise):
    """In training, x times normal numbers of mean 1 and variance rate / (1 - rate)."""

    def __init__(self, rate: float, seed: int | None = None, **kwargs: Any):
        super().__init__(seed, **kwargs)
        self.rate = self._share("rate", rate, 1)

    def call(self, x, training=False):
        deviation = (self.rate / (1 - self.rate)) ** 0.5
        return x * (1 + deviation * self._normal(x)) if training and self.rate else x


@REGISTRY.named()
class AlphaDropout(_Noise):
    """Dropout for SELU networks: values become SELU's lowest, and mean and variance stay."""

    def __init__(
        self,
        rate: float,
        noise_shape: Any = None,
        seed: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(seed, **kwargs)
        self.rate = self._share("rate", rate, 1)
        self.noise_shape = None if noise_shape is None else tuple(noise_shape)

    def call(self, x, training=False):
        if not training or not self.rate:
            return x
        chosen = self.noise_shape or (None,) * x.rank
        if len(chosen) != x.rank:
            raise ShapeError(
                f"{self.path}: noise_shape {self.noise_shape} for an input of "
                f"{shape_text(x.shape)}: ranks differ"
            )
        shape = tuple(d if n is None else n for n, d in zip(chosen, x.shape, strict=True))
        kept = ops.random_uniform(shape, dtype=x.dtype, stream=stream(self.seed)) >= self.rate
        a = ((1 - self.rate) * (1 + self.rate * ALPHA**2)) ** -0.5
        return a * ops.where(kept, x, ALPHA) - a * ALPHA * self.rate


@REGISTRY.named()
class ActivityRegularization(Layer):
    """The input; l1 * sum(|x|) + l2 * sum(x ** 2), per sample, is added to the loss."""

    supports_masking = True

    def __init__(self, l1: float = 0.0, l2: float = 0.0, **kwargs: Any):
        super().__init__(activity_regularizer=regularizers.L1L2(l1=l1, l2=l2), **kwargs)
        self.l1, self.l2 = l1, l2

    def call(self, x):
        return x


@REGISTRY.named()
class Identity(Layer):
    """The input."""

    supports_masking = True

    def call(self, x):
        return x
