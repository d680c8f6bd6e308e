"""Masking: which time steps of a sequence are meant. How masks travel is in `layers.calls`."""

from __future__ import annotations

from typing import Any

from nnjit import ops
from nnjit.layers.base import REGISTRY, Layer


@REGISTRY.named()
class Masking(Layer):
    """Masks the time steps of (batch, time, features) whose features all are mask_value, and makes
    them 0.
    """

    def __init__(self, mask_value: float = 0.0, **kwargs: Any):
        super().__init__(**kwargs)
        self.mask_value = mask_value

    def compute_mask(self, inputs, previous_mask=None):
        return ops.any(ops.not_equal(inputs, self.mask_value), axis=-1)

    def call(self, x):
        return ops.where(ops.any(ops.not_equal(x, self.mask_value), axis=-1, keepdims=True), x, 0.0)
