"""Rows of a table by index, and its reverse: sums of rows by index."""

from __future__ import annotations

from typing import Any

import numpy as np

from nnjit.errors import DTypeError, ShapeError
from nnjit.graph import Node
from nnjit.ops.base import as_node, computed, fixed
from nnjit.ops.elementwise import cast, logical_and, where
from nnjit.ops.view import expand_dims, moveaxis, reshape, transpose
from nnjit.spec import FLOATS, Dim, Spec, normal_axes, product, shape_text


def _whole(name: str, idx: Spec) -> None:
    if idx.dtype in FLOATS or idx.dtype == "bool":
        raise DTypeError(f"{name}: indices must be integers, got {idx.dtype}")


def _take_rule(table: Spec, idx: Spec) -> Spec:
    _whole("take", idx)
    if table.rank != 2:
        raise ShapeError(f"take_rows: a table (rows, width) expected, got {shape_text(table.dims)}")
    return table.with_shape([*idx.dims, table.dims[1]])


def _take_numpy(m: Any, table: np.ndarray, idx: np.ndarray) -> np.ndarray:
    known = (idx >= 0) & (idx < len(table))
    missing = np.nan if table.dtype.kind == "f" else 0
    if not len(table):
        return np.full(m.shape, missing, table.dtype)
    return np.where(known[..., None], table[np.where(known, idx, 0)], table.dtype.type(missing))


def _take_grad(dy: Node, y: Node, table: Node, idx: Node) -> tuple[Node, None]:
    return _scatter_rows(idx, dy, rows=table.shape[0]), None


def _scatter_rule(idx: Spec, dy: Spec, *, rows: Dim) -> Spec:
    _whole("scatter", idx)
    if dy.dims[:-1] != idx.dims:
        raise ShapeError(
            f"scatter_rows: indices {shape_text(idx.dims)} need rows of shape "
            f"{shape_text((*idx.dims, 'width'))}, got {shape_text(dy.dims)}"  # type: ignore[arg-type]
        )
    return dy.with_shape([rows, dy.dims[-1]])


def _scatter_numpy(m: Any, idx: np.ndarray, dy: np.ndarray, rows: Dim) -> np.ndarray:
    out = np.zeros(m.shape, dy.dtype)
    known = (idx >= 0) & (idx < len(out))
    np.add.at(out, idx[known], dy[known])
    return out


def _scatter_grad(g: Node, y: Node, idx: Node, dy: Node) -> tuple[None, Node]:
    known = logical_and(idx >= 0, idx < y.shape[0])
    return None, where(expand_dims(known, -1), _take_rows(g, idx), 0)


_take_rows = computed(
    "take_rows", "gather", _take_rule, _take_numpy, _take_grad, lambda node: 0,
    "table[idx] by rows; an index out of range gives NaN (integers: 0)",
)  # fmt: skip
_scatter_rows = computed(
    "scatter_rows", "gather", _scatter_rule, _scatter_numpy, _scatter_grad,
    lambda node: node.inputs[1].spec.size, "the sum of the rows of each index",
)  # fmt: skip


def _index(idx: Any) -> Node:
    idx = as_node(idx)
    return cast(idx, "int32") if idx.dtype in ("uint8", "uint32") else idx


def take(x: Any, idx: Any, axis: int = 0) -> Node:
    """Slices of x along `axis` at whole-number indices of any shape, which take the axis' place.

    Indices count from 0; one out of range, negative ones too, gives NaN (integers: 0).
    """
    x, idx = as_node(x), _index(idx)
    if x.rank == 0:
        raise ShapeError("take: a number has no axis to index")
    (axis,) = normal_axes(axis, x.rank, "take")
    front = moveaxis(x, axis, 0)
    width = product(front.shape[1:])
    rows = _take_rows(reshape(front, (front.shape[0], width)), idx)
    out = reshape(rows, (*idx.shape, *front.shape[1:]))
    moved = list(range(idx.rank))
    rest = list(range(idx.rank, out.rank))
    return transpose(out, [*rest[:axis], *moved, *rest[axis:]])


def scatter(idx: Any, values: Any, rows: int) -> Node:
    """A value of `rows` rows, each the sum of those values whose index it is; others are 0.

    idx any shape, values idx.shape + more; indices out of range are skipped.
    """
    idx, values = _index(idx), as_node(values)
    fixed("scatter", "rows", rows)
    more = values.shape[idx.rank :]
    flat = reshape(values, (*values.shape[: idx.rank], product(more)))
    return reshape(_scatter_rows(idx, flat, rows=rows), (rows, *more))
