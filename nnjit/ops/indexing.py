"""x[...] with ints, slices, ... and None, in terms of slice, flip and reshape."""

from __future__ import annotations

from typing import Any

import numpy as np

from nnjit.errors import ShapeError
from nnjit.graph import Node
from nnjit.ops.view import Triple, cut, flip, reshape
from nnjit.spec import Dim, Extent, shape_text


def index(x: Node, key: Any) -> Node:
    """x[key] with ints, slices, ... and None, as NumPy: x[0], x[:, ::2], x[..., None, 1:-1]."""
    keys = list(key) if isinstance(key, tuple) else [key]
    keys = [int(k) if isinstance(k, np.integer) else k for k in keys]
    for k in keys:
        if isinstance(k, bool) or not (k is None or k is Ellipsis or isinstance(k, int | slice)):
            raise ShapeError(f"index {k!r}: expected ints, slices, ... and None; see ops.take")
    used = sum(k is not None and k is not Ellipsis for k in keys)
    if used > x.rank or keys.count(Ellipsis) > 1:
        raise ShapeError(f"index {key!r} does not fit the shape {shape_text(x.shape)}")
    at = keys.index(Ellipsis) if Ellipsis in keys else len(keys)
    keys[at : at + 1] = [slice(None)] * (x.rank - used)
    cuts: list[Triple] = []
    shape: list[Dim | None] = []  # None: as the cut gives it
    flips: list[int] = []
    for k in keys:
        if k is None:
            shape.append(1)
            continue
        axis = len(cuts)
        place, backwards = _cut(k, x.shape[axis], axis, x)
        cuts.append(place)
        flips += [axis] if backwards else []
        if isinstance(k, slice):
            shape.append(None)
    part = cut(flip(x, flips) if flips else x, cuts)
    sliced = [isinstance(k, slice) for k in keys if k is not None]
    kept = iter(d for d, whole in zip(part.shape, sliced, strict=True) if whole)
    return reshape(part, [next(kept) if d is None else d for d in shape])


def _cut(k: int | slice, dim: Dim, axis: int, x: Node) -> tuple[Triple, bool]:
    """(start, stop, step > 0) of one key, and whether the axis is flipped first."""
    if isinstance(dim, Extent):
        return _run_time_cut(k, dim, axis, x)
    if isinstance(k, int):
        if not -dim <= k < dim:
            raise ShapeError(f"index {k} is out of range for axis {axis} of {shape_text(x.shape)}")
        return (k % dim, k % dim + 1, 1), False
    start, stop, step = k.indices(dim)
    if step > 0:
        return (start, max(start, stop), step), False
    start, stop, step = dim - 1 - start, dim - 1 - stop, -step
    return (start, max(start, stop), step), True


def _run_time_cut(k: int | slice, dim: Extent, axis: int, x: Node) -> tuple[Triple, bool]:
    """The same for an axis of run-time extent: whole, reversed, one index, or the first few."""
    if isinstance(k, int):  # the last element is the first of the flipped axis
        return ((k, k + 1, 1), False) if k >= 0 else ((-k - 1, -k, 1), True)
    start = 0 if k.start is None and k.step != -1 else k.start
    if start == 0 and k.stop in (None, dim) and k.step in (None, 1):
        return (0, dim, 1), False
    if k == slice(None, None, -1):
        return (0, dim, 1), True
    if not isinstance(start, int) or not isinstance(k.stop, int) or not 0 <= start <= k.stop:
        raise ShapeError(
            f"index {k} on axis {axis} of {shape_text(x.shape)}: an axis of run-time extent takes "
            "one index, or the whole axis"
        )
    return (start, k.stop, k.step or 1), False
