"""The workloads in PyTorch: eager with channels-last images and fused Adam, and torch.compile."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from bench.trainer import Trainer, check_parameters
from bench.workloads import (
    BATCHES,
    ITEMS,
    LSTM_VOCABULARY,
    TRANSFORMERS,
    USERS,
    Transformer,
    Workload,
)

EPSILON = 1e-7  # Keras'


# ------------------------------------------------------------------------------------------ models
class Lstm(nn.Module):
    """Two layers; of PyTorch's two biases one is nothing and stays so."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(LSTM_VOCABULARY, 128)
        self.lstm = nn.LSTM(128, 256, num_layers=2, batch_first=True)
        for name, parameter in self.lstm.named_parameters():
            if name.startswith("bias_hh"):
                nn.init.zeros_(parameter).requires_grad_(False)
        self.out = nn.Linear(256, LSTM_VOCABULARY)

    def forward(self, x):
        return self.out(self.lstm(self.embedding(x))[0])


class Block(nn.Module):
    """Attention and a GELU block of four times the width, each after a LayerNorm."""

    def __init__(self, size: Transformer):
        super().__init__()
        self.heads, width = size.heads, size.width
        self.norm, self.qkv = nn.LayerNorm(width), nn.Linear(width, 3 * width)
        self.out, self.norm_2 = nn.Linear(width, width), nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x):
        batch, time, width = x.shape
        shape = (batch, time, 3, self.heads, width // self.heads)
        q, k, v = self.qkv(self.norm(x)).view(shape).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).reshape(batch, time, width))
        return x + self.down(F.gelu(self.up(self.norm_2(x))))


class Gpt(nn.Module):
    def __init__(self, size: Transformer):
        super().__init__()
        self.embedding = nn.Embedding(size.vocabulary, size.width)
        self.positions = nn.Parameter(0.02 * torch.randn(size.time, size.width))
        nn.init.normal_(self.embedding.weight, std=0.02)
        self.blocks = nn.Sequential(*(Block(size) for _ in range(size.layers)))
        self.norm, self.out = nn.LayerNorm(size.width), nn.Linear(size.width, size.vocabulary)

    def forward(self, x):
        return self.out(self.norm(self.blocks(self.embedding(x) + self.positions)))


class Residual(nn.Module):
    def __init__(self, first: int, width: int, strides: int):
        super().__init__()
        self.conv = nn.Conv2d(first, width, 3, strides, padding=1, bias=False)
        self.norm, self.norm_2 = nn.BatchNorm2d(width), nn.BatchNorm2d(width)
        self.conv_2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.beside: nn.Module = nn.Identity()
        if strides > 1:
            conv = nn.Conv2d(first, width, 1, strides, bias=False)
            self.beside = nn.Sequential(conv, nn.BatchNorm2d(width))

    def forward(self, x):
        y = F.relu(self.norm(self.conv(x)))
        return F.relu(self.norm_2(self.conv_2(y)) + self.beside(x))


def resnet() -> nn.Module:
    blocks: list[nn.Module] = []
    for width in (16, 32, 64):
        narrow = width > 16
        blocks.append(Residual(width // 2 if narrow else width, width, 2 if narrow else 1))
        blocks += [Residual(width, width, 1) for _ in range(2)]
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(), *blocks,
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10),
    )  # fmt: skip


def twice(first: int, width: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(first, width, 3, padding=1), nn.ReLU(),
        nn.Conv2d(width, width, 3, padding=1), nn.ReLU(),
    )  # fmt: skip


class Unet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.top, self.middle, self.bottom = twice(3, 16), twice(16, 32), twice(32, 64)
        self.up = nn.ConvTranspose2d(64, 32, 2, stride=2)
        self.right = twice(64, 32)
        self.up_2 = nn.ConvTranspose2d(32, 16, 2, stride=2)
        self.right_2 = twice(32, 16)
        self.out = nn.Conv2d(16, 1, 1)

    def forward(self, x):
        top = self.top(x)
        middle = self.middle(F.max_pool2d(top, 2))
        bottom = self.bottom(F.max_pool2d(middle, 2))
        x = self.right(torch.cat([self.up(bottom), middle], 1))
        return self.out(self.right_2(torch.cat([self.up_2(x), top], 1)))


class Ncf(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.users, self.items = nn.Embedding(USERS, 32), nn.Embedding(ITEMS, 32)
        for table in (self.users, self.items):
            nn.init.uniform_(table.weight, -0.05, 0.05)
        self.rest = nn.Sequential(
            nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 1)
        )

    def forward(self, user, item):
        return self.rest(torch.cat([self.users(user), self.items(item)], 1))


def dense(*sizes: int, last: tuple[nn.Module, ...] = ()) -> nn.Module:
    found: list[nn.Module] = []
    for k, n in itertools.pairwise(sizes):
        found += [nn.Linear(k, n), nn.ReLU()]
    return nn.Sequential(*found[:-1], *last)


def cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 32, 3), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(1600, 128), nn.ReLU(), nn.Linear(128, 10),
    )  # fmt: skip


MODELS: dict[str, Callable[[], nn.Module]] = {
    "mlp": lambda: dense(784, 512, 512, 10),
    "cnn": cnn,
    "ae": lambda: dense(784, 256, 32, 256, 784, last=(nn.Sigmoid(),)),
    "lstm": Lstm,
    "gpt": lambda: Gpt(TRANSFORMERS["gpt"]),
    "gptm": lambda: Gpt(TRANSFORMERS["gptm"]),
    "resnet": resnet,
    "unet": Unet,
    "ncf": Ncf,
}


def build(work: Workload) -> nn.Module:
    torch.manual_seed(0)
    net = MODELS[work.name]().to(memory_format=torch.channels_last)
    check_parameters(work, sum(p.numel() for p in net.parameters() if p.requires_grad))
    return net


# ----------------------------------------------------------------------------------- what is timed
def tensor(a: np.ndarray) -> torch.Tensor:
    """Images as (batch, channel, row, column) lying channels-last; whole numbers as int64."""
    t = torch.from_numpy(a)
    if a.dtype == np.int32:
        return t.long()
    return t.permute(0, 3, 1, 2) if a.ndim == 4 else t


def criterion(work: Workload) -> Callable[[Any, Any], torch.Tensor]:
    if work.loss == "classes":
        return lambda out, y: F.cross_entropy(out.flatten(0, -2), y.flatten())
    return {"mse": F.mse_loss, "binary": F.binary_cross_entropy_with_logits}[work.loss]


def trainer(work: Workload, threads: int, compiled: bool = False) -> Trainer:
    """Model and loss together are compiled, the optimizer is PyTorch's fused one either way."""
    torch.set_num_threads(threads)
    net, loss_of = build(work), criterion(work)
    x, y = work.data()
    xs = [tuple(tensor(a[i]) for a in x) for i in range(BATCHES)]
    ys = [tensor(a) for a in y]
    start = {k: v.clone() for k, v in net.state_dict().items()}
    trained = [p for p in net.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(trained, eps=EPSILON, fused=True)

    def plain(x: tuple[Any, ...], y: Any) -> torch.Tensor:
        return loss_of(net(*x), y)

    forward = torch.compile(plain) if compiled else plain

    def step(i: int) -> torch.Tensor:
        optimizer.zero_grad(set_to_none=True)
        loss = forward(xs[i % BATCHES], ys[i % BATCHES])
        loss.backward()
        optimizer.step()
        return loss.detach()

    def reset() -> None:
        net.load_state_dict(start)
        for slots in optimizer.state.values():
            for slot in slots.values():
                slot.zero_()

    return Trainer(step, reset)


def predictor(work: Workload, threads: int, compiled: bool = False) -> Callable[[int], Any]:
    """Outputs for batch i, as in use: evaluation mode, no gradients; compiled for weights that stay
    as they are, so that it may pack them beforehand.
    """
    torch.set_num_threads(threads)
    net: Any = build(work).eval()
    x, _ = work.data()
    xs = [tuple(tensor(a[i]) for a in x) for i in range(BATCHES)]
    if compiled:
        net = torch.compile(net, options={"freezing": True})

    def predict(i: int) -> Any:
        with torch.inference_mode():
            return net(*xs[i % BATCHES])

    return predict
