"""Images and sequences made larger by whole factors: channels last."""

from __future__ import annotations

from typing import Any

import numpy as np

from nnjit.errors import ArgumentError, ShapeError, nearest
from nnjit.graph import Node
from nnjit.ops.base import as_node, fixed, promote
from nnjit.ops.elementwise import equal, where
from nnjit.ops.join import iota, repeat
from nnjit.ops.view import pad, reshape
from nnjit.ops.window import pair
from nnjit.spec import shape_text

INTERPOLATIONS = ("nearest", "bilinear")


def upsample(x: Any, size: Any = 2, interpolation: str = "nearest") -> Node:
    """x (batch, *spatial, channels), 1 or more spatial axes, with each of them `size` times as
    long.

    size: a number or one per axis. 'nearest' repeats elements and takes open extents; 'bilinear'
    weighs the two nearest along each axis, the outermost ones repeated outwards, as Keras and
    PyTorch (align_corners=False) do.
    """
    x = as_node(x)
    if x.rank < 3:
        raise ShapeError(f"upsample: spatial axes expected, got shape {shape_text(x.shape)}")
    size = pair("upsample", "size", size, x.rank - 2)
    if interpolation not in INTERPOLATIONS:
        raise ArgumentError(
            f"upsample: interpolation={interpolation!r}{nearest(interpolation, INTERPOLATIONS)}"
        )
    (x,) = promote(x, takes="float") if interpolation == "bilinear" else (x,)
    for axis, times in enumerate(size, 1):
        if times > 1:
            x = (repeat if interpolation == "nearest" else _blend)(x, times, axis)
    return x


def _blend(x: Node, times: int, axis: int) -> Node:
    """Linear interpolation along one axis: element i * times + r lies (r + 0.5) / times - 0.5 from
    x[i].
    """
    n = fixed(f"upsample: {shape_text(x.shape)}", f"the extent of axis {axis}", x.shape[axis])
    before, behind = x.shape[:axis], x.shape[axis + 1 :]
    if n == 0:
        return reshape(x, x.shape)
    offset = (np.arange(times) + 0.5) / times - 0.5
    tail = (times, *[1] * len(behind))
    near = np.abs(offset).astype(x.dtype).reshape(tail)
    around = [(0, 0)] * x.rank
    ends = [1] * axis + [n] + [1] * len(behind)
    place = iota(ends, axis)

    def neighbour(step: int) -> Node:
        """x[i + step], x[i] at the end."""
        low, high = (1, 0) if step < 0 else (0, 1)
        cut = [slice(None)] * axis + [slice(0, n - 1) if step < 0 else slice(1, n)]
        moved = pad(x[tuple(cut)], [*around[:axis], (low, high), *around[axis + 1 :]])
        return where(equal(place, 0 if step < 0 else n - 1), x, moved)

    wide = lambda v: reshape(v, (*before, n, 1, *behind))  # noqa: E731
    behind_first = (offset < 0).reshape(tail)
    other = where(behind_first, wide(neighbour(-1)), wide(neighbour(1)))
    y = wide(x) * (1 - near) + other * near
    return reshape(y, (*before, n * times, *behind))
