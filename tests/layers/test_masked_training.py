"""Losses and metrics of masked outputs, against Keras and compiled; labels of open length."""

import numpy as np
import pytest
from keras_checks import keras_on_torch

import nnjit
from nnjit import layers
from nnjit.errors import ShapeError
from nnjit.graph import Graph, Scope, enter, input_node, interpret
from nnjit.losses import MeanSquaredError
from nnjit.models import Sequential
from nnjit.spec import Spec

RNG = np.random.default_rng(6)
X = RNG.integers(1, 6, (7, 5)).astype("int32")
X[:, 3:] *= RNG.random((7, 2)) > 0.5
X[2] = 0
CLASSES = RNG.integers(0, 3, (7, 5)).astype("int32")
VALUES = RNG.random((7, 5, 3)).astype("float32")
ONE_HOT = np.eye(3, dtype="float32")[CLASSES]
WEIGHTS = RNG.random((7, 5)).astype("float32")


def tagger(L, model, Input, hidden=True):
    steps = [L.TimeDistributed(L.Dense(8, activation="tanh"))] if hidden else []
    return model([
        Input((None,), dtype="int32"), L.Embedding(6, 4, mask_zero=True),
        *steps, L.TimeDistributed(L.Dense(3, activation="softmax")),
    ])  # fmt: skip


def ours(device="interpret", hidden=True, **options):
    model = tagger(layers, Sequential, layers.Input, hidden)
    model.compile(nnjit.optimizers.SGD(0.5), device=device, **options)
    return model


CASES = [
    ("sparse_categorical_crossentropy", CLASSES, ["accuracy", "sparse_categorical_crossentropy"]),
    ("mse", VALUES, ["mae", "RootMeanSquaredError"]),
    ("categorical_crossentropy", ONE_HOT, ["accuracy", "Precision", "CosineSimilarity"]),
    ("sum", VALUES, []),
]


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize(("loss", "y", "metrics"), CASES)
def test_loss_metrics_and_step_are_those_of_keras(loss, y, metrics, weights):
    keras = keras_on_torch()
    theirs = tagger(keras.layers, keras.Sequential, keras.Input)
    other = keras.losses.MeanSquaredError("sum") if loss == "sum" else loss
    options = {"metrics": list(metrics), "weighted_metrics": list(metrics[:1])}
    theirs.compile(keras.optimizers.SGD(0.5), other, **options)
    loss = MeanSquaredError("sum") if loss == "sum" else loss
    mine = ours(loss=loss, **options)
    theirs.set_weights(mine.get_weights())
    expected = theirs.test_on_batch(X, y, sample_weight=weights, return_dict=True)
    found = mine.test_on_batch(X, y, sample_weight=weights, return_dict=True)
    for name in ("loss", *metrics):
        name = keras.metrics.get(name).name if name not in expected else name
        got = found.get(name, found.get(metrics[-1] if metrics else "loss"))
        np.testing.assert_allclose(got, float(expected[name]), rtol=2e-6, err_msg=name)
    if metrics:
        weighted = float(expected[f"weighted_{metrics[0]}"])
        np.testing.assert_allclose(found[f"{metrics[0]}_1"], weighted, rtol=2e-6)
    theirs.train_on_batch(X, y, sample_weight=weights)
    mine.train_on_batch(X, y, sample_weight=weights)
    for a, b in zip(mine.get_weights(), theirs.weights, strict=True):
        np.testing.assert_allclose(a, b.value.detach().numpy(), rtol=1e-5, atol=1e-6)


def test_weights_per_sample_hold_for_all_its_steps():
    model = ours(loss="mse", weighted_metrics=["mae"])
    once = model.test_on_batch(X, VALUES, sample_weight=WEIGHTS[:, 0])
    steps = model.test_on_batch(X, VALUES, sample_weight=np.repeat(WEIGHTS[:, :1], 5, 1))
    np.testing.assert_allclose(once, steps, rtol=1e-6)


def test_where_nothing_is_left_the_loss_is_zero():
    model = ours(loss="mse", metrics=["mae"])
    before = model.get_weights()
    assert model.test_on_batch(X * 0, VALUES) == [0, 0]
    assert model.train_on_batch(X * 0, VALUES)[0] == 0
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_other_lengths_compile_nothing_and_equal_the_interpreter():
    from nnjit.runtime import cpu

    compiled, plain = (
        ours(device, hidden=False, loss="sparse_categorical_crossentropy", metrics=["accuracy"])
        for device in ("cpu", "interpret")
    )
    compiled.train_on_batch(X, CLASSES)
    compiled.set_weights(plain.get_weights())
    before = cpu.compiled_count()
    for batch, time in ((1, 1), (7, 2), (3, 17)):
        rng = np.random.default_rng(time)
        x = rng.integers(0, 6, (batch, time)).astype("int32")
        y = rng.integers(0, 3, (batch, time)).astype("int32")
        found, expected = (m.train_on_batch(x, y) for m in (compiled, plain))
        np.testing.assert_allclose(found, expected, rtol=1e-5)
        for a, b in zip(compiled.get_weights(), plain.get_weights(), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    assert cpu.compiled_count() == before


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_mask_holds_for_the_axes_that_follow(dtype):
    scope = Scope()
    y, pred = (input_node(k, Spec(("batch", 4, 2, 3), dtype)) for k in ("y", "pred"))
    mask = input_node("mask", Spec(("batch", 4), "bool"))
    scope.masks[pred] = mask
    arrays = {k: RNG.standard_normal((5, 4, 2, 3)).astype(dtype) for k in ("y", "pred")}
    left = RNG.random((5, 4)) > 0.5
    with enter(scope):
        loss = MeanSquaredError()(y, pred)
    out, _ = interpret(Graph("test", {"loss": loss}), {**arrays, "mask": left})
    error = ((arrays["y"] - arrays["pred"]) ** 2).mean(-1)[left].mean()
    np.testing.assert_allclose(out["loss"], error, rtol=1e-6 if dtype == "float32" else 1e-13)
    assert out["loss"].dtype == dtype


def test_a_mask_of_more_axes_than_the_loss_is_an_error():
    scope = Scope()
    y, pred = (input_node(k, Spec(("batch", 4))) for k in ("y", "pred"))
    scope.masks[pred] = input_node("mask", Spec(("batch", 4), "bool"))
    with (
        enter(scope),
        pytest.raises(ShapeError, match=r"mean_squared_error: a mask of shape \(batch, 4\)"),
    ):
        MeanSquaredError()(y, pred)
