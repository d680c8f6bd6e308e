"""Images and sequences made larger by whole factors: channels last."""

from __future__ import annotations

from functools import reduce
from typing import Any

import numpy as np

from nnjit.errors import ArgumentError, ShapeError, nearest
from nnjit.graph import Node, constant
from nnjit.ops.base import as_node, fixed, promote
from nnjit.ops.convolution import conv2d_dx
from nnjit.ops.join import concatenate, repeat
from nnjit.ops.view import expand_dims, squeeze
from nnjit.ops.window import pair
from nnjit.spec import shape_text

INTERPOLATIONS = ("nearest", "bilinear")


def upsample(x: Any, size: Any = 2, interpolation: str = "nearest") -> Node:
    """x (batch, *spatial, channels), each spatial axis `size` times as long: a number, or one per
    axis.

    'nearest' repeats elements; any number of axes, open extents too. 'bilinear', over 1 or 2 axes,
    weighs the two nearest along each, the border repeated outwards, as Keras and PyTorch
    (align_corners=False) do.
    """
    x = as_node(x)
    n = x.rank - 2
    if n < 1 or (interpolation == "bilinear" and n > 2):
        raise ShapeError(
            f"upsample: {'1 or 2 ' if n > 2 else ''}spatial axes expected, "
            f"got shape {shape_text(x.shape)}"
        )
    size = pair("upsample", "size", size, n)
    if interpolation not in INTERPOLATIONS:
        raise ArgumentError(
            f"upsample: interpolation={interpolation!r}{nearest(interpolation, INTERPOLATIONS)}"
        )
    if interpolation == "bilinear":
        return _bilinear(x, size)
    for axis in range(n, 0, -1):  # the last axis first: the large copies are then of whole rows
        x = repeat(x, size[axis - 1], axis) if size[axis - 1] > 1 else x
    return x


def _bilinear(x: Node, size: tuple[int, ...]) -> Node:
    """A depthwise transposed convolution whose kernel is the product of a triangle per axis."""
    (x,) = promote(x, takes="float")
    if len(size) == 1:
        return squeeze(_bilinear(expand_dims(x, 1), (1, *size)), 1)
    where_ = f"upsample: {shape_text(x.shape)}"
    height, width, channels = (fixed(where_, f"axis {a}", x.shape[a]) for a in (1, 2, 3))
    if size == (1, 1) or 0 in (height, width, channels):
        return repeat(repeat(x, size[1], 2), size[0], 1)
    pads = []
    for axis, times in enumerate(size, 1):
        x = _bordered(x, axis, (height, width)[axis - 1]) if times > 1 else x
        pads.append((3 * times // 2,) * 2 if times > 1 else (0, 0))
    triangles = np.ix_(*[_triangle(times) for times in size])
    kernel = np.broadcast_to(
        reduce(np.multiply, triangles)[..., None, None],
        (*(len(_triangle(times)) for times in size), 1, channels),
    )
    return conv2d_dx(
        x, constant(kernel, x.dtype), strides=size, padding=tuple(pads), dilation=(1, 1),
        groups=channels, height=height * size[0], width=width * size[1],
    )  # fmt: skip


def _triangle(times: int) -> np.ndarray:
    """What an element adds to the elements around its centre, less than `times` away."""
    places = np.arange(2 * times - times % 2)
    return 1 - np.abs(places - (len(places) - 1) / 2) / times


def _bordered(x: Node, axis: int, n: int) -> Node:
    """x with the first and last of the n elements along an axis repeated outwards."""
    before = [slice(None)] * axis
    return concatenate([x[(*before, slice(0, 1))], x, x[(*before, slice(n - 1, n))]], axis)
