"""The reference workloads: sizes, data that can be learnt, operations and parameters of a step.

What they are in each framework is in models_nnjit.py, models_torch.py and models_jax.py; each
asserts that it has as many trainable parameters as stated here.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

BATCHES = 8  # different batches, used in turn

Data = tuple[tuple[np.ndarray, ...], np.ndarray]  # (inputs), labels: each (batches, batch, ...)


@dataclass(frozen=True)
class Workload:
    """batch: samples a step. layers: the forward contractions, as (multiply-adds a sample, whether
    a gradient of its input is needed too). make(rng, rows) -> (inputs), labels. loss: "classes"
    (softmax cross-entropy from logits, whole labels), "mse" or "binary" (sigmoid cross-entropy from
    logits). parameters: trainable ones.
    """

    name: str
    batch: int
    parameters: int
    loss: str
    layers: tuple[tuple[int, bool], ...]
    make: Callable[[np.random.Generator, int], Data]

    @property
    def flops(self) -> float:
        """Floating-point operations of a step's contractions: forward and both gradients."""
        return sum(2.0 * self.batch * macs * (3 if inner else 2) for macs, inner in self.layers)

    @property
    def forward_flops(self) -> float:
        """Floating-point operations of the contractions of a prediction of `batch` samples."""
        return sum(2.0 * self.batch * macs for macs, _ in self.layers)

    def data(self, batches: int = BATCHES) -> Data:
        """The same numbers at every call."""
        x, y = self.make(np.random.default_rng(0), batches * self.batch)
        cut = lambda a: a.reshape(batches, self.batch, *a.shape[1:])  # noqa: E731
        return tuple(cut(a) for a in x), cut(y)

    def of_batch(self, batch: int) -> Workload:
        return replace(self, batch=batch)


@dataclass(frozen=True)
class Transformer:
    """Sizes of a decoder: pre-norm, causal, GELU block of four times the width."""

    layers: int
    heads: int
    width: int
    time: int
    vocabulary: int

    def contractions(self) -> tuple[tuple[int, bool], ...]:
        """Attention counts in full, as the literature does, though half of it is masked."""
        weights = self.layers * 12 * self.width**2 + self.width * self.vocabulary
        return ((self.time * (weights + self.layers * 2 * self.time * self.width), True),)


TRANSFORMERS = {"gpt": Transformer(4, 4, 128, 64, 65), "gptm": Transformer(6, 6, 384, 256, 256)}
LSTM_TIME, LSTM_VOCABULARY = 64, 65
USERS, ITEMS = 10_000, 5_000


# -------------------------------------------------------------------------------------------- data
def patterns(
    shape: tuple[int, ...], classes: int, strength: float
) -> Callable[[np.random.Generator, int], Data]:
    """A class is a pattern in noise; strength: its part. Not so much that the loss vanishes."""

    def make(rng: np.random.Generator, rows: int) -> Data:
        centres = rng.standard_normal((classes, *shape), np.float32)
        y = rng.integers(0, classes, rows).astype("i4")
        noise = rng.standard_normal((rows, *shape), np.float32)
        return (centres[y] * np.float32(strength) + noise,), y

    return make


def compressible(rng: np.random.Generator, rows: int) -> Data:
    """784 values from 0 to 1 that depend on eight; the labels are the inputs."""
    z, mix = rng.standard_normal((rows, 8)), rng.standard_normal((8, 784))
    x = (1 / (1 + np.exp(-z @ mix))).astype("f4")
    return (x,), x


def tokens(time: int, vocabulary: int) -> Callable[[np.random.Generator, int], Data]:
    """Text of a chain: the next token follows from the last in four of five cases."""

    def make(rng: np.random.Generator, rows: int) -> Data:
        follows = rng.permutation(vocabulary)
        text = rng.integers(0, vocabulary, (rows, time + 1))
        known = rng.random((rows, time + 1)) < 0.8
        for t in range(time):
            text[:, t + 1] = np.where(known[:, t + 1], follows[text[:, t]], text[:, t + 1])
        text = text.astype("i4")
        return (np.ascontiguousarray(text[:, :-1]),), np.ascontiguousarray(text[:, 1:])

    return make


def discs(rng: np.random.Generator, rows: int) -> Data:
    """Images (64, 64, 3) with a coloured disc in noise; the labels say which pixels are its own."""
    at = np.arange(64, dtype="f4")
    row, column = rng.uniform(16, 48, (2, rows, 1, 1)).astype("f4")
    radius = rng.uniform(8, 16, (rows, 1, 1)).astype("f4")
    inside = (at[:, None] - row) ** 2 + (at[None, :] - column) ** 2 < radius**2
    y = inside[..., None].astype("f4")
    noise = rng.standard_normal((rows, 64, 64, 3), np.float32)
    return (y * np.array([1.0, -0.5, 0.5], "f4") + np.float32(0.5) * noise,), y


def ratings(rng: np.random.Generator, rows: int) -> Data:
    """Who likes what: an item's popularity, a user's mood, and some chance."""
    popular, mood = rng.standard_normal(ITEMS), rng.standard_normal(USERS)
    user, item = rng.integers(0, USERS, rows), rng.integers(0, ITEMS, rows)
    liked = popular[item] + mood[user] + 0.3 * rng.standard_normal(rows) > 0
    return (user.astype("i4"), item.astype("i4")), liked[:, None].astype("f4")


# --------------------------------------------------------------------------------------- workloads
def _resnet() -> tuple[tuple[int, bool], ...]:
    found = [(32 * 32 * 9 * 3 * 16, False)]
    for width, side in ((16, 32), (32, 16), (64, 8)):
        first = width if width == 16 else width // 2
        found += [(side * side * 9 * width * (first + 5 * width), True)]
        if first != width:
            found += [(side * side * first * width, True)]  # the 1x1 convolution beside
    return (*found, (640, True))


def _unet() -> tuple[tuple[int, bool], ...]:
    first, out = (64 * 64 * 9 * 3 * 16, False), (64 * 64 * 16, True)
    down = 64 * 64 * 9 * 16 * 16 + 32 * 32 * 9 * 32 * (16 + 32) + 16 * 16 * 9 * 64 * (32 + 64)
    up = 32 * 32 * (64 * 32 + 9 * 32 * (64 + 32)) + 64 * 64 * (32 * 16 + 9 * 16 * (32 + 16))
    return first, (down + up, True), out


def _dense(*sizes: int) -> tuple[tuple[int, bool], ...]:
    pairs = itertools.pairwise(sizes)
    return tuple((k * n, i > 0) for i, (k, n) in enumerate(pairs))


_CNN = ((26 * 26 * 9 * 32, False), (11 * 11 * 9 * 32 * 64, True), (1600 * 128 + 1280, True))
_LSTM = LSTM_TIME * ((128 + 256) * 1024 + (256 + 256) * 1024 + 256 * LSTM_VOCABULARY)
_GPT, _GPTM = TRANSFORMERS["gpt"], TRANSFORMERS["gptm"]

WORKLOADS = {
    w.name: w
    for w in (
        Workload(
            "mlp", 128, 669_706, "classes", _dense(784, 512, 512, 10), patterns((784,), 10, 0.1)
        ),
        Workload("cnn", 128, 225_034, "classes", _CNN, patterns((28, 28, 1), 10, 0.3)),
        Workload("ae", 256, 419_120, "mse", _dense(784, 256, 32, 256, 784), compressible),
        Workload(
            "lstm", 32, 944_577, "classes", ((_LSTM, True),), tokens(LSTM_TIME, LSTM_VOCABULARY)
        ),
        Workload("gpt", 12, 818_241, "classes", _GPT.contractions(), tokens(64, 65)),
        Workload("gptm", 8, 10_942_720, "classes", _GPTM.contractions(), tokens(256, 256)),
        Workload("resnet", 64, 272_474, "classes", _resnet(), patterns((32, 32, 3), 10, 0.5)),
        Workload("unet", 8, 117_041, "binary", _unet(), discs),
        Workload("ncf", 1024, 486_273, "binary", ((64 * 64 + 64 * 32 + 32, True),), ratings),
    )
}
