"""Dense, Embedding, activations, reshaping and dropout, against PyTorch and NumPy."""

import numpy as np
import pytest
from layer_checks import apply

from nnjit import layers
from nnjit.errors import ArgumentError, DTypeError, ShapeError

RNG = np.random.default_rng(0)


def array(*shape, dtype="float32"):
    return RNG.standard_normal(shape).astype(dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(5, 4), (2, 3, 4)])
def test_dense_is_torch_linear(shape, dtype):
    torch = pytest.importorskip("torch", reason="compares with torch, which is missing")
    layer = layers.Dense(3, activation="tanh", dtype=dtype, bias_initializer="normal")
    x, dy = array(*shape, dtype=dtype), array(*shape[:-1], 3, dtype=dtype)
    y, grads, _ = apply(layer, x, cotangent=dy)
    assert y.dtype == dtype
    kernel, bias = (torch.tensor(w, requires_grad=True) for w in layer.get_weights())
    tx = torch.tensor(x, requires_grad=True)
    ty = torch.tanh(tx @ kernel + bias)
    ty.backward(torch.tensor(dy))
    tol = 1e-5 if dtype == "float32" else 1e-12
    for ours, theirs in [
        (y, ty.detach()), (grads["x0"], tx.grad),
        (grads["dense/kernel"], kernel.grad), (grads["dense/bias"], bias.grad),
    ]:  # fmt: skip
        np.testing.assert_allclose(ours, theirs.numpy(), rtol=tol, atol=tol)


def test_dense_takes_whole_numbers_and_can_have_no_bias():
    layer = layers.Dense(2, use_bias=False, kernel_initializer="ones")
    y, _, _ = apply(layer, np.array([[1, 2, 3]], np.uint8))
    np.testing.assert_array_equal(y, [[6, 6]])
    assert [v.name for v in layer.weights] == ["dense/kernel"]


def test_embedding_rows_and_gradient():
    table = np.arange(12, dtype="float32").reshape(4, 3)
    layer = layers.Embedding(4, 3, weights=[table])
    x = np.array([[1, 1], [3, 0]], np.int32)
    y, grads, _ = apply(layer, x, cotangent=np.ones((2, 2, 3), "float32"))
    np.testing.assert_array_equal(y, table[x])
    np.testing.assert_array_equal(grads["embedding/embeddings"][:, 0], [1, 2, 0, 1])
    y, _, _ = apply(layer, x.astype("float32"))
    np.testing.assert_array_equal(y, table[x])


X = np.array([[-3.0, -1.0, -0.5, 0.0, 0.5, 2.0, 7.0]], "float32")
CASES = [
    (layers.ReLU(), np.maximum(X, 0)),
    (layers.ReLU(max_value=6), np.clip(X, 0, 6)),
    (layers.ReLU(negative_slope=0.1, threshold=1.0), np.where(X > 1, X, 0.1 * (X - 1))),
    (layers.LeakyReLU(), np.where(X > 0, X, 0.3 * X)),
    (layers.ELU(alpha=2.0), np.where(X > 0, X, 2 * np.expm1(X))),
    (layers.PReLU(alpha_initializer="ones"), X),
    (layers.Softmax(), np.exp(X) / np.exp(X).sum()),
    (layers.Softmax(axis=(0, 1)), np.exp(X) / np.exp(X).sum()),
    (layers.Activation("swish"), X / (1 + np.exp(-X))),
    (layers.Activation(lambda x: x * 2), X * 2),
    (layers.Rescaling(0.5, offset=1), X * 0.5 + 1),
    (layers.RepeatVector(2), np.stack([X, X], 1)),
    (layers.Flatten(), X),
]


@pytest.mark.parametrize(("layer", "expected"), CASES, ids=lambda c: getattr(c, "name", ""))
def test_layers_of_one_expression(layer, expected):
    y, _, _ = apply(layer, X)
    np.testing.assert_allclose(y, expected, rtol=2e-6, atol=1e-7)


@pytest.mark.parametrize("layer", [layers.ELU(), layers.LeakyReLU(), layers.Softmax()])
def test_gradients_stay_finite_far_from_zero(layer):
    x = np.array([[-1000.0, 0.0, 1000.0]], "float32")
    y, grads, _ = apply(layer, x, cotangent=np.ones_like(x))
    assert np.isfinite(y).all()
    assert np.isfinite(grads["x0"]).all()


def test_shapes_flatten_reshape_permute():
    x = array(2, 3, 4, 5)
    assert apply(layers.Flatten(), x)[0].shape == (2, 60)
    assert apply(layers.Reshape((6, -1)), x)[0].shape == (2, 6, 10)
    np.testing.assert_array_equal(apply(layers.Permute((3, 1, 2)), x)[0], x.transpose(0, 3, 1, 2))
    assert apply(layers.Flatten(), array(2, 3)[:, 0])[0].shape == (2, 1)


def test_dropout_scales_what_it_keeps_and_rests_in_inference():
    x = np.ones((200, 50), "float32")
    layer = layers.Dropout(0.25)
    np.testing.assert_array_equal(apply(layer, x)[0], x)
    y, grads, _ = apply(layer, x, training=True, cotangent=np.ones_like(x))
    assert set(np.unique(y)) == {0, np.float32(1 / 0.75)}
    assert abs((y > 0).mean() - 0.75) < 0.02
    np.testing.assert_array_equal(grads["x0"], y)


def test_dropout_noise_shape_and_seed():
    x = np.ones((20, 30, 4), "float32")
    y, _, _ = apply(layers.Dropout(0.5, noise_shape=(None, 1, 4)), x, training=True)
    assert (y == y[:, :1]).all()
    assert not (y == y[:1]).all()
    a, b, c = (apply(layers.Dropout(0.5, seed=s), x, training=True)[0] for s in (1, 1, 2))
    np.testing.assert_array_equal(a, b)
    assert (a != c).any()


ERRORS = [
    (lambda: layers.Dense(0), "units=0"),
    (lambda: layers.Dense(units=3, activaton="relu"), "did you mean 'activation'"),
    (lambda: layers.Dense(3, activation="rellu"), "did you mean 'relu'"),
    (lambda: layers.Dense(3, kernel_initializer="glorot"), "initializer 'glorot'; did you mean"),
    (lambda: layers.Dense(3, name="a/b"), "name='a/b'"),
    (lambda: layers.Dense(3, dtype="int32"), "dtype='int32'"),
    (lambda: layers.Flatten(data_format="channels_first"), "data_format"),
    (lambda: layers.Dropout(1.5), "rate=1.5"),
    (lambda: layers.Reshape((-1, -1)), "target_shape"),
    (lambda: layers.ReLU(max_value=-1), "max_value=-1"),
    (lambda: layers.Input(), "shape="),
]


@pytest.mark.parametrize(("make", "message"), ERRORS)
def test_wrong_arguments_are_named(make, message):
    with pytest.raises(ArgumentError, match=message.replace("(", r"\(")):
        make()


def test_unknown_dtype():
    with pytest.raises(DTypeError, match="float16"):
        layers.Dense(3, dtype="float16")


def test_shape_errors_name_layer_and_shapes():
    layer = layers.Dense(3, name="dense_1")
    layer(layers.Input((512,)))
    with pytest.raises(ShapeError, match=r"dense_1: expected last axis 512, got \(batch, 784\)"):
        layer(layers.Input((784,)))
    with pytest.raises(ShapeError, match=r"must be known when the weights are made"):
        layers.Dense(3)(layers.Input((None,)))
