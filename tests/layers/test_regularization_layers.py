"""Layers that disturb their input in training: what they do to its distribution, and when."""

import numpy as np
import pytest
from keras_checks import Typed, keras_on_torch
from layer_checks import apply

from nnjit import layers
from nnjit.errors import ArgumentError, ShapeError
from nnjit.models import Sequential

RNG = np.random.default_rng(11)
X = RNG.standard_normal((40, 6, 50))


def trained(layer, x=X):
    return apply(layer, x.astype("float32"), training=True)[0]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("name", "options"), [
    ("SpatialDropout1D", {"rate": 0.5}), ("GaussianNoise", {"stddev": 0.5}),
    ("GaussianDropout", {"rate": 0.5}), ("Identity", {}),
    ("AlphaDropout", {"rate": 0.5, "noise_shape": [None, 1, 1]}),
    ("ActivityRegularization", {"l1": 0.1, "l2": 0.2}),
])  # fmt: skip
def test_they_rest_in_inference_and_pass_on_masks(name, options, dtype):
    layer = getattr(Typed(layers, dtype), name)(**options)
    x = X.astype(dtype)
    y, grads, _ = apply(layer, x, cotangent=x)
    np.testing.assert_array_equal(y, x)
    np.testing.assert_array_equal(grads["x0"], x)
    active, grads, _ = apply(layer, x, training=True, cotangent=np.ones_like(x))
    assert active.dtype == dtype
    assert (active != x).any() == (name not in ("ActivityRegularization", "Identity"))
    assert layer.supports_masking
    config = layer.get_config()
    assert layers.get({"class_name": name, "config": config}).get_config() == config


def test_spatial_dropout_drops_whole_channels():
    y = trained(layers.SpatialDropout1D(0.5), np.abs(X))
    dropped = (y == 0).all(1)
    assert ((y == 0).any(1) == dropped).all()
    assert 0.4 < dropped.mean() < 0.6
    images = np.ones((20, 3, 4, 30))
    y = trained(layers.SpatialDropout2D(0.25), images)
    assert set(np.unique(y)) == {0, np.float32(1 / 0.75)}
    assert (y == y[:, :1, :1]).all()


def test_gaussian_layers_have_the_deviation_they_say():
    np.testing.assert_allclose((trained(layers.GaussianNoise(0.3)) - X).std(), 0.3, rtol=0.05)
    factor = trained(layers.GaussianDropout(0.2), np.ones_like(X))
    np.testing.assert_allclose([factor.mean(), factor.std()], [1, 0.5], rtol=0.05)


def test_alpha_dropout_keeps_mean_and_variance():
    y = trained(layers.AlphaDropout(0.3))
    np.testing.assert_allclose([y.mean(), y.std()], [0, 1], atol=0.05)
    values, counts = np.unique(y, return_counts=True)
    assert 0.25 < counts.max() / y.size < 0.35
    alike = trained(layers.AlphaDropout(0.3, noise_shape=(None, 1, 1)))
    low = alike == values[counts.argmax()]
    assert low.any()
    assert (low.all((1, 2)) == low.any((1, 2))).all()


def test_activity_regularization_is_that_of_keras():
    keras = keras_on_torch()
    x, y = RNG.standard_normal((2, 6, 3)).astype("float32")

    def model(L, whole, Input):
        return whole([Input((3,)), L.ActivityRegularization(0.1, 0.2), L.Dense(3)])

    mine = model(layers, Sequential, layers.Input)
    theirs = model(keras.layers, keras.Sequential, keras.Input)
    theirs.set_weights(mine.get_weights())
    theirs.compile("sgd", "mse")
    mine.compile("sgd", "mse", device="interpret")
    np.testing.assert_allclose(mine.test_on_batch(x, y), theirs.test_on_batch(x, y), rtol=1e-6)


def test_wrong_options_are_named():
    for make, message in [
        (lambda: layers.GaussianNoise(-1), "stddev=-1"),
        (lambda: layers.GaussianDropout(1.0), "rate=1.0"),
        (lambda: layers.AlphaDropout("a"), "rate='a'"),
        (lambda: layers.SpatialDropout2D(0.5, data_format="channels_first"), "data_format"),
    ]:
        with pytest.raises(ArgumentError, match=message):
            make()
    with pytest.raises(ShapeError, match="expected rank 3"):
        layers.SpatialDropout1D(0.5)(layers.Input((4,)))
