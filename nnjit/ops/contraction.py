"""Matrix products: two rank-2 values, or stacks of them with equal leading axes."""

from __future__ import annotations

from typing import Any

import numpy as np

from nnjit.errors import ShapeError
from nnjit.graph import Node
from nnjit.ops.base import computed, product_dtype, promote
from nnjit.ops.view import broadcast_to, expand_dims, reshape, squeeze, swapaxes
from nnjit.spec import Dim, Spec, broadcast, product, shape_text


def _matmul_rule(a: Spec, b: Spec, *, transpose_a: bool, transpose_b: bool) -> Spec:
    text = _text(a.dims, b.dims, transpose_a, transpose_b)
    if a.rank < 2 or a.rank != b.rank or a.dims[:-2] != b.dims[:-2]:
        raise ShapeError(f"{text}: two matrices, or stacks with equal leading axes, expected")
    m, k = a.dims[-2:][::-1] if transpose_a else a.dims[-2:]
    k2, n = b.dims[-2:][::-1] if transpose_b else b.dims[-2:]
    if k != k2:
        raise ShapeError(f"{text}: inner extents {k} and {k2} differ")
    return Spec((*a.dims[:-2], m, n), product_dtype("matmul", (a, b)))


def _text(a: Any, b: Any, transpose_a: bool, transpose_b: bool) -> str:
    mark = {False: "", True: ".T"}
    return f"matmul: {shape_text(a)}{mark[transpose_a]} @ {shape_text(b)}{mark[transpose_b]}"


def _matmul_numpy(m: Any, a: Any, b: Any, transpose_a: bool, transpose_b: bool) -> np.ndarray:
    return np.matmul(a.swapaxes(-1, -2) if transpose_a else a,
                     b.swapaxes(-1, -2) if transpose_b else b)  # fmt: skip


def _matmul_grad(dy: Node, y: Node, a: Node, b: Node) -> tuple[Node, Node]:
    ta, tb = y.attrs["transpose_a"], y.attrs["transpose_b"]
    da = _product(b, dy, tb, True) if ta else _product(dy, b, False, not tb)
    db = _product(dy, a, True, ta) if tb else _product(a, dy, not ta, False)
    return da, db


def _matmul_flops(node: Node) -> Dim:
    a = node.inputs[0].shape
    return 2 * product(node.shape) * (a[-2] if node.attrs["transpose_a"] else a[-1])


_matmul = computed(
    "matmul", "contraction", _matmul_rule, _matmul_numpy, _matmul_grad, _matmul_flops,
    "matrix product of the last two axes, either operand transposed",
)  # fmt: skip


def _product(a: Node, b: Node, transpose_a: bool, transpose_b: bool) -> Node:
    return _matmul(a, b, transpose_a=transpose_a, transpose_b=transpose_b)


def matmul(a: Any, b: Any, transpose_a: bool = False, transpose_b: bool = False) -> Node:
    """a @ b by NumPy's rules (vectors, matrices, stacks that broadcast), either transposed.

    (..., K) @ (K, N) is one product of (rows, K) with (K, N).
    """
    a, b = promote(a, b, takes="number")
    if min(a.rank, b.rank) == 0:
        raise ShapeError(f"{_text(a.shape, b.shape, False, False)}: a number is no matrix; use *")
    if a.rank == 1 or b.rank == 1:
        rows = expand_dims(a, 0) if a.rank == 1 else a
        columns = expand_dims(b, 1) if b.rank == 1 else b
        ones = [axis for axis, x in ((-2, a), (-1, b)) if x.rank == 1]
        y = matmul(rows, columns, transpose_a and a.rank > 1, transpose_b and b.rank > 1)
        return squeeze(y, ones)
    if a.rank == b.rank == 2:
        return _product(a, b, transpose_a, transpose_b)
    if b.rank == 2:
        a = swapaxes(a, -1, -2) if transpose_a else a
        k, n = b.shape[::-1] if transpose_b else b.shape
        if a.shape[-1] != k:
            text = _text(a.shape, b.shape, False, transpose_b)
            raise ShapeError(f"{text}: inner extents {a.shape[-1]} and {k} differ")
        rows = reshape(a, (product(a.shape[:-1]), k))
        return reshape(_product(rows, b, False, transpose_b), (*a.shape[:-1], n))
    lead = broadcast([a.shape[:-2], b.shape[:-2]], _text(a.shape, b.shape, False, False))
    a = broadcast_to(a, (*lead, *a.shape[-2:]))
    b = broadcast_to(b, (*lead, *b.shape[-2:]))
    return _product(a, b, transpose_a, transpose_b)


def dot(a: Any, b: Any) -> Node:
    """a @ b."""
    return matmul(a, b)
