"""Convolutions of NHWC values with kernels (height, width, channels / groups, outputs).

`conv2d` and its two gradients are ops; each is linear in both operands, so the gradients of all
three are made of the same three. Users call the functions of `conv`. Passes may give a negative
padding behind: rows and columns of the image that are not read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nnjit.errors import ShapeError
from nnjit.graph import Node
from nnjit.ops.base import computed, fixed, product_dtype
from nnjit.ops.window import Padding, Pair, image, padded, places, taps, unpadded
from nnjit.spec import Dim, Spec, product, shape_text


# ------------------------------------------------------------------------------------------- rules
def _conv_rule(
    x: Spec, w: Spec, *, strides: Pair, padding: Padding, dilation: Pair, groups: int
) -> Spec:
    n, h, width, c = image("conv2d", x)
    if w.rank != 4:
        raise ShapeError(
            "conv2d: a kernel of shape (height, width, channels / groups, outputs) expected, "
            f"got {shape_text(w.dims)}"
        )
    kh, kw, cg, o = (fixed("conv2d: the kernel", "its shape", d) for d in w.dims)
    if c != cg * groups:
        raise ShapeError(
            f"conv2d: {shape_text(x.dims)} has {c} channels, the kernel {shape_text(w.dims)} in "
            f"{groups} group(s) takes {cg * groups}"
        )
    if o % groups:
        raise ShapeError(f"conv2d: {o} outputs do not divide into {groups} groups")
    oh = places("conv2d", "height", h, (kh - 1) * dilation[0] + 1, strides[0], padding[0])
    ow = places("conv2d", "width", width, (kw - 1) * dilation[1] + 1, strides[1], padding[1])
    return Spec((n, oh, ow, o), product_dtype("conv2d", (x, w)))


def _check(name: str, x: Spec, w: Spec, dy: Spec, attrs: dict[str, Any]) -> None:
    want = _conv_rule(x, w, **attrs)
    if want.dims != dy.dims:
        raise ShapeError(f"{name}: a convolution of {x} with {w} gives {want}, not {dy}")


def _dx_rule(dy: Spec, w: Spec, *, height: int, width: int, groups: int, **attrs: Any) -> Spec:
    n = image("conv2d_dx", dy, "dy")[0]
    if w.rank != 4:
        raise ShapeError(f"conv2d_dx: a kernel of rank 4 expected, got {shape_text(w.dims)}")
    x = Spec((n, height, width, w.dims[2] * groups), dy.dtype)
    _check("conv2d_dx", x, w, dy, {**attrs, "groups": groups})
    return x.with_dtype(product_dtype("conv2d_dx", (dy, w)))


def _dw_rule(x: Spec, dy: Spec, *, kernel: Pair, groups: int, **attrs: Any) -> Spec:
    c, o = image("conv2d_dw", x)[3], image("conv2d_dw", dy, "dy")[3]
    w = Spec((*kernel, c // groups, o), x.dtype)
    _check("conv2d_dw", x, w, dy, {**attrs, "groups": groups})
    return w.with_dtype(product_dtype("conv2d_dw", (x, dy)))


# ----------------------------------------------------------------------------------- NumPy meaning
def _grouped(x: np.ndarray, groups: int) -> np.ndarray:
    """(batch, rows, columns, channels) as (group, pixels, channels of the group)."""
    return x.reshape(-1, groups, x.shape[3] // groups).transpose(1, 0, 2)


def _kernel(w: np.ndarray, groups: int) -> np.ndarray:
    """(kh, kw, channels of a group, outputs) as (kh, kw, group, channels, outputs of the group)."""
    kh, kw, c, o = w.shape
    return w.reshape(kh, kw, c, groups, o // groups).transpose(0, 1, 3, 2, 4)


def _flat(y: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    return y.transpose(1, 0, 2).reshape(shape)


def _conv_numpy(
    m: Any, x: np.ndarray, w: np.ndarray, strides: Pair, padding: Padding, dilation: Pair,
    groups: int,
) -> np.ndarray:  # fmt: skip
    x, w = padded(x, padding), _kernel(w, groups)
    out = np.zeros(m.shape, x.dtype)
    for i, j, at in taps(m.shape[1:3], w.shape[:2], strides, dilation):
        out += _flat(_grouped(x[at], groups) @ w[i, j], m.shape)
    return out


def _dx_numpy(
    m: Any, dy: np.ndarray, w: np.ndarray, strides: Pair, padding: Padding, dilation: Pair,
    groups: int, height: int, width: int,
) -> np.ndarray:  # fmt: skip
    w = _kernel(w, groups)
    dx = padded(np.zeros(m.shape, dy.dtype), padding)
    rows = _grouped(dy, groups)
    for i, j, at in taps(dy.shape[1:3], w.shape[:2], strides, dilation):
        dx[at] += _flat(rows @ w[i, j].swapaxes(1, 2), (*dy.shape[:3], m.shape[3]))
    return unpadded(dx, padding, height, width)


def _dw_numpy(
    m: Any, x: np.ndarray, dy: np.ndarray, strides: Pair, padding: Padding, dilation: Pair,
    groups: int, kernel: Pair,
) -> np.ndarray:  # fmt: skip
    x, rows = padded(x, padding), _grouped(dy, groups)
    out = np.zeros(m.shape, x.dtype)
    for i, j, at in taps(dy.shape[1:3], kernel, strides, dilation):
        part = _grouped(x[at], groups).swapaxes(1, 2) @ rows
        out[i, j] = part.transpose(1, 0, 2).reshape(m.shape[2:])
    return out


# ------------------------------------------------------------------------------ gradients, the ops
def _attrs(node: Node) -> dict[str, Any]:
    return {k: node.attrs[k] for k in ("strides", "padding", "dilation", "groups")}


def _dx(dy: Node, w: Node, x: Node, attrs: dict[str, Any]) -> Node:
    return conv2d_dx(dy, w, **attrs, height=x.shape[1], width=x.shape[2])


def _dw(x: Node, dy: Node, w: Node, attrs: dict[str, Any]) -> Node:
    return conv2d_dw(x, dy, **attrs, kernel=w.shape[:2])


def _conv_grad(dy: Node, y: Node, x: Node, w: Node) -> tuple[Node, Node]:
    return _dx(dy, w, x, _attrs(y)), _dw(x, dy, w, _attrs(y))


def _dx_grad(g: Node, y: Node, dy: Node, w: Node) -> tuple[Node, Node]:
    return conv2d(g, w, **_attrs(y)), _dw(g, dy, w, _attrs(y))


def _dw_grad(g: Node, y: Node, x: Node, dy: Node) -> tuple[Node, Node]:
    return _dx(dy, g, x, _attrs(y)), conv2d(x, g, **_attrs(y))


def _taps_flops(dy: Sequence[Dim], w: Sequence[Dim]) -> Dim:
    """A multiplication and an addition per result, kernel element and channel of its group."""
    return 2 * product(dy) * product(w[:3])


conv2d = computed(
    "conv2d", "contraction", _conv_rule, _conv_numpy, _conv_grad,
    lambda n: _taps_flops(n.shape, n.inputs[1].shape),
    "convolution (correlation) of an image with a kernel",
)  # fmt: skip
conv2d_dx = computed(
    "conv2d_dx", "contraction", _dx_rule, _dx_numpy, _dx_grad,
    lambda n: _taps_flops(n.inputs[0].shape, n.inputs[1].shape),
    "the gradient of conv2d with respect to the image; a transposed convolution",
)  # fmt: skip
conv2d_dw = computed(
    "conv2d_dw", "contraction", _dw_rule, _dw_numpy, _dw_grad,
    lambda n: _taps_flops(n.inputs[1].shape, n.shape),
    "the gradient of conv2d with respect to the kernel",
)  # fmt: skip
