"""The workloads in JAX with Flax and Optax: one jitted training step, buffers donated."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

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


# ------------------------------------------------------------------------------------------ models
class Dense(nn.Module):
    """Dense layers with ReLU between; flat inputs."""

    sizes: tuple[int, ...]
    last: Callable[[Any], Any] = lambda x: x

    @nn.compact
    def __call__(self, x, training=False):
        for n in self.sizes[:-1]:
            x = nn.relu(nn.Dense(n)(x))
        return self.last(nn.Dense(self.sizes[-1])(x))


class Cnn(nn.Module):
    @nn.compact
    def __call__(self, x, training=False):
        for width in (32, 64):
            x = nn.relu(nn.Conv(width, (3, 3), padding="VALID")(x))
            x = nn.max_pool(x, (2, 2), (2, 2))
        return Dense((128, 10))(x.reshape(len(x), -1))


class Lstm(nn.Module):
    @nn.compact
    def __call__(self, x, training=False):
        x = nn.Embed(LSTM_VOCABULARY, 128)(x)
        for _ in range(2):
            x = nn.RNN(nn.OptimizedLSTMCell(256))(x)
        return nn.Dense(LSTM_VOCABULARY)(x)


class Block(nn.Module):
    size: Transformer

    @nn.compact
    def __call__(self, x):
        heads, width = self.size.heads, self.size.width
        y = nn.Dense(3 * width)(nn.LayerNorm()(x))
        q, k, v = jnp.split(y.reshape(*y.shape[:2], 3 * heads, width // heads), 3, axis=2)
        y = jax.nn.dot_product_attention(q, k, v, is_causal=True)
        x = x + nn.Dense(width)(y.reshape(x.shape))
        y = nn.gelu(nn.Dense(4 * width)(nn.LayerNorm()(x)), approximate=False)
        return x + nn.Dense(width)(y)


class Gpt(nn.Module):
    size: Transformer

    @nn.compact
    def __call__(self, x, training=False):
        table = self.param(
            "positions", nn.initializers.normal(0.02), (self.size.time, self.size.width)
        )
        x = nn.Embed(self.size.vocabulary, self.size.width)(x) + table
        for _ in range(self.size.layers):
            x = Block(self.size)(x)
        return nn.Dense(self.size.vocabulary)(nn.LayerNorm()(x))


class Resnet(nn.Module):
    @nn.compact
    def __call__(self, x, training=False):
        def conv(x, width, kernel, strides=1):
            y = nn.Conv(width, (kernel, kernel), strides, padding="SAME", use_bias=False)(x)
            return nn.BatchNorm(use_running_average=not training)(y)

        x = nn.relu(conv(x, 16, 3))
        for width in (16, 32, 64):
            for block in range(3):
                strides = 2 if width > 16 and block == 0 else 1
                y = nn.relu(conv(x, width, 3, strides))
                beside = x if strides == 1 else conv(x, width, 1, strides)
                x = nn.relu(conv(y, width, 3) + beside)
        return nn.Dense(10)(x.mean((1, 2)))


class Unet(nn.Module):
    @nn.compact
    def __call__(self, x, training=False):
        def twice(x, width):
            for _ in range(2):
                x = nn.relu(nn.Conv(width, (3, 3))(x))
            return x

        top = twice(x, 16)
        middle = twice(nn.max_pool(top, (2, 2), (2, 2)), 32)
        x = twice(nn.max_pool(middle, (2, 2), (2, 2)), 64)
        for width, skip in ((32, middle), (16, top)):
            up = nn.ConvTranspose(width, (2, 2), (2, 2))(x)
            x = twice(jnp.concatenate([up, skip], -1), width)
        return nn.Conv(1, (1, 1))(x)


class Ncf(nn.Module):
    @nn.compact
    def __call__(self, user, item, training=False):
        table = partial(nn.Embed, embedding_init=nn.initializers.uniform(0.05))
        x = jnp.concatenate([table(USERS, 32)(user), table(ITEMS, 32)(item)], -1)
        return Dense((64, 32, 1))(x)


MODELS: dict[str, Callable[[], nn.Module]] = {
    "mlp": lambda: Dense((512, 512, 10)),
    "cnn": Cnn,
    "ae": lambda: Dense((256, 32, 256, 784), nn.sigmoid),
    "lstm": Lstm,
    "gpt": lambda: Gpt(TRANSFORMERS["gpt"]),
    "gptm": lambda: Gpt(TRANSFORMERS["gptm"]),
    "resnet": Resnet,
    "unet": Unet,
    "ncf": Ncf,
}


def build(work: Workload, x: tuple[Any, ...]) -> tuple[nn.Module, dict[str, Any]]:
    """The module, and its variables for these inputs."""
    net = MODELS[work.name]()
    variables = dict(jax.jit(net.init)(jax.random.key(0), *x))
    check_parameters(work, sum(p.size for p in jax.tree.leaves(variables["params"])))
    return net, variables


# ----------------------------------------------------------------------------------- what is timed
def batches(work: Workload) -> tuple[list[tuple[Any, ...]], list[Any]]:
    x, y = work.data()
    return [tuple(jnp.asarray(a[i]) for a in x) for i in range(BATCHES)], [*map(jnp.asarray, y)]


def criterion(work: Workload, out: Any, y: Any) -> Any:
    if work.loss == "classes":
        return optax.softmax_cross_entropy_with_integer_labels(out, y).mean()
    if work.loss == "binary":
        return optax.sigmoid_binary_cross_entropy(out, y).mean()
    return optax.squared_error(out, y).mean()


def trainer(work: Workload, threads: int) -> Trainer:
    """The number of threads is that of the cores that the process may run on."""
    xs, ys = batches(work)
    net, variables = build(work, xs[0])
    optimizer = optax.adam(1e-3, eps=1e-7)
    first = jax.tree.map(jnp.copy, (variables, optimizer.init(variables["params"])))

    def loss_of(params, state, x, y):
        given = {**state, "params": params}
        if not state:
            return criterion(work, net.apply(given, *x, training=True), y), {}
        out, state = net.apply(given, *x, training=True, mutable=list(state))
        return criterion(work, out, y), state

    @partial(jax.jit, donate_argnums=(0,))
    def update(everything, x, y):
        variables, slots = everything
        params = variables["params"]
        state = {k: v for k, v in variables.items() if k != "params"}
        (loss, state), gradients = jax.value_and_grad(loss_of, has_aux=True)(params, state, x, y)
        changes, slots = optimizer.update(gradients, slots, params)
        return ({**state, "params": optax.apply_updates(params, changes)}, slots), loss

    now = [jax.tree.map(jnp.copy, first)]

    def step(i: int) -> Any:
        found = update(now[0], xs[i % BATCHES], ys[i % BATCHES])
        now[0], loss = jax.block_until_ready(found)
        return loss

    def reset() -> None:
        now[0] = jax.tree.map(jnp.copy, first)

    return Trainer(step, reset)


def predictor(work: Workload, threads: int) -> Callable[[int], Any]:
    """Outputs for batch i."""
    xs, _ = batches(work)
    net, variables = build(work, xs[0])
    apply = jax.jit(net.apply)
    return lambda i: jax.block_until_ready(apply(variables, *xs[i % BATCHES]))
