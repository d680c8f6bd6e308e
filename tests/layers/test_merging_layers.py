"""Layers of several inputs against NumPy."""

import numpy as np
import pytest
from layer_checks import apply

from nnjit import layers
from nnjit.errors import ArgumentError, ShapeError

RNG = np.random.default_rng(5)
A, B, C = (RNG.standard_normal((3, 4)).astype("float32") for _ in range(3))


@pytest.mark.parametrize(
    ("layer", "inputs", "expected"),
    [
        (layers.Add(), (A, B, C), A + B + C),
        (layers.Subtract(), (A, B), A - B),
        (layers.Multiply(), (A, B, C), A * B * C),
        (layers.Average(), (A, B, C), (A + B + C) / 3),
        (layers.Maximum(), (A, B, C), np.maximum(np.maximum(A, B), C)),
        (layers.Minimum(), (A, B), np.minimum(A, B)),
        (layers.Concatenate(), (A, B), np.concatenate([A, B], -1)),
        (layers.Add(), (A, B[:, :1]), A + B[:, :1]),
    ],
    ids=lambda x: getattr(x, "name", ""),
)
def test_values_and_gradients(layer, inputs, expected):
    y, grads, _ = apply(layer, *inputs, cotangent=np.ones_like(expected))
    np.testing.assert_allclose(y, expected, rtol=1e-6, atol=1e-7)
    if layer.name in ("add", "concatenate"):
        for i, x in enumerate(inputs):
            np.testing.assert_array_equal(grads[f"x{i}"], np.full(x.shape, 4 / x.shape[1]))
    assert layers.get({"class_name": type(layer).__name__, "config": layer.get_config()})


def test_errors_name_the_layer():
    a, b = layers.Input((4,)), layers.Input((5,))
    with pytest.raises(ShapeError, match=r"add: shapes \(batch, 4\) and \(batch, 5\)"):
        layers.Add()([a, b])
    with pytest.raises(ArgumentError, match="add: expected a list of at least 2 values"):
        layers.Add()(a)
    with pytest.raises(ArgumentError, match="subtract: expected two values, got 3"):
        layers.Subtract()([a, a, a])
    with pytest.raises(ShapeError, match=r"concatenate: shapes .* may differ in axis 0 only"):
        layers.Concatenate(axis=0)([a, b])
