"""Layers of several inputs against Keras: values, gradients, broadcasting, options."""

import numpy as np
import pytest
from keras_checks import Typed, keras_on_torch, same_as_keras
from layer_checks import apply

from nnjit import layers
from nnjit.errors import ArgumentError, ShapeError

RNG = np.random.default_rng(5)

CASES = [
    ("Add", {}, [(3, 4, 5)] * 3),
    ("Add", {}, [(3, 4)]),
    ("Add", {}, [(3, 4, 5), (3, 1, 5)]),
    ("Add", {}, [(3, 4, 5), (3, 5)]),
    ("Subtract", {}, [(3, 4, 5), (3, 5)]),
    ("Multiply", {}, [(3, 5), (3, 4, 5), (3, 1, 5)]),
    ("Average", {}, [(3, 4), (3, 4), (3, 4)]),
    ("Average", {}, [(3, 4, 2), (3, 2), (3, 4, 2)]),
    ("Maximum", {}, [(3, 4), (3, 4), (3, 1)]),
    ("Minimum", {}, [(3, 4), (3, 4), (3, 4)]),
    ("Concatenate", {}, [(3, 4), (3, 2), (3, 1)]),
    ("Concatenate", {"axis": 1}, [(3, 4, 2), (3, 2, 2)]),
    ("Concatenate", {"axis": -2}, [(3, 4, 2), (3, 2, 2)]),
    ("Dot", {"axes": 1}, [(3, 4), (3, 4)]),
    ("Dot", {"axes": 1, "normalize": True}, [(3, 4), (3, 4)]),
    ("Dot", {"axes": -1}, [(3, 4, 5), (3, 2, 5)]),
    ("Dot", {"axes": (1, 2), "normalize": True}, [(3, 4, 5), (3, 2, 4)]),
    ("Dot", {"axes": (1, 2)}, [(3, 4), (3, 2, 4)]),
    ("Dot", {"axes": (2, -1)}, [(3, 2, 4), (3, 4)]),
    ("Dot", {"axes": (2, 1)}, [(3, 2, 4, 5), (3, 4, 2, 3)]),
    ("Permute", {"dims": (3, 1, 2)}, [(3, 2, 4, 5)]),
    ("RepeatVector", {"n": 3}, [(3, 2)]),
    ("Reshape", {"target_shape": (-1, 2)}, [(3, 2, 4, 5)]),
    ("Reshape", {"target_shape": ()}, [(3, 1)]),
    ("Flatten", {}, [(3, 2, 4, 5)]),
    ("Flatten", {}, [(3,)]),
]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("name", "options", "shapes"), CASES)
def test_values_and_gradients_are_those_of_keras(name, options, shapes, dtype):
    keras = keras_on_torch()
    ours = getattr(Typed(layers, dtype), name)(**options)
    theirs = getattr(Typed(keras.layers, dtype), name)(**options)
    arrays = [RNG.standard_normal(s).astype(dtype) for s in shapes]
    if len(arrays) == 1 and name == "Add":
        x, y = arrays[0], ours([layers.Input(shapes[0][1:], dtype=dtype)])
        assert (y.shape[1:], y.dtype) == (x.shape[1:], dtype)
        return
    same_as_keras(ours, theirs, arrays)
    again = layers.get({"class_name": name, "config": ours.get_config()})
    assert again.get_config() == ours.get_config()
    np.testing.assert_array_equal(apply(again, *arrays)[0], apply(ours, *arrays)[0])


def test_axes_of_open_length():
    a, b = layers.Input(("time", 4)), layers.Input(("time", 4))
    x, y = (RNG.standard_normal((2, 7, 4)).astype("float32") for _ in range(2))
    from nnjit.models import Model

    scores = Model([a, b], layers.Dot(axes=2)([a, b]))
    np.testing.assert_allclose(apply(scores, x, y)[0], x @ y.transpose(0, 2, 1), rtol=1e-5)
    sums = Model([a, b], layers.Dot(axes=1)([a, b]))
    np.testing.assert_allclose(apply(sums, x, y)[0], x.transpose(0, 2, 1) @ y, rtol=1e-5)
    both = Model([a, b], layers.Concatenate(axis=1)([a, b]))
    np.testing.assert_array_equal(apply(both, x, y)[0], np.concatenate([x, y], 1))
    halves = layers.Reshape((-1, 2))(a)
    np.testing.assert_array_equal(apply(Model(a, halves), x)[0], x.reshape(2, 14, 2))
    flat = layers.Flatten()(layers.Permute((2, 1))(a))
    np.testing.assert_array_equal(apply(Model(a, flat), x)[0], x.transpose(0, 2, 1).reshape(2, 28))


def test_errors_name_the_layer():
    a, b = layers.Input((4,)), layers.Input((5,))
    with pytest.raises(ShapeError, match=r"add: shapes \(batch, 4\) and \(batch, 5\)"):
        layers.Add()([a, b])
    with pytest.raises(ArgumentError, match="add: expected a list of at least one value"):
        layers.Add()(a)
    with pytest.raises(ArgumentError, match="subtract: expected two values, got 3"):
        layers.Subtract()([a, a, a])
    with pytest.raises(ShapeError, match=r"concatenate: shapes .* may differ in axis 0 only"):
        layers.Concatenate(axis=0)([a, b])
    with pytest.raises(ShapeError, match=r"dot: .* differ in the batch axis or along axes 1 and 1"):
        layers.Dot(axes=1)([a, b])
    with pytest.raises(ArgumentError, match="dot: axes=0: no axis 0 beside the batch axis"):
        layers.Dot(axes=0)([a, b])
    with pytest.raises(ArgumentError, match=r"axes=\(1, 2, 3\): expected a number or a pair"):
        layers.Dot(axes=(1, 2, 3))
    with pytest.raises(ArgumentError, match="add: 1 masks for 2 values"):
        layers.Add()([a, a], mask=[layers.Input((1,), dtype="bool")])
    with pytest.raises(ArgumentError, match=r"Input: shape=.*: expected whole numbers, names"):
        layers.Input(("a b", 3))
