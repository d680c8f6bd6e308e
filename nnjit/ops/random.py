"""Random numbers: pure functions of (seed, stream, step, element), so steps can be repeated.

The state is a Node of shape (2,) int64, (seed, step); by default that of the current scope. One of
shape (3,) says further which element the first one is, where a value is drawn in parts. Each call
takes a stream of its own, so two calls never give the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nnjit.errors import ArgumentError, DTypeError, GraphError, ShapeError
from nnjit.graph import Node, current_scope
from nnjit.ops.base import as_node, computed, no_gradient
from nnjit.ops.elementwise import where
from nnjit.spec import FLOATS, Dim, Spec, check_dtype


def _rule(rng: Spec, *, shape: Sequence[Dim], dtype: str, stream: int) -> Spec:
    if rng.shape not in ((2,), (3,)) or rng.dtype != "int64":
        raise ShapeError(f"random: a state int64(2,) of seed and step expected, got {rng}")
    if dtype not in FLOATS:
        raise DTypeError(f"random: dtype {dtype} is not floating point; cast the numbers instead")
    return Spec(tuple(shape), dtype)


def _meaning(name: str) -> Callable[..., np.ndarray]:
    def numpy(m: Any, rng: np.ndarray, shape: Any, dtype: str, stream: int) -> np.ndarray:
        # Imported when used: graphs are built without any kernel.
        from nnjit.kernels.philox import philox_normal, philox_uniform

        draw = philox_uniform if name == "uniform" else philox_normal
        first = int(rng[2]) if len(rng) > 2 else 0
        return draw(int(rng[0]), stream, int(rng[1]), m.shape, dtype, first)

    return numpy


def _random(name: str, doc: str) -> Callable[..., Node]:
    op = computed(
        f"random_{name}", "random", _rule, _meaning(name), no_gradient,
        lambda node: 10 * node.spec.size, doc,
    )  # fmt: skip

    def draw(shape: Sequence[Dim], dtype: str, rng: Node | None, stream: int | None) -> Node:
        scope = current_scope()
        state = rng if rng is not None else scope.random
        if state is None:
            raise GraphError(f"random_{name}: no random state: pass rng, or build inside a model")
        number = scope.stream() if stream is None else stream
        return op(state, shape=tuple(shape), dtype=check_dtype(dtype), stream=number)

    return draw


_uniform = _random("uniform", "numbers in [0, 1), each equally likely")
_normal = _random("normal", "normal numbers of mean 0 and variance 1")


def random_uniform(
    shape: Sequence[Dim],
    low: Any = 0.0,
    high: Any = 1.0,
    dtype: str = "float32",
    rng: Node | None = None,
    stream: int | None = None,
) -> Node:
    """Numbers in [low, high), each equally likely."""
    u = _uniform(shape, dtype, rng, stream)
    return u if (low, high) == (0, 1) else u * (high - low) + low


def random_normal(
    shape: Sequence[Dim],
    mean: Any = 0.0,
    stddev: Any = 1.0,
    dtype: str = "float32",
    rng: Node | None = None,
    stream: int | None = None,
) -> Node:
    """Normal numbers."""
    z = _normal(shape, dtype, rng, stream)
    return z if (mean, stddev) == (0, 1) else z * stddev + mean


def dropout(
    x: Any,
    rate: float,
    noise_shape: Sequence[Dim | None] | None = None,
    rng: Node | None = None,
    stream: int | None = None,
) -> Node:
    """x with a share `rate` of its elements set to 0, the others divided by 1 - rate.

    noise_shape: the shape of the choice, None or the axis' extent to choose one by one, 1 to
    choose alike along an axis. Always active: layers leave it out when they do not train.
    """
    x = as_node(x)
    if not 0 <= rate < 1:
        raise ArgumentError(f"dropout: rate={rate}: expected 0 or more, and less than 1")
    if x.dtype not in FLOATS:
        raise DTypeError(f"dropout: floating point expected, got {x.dtype}")
    if rate == 0:
        return x
    shape = x.shape
    if noise_shape is not None:
        if len(noise_shape) != x.rank:
            raise ArgumentError(f"dropout: noise_shape={noise_shape}: expected {x.rank} entries")
        shape = tuple(d if n is None else n for n, d in zip(noise_shape, x.shape, strict=True))
    keep = _uniform(shape, x.dtype, rng, stream) >= rate
    return where(keep, x * (1 / (1 - rate)), 0)
