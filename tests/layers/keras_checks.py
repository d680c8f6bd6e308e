"""Compares layers and models with those of Keras on torch: what the tests of layers share."""

from __future__ import annotations

import os

import numpy as np
import pytest
from layer_checks import apply

os.environ.setdefault("KERAS_BACKEND", "torch")


def keras_on_torch():
    """The module, or a skipped test."""
    keras = pytest.importorskip("keras", reason="compares with keras, which is missing")
    if keras.backend.backend() != "torch":
        pytest.skip("compares with keras on torch")
    return keras


class Typed:
    """A module of layers that all get this dtype."""

    def __init__(self, module, dtype):
        self.module, self.dtype = module, dtype

    def __getattr__(self, name):
        made = getattr(self.module, name)
        return lambda *args, **options: made(*args, **{"dtype": self.dtype, **options})


def same_as_keras(ours, theirs, arrays, training=False, rtol=2e-5, atol=2e-6):
    """Output and gradients of a layer or model are those of Keras', for these inputs."""
    torch = pytest.importorskip("torch", reason="compares with torch, which is missing")
    y, _, _ = apply(ours, *arrays, training=training)
    dy = np.random.default_rng(1).standard_normal(y.shape).astype(y.dtype)
    y, grads, _ = apply(ours, *arrays, training=training, cotangent=dy)
    tensors = [torch.tensor(a, requires_grad=a.dtype.kind == "f") for a in arrays]
    given = tensors[0] if len(tensors) == 1 else tensors
    theirs(given)
    theirs.set_weights(ours.get_weights())
    expected = theirs(given, training=training)
    assert y.shape == tuple(expected.shape)
    floats = [a.dtype for a in arrays if a.dtype.kind == "f"]
    assert y.dtype == (floats[0] if floats else np.float32)
    np.testing.assert_allclose(y, expected.detach().numpy(), rtol=rtol, atol=atol)
    # some of Keras' layers compute float64 in float32
    expected.backward(torch.tensor(dy, dtype=expected.dtype))
    for i, t in enumerate(tensors):
        if t.requires_grad:
            found = np.zeros(t.shape) if t.grad is None else t.grad.numpy()
            np.testing.assert_allclose(grads[f"x{i}"], found, rtol=rtol, atol=atol)
    for mine, other in zip(ours.trainable_weights, theirs.trainable_weights, strict=True):
        found = other.value.grad
        found = np.zeros(mine.shape) if found is None else found.numpy()
        np.testing.assert_allclose(grads[mine.name], found, rtol=rtol, atol=atol)
    return y
