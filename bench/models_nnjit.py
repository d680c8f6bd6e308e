"""The workloads in nnjit, as a user of Keras would write them, and how they are trained and asked.

Training is `model.train_on_batch` and `model.fit`, prediction `model.predict_on_batch`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

import nnjit
from bench.trainer import Trainer, check_parameters
from bench.workloads import (
    BATCHES,
    ITEMS,
    LSTM_TIME,
    LSTM_VOCABULARY,
    TRANSFORMERS,
    USERS,
    Workload,
)
from nnjit import Input, Model, Sequential, layers, losses

LOSSES = {
    "classes": lambda: losses.SparseCategoricalCrossentropy(from_logits=True),
    "mse": lambda: "mse",
    "binary": lambda: losses.BinaryCrossentropy(from_logits=True),
}


def build(work: Workload) -> Any:
    """The compiled model."""
    model = MODELS[work.name](work)
    model.compile(loss=LOSSES[work.loss](), optimizer="adam")
    check_parameters(work, sum(v.size for v in model.trainable_weights))
    return model


# ------------------------------------------------------------------------------------------ models
def mlp(work: Workload) -> Any:
    return Sequential([
        layers.Dense(512, activation="relu", input_shape=(784,)),
        layers.Dense(512, activation="relu"),
        layers.Dense(10),
    ])  # fmt: skip


def cnn(work: Workload) -> Any:
    return Sequential([
        layers.Conv2D(32, kernel_size=(3, 3), activation="relu", input_shape=(28, 28, 1)),
        layers.MaxPooling2D(pool_size=(2, 2)),
        layers.Conv2D(64, kernel_size=(3, 3), activation="relu"),
        layers.MaxPooling2D(pool_size=(2, 2)),
        layers.Flatten(),
        layers.Dense(128, activation="relu"),
        layers.Dense(10),
    ])  # fmt: skip


def ae(work: Workload) -> Any:
    return Sequential([
        layers.Dense(256, activation="relu", input_shape=(784,)),
        layers.Dense(32, activation="relu"),
        layers.Dense(256, activation="relu"),
        layers.Dense(784, activation="sigmoid"),
    ])  # fmt: skip


def lstm(work: Workload) -> Any:
    x = Input(shape=(LSTM_TIME,), dtype="int32")
    y = layers.Embedding(LSTM_VOCABULARY, 128)(x)
    y = layers.LSTM(256, return_sequences=True)(y)
    y = layers.LSTM(256, return_sequences=True)(y)
    return Model(x, layers.Dense(LSTM_VOCABULARY)(y))


class Positions(nnjit.Layer):
    """Adds a learnt vector to each place of a sequence."""

    def build(self, input_shape):
        self.table = self.add_weight(input_shape[1:], "uniform", name="table")

    def call(self, x):
        return x + self.table


def gpt(work: Workload) -> Any:
    size = TRANSFORMERS[work.name]
    tokens = Input(shape=(size.time,), dtype="int32")
    x = Positions()(layers.Embedding(size.vocabulary, size.width)(tokens))
    for _ in range(size.layers):
        y = layers.LayerNormalization()(x)
        attention = layers.MultiHeadAttention(size.heads, size.width // size.heads)
        x = layers.Add()([x, attention(y, y, use_causal_mask=True)])
        y = layers.LayerNormalization()(x)
        y = layers.Dense(4 * size.width, activation="gelu")(y)
        x = layers.Add()([x, layers.Dense(size.width)(y)])
    return Model(tokens, layers.Dense(size.vocabulary)(layers.LayerNormalization()(x)))


def resnet(work: Workload) -> Any:
    def conv(x, width, kernel, strides=1):
        y = layers.Conv2D(width, kernel, strides, padding="same", use_bias=False)(x)
        return layers.BatchNormalization()(y)

    image = Input(shape=(32, 32, 3))
    x = layers.ReLU()(conv(image, 16, 3))
    for width in (16, 32, 64):
        for block in range(3):
            strides = 2 if width > 16 and block == 0 else 1
            y = layers.ReLU()(conv(x, width, 3, strides))
            beside = x if strides == 1 else conv(x, width, 1, strides)
            x = layers.ReLU()(layers.Add()([conv(y, width, 3), beside]))
    return Model(image, layers.Dense(10)(layers.GlobalAveragePooling2D()(x)))


def unet(work: Workload) -> Any:
    def twice(x, width):
        for _ in range(2):
            x = layers.Conv2D(width, 3, padding="same", activation="relu")(x)
        return x

    image = Input(shape=(64, 64, 3))
    top = twice(image, 16)
    middle = twice(layers.MaxPooling2D()(top), 32)
    x = twice(layers.MaxPooling2D()(middle), 64)
    for width, skip in ((32, middle), (16, top)):
        up = layers.Conv2DTranspose(width, 2, strides=2)(x)
        x = twice(layers.Concatenate()([up, skip]), width)
    return Model(image, layers.Conv2D(1, 1)(x))


def ncf(work: Workload) -> Any:
    user, item = Input(shape=(), dtype="int32"), Input(shape=(), dtype="int32")
    both = [layers.Embedding(USERS, 32)(user), layers.Embedding(ITEMS, 32)(item)]
    x = layers.Concatenate()(both)
    x = layers.Dense(64, activation="relu")(x)
    x = layers.Dense(32, activation="relu")(x)
    return Model([user, item], layers.Dense(1)(x))


MODELS: dict[str, Callable[[Workload], Any]] = {
    "mlp": mlp, "cnn": cnn, "ae": ae, "lstm": lstm, "gpt": gpt, "gptm": gpt, "resnet": resnet,
    "unet": unet, "ncf": ncf,
}  # fmt: skip


# ----------------------------------------------------------------------------------- what is timed
def given(x: tuple[np.ndarray, ...]) -> Any:
    """One array, or a list of several."""
    return x[0] if len(x) == 1 else list(x)


def trainer(work: Workload, threads: int) -> Trainer:
    """Steps through `train_on_batch`."""
    nnjit.set_threads(threads)
    nnjit.set_seed(0)
    model = build(work)
    x, y = work.data()
    batches = [given(tuple(a[i] for a in x)) for i in range(BATCHES)]
    start = [(v, v.numpy()) for v in model.trainable_weights]
    state = [v for v in model.step_variables() if not v.trainable]

    def reset() -> None:
        for v, value in start:
            v.assign(value)
        for v in state:
            v.initialize(model.seed)

    return Trainer(
        step=lambda i: model.train_on_batch(batches[i % BATCHES], y[i % BATCHES]), reset=reset
    )


def fit_block(work: Workload, threads: int) -> Callable[[int], list[float]]:
    """n steps of one `model.fit`, shuffled: seconds a step, n times the same."""
    nnjit.set_threads(threads)
    nnjit.set_seed(0)
    model = build(work)
    x, y = work.data()

    def block(n: int) -> list[float]:
        turn = np.arange(n) % BATCHES
        rows = [a[turn].reshape(-1, *a.shape[2:]) for a in (*x, y)]
        start = time.perf_counter()
        model.fit(given(tuple(rows[:-1])), rows[-1], batch_size=work.batch, verbose=0)
        return [(time.perf_counter() - start) / n] * n

    return block


def predictor(work: Workload, threads: int) -> Callable[[int], Any]:
    """Outputs for batch i."""
    nnjit.set_threads(threads)
    nnjit.set_seed(0)
    model = build(work)
    x, _ = work.data()
    batches = [given(tuple(a[i] for a in x)) for i in range(BATCHES)]
    return lambda i: model.predict_on_batch(batches[i % BATCHES])
