"""Models: structure, compile, fit, evaluate, predict, single batches, and what they say when
something is wrong.
"""

import numpy as np
import pytest

import nnjit
from nnjit import ops
from nnjit.errors import ArgumentError, DataError, GraphError, ShapeError
from nnjit.layers import (
    BatchNormalization,
    Conv2D,
    Dense,
    Dropout,
    Embedding,
    Flatten,
    Input,
    Layer,
)
from nnjit.models import Model, Sequential

RNG = np.random.default_rng(0)
X = RNG.normal(size=(50, 4)).astype(np.float32)
LABELS = (X[:, 0] > 0).astype(np.int64) + (X[:, 1] > 0)


def mlp(device, **options):
    model = Sequential([Dense(8, "tanh", input_shape=(4,)), Dense(3, "softmax")])
    options = {"optimizer": "adam", "loss": "sparse_categorical_crossentropy",
               "metrics": ["accuracy"], **options}  # fmt: skip
    model.compile(**options, device=device)
    return model


# ------------------------------------------------------------------------------------- structure
def test_names_shapes_and_weight_order():
    model = Sequential([Input((4,)), Dense(8), BatchNormalization(), Dense(3)])
    assert [w.name for w in model.weights] == [
        "dense/kernel", "dense/bias",
        "batch_normalization/gamma", "batch_normalization/beta",
        "batch_normalization/moving_mean", "batch_normalization/moving_variance",
        "dense_1/kernel", "dense_1/bias",
    ]  # fmt: skip
    assert model.input_shape == (None, 4)
    assert model.output_shape == (None, 3)
    assert len(model.trainable_weights) == 6
    assert model.get_layer("dense_1") is model.layers[2] is model.get_layer(index=-1)
    with pytest.raises(ArgumentError, match="did you mean 'dense_1'"):
        model.get_layer("dense_2")


def test_a_sequential_is_built_by_its_first_data(device):
    model = Sequential([Dense(5, "relu"), Dense(1)])
    assert not model.built
    with pytest.raises(GraphError, match="input is not known yet"):
        _ = model.output
    model.compile("sgd", "mse", device=device)
    model.fit(X, X[:, :1], verbose=0)
    assert model.built
    assert model.get_weights()[0].shape == (4, 5)


def test_add_and_pop():
    model = Sequential()
    model.add(Input((4,)))
    model.add(Dense(2))
    model.add(Dense(3))
    assert model.output_shape == (None, 3)
    assert model.pop().name == "dense_1"
    assert model.output_shape == (None, 2)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([Dense], r"expected a layer, got .*call it: Dense"),
        ([Dense(1), Input((3,))], "an Input must be the first"),
        (["dense"], "expected a layer, got 'dense'"),
    ],
)
def test_what_cannot_be_in_a_sequential(layers, message):
    with pytest.raises(ArgumentError, match=message):
        Sequential(layers)


def test_equal_seeds_give_equal_weights(monkeypatch):
    def weights(seed):
        monkeypatch.setenv("NNJIT_SEED", str(seed))
        return Sequential([Input((4,)), Dense(8)]).get_weights()[0]

    a, b, c = weights(1), weights(1), weights(2)
    np.testing.assert_array_equal(a, b)
    assert not np.array_equal(a, c)


# ----------------------------------------------------------------------------- against references
def numpy_mlp(x, y, weights):
    """Loss and gradients of the network of `mlp` in float64."""
    k1, b1, k2, b2 = (w.astype(np.float64) for w in weights)
    h = np.tanh(x @ k1 + b1)
    z = h @ k2 + b2
    p = np.exp(z - z.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    n = len(x)
    loss = -np.log(p[np.arange(n), y]).mean()
    dz = (p - np.eye(3)[y]) / n
    dh = dz @ k2.T * (1 - h * h)
    return loss, [x.T @ dh, dh.sum(0), h.T @ dz, dz.sum(0)]


def test_a_training_step_is_that_of_numpy(device):
    model = mlp(device, optimizer=nnjit.optimizers.SGD(0.5))
    before = model.get_weights()
    loss, gradients = numpy_mlp(X, LABELS, before)
    got = model.train_on_batch(X, LABELS, return_dict=True)
    assert got["loss"] == pytest.approx(loss, rel=1e-5)
    for w, g, after in zip(before, gradients, model.get_weights(), strict=True):
        np.testing.assert_allclose(after, w - 0.5 * g, rtol=1e-4, atol=1e-6)


def test_epoch_loss_is_the_mean_over_samples_with_a_partial_batch(device):
    model = mlp(device, optimizer=nnjit.optimizers.SGD(0.0))
    history = model.fit(X, LABELS, batch_size=16, verbose=0)  # 16 + 16 + 16 + 2
    loss, _ = numpy_mlp(X, LABELS, model.get_weights())
    assert history.history["loss"][0] == pytest.approx(loss, rel=1e-5)
    right = (model.predict(X).argmax(-1) == LABELS).mean()
    assert history.history["accuracy"][0] == pytest.approx(right)
    assert model.evaluate(X, LABELS, verbose=0) == pytest.approx([loss, right], rel=1e-5)


def test_predict_takes_any_number_of_rows(device):
    model = mlp(device)
    whole = model.predict(X, batch_size=50)
    for n in (1, 7, 49):
        np.testing.assert_allclose(model.predict(X[:n], batch_size=3), whole[:n], rtol=1e-5)
    np.testing.assert_allclose(model.predict_on_batch(X), whole, rtol=1e-5)
    np.testing.assert_allclose(model(X), whole, rtol=1e-5)


def test_regularizers_count_into_the_loss_and_its_gradient(device):
    model = Sequential([Input((4,)), Dense(1, use_bias=False, kernel_regularizer="l2")])
    model.compile(nnjit.optimizers.SGD(1.0), "mse", device=device)
    kernel = model.get_weights()[0]
    y = X @ kernel  # no error left: all gradient is the penalty's
    assert model.train_on_batch(X, y) == pytest.approx(0.01 * (kernel**2).sum(), rel=1e-4)
    np.testing.assert_allclose(model.get_weights()[0], kernel * 0.98, rtol=1e-4)


def test_frozen_layers_stay_and_running_statistics_of_frozen_ones_too(device):
    model = Sequential([Input((4,)), Dense(8), BatchNormalization(), Dense(3, "softmax")])
    model.layers[0].trainable = False
    model.compile("sgd", "sparse_categorical_crossentropy", device=device)
    before = model.get_weights()
    model.fit(X, LABELS, verbose=0)
    changed = [not np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True)]
    assert changed == [False, False, True, True, True, True, True, True]
    step = model.executable("train").graph
    assert "dense/kernel" not in [leaf.name for leaf in step.updates]


def test_dropout_draws_anew_each_step_and_not_in_inference(device):
    model = Sequential([Input((4,)), Dropout(0.5)])
    model.compile("sgd", "mse", device=device)
    ones = np.ones((64, 4), np.float32)
    losses = [model.train_on_batch(ones, 0 * ones) for _ in range(3)]
    assert len(set(losses)) == 3
    np.testing.assert_array_equal(model.predict(ones), ones)
    assert model.session.random.numpy().tolist() == [model.seed, 3]


@pytest.mark.parametrize("shuffle", [True, False])
def test_equal_runs_are_equal_bit_by_bit(device, shuffle):
    runs = []
    for _ in range(2):
        model = mlp(device)
        history = model.fit(X, LABELS, epochs=2, batch_size=8, verbose=0, shuffle=shuffle)
        runs.append((history.history, model.get_weights()))
    assert runs[0][0] == runs[1][0]
    for a, b in zip(runs[0][1], runs[1][1], strict=True):
        np.testing.assert_array_equal(a, b)


# -------------------------------------------------------------------------------------- weighting
def test_class_and_sample_weights(device):
    zero = nnjit.optimizers.SGD(0.0)
    model = mlp(device, optimizer=zero, metrics=None)
    each = [model.test_on_batch(X[i : i + 1], LABELS[i : i + 1]) for i in range(10)]
    weights = np.arange(10, dtype=np.float64)
    got = model.test_on_batch(X[:10], LABELS[:10], sample_weight=weights)
    assert got == pytest.approx(np.mean(weights * each), rel=1e-5)
    table = {0: 1.0, 1: 5.0}  # class 2 keeps 1
    got = model.train_on_batch(X[:10], LABELS[:10], class_weight=table)
    by_class = np.array([1.0, 5.0, 1.0])[LABELS[:10]]
    assert got == pytest.approx(np.mean(by_class * each), rel=1e-5)


def test_weighted_metrics(device):
    model = mlp(
        device,
        metrics=["accuracy"],
        weighted_metrics=[nnjit.metrics.SparseCategoricalAccuracy("w")],
    )
    hit = model.predict(X).argmax(-1) == LABELS
    w = RNG.uniform(size=50).astype(np.float32)
    logs = model.evaluate(X, LABELS, sample_weight=w, verbose=0, return_dict=True)
    assert logs["accuracy"] == pytest.approx(hit.mean())
    assert logs["w"] == pytest.approx((w * hit).sum() / w.sum(), rel=1e-5)


# ------------------------------------------------------------------------------------- validation
def test_validation_split_takes_the_last_rows(device):
    model = mlp(device)
    history = model.fit(X, LABELS, validation_split=0.2, verbose=0)
    assert history.history["val_loss"][0] == pytest.approx(
        model.evaluate(X[40:], LABELS[40:], verbose=0)[0], rel=1e-6
    )
    assert list(history.history) == ["loss", "accuracy", "val_loss", "val_accuracy"]


def test_validation_frequency_and_weights(device):
    model = mlp(device)
    held = (X[:9], LABELS[:9], np.zeros(9))
    history = model.fit(X, LABELS, epochs=4, validation_data=held, validation_freq=2, verbose=0)
    assert history.history["val_loss"] == [0.0, 0.0]
    assert len(history.history["loss"]) == 4


def test_evaluate_inside_an_epoch_leaves_its_metrics_alone(device):
    def look(batch, logs):
        model.evaluate(X, LABELS, verbose=0)

    runs = []
    for hooks in ({}, {"on_train_batch_end": look}):
        model = mlp(device)
        callback = nnjit.callbacks.LambdaCallback(**hooks)
        runs.append(model.fit(X, LABELS, verbose=0, callbacks=[callback]).history)
    assert runs[0] == runs[1]


# ------------------------------------------------------------------------------ functional models
def test_functional_with_two_inputs_and_outputs(device):
    a, b = Input((4,), name="a"), Input((2,), name="b")
    h = Dense(8, "relu", name="h")(ops.concatenate([a, b], axis=-1))
    model = Model([a, b], [Dense(1, name="p")(h), Dense(3, "softmax", name="q")(h) * 1.0])
    losses = ["mse", nnjit.losses.CategoricalCrossentropy()]
    model.compile("sgd", losses, loss_weights=[1.0, 0.5], metrics=[["mae"], []], device=device)
    assert model.output_names == ["p", "multiply"]
    inputs, onehot = [X, X[:, :2]], np.eye(3)[LABELS]
    history = model.fit(inputs, [X[:, :1], onehot], verbose=0, epochs=2)
    logs = model.evaluate({"a": X, "b": X[:, :2]}, [X[:, :1], onehot], verbose=0, return_dict=True)
    assert list(logs) == ["loss", "p_loss", "multiply_loss", "p_mae"]
    assert logs["loss"] == pytest.approx(logs["p_loss"] + 0.5 * logs["multiply_loss"], rel=1e-5)
    assert history.history["loss"][1] < history.history["loss"][0]
    p, q = model.predict(inputs)
    assert p.shape == (50, 1)
    assert q.shape == (50, 3)


def test_shared_layers_share_memory_between_models(device):
    x = Input((4,))
    code = Dense(2, name="code")(x)
    autoencoder, encoder = Model(x, Dense(4)(code)), Model(x, code)
    autoencoder.compile("adam", "mse", device=device)
    encoder.session.device = device
    first = encoder.predict(X)
    autoencoder.fit(X, X, epochs=3, verbose=0)
    kernel, bias = encoder.get_weights()
    assert not np.allclose(first, encoder.predict(X))
    np.testing.assert_allclose(encoder.predict(X), X @ kernel + bias, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(autoencoder.get_weights()[0], kernel)
    autoencoder.fit(X, X, verbose=0)
    np.testing.assert_array_equal(autoencoder.get_weights()[0], encoder.get_weights()[0])


def test_models_are_layers(device):
    inner = Sequential([Input((4,)), Dense(3, "relu")], name="inner")
    x = Input((4,))
    model = Model(x, Dense(1)(inner(x)))
    assert [w.name for w in model.weights] == [
        "inner/dense/kernel", "inner/dense/bias", "dense/kernel", "dense/bias"
    ]  # fmt: skip
    model.compile("sgd", "mse", device=device)
    before = inner.get_weights()[0]
    model.fit(X, X[:, :1], verbose=0)
    assert not np.array_equal(before, inner.get_weights()[0])


def test_two_models_train_different_parts_of_the_same_layers(device):
    """The adversarial pattern: what is frozen counts when a model is compiled."""
    maker = Sequential([Input((2,)), Dense(4)], name="maker")
    judge = Sequential([Input((4,)), Dense(1, "sigmoid")], name="judge")
    judge.compile("adam", "binary_crossentropy", device=device)
    judge.trainable = False
    z = Input((2,))
    both = Model(z, judge(maker(z)))
    both.compile("adam", "binary_crossentropy", device=device)
    noise = X[:, :2]
    for _ in range(3):
        before = [m.get_weights()[0] for m in (maker, judge)]
        judge.train_on_batch(X, np.ones((50, 1)))
        between = [m.get_weights()[0] for m in (maker, judge)]
        both.train_on_batch(noise, np.ones((50, 1)))
        after = [m.get_weights()[0] for m in (maker, judge)]
        same = np.array_equal
        assert (same(before[0], between[0]), same(before[1], between[1])) == (True, False)
        assert (same(between[0], after[0]), same(between[1], after[1])) == (False, True)


class Residual(Model):
    """A model by subclassing."""

    def __init__(self, units, **options):
        super().__init__(**options)
        self.first, self.drop, self.second = Dense(units, "relu"), Dropout(0.5), Dense(4)

    def call(self, x, training=False):
        h = self.first(x)
        return x + self.second(self.drop(h) if training else h)


def test_subclassed_models(device):
    model = Residual(6)
    model.compile("adam", "mse", device=device)
    before = model.evaluate(X, 2 * X, verbose=0)
    model.fit(X, 2 * X, epochs=20, verbose=0)
    assert model.evaluate(X, 2 * X, verbose=0) < before
    assert len(model.weights) == 4
    k1, b1, k2, b2 = model.get_weights()
    expected = X + np.maximum(X @ k1 + b1, 0) @ k2 + b2
    np.testing.assert_allclose(model.predict(X), expected, rtol=1e-4, atol=1e-5)


def test_open_axes_and_whole_number_inputs(device):
    model = Sequential([Input((None,), dtype="int32"), Embedding(20, 4), MeanOverTime(), Dense(2)])
    model.compile("sgd", "mse", device=device)
    for length in (3, 7):
        tokens = RNG.integers(0, 20, (5, length))
        assert model.predict(tokens).shape == (5, 2)
        model.train_on_batch(tokens, np.zeros((5, 2)))


class MeanOverTime(Layer):
    """The mean over time."""

    def call(self, x):
        return ops.mean(x, axis=1)


def test_images_of_uint8_and_float64_models(device):
    images = RNG.integers(0, 255, (6, 5, 5, 1)).astype(np.uint8)
    model = Sequential([Conv2D(2, 3), Flatten(), Dense(2, "softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy", device=device)
    model.fit(images, np.zeros(6, int), verbose=0)
    np.testing.assert_allclose(
        model.predict(images), model.predict(images.astype(np.float64)), rtol=1e-6
    )
    double = Sequential([Dense(2, dtype="float64"), Dense(1, dtype="float64")])
    double.compile("adam", "mse", device=device)
    double.fit(X, X[:, :1], verbose=0)
    assert double.predict(X).dtype == np.float64


# ------------------------------------------------------------------------------------- complaints
def test_compile_is_asked_for():
    model = Sequential([Input((4,)), Dense(1)])
    for verb in (model.fit, model.evaluate, model.train_on_batch):
        with pytest.raises(ArgumentError, match=r"call compile\("):
            verb(X, X)


BAD_DATA = [
    (lambda m: m.fit(X, LABELS + 1), DataError, r"row \d+ has label 3; the model has 3 outputs"),
    (lambda m: m.fit(X, LABELS - 1), DataError, r"row \d+ has label -1"),
    (lambda m: m.fit(X, LABELS + 0.5), DataError, "whole numbers 0 to 2"),
    (lambda m: m.fit(X, np.eye(3)[LABELS]), DataError, "look one-hot: use the loss categ"),
    (lambda m: m.fit(X, LABELS[:-1]), DataError, "different numbers of rows: x 50, y 49"),
    (lambda m: m.fit(X[:0], LABELS[:0]), DataError, "no rows"),
    (lambda m: m.fit(X[:, :3], LABELS), DataError, r"x: expected shape .batch, 4., got .50, 3."),
    (lambda m: m.predict(X[0]), DataError, r"for one sample give x\[None\]"),
    (lambda m: m.fit(X), DataError, "y is missing: the loss 'sparse_cat"),
    (lambda m: m.fit(None), DataError, "x is missing"),
    (lambda m: m.fit([X, X], LABELS), DataError, r"expected shape .batch, 4., got .2, 50, 4."),
    (lambda m: m.fit({"y": X}, LABELS), DataError, "the model has no input 'y'"),
    (lambda m: m.fit(np.array([None] * 50), LABELS), DataError, "x: holds Python objects"),
    (lambda m: m.fit(X, LABELS, validation_data=(X, LABELS + 9)), DataError,
     "validation_data: y: row 0 has label"),
    (lambda m: m.fit(X, LABELS, validation_data=X), DataError, "validation_data: expected"),
    (lambda m: m.fit(X, LABELS, validation_split=1.5), ArgumentError, "validation_split=1.5"),
    (lambda m: m.fit(X, LABELS, validation_split=0.99), DataError, "leaves one part empty"),
    (lambda m: m.fit(X, LABELS, batch_size=0), ArgumentError, "batch_size=0"),
    (lambda m: m.fit(X, LABELS, epochs=1.5), ArgumentError, "epochs=1.5"),
    (lambda m: m.fit(X, LABELS, verbose="loud"), ArgumentError, "verbose='loud'"),
    (lambda m: m.fit(X, LABELS, callbacks=[print]), ArgumentError, "expected a nnjit Callback"),
    (lambda m: m.fit(X, LABELS, sample_weight=np.full(50, np.nan)), DataError, "sample_weight"),
]  # fmt: skip


@pytest.mark.parametrize(("act", "error", "message"), BAD_DATA, ids=[m for *_, m in BAD_DATA])
def test_what_is_wrong_with_data_is_said_before_training(act, error, message):
    model = mlp("interpret")
    before = model.get_weights()
    with pytest.raises(error, match=message):
        act(model)
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_image_without_channels():
    model = Sequential([Input((8, 8, 1)), Flatten(), Dense(1)])
    with pytest.raises(DataError, match=r"add the channel axis: x\[..., None\]"):
        model.predict(np.zeros((2, 8, 8)))


def test_nan_labels_are_refused(device):
    model = Sequential([Input((4,)), Dense(1)])
    model.compile("sgd", "mse", device=device)
    y = X[:, :1].copy()
    y[7] = np.inf
    with pytest.raises(DataError, match="y: row 7 holds NaN or infinity"):
        model.fit(X, y)


def test_nan_features_are_warned_of(device):
    model = mlp(device)
    x = X.copy()
    x[3, 1] = np.nan
    with pytest.warns(UserWarning, match="x: NaN or infinity in row 3"):
        model.predict(x)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"optimizer": "adm"}, "did you mean 'adam'"),
        ({"loss": "mean_squared_errr"}, "did you mean 'mean_squared_error'"),
        ({"device": "gpu"}, "device='gpu'"),
        ({"loss": {"out": "mse"}}, "loss: no output 'out'"),
        ({"metrics": "accuracy"}, "expected a list of metrics"),
        ({"loss": ["mse", "mse"]}, "loss: 2 given for 1 outputs"),
    ],
)
def test_compile_says_what_it_does_not_know(options, message):
    model = Sequential([Input((4,)), Dense(1)])
    with pytest.raises(ArgumentError, match=message):
        _compile_and_fit(model, {"loss": "mse", **options})


def _compile_and_fit(model, options):
    model.compile(**options)
    model.fit(X, X[:, 0], verbose=0)


def test_functional_models_say_what_is_missing():
    a, b = Input((4,), name="a"), Input((4,), name="b")
    with pytest.raises(GraphError, match="not among inputs"):
        Model(a, Dense(1)(a + b))
    model = Model([a, b], Dense(1)(a + b))
    with pytest.raises(DataError, match=r"1 array\(s\) for 2 inputs: a, b"):
        model.predict(X)
    with pytest.raises(DataError, match="nothing is given for the input 'b'"):
        model.predict({"a": X})
    with pytest.raises(ShapeError, match="expected input"):
        model([a, Input((5,))])


def test_plan_listing_and_source():
    model = Sequential([Input((None, 4)), MeanOverTime(), Dense(8, "relu"), Dense(3, "softmax")])
    model.compile("adam", "sparse_categorical_crossentropy", device="python")
    symbol = model.inputs[0].shape[1].symbols[0]
    small, large = (model.plan(n, **{symbol: 5}) for n in (8, 64))
    assert 0 < small.work < large.work
    assert "def " in model.source()
    assert "dense" in model.listing(8, "predict", **{symbol: 5})
    with pytest.raises(ArgumentError, match=f"give the open axes {symbol} a value"):
        model.plan(8)
    with pytest.raises(ArgumentError, match="no open axis 'time'"):
        model.plan(8, time=4)


def test_profile():
    model = mlp("cpu")
    found = model.profile(X, LABELS, steps=2)
    assert found.step == "train"
    assert "dense" in str(found)


def test_summary():
    model = Sequential([Input((8, 8, 1)), Conv2D(4, 3), Flatten(), Dense(10)])
    model.layers[0].trainable = False
    lines = []
    model.summary(print_fn=lines.append)
    text = "\n".join(lines)
    assert 'Model: "sequential' in text
    assert "conv2d (Conv2D)" in text
    assert "(None, 6, 6, 4)" in text
    assert f"{36 * 4 * 9 * 2 + 36 * 4:,}" in text  # two per multiply-add, and the bias
    assert "Parameters: 1,490 (5,960 bytes), trainable 1,450, not trainable 40" in text
    Sequential([Dense(2)]).summary(print_fn=lines.append)
    assert "not built yet" in lines[-1]
