"""Convolutions for users: channels last, 1 to 3 spatial axes, by `conv2d` and its gradient."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any

from nnjit.errors import ArgumentError, ShapeError
from nnjit.graph import Node
from nnjit.ops.base import fixed, promote, whole_number
from nnjit.ops.conv_steps import conv_steps
from nnjit.ops.convolution import conv2d, conv2d_dx
from nnjit.ops.elementwise import add
from nnjit.ops.view import expand_dims, pad, reshape, squeeze
from nnjit.ops.window import Pair, padding_of, pair, places
from nnjit.spec import Extent, shape_text


def conv(
    x: Any,
    kernel: Any,
    strides: Any = 1,
    padding: Any = "valid",
    dilation_rate: Any = 1,
    groups: int = 1,
) -> Node:
    """Convolution over 1, 2 or 3 spatial axes: x (batch, *spatial, channels).

    kernel (*window, channels / groups, outputs). padding: 'valid', 'same', 'causal' (1 axis), a
    number, or (low, high) per axis. A single axis may be open if the padding keeps its extent and
    the stride is 1.
    """
    x, kernel = promote(x, kernel, takes="float")
    n = x.rank - 2
    if not 1 <= n <= 3 or kernel.rank != x.rank:
        raise ShapeError(
            f"conv: {shape_text(x.shape)} with kernel {shape_text(kernel.shape)}: "
            "equal ranks of 3, 4 or 5 expected"
        )
    strides = pair("conv", "strides", strides, n)
    dilation = pair("conv", "dilation_rate", dilation_rate, n)
    groups = whole_number("conv", "groups", groups, 1)
    window = [(fixed("conv", "the kernel", k) - 1) * d + 1
              for k, d in zip(kernel.shape[:n], dilation, strict=True)]  # fmt: skip
    if padding == "causal":
        if n != 1:
            raise ArgumentError(f"conv: padding='causal' is for 1 spatial axis, not {n}")
        padding = ((window[0] - 1, 0),)
    if n == 1 and isinstance(x.shape[1], Extent):
        around = None if padding == "same" else padding_of("conv", padding, [0], window, strides)[0]
        return conv_steps(x, kernel, strides[0], around, dilation[0], groups)
    sizes = [fixed(f"conv: {shape_text(x.shape)}", "a spatial axis", d) for d in x.shape[1:-1]]
    pads = padding_of("conv", padding, sizes, window, strides)
    if n == 3:
        return _conv3d(x, kernel, strides, pads, dilation, groups)
    if n == 1:
        x, kernel = expand_dims(x, 1), expand_dims(kernel, 0)
        strides, dilation, pads = (1, *strides), (1, *dilation), ((0, 0), *pads)
    y = conv2d(x, kernel, strides=strides, padding=pads, dilation=dilation, groups=groups)
    return squeeze(y, 1) if n == 1 else y


def _conv3d(x: Node, w: Node, strides: Any, pads: Any, dilation: Any, groups: int) -> Node:
    """The sum over the kernel's depth of 2-D convolutions, depth being part of the batch."""
    deep = fixed("conv", "the depth of the kernel", w.shape[0])
    x = pad(x, [(0, 0), pads[0], (0, 0), (0, 0), (0, 0)])
    depth = fixed("conv", "the depth", x.shape[1])
    reach = (deep - 1) * dilation[0] + 1
    out = places("conv", "depth", depth, reach, strides[0], (0, 0))
    terms = []
    for k in range(deep):
        first = k * dilation[0]
        part = x[:, first : first + (out - 1) * strides[0] + 1 : strides[0]]
        rows = reshape(part, (part.shape[0] * out, *part.shape[2:]))
        y = conv2d(rows, w[k], strides=strides[1:], padding=pads[1:], dilation=dilation[1:],
                    groups=groups)  # fmt: skip
        terms.append(reshape(y, (x.shape[0], out, *y.shape[1:])))
    return reduce(add, terms)


def depthwise_conv(
    x: Any, kernel: Any, strides: Any = 1, padding: Any = "valid", dilation_rate: Any = 1
) -> Node:
    """Each channel convolved by itself: kernel (*window, channels, multiplier)."""
    x, kernel = promote(x, kernel, takes="float")
    if kernel.rank != x.rank or kernel.shape[-2] != x.shape[-1]:
        raise ShapeError(
            f"depthwise_conv: {shape_text(x.shape)} with kernel {shape_text(kernel.shape)}: "
            "a kernel (*window, channels, multiplier) with the same channels expected"
        )
    channels = fixed("depthwise_conv", "the number of channels", x.shape[-1])
    wide = reshape(kernel, (*kernel.shape[:-2], 1, kernel.shape[-2] * kernel.shape[-1]))
    return conv(x, wide, strides, padding, dilation_rate, channels)


def separable_conv(
    x: Any,
    depthwise_kernel: Any,
    pointwise_kernel: Any,
    strides: Any = 1,
    padding: Any = "valid",
    dilation_rate: Any = 1,
) -> Node:
    """depthwise_conv, then a convolution with a window of 1."""
    return conv(depthwise_conv(x, depthwise_kernel, strides, padding, dilation_rate),
                pointwise_kernel)  # fmt: skip


def conv_transpose(
    x: Any,
    kernel: Any,
    strides: Any = 1,
    padding: str = "valid",
    output_padding: Any = None,
    dilation_rate: Any = 1,
) -> Node:
    """The gradient of `conv` as a layer: x (batch, *spatial, channels) grows by the strides.

    kernel (*window, outputs, channels), 1 or 2 spatial axes. Extents, as in Keras 3: 'valid'
    n * stride + max(window - stride, 0), 'same' n * stride; with output_padding (n - 1) * stride +
    output_padding + window ('valid') or window % 2 ('same').
    """
    x, kernel = promote(x, kernel, takes="float")
    n = x.rank - 2
    if n not in (1, 2) or kernel.rank != x.rank:
        raise ShapeError(
            f"conv_transpose: {shape_text(x.shape)} with kernel {shape_text(kernel.shape)}: "
            "equal ranks of 3 or 4 expected"
        )
    strides = pair("conv_transpose", "strides", strides, n)
    dilation = pair("conv_transpose", "dilation_rate", dilation_rate, n)
    if padding not in ("valid", "same"):
        raise ArgumentError(f"conv_transpose: padding={padding!r}: expected 'valid' or 'same'")
    extra: Sequence[int | None] = [None] * n
    if output_padding is not None:
        extra = pair("conv_transpose", "output_padding", output_padding, n, low=0)
    sizes, pads = [], []
    for axis in range(n):
        size = fixed("conv_transpose", "a spatial axis", x.shape[1 + axis])
        window = (fixed("conv_transpose", "the kernel", kernel.shape[axis]) - 1) * dilation[
            axis
        ] + 1
        grown, around = _grown(size, window, strides[axis], padding, extra[axis])
        sizes.append(grown)
        pads.append(around)
    if n == 1:
        x, kernel = expand_dims(x, 1), expand_dims(kernel, 0)
        strides, dilation = (1, *strides), (1, *dilation)
        sizes, pads = [1, *sizes], [(0, 0), *pads]
    y = conv2d_dx(x, kernel, strides=strides, padding=tuple(pads), dilation=dilation, groups=1,
                  height=sizes[0], width=sizes[1])  # fmt: skip
    return squeeze(y, 1) if n == 1 else y


def _grown(n: int, window: int, stride: int, padding: str, extra: int | None) -> tuple[int, Pair]:
    """Extent of the result along an axis, and the padding of the convolution that it reverses.

    The full result is (n - 1) * stride + window; 'same' cuts from both ends, `extra` adds behind.
    Where to cut follows Keras 3.
    """
    if extra is not None and extra >= stride:
        raise ArgumentError(
            f"conv_transpose: output_padding={extra}: expected less than the stride, {stride}"
        )
    if padding == "valid":
        low, high = 0, -(max(stride - window, 0) if extra is None else extra)
    else:
        around = window + (stride - 2 if extra is None else window % 2 - 2 + extra)
        front = min((around + 1) // 2, window - 1)
        low, high = window - 1 - front, window - 1 - (around - front)
    return (n - 1) * stride + window - low - high, (low, max(high, 0))
