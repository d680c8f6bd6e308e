"""Pooling for users: channels last, one, two or more spatial axes where stated."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nnjit.errors import ShapeError
from nnjit.graph import Node
from nnjit.ops.base import OPS, as_node, fixed
from nnjit.ops.reduce import max, mean
from nnjit.ops.view import expand_dims, squeeze
from nnjit.ops.window import padding_of, pair
from nnjit.spec import shape_text


def _pool(name: str, x: Any, pool_size: Any, strides: Any, padding: Any, **attrs: Any) -> Node:
    """Pool a rank-3 (batch, steps, channels) or rank-4 (batch, height, width, channels) value."""
    x = as_node(x)
    if x.rank not in (3, 4):
        raise ShapeError(f"{name}: 1 or 2 spatial axes expected, got shape {shape_text(x.shape)}")
    n = x.rank - 2
    window = pair(name, "pool_size", pool_size, n)
    steps = window if strides is None else pair(name, "strides", strides, n)
    sizes = [fixed(f"{name}: {shape_text(x.shape)}", "a spatial axis", d) for d in x.shape[1:-1]]
    pads = padding_of(name, padding, sizes, window, steps)
    if n == 1:
        window, steps, pads = (1, *window), (1, *steps), ((0, 0), *pads)
        x = expand_dims(x, 1)
    y = OPS[name](x, window=window, strides=steps, padding=pads, **attrs)
    return squeeze(y, 1) if n == 1 else y


def max_pool(x: Any, pool_size: Any, strides: Any = None, padding: Any = "valid") -> Node:
    """The largest element of each window; strides default to pool_size; 'same' as Keras."""
    return _pool("max_pool", x, pool_size, strides, padding)


def average_pool(
    x: Any,
    pool_size: Any,
    strides: Any = None,
    padding: Any = "valid",
    count_include_pad: bool = False,
) -> Node:
    """The mean of each window; strides default to pool_size; padding does not count by default."""
    return _pool(
        "avg_pool", x, pool_size, strides, padding, count_include_pad=bool(count_include_pad)
    )


def _global(name: str, function: Callable[..., Node], x: Any, keepdims: bool) -> Node:
    x = as_node(x)
    if x.rank < 3:
        raise ShapeError(f"{name}: spatial axes expected, got shape {shape_text(x.shape)}")
    return function(x, tuple(range(1, x.rank - 1)), keepdims)


def global_average_pool(x: Any, keepdims: bool = False) -> Node:
    """The mean over all spatial axes: (batch, channels)."""
    return _global("global_average_pool", mean, x, keepdims)


def global_max_pool(x: Any, keepdims: bool = False) -> Node:
    """The largest element over all spatial axes: (batch, channels)."""
    return _global("global_max_pool", max, x, keepdims)
