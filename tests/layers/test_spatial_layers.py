"""Layers over steps and images against Keras: values, gradients, names and shapes of weights."""

import os

import numpy as np
import pytest
from layer_checks import apply, values_of

from nnjit import layers
from nnjit.errors import ArgumentError, ShapeError
from nnjit.graph import Graph, Scope, interpret
from nnjit.layers import trace

RNG = np.random.default_rng(5)
steps, image = (2, 9, 4), (2, 5, 4, 2)


@pytest.fixture(scope="module")
def keras():
    os.environ.setdefault("KERAS_BACKEND", "torch")
    keras = pytest.importorskip("keras", reason="compares with keras, which is missing")
    if keras.backend.backend() != "torch":
        pytest.skip("compares with keras on torch")
    return keras


def transposed():
    """Every way in which Keras cuts the ends of a transposed convolution."""
    for size in (1, 2, 3, 4, 5):
        for padding in ("valid", "same"):
            yield {"kernel_size": size, "padding": padding}
            yield {"kernel_size": size, "padding": padding, "strides": 3}
            yield {"kernel_size": size, "padding": padding, "strides": 2, "output_padding": 1}
            yield {"kernel_size": size, "padding": padding, "strides": 2, "output_padding": 0}
            yield {"kernel_size": size, "padding": padding, "dilation_rate": 2}


CASES = [
    ("Conv1D", {"filters": 6, "kernel_size": 3, "activation": "tanh"}, steps),
    ("Conv1D", {"filters": 6, "kernel_size": 2, "padding": "same", "strides": 3}, steps),
    ("Conv1D", {"filters": 6, "kernel_size": 3, "padding": "causal", "dilation_rate": 2}, steps),
    ("Conv1D", {"filters": 6, "kernel_size": 4, "padding": "causal", "groups": 2}, steps),
    ("DepthwiseConv1D", {"kernel_size": 3, "depth_multiplier": 2, "strides": 2}, steps),
    ("SeparableConv1D", {"filters": 3, "kernel_size": 3, "dilation_rate": 2}, steps),
    ("SeparableConv2D", {"filters": 3, "kernel_size": (3, 2), "depth_multiplier": 2,
                         "padding": "same", "use_bias": False}, image),
    ("Conv2DTranspose", {"filters": 3, "kernel_size": 2, "strides": 2}, image),
    ("Conv2DTranspose", {"filters": 3, "kernel_size": (3, 2), "strides": (1, 2),
                         "padding": "same", "activation": "tanh"}, image),
    ("Conv2DTranspose", {"filters": 3, "kernel_size": 2, "strides": 2, "output_padding": (1, 0),
                         "padding": "same", "use_bias": False}, image),
    *(("Conv1DTranspose", {"filters": 3, **t}, (2, 4, 2)) for t in transposed()),
    ("MaxPooling1D", {}, steps),
    ("MaxPooling1D", {"pool_size": 3, "strides": 2, "padding": "same"}, steps),
    ("AveragePooling1D", {"pool_size": 3, "strides": 2, "padding": "same"}, steps),
    ("GlobalMaxPooling1D", {"keepdims": True}, steps),
    ("GlobalAveragePooling1D", {}, steps),
    ("UpSampling1D", {"size": 3}, steps),
    ("UpSampling2D", {"size": (2, 3)}, image),
    ("UpSampling2D", {"size": (2, 3), "interpolation": "bilinear"}, image),
    ("UpSampling2D", {"size": (5, 1), "interpolation": "bilinear"}, (1, 1, 2, 3)),
    ("ZeroPadding1D", {"padding": (1, 2)}, steps),
    ("ZeroPadding2D", {"padding": (2, 1)}, image),
    ("ZeroPadding2D", {"padding": ((0, 1), (2, 0))}, image),
    ("Cropping1D", {}, steps),
    ("Cropping2D", {"cropping": ((0, 1), (2, 0))}, image),
]  # fmt: skip


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("name", "options", "shape"), CASES, ids=str)
def test_values_and_gradients_are_those_of_keras(keras, name, options, shape, dtype):
    torch = pytest.importorskip("torch")
    ours = getattr(layers, name)(dtype=dtype, **options)
    theirs = getattr(keras.layers, name)(dtype=dtype, **options)
    theirs.build(shape)
    ours.build((None, *shape[1:]))
    ours.built = True
    assert [w.name for w in theirs.weights] == [w.key for w in ours.weights]
    values = [RNG.standard_normal(tuple(w.shape)).astype(dtype) for w in theirs.weights]
    ours.set_weights(values)
    theirs.set_weights(values)
    x = RNG.standard_normal(shape).astype(dtype)
    tx = torch.tensor(x, requires_grad=True)
    ty = theirs(tx)
    dy = RNG.standard_normal(ty.shape).astype(dtype)
    ty.backward(torch.tensor(dy, dtype=ty.dtype))
    y, grads, _ = apply(ours, x, cotangent=dy)
    assert y.dtype == dtype
    # Keras on torch takes means in float32
    rough = dtype == "float32" or name == "GlobalAveragePooling1D"
    tolerance = {"rtol": 2e-4, "atol": 2e-5} if rough else {"rtol": 1e-10, "atol": 1e-11}
    np.testing.assert_allclose(y, ty.detach().numpy(), **tolerance)
    np.testing.assert_allclose(grads["x0"], tx.grad.numpy(), **tolerance)
    for mine, other in zip(ours.trainable_weights, theirs.trainable_weights, strict=True):
        np.testing.assert_allclose(grads[mine.name], other.value.grad.numpy(), **tolerance)


def run(layer, shape, x, **given):
    """The layer's values for x, called on an Input of this shape; given: masks by argument."""
    masks = {k: layers.Input(v.shape[1:], dtype="bool", name=k) for k, v in given.items()}
    call = layer(layers.Input(shape, name="x"), **masks)
    (y,) = trace([call], {}, Scope())
    return interpret(Graph("g", {"y": y}), values_of(layer.weights) | {"x": x, **given})[0]["y"]


OPEN = [
    layers.Conv1D(6, 3, padding="same"),
    layers.Conv1D(6, 4, padding="causal", groups=2, dilation_rate=2),
    layers.Conv1D(6, 1),
    layers.DepthwiseConv1D(3, padding=((2, 0),), depth_multiplier=2),
    layers.SeparableConv1D(3, 3, padding="same"),
    layers.UpSampling1D(3),
    layers.GlobalMaxPooling1D(),
]


@pytest.mark.parametrize("layer", OPEN, ids=lambda v: v.name)
@pytest.mark.parametrize("count", [1, 2, 9])
def test_an_open_number_of_steps_gives_what_a_known_one_does(layer, count):
    x = RNG.standard_normal((2, count, 4)).astype("float32")
    known, opened = run(layer, (count, 4), x), run(layer, (None, 4), x)
    np.testing.assert_allclose(opened, known, rtol=1e-5, atol=1e-5)


def test_steps_that_a_mask_drops_do_not_count():
    x = RNG.standard_normal((2, 3, 4)).astype("float32")
    x[0, 2] = np.nan
    mask = np.array([[True, True, False], [False, True, True]])
    y = run(layers.GlobalAveragePooling1D(keepdims=True), (3, 4), x, mask=mask)
    np.testing.assert_allclose(y, [x[:1, :2].mean(1), x[1:, 1:].mean(1)], rtol=1e-6)


def test_widths_may_be_given_in_three_ways():
    for given, full in [(2, ((2, 2), (2, 2))), ((1, 2), ((1, 1), (2, 2))),
                        ([[0, 1], 2], ((0, 1), (2, 2)))]:  # fmt: skip
        assert layers.ZeroPadding2D(given).padding == full
        assert layers.Cropping2D(given).cropping == full
    assert layers.ZeroPadding1D((0, 2)).padding == layers.Cropping1D([0, 2]).cropping == ((0, 2),)
    x = np.full((1, 2, 1), np.inf, "float32")
    np.testing.assert_array_equal(run(layers.ZeroPadding1D((0, 1)), (2, 1), x)[0, :, 0][2:], [0])


WRONG = [
    (lambda: layers.Conv1D(4, 3, padding="casual"), "did you mean 'causal'"),
    (lambda: layers.Conv2D(4, 3, padding="causal"), "padding='causal'"),
    (lambda: layers.Conv1D(4, (3, 3)), r"kernel_size=\(3, 3\): expected a number"),
    (lambda: layers.Conv1D(4, 3, data_format="channels_first"), "data_format"),
    (lambda: layers.Conv1D(4, 3, strides=2, dilation_rate=2), "only one of them"),
    (lambda: layers.Conv2DTranspose(2, 2, 2, output_padding=2), "output_padding=2: expected less"),
    (lambda: layers.Conv2DTranspose(2, 2, padding=((1, 1), (1, 1))), "expected 'valid' or 'same'"),
    (lambda: layers.UpSampling2D(interpolation="bilinaer"), "did you mean 'bilinear'"),
    (lambda: layers.UpSampling2D(interpolation="lanczos3"), "interpolation='lanczos3'"),
    (lambda: layers.UpSampling1D(0), "size=0"),
    (lambda: layers.ZeroPadding2D((1, 2, 3)), r"padding=\(1, 2, 3\): expected a number, 2 numbers"),
    (lambda: layers.ZeroPadding1D(-1), "padding=-1"),
    (lambda: layers.Cropping2D(((1, True), (0, 0))), "cropping=True"),
]


@pytest.mark.parametrize(("make", "message"), WRONG)
def test_wrong_arguments_are_named(make, message):
    with pytest.raises(ArgumentError, match=message):
        make()


MISFITS = [
    (layers.Conv1D(2, 3), (8, 8, 2), r"conv1d: expected \(batch, steps, channels\)"),
    (layers.Conv1D(2, 3), (None, 2), r"conv1d: axis 1 .* is open; .*'causal'"),
    (layers.Conv1D(2, 3, strides=2, padding="same"), (None, 2), "conv1d: axis 1 .* is open"),
    (layers.Conv2D(2, 3), (8, None, 2), "conv2d: axis 2 .* is open"),
    (layers.Conv1DTranspose(2, 3), (None, 2), "conv1d_transpose: axis 1 .* is open"),
    (layers.MaxPooling1D(), (None, 2), "max_pooling1d: axis 1 .* is open"),
    (layers.ZeroPadding1D(), (None, 2), "zero_padding1d: axis 1 .* is open"),
    (layers.UpSampling2D(interpolation="bilinear"), (4, None, 2), "axis 2 .* is open"),
    (layers.Cropping1D(4), (8, 2), r"cropping1d: cropping=\(\(4, 4\),\) leaves nothing"),
]


@pytest.mark.parametrize(("layer", "shape", "message"), MISFITS)
def test_inputs_that_do_not_fit_name_the_layer(layer, shape, message):
    with pytest.raises(ShapeError, match=message):
        layer(layers.Input(shape))
