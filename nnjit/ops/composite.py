"""Softmax and the cross-entropies: written with other ops, with closed-form gradients.

They stay whole until after `grad`. All of them shift by the row's maximum in the same way, so that
a loss and its gradient share that work once equal subexpressions are shared.
"""

from __future__ import annotations

import math
from typing import Any

from nnjit.errors import DTypeError, ShapeError
from nnjit.graph import Node
from nnjit.ops.activations import sigmoid, softplus
from nnjit.ops.base import OPS, as_node, composite, promote
from nnjit.ops.elementwise import (
    absolute,
    cast,
    equal,
    exp,
    log,
    logical_and,
    stop_gradient,
    where,
)
from nnjit.ops.join import iota
from nnjit.ops.reduce import Axes, max, spread, sum
from nnjit.ops.view import expand_dims, reshape
from nnjit.spec import normal_axes, shape_text


def _shifted(x: Node, axis: int) -> Node:
    """x minus its largest element, so that exp cannot overflow."""
    return x - stop_gradient(max(x, axis, keepdims=True))


# ----------------------------------------------------------------------------------------- softmax
def _softmax(x: Node, axis: int) -> Node:
    e = exp(_shifted(x, axis))
    return e / sum(e, axis, keepdims=True)


def _softmax_grad(dy: Node, y: Node, x: Node) -> Node:
    g = dy * y
    return g - y * sum(g, y.attrs["axis"], keepdims=True)


def _log_softmax(x: Node, axis: int) -> Node:
    z = _shifted(x, axis)
    return z - log(sum(exp(z), axis, keepdims=True))


def _log_softmax_grad(dy: Node, y: Node, x: Node) -> Node:
    axis = y.attrs["axis"]
    return dy - softmax(x, axis) * sum(dy, axis, keepdims=True)


def _logsumexp(x: Node, axes: tuple[int, ...], keepdims: bool) -> Node:
    top = max(x, axes, keepdims=True)
    top = stop_gradient(where(absolute(top) < math.inf, top, 0))  # rows of -inf stay -inf
    out = log(sum(exp(x - top), axes, keepdims=True)) + top
    return out if keepdims else reshape(out, sum(x, axes).shape)


def _logsumexp_grad(dy: Node, y: Node, x: Node) -> Node:
    axes = y.attrs["axes"]
    y = spread(y, x, axes)
    return spread(dy, x, axes) * exp(x - where(equal(y, -math.inf), 0, y))


composite("softmax", _softmax, _softmax_grad, doc="exp(x) / sum(exp(x)) along an axis")
composite("log_softmax", _log_softmax, _log_softmax_grad, doc="log(softmax(x)) along an axis")
composite("logsumexp", _logsumexp, _logsumexp_grad, doc="log(sum(exp(x))) over axes")


def softmax(x: Any, axis: int = -1) -> Node:
    """exp(x) / sum(exp(x)) along an axis."""
    (x,) = promote(x, takes="float")
    return OPS["softmax"](x, axis=normal_axes(axis, x.rank, "softmax")[0])


def log_softmax(x: Any, axis: int = -1) -> Node:
    """log(softmax(x)) along an axis, without loss of small probabilities."""
    (x,) = promote(x, takes="float")
    return OPS["log_softmax"](x, axis=normal_axes(axis, x.rank, "log_softmax")[0])


def logsumexp(x: Any, axis: Axes = None, keepdims: bool = False) -> Node:
    """log(sum(exp(x))) over axes (default all); -inf where all elements are."""
    (x,) = promote(x, takes="float")
    axes = normal_axes(axis, x.rank, "logsumexp")
    return OPS["logsumexp"](x, axes=axes, keepdims=bool(keepdims))


# ----------------------------------------------------------------------------------- cross-entropy
def _hot(x: Node, labels: Node) -> Node:
    """True at the label's place along the last axis."""
    return equal(iota(x.shape, dtype=labels.dtype), expand_dims(labels, -1))


def _sparse(x: Node, labels: Node) -> Node:
    z = _shifted(x, -1)
    picked = sum(where(_hot(x, labels), z, 0), -1)
    known = logical_and(labels >= 0, labels < x.shape[-1])
    return where(
        known, log(sum(exp(z), -1, keepdims=True)).reshape(picked.shape) - picked, math.nan
    )


def _sparse_grad(dy: Node, y: Node, x: Node, labels: Node) -> tuple[Node, None]:
    hot = cast(_hot(x, labels), x.dtype)
    return expand_dims(dy, -1) * (softmax(x) - hot), None


def _dense(x: Node, targets: Node) -> Node:
    return -sum(targets * _log_softmax(x, x.rank - 1), -1)


def _dense_grad(dy: Node, y: Node, x: Node, targets: Node) -> tuple[Node, Node]:
    dy = expand_dims(dy, -1)
    return (
        dy * (softmax(x) * sum(targets, -1, keepdims=True) - targets),
        -(dy * log_softmax(x)),
    )


composite(
    "sparse_softmax_cross_entropy", _sparse, _sparse_grad,
    doc="-log(softmax(logits)[label]) along the last axis; NaN for labels out of range",
)  # fmt: skip
composite(
    "softmax_cross_entropy", _dense, _dense_grad,
    doc="-sum(targets * log_softmax(logits)) along the last axis",
)  # fmt: skip
composite(
    "sigmoid_cross_entropy", lambda x, targets: softplus(x) - x * targets,
    lambda dy, y, x, targets: (dy * (sigmoid(x) - targets), -(dy * x)),
    doc="-(t * log(p) + (1 - t) * log(1 - p)) with p = sigmoid(logits)",
)  # fmt: skip


def sparse_softmax_cross_entropy(logits: Any, labels: Any) -> Node:
    """Per row, -log(softmax(logits)[label]): logits (..., classes), labels (...) whole numbers.

    A label out of 0..classes-1 gives NaN.
    """
    (logits,) = promote(logits, takes="float")
    labels = as_node(labels)
    if labels.dtype.startswith("float"):
        raise DTypeError(f"sparse_softmax_cross_entropy: labels are {labels.dtype}, not integers")
    if labels.dtype not in ("int32", "int64"):
        labels = cast(labels, "int32")
    if logits.shape[:-1] != labels.shape:
        raise ShapeError(
            f"sparse_softmax_cross_entropy: logits {shape_text(logits.shape)} need labels "
            f"{shape_text(logits.shape[:-1])}, got {shape_text(labels.shape)}"
        )
    return OPS["sparse_softmax_cross_entropy"](logits, labels)


def _same_shape(name: str, logits: Any, targets: Any) -> tuple[Node, Node]:
    logits, targets = promote(logits, targets, takes="float")
    if logits.shape != targets.shape:
        raise ShapeError(
            f"{name}: logits {shape_text(logits.shape)} and targets {shape_text(targets.shape)} "
            "must have one shape"
        )
    return logits, targets


def softmax_cross_entropy(logits: Any, targets: Any) -> Node:
    """Per row, -sum(targets * log_softmax(logits)): both (..., classes)."""
    return OPS["softmax_cross_entropy"](*_same_shape("softmax_cross_entropy", logits, targets))


def sigmoid_cross_entropy(logits: Any, targets: Any) -> Node:
    """Per element, the cross-entropy of sigmoid(logits) with targets in 0..1."""
    return OPS["sigmoid_cross_entropy"](*_same_shape("sigmoid_cross_entropy", logits, targets))
