"""The reference training steps, in nnjit and in PyTorch, on data with a structure that can be
learnt.

A workload gives: batches (x, y), the floating-point operations of its contractions a step, and for
each peer a function `step(i)` that does one optimizer step on batch i and returns nothing. Ours is
`model.train_on_batch`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

BATCHES = 8  # different batches, used in turn


@dataclass(frozen=True)
class Workload:
    """batch size, shape of one sample, classes, and multiply-adds of the forward contractions of
    one sample.
    """

    name: str
    batch: int
    shape: tuple[int, ...]
    classes: int
    layers: tuple[
        tuple[int, bool], ...
    ]  # (multiply-adds a sample, does its input need a gradient?)

    @property
    def flops(self) -> float:
        """Floating-point operations of a step's contractions: forward and both gradients."""
        return sum(2.0 * self.batch * macs * (3 if inner else 2) for macs, inner in self.layers)

    def data(self) -> tuple[np.ndarray, np.ndarray]:
        """(BATCHES, batch, *shape) float32, (BATCHES, batch) int32: a class is a noisy pattern."""
        rng = np.random.default_rng(0)
        patterns = rng.standard_normal((self.classes, *self.shape)).astype("f4")
        y = rng.integers(0, self.classes, (BATCHES, self.batch)).astype("i4")
        noise = rng.standard_normal((BATCHES, self.batch, *self.shape)).astype("f4")
        return patterns[y] * np.float32(0.5) + noise, y


MLP = Workload("mlp", 128, (784,), 10, ((784 * 512, False), (512 * 512, True), (512 * 10, True)))
CNN = Workload(
    "cnn",
    128,
    (28, 28, 1),
    10,
    (
        (26 * 26 * 9 * 32, False),
        (11 * 11 * 9 * 32 * 64, True),
        (1600 * 128, True),
        (128 * 10, True),
    ),
)
WORKLOADS = {w.name: w for w in (MLP, CNN)}


# ------------------------------------------------------------------------------------------- nnjit
def nnjit_step(name: str, threads: int) -> Callable[[int], object]:
    """One step through the public API."""
    import nnjit
    from nnjit.layers import Conv2D, Dense, Flatten, MaxPooling2D
    from nnjit.models import Sequential

    nnjit.set_threads(threads)
    nnjit.set_seed(0)
    work = WORKLOADS[name]
    if name == "mlp":
        layers = [
            Dense(512, activation="relu", input_shape=(784,)),
            Dense(512, activation="relu"),
            Dense(10, activation="softmax"),
        ]
    else:
        layers = [
            Conv2D(32, kernel_size=(3, 3), activation="relu", input_shape=(28, 28, 1)),
            MaxPooling2D(pool_size=(2, 2)),
            Conv2D(64, kernel_size=(3, 3), activation="relu"),
            MaxPooling2D(pool_size=(2, 2)),
            Flatten(),
            Dense(128, activation="relu"),
            Dense(10, activation="softmax"),
        ]
    model = Sequential(layers)
    model.compile(loss="sparse_categorical_crossentropy", optimizer="adam", metrics=["accuracy"])
    x, y = work.data()
    return lambda i: model.train_on_batch(x[i % BATCHES], y[i % BATCHES])


# ------------------------------------------------------------------------------------------- torch
def torch_step(name: str, threads: int) -> Callable[[int], object]:
    """One step of PyTorch eager: channels-last images, fused Adam."""
    import torch
    from torch import nn

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    work = WORKLOADS[name]
    x, y = work.data()
    if name == "mlp":
        net = nn.Sequential(
            nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10)
        )
        xs = [torch.from_numpy(b) for b in x]
    else:
        net = nn.Sequential(
            nn.Conv2d(1, 32, 3), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(1600, 128), nn.ReLU(), nn.Linear(128, 10),
        ).to(memory_format=torch.channels_last)  # fmt: skip
        last = torch.channels_last
        xs = [torch.from_numpy(b).permute(0, 3, 1, 2).contiguous(memory_format=last) for b in x]
    ys = [torch.from_numpy(b).long() for b in y]
    optimizer = torch.optim.Adam(net.parameters(), fused=True)
    loss = nn.CrossEntropyLoss()

    def step(i: int) -> None:
        optimizer.zero_grad(set_to_none=True)
        loss(net(xs[i % BATCHES]), ys[i % BATCHES]).backward()
        optimizer.step()

    return step


PEERS = {"nnjit": nnjit_step, "torch": torch_step}
