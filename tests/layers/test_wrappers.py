"""TimeDistributed against Keras, with open batch and time."""

import numpy as np
import pytest
from keras_checks import Typed, keras_on_torch, same_as_keras
from layer_checks import apply

from nnjit import layers, ops
from nnjit.errors import ArgumentError, ShapeError
from nnjit.models import Model, Sequential

RNG = np.random.default_rng(4)

CASES = [
    (lambda L: L.TimeDistributed(L.Dense(3, activation="tanh")), (2, 4, 5)),
    (lambda L: L.TimeDistributed(L.Conv2D(2, 2, strides=2)), (2, 3, 4, 5, 2)),
    (lambda L: L.TimeDistributed(L.Flatten()), (2, 3, 4, 2)),
    (lambda L: L.TimeDistributed(L.LayerNormalization(), name="steps"), (2, 3, 4)),
    (lambda L: L.TimeDistributed(L.BatchNormalization()), (2, 3, 4)),
    (lambda L: L.TimeDistributed(L.TimeDistributed(L.Dense(2))), (2, 3, 2, 3)),
]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("make", "shape"), CASES)
def test_each_step_is_that_of_keras(make, shape, dtype):
    keras = keras_on_torch()
    x = RNG.standard_normal(shape).astype(dtype)
    mine = make(Typed(layers, dtype))
    same_as_keras(mine, make(Typed(keras.layers, dtype)), [x])
    config = mine.get_config()
    again = layers.get({"class_name": "TimeDistributed", "config": config})
    assert again.get_config() == config
    assert again(layers.Input(shape[1:], dtype=dtype)).shape[1:] == apply(mine, x)[0].shape[1:]


class Last(layers.Layer):
    """Looks at masks: the last row that its mask leaves, and a count."""

    def call(self, x, mask=None):
        weight = ops.cast(mask, "float32")
        return {
            "sum": ops.sum(x * ops.expand_dims(weight, -1), axis=1),
            "count": ops.sum(weight, 1),
        }


def test_a_mask_over_steps_and_more_reaches_the_layer_inside():
    x = RNG.standard_normal((2, 3, 4, 5)).astype("float32")
    mask = RNG.random((2, 3, 4)) > 0.5
    i, m = layers.Input((None, 4, 5)), layers.Input((3, 4), dtype="bool")
    with pytest.raises(ShapeError, match=r"time_distributed: expected a mask"):
        layers.TimeDistributed(Last())(i, mask=m)
    i = layers.Input((3, 4, 5))
    found = layers.TimeDistributed(Last())(i, mask=m)
    y = Model([i, m], layers.Concatenate()([found["sum"], layers.Reshape((3, 1))(found["count"])]))
    out = apply(y, x, mask)[0]
    np.testing.assert_allclose(out[..., :5], (x * mask[..., None]).sum(2), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(out[..., 5], mask.sum(2))


def test_a_model_inside_and_whole_numbers():
    inner = Sequential([layers.Embedding(6, 3), layers.Flatten(), layers.Dense(2)])
    model = Sequential([layers.Input((None, 4), dtype="int32"), layers.TimeDistributed(inner)])
    x = RNG.integers(0, 6, (2, 5, 4)).astype("int32")
    table, kernel, bias = model.get_weights()
    expected = table[x].reshape(2, 5, 12) @ kernel + bias
    np.testing.assert_allclose(apply(model, x)[0], expected, rtol=1e-5, atol=1e-6)
    assert model.weights[0].name == "time_distributed/sequential/embedding/embeddings"


def test_errors_name_the_layer():
    with pytest.raises(ArgumentError, match="layer=3: expected a layer"):
        layers.TimeDistributed(3)
    with pytest.raises(ShapeError, match=r"time_distributed: expected \(batch, time, features …\)"):
        layers.TimeDistributed(layers.Dense(2))(layers.Input((4,)))

    class Whole(layers.Layer):
        def call(self, x):
            return ops.sum(x, axis=0)

    with pytest.raises(ShapeError, match="whole made"):
        layers.TimeDistributed(Whole())(layers.Input((4, 5)))
