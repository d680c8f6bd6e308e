"""Loss functions: (y_true, y_pred) -> one value per sample; the last axis is used up.

Probabilities that come from a softmax or sigmoid are traded for its logits, which is both exact and
cheaper; other probabilities are kept EPSILON away from 0 and 1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nnjit import ops
from nnjit.errors import ArgumentError, ShapeError
from nnjit.graph import Node, extent_node
from nnjit.spec import FLOATS, shape_text

EPSILON = 1e-7


# ------------------------------------------------------------------------------------ preparation
def same_rank(y_true: Node, y_pred: Node) -> Node:
    """y_true with a last axis of 1 dropped or added where that gives it the rank of y_pred."""
    if y_true.rank == y_pred.rank + 1 and y_true.shape[-1] == 1:
        return ops.reshape(y_true, y_true.shape[:-1])
    if y_true.rank + 1 == y_pred.rank and y_pred.shape[-1] == 1:
        return ops.reshape(y_true, (*y_true.shape, 1))
    return y_true


def paired(name: str, y_true: Any, y_pred: Any) -> tuple[Node, Node]:
    """Both as floats of one dtype and shape; ShapeError names the loss."""
    y_pred = ops.as_node(y_pred)
    y_pred = y_pred if y_pred.dtype in FLOATS else ops.cast(y_pred, "float32")
    y_true = same_rank(ops.cast(ops.as_node(y_true), y_pred.dtype), y_pred)
    if y_true.shape != y_pred.shape:
        raise ShapeError(
            f"{name}: labels of shape {shape_text(y_true.shape)} do not fit "
            f"predictions of shape {shape_text(y_pred.shape)}"
        )
    return y_true, y_pred


def class_labels(name: str, y_true: Any, y_pred: Node) -> Node:
    """Whole-number labels of shape y_pred.shape[:-1]; a last axis of 1 is dropped."""
    y_true = ops.as_node(y_true)
    if y_true.rank == y_pred.rank and y_true.shape[-1] == 1:
        y_true = ops.reshape(y_true, y_true.shape[:-1])
    if y_true.shape != y_pred.shape[:-1]:
        raise ShapeError(
            f"{name}: expected class numbers of shape {shape_text(y_pred.shape[:-1])} for "
            f"predictions of shape {shape_text(y_pred.shape)}, got {shape_text(y_true.shape)}"
        )
    return y_true if y_true.dtype in ("int32", "int64") else ops.cast(y_true, "int32")


def over_last(values: Node, reduce: Callable = ops.mean) -> Node:
    """values reduced over the last axis; those of one axis are one value a sample already."""
    return reduce(values, axis=-1) if values.rank > 1 else values


def logits_of(y_pred: Node, function: str) -> Node | None:
    """What `function` ("softmax" over the last axis, "sigmoid") was applied to, if y_pred is its
    result.
    """
    if y_pred.op.name == "reshape" and y_pred.shape[-1:] == y_pred.inputs[0].shape[-1:]:
        inner = logits_of(y_pred.inputs[0], function)  # as TimeDistributed lays its results out
        return None if inner is None else ops.reshape(inner, y_pred.shape)
    if y_pred.op.name != function or not y_pred.inputs:
        return None
    if function == "softmax" and y_pred.attrs.get("axis") not in (-1, y_pred.rank - 1):
        return None
    return y_pred.inputs[0]


def _smooth(name: str, y_true: Node, smoothing: float, target: Any) -> Node:
    if not 0 <= smoothing <= 1:
        raise ArgumentError(f"{name}: label_smoothing={smoothing!r}: expected 0 to 1")
    return y_true * (1 - smoothing) + smoothing * target if smoothing else y_true


def _log_probability(y_pred: Node) -> Node:
    y_pred = y_pred / ops.sum(y_pred, axis=-1, keepdims=True)
    return ops.log(ops.clip(y_pred, EPSILON, 1 - EPSILON))


# -------------------------------------------------------------------------------------- functions
def sparse_categorical_crossentropy(y_true: Any, y_pred: Any, from_logits: bool = False) -> Node:
    """-log of the predicted probability of class y_true (a whole number, shape (batch,) or (batch,
    1)).
    """
    y_pred = ops.as_node(y_pred)
    labels = class_labels("sparse_categorical_crossentropy", y_true, y_pred)
    logits = y_pred if from_logits else logits_of(y_pred, "softmax")
    if logits is not None:
        return ops.sparse_softmax_cross_entropy(logits, labels)
    classes = ops.one_hot(labels, y_pred.shape[-1], dtype=y_pred.dtype)
    return -ops.sum(classes * _log_probability(y_pred), axis=-1)


def categorical_crossentropy(
    y_true: Any, y_pred: Any, from_logits: bool = False, label_smoothing: float = 0.0
) -> Node:
    """-sum(y_true * log(y_pred)) over the classes; y_true one-hot or probabilities."""
    name = "categorical_crossentropy"
    y_true, y_pred = paired(name, y_true, y_pred)
    classes = extent_node(y_pred.shape[-1], y_pred.dtype)
    y_true = _smooth(name, y_true, label_smoothing, 1 / classes)
    logits = y_pred if from_logits else logits_of(y_pred, "softmax")
    if logits is not None:
        return ops.softmax_cross_entropy(logits, y_true)
    return -ops.sum(y_true * _log_probability(y_pred), axis=-1)


def binary_crossentropy(
    y_true: Any, y_pred: Any, from_logits: bool = False, label_smoothing: float = 0.0
) -> Node:
    """-(y log p + (1 - y) log(1 - p)), mean over the last axis."""
    name = "binary_crossentropy"
    y_true, y_pred = paired(name, y_true, y_pred)
    y_true = _smooth(name, y_true, label_smoothing, 0.5)
    logits = y_pred if from_logits else logits_of(y_pred, "sigmoid")
    if logits is not None:
        return over_last(ops.sigmoid_cross_entropy(logits, y_true))
    p = ops.clip(y_pred, EPSILON, 1 - EPSILON)
    return over_last(-(y_true * ops.log(p) + (1 - y_true) * ops.log(1 - p)))


def mean_squared_error(y_true: Any, y_pred: Any) -> Node:
    """mean((y_true - y_pred) ** 2)"""
    y_true, y_pred = paired("mean_squared_error", y_true, y_pred)
    return over_last(ops.square(y_pred - y_true))


def mean_absolute_error(y_true: Any, y_pred: Any) -> Node:
    """mean(|y_true - y_pred|)"""
    y_true, y_pred = paired("mean_absolute_error", y_true, y_pred)
    return over_last(ops.abs(y_pred - y_true))


def mean_absolute_percentage_error(y_true: Any, y_pred: Any) -> Node:
    """100 * mean(|y_true - y_pred| / |y_true|)"""
    y_true, y_pred = paired("mean_absolute_percentage_error", y_true, y_pred)
    scale = ops.maximum(ops.abs(y_true), EPSILON)
    return 100 * over_last(ops.abs((y_true - y_pred) / scale))


def mean_squared_logarithmic_error(y_true: Any, y_pred: Any) -> Node:
    """mean((log(1 + y_true) - log(1 + y_pred)) ** 2); values below 0 count as 0."""
    y_true, y_pred = paired("mean_squared_logarithmic_error", y_true, y_pred)
    a, b = (ops.log(ops.maximum(v, EPSILON) + 1) for v in (y_true, y_pred))
    return over_last(ops.square(a - b))


def huber(y_true: Any, y_pred: Any, delta: float = 1.0) -> Node:
    """Half the squared error up to delta, linear beyond."""
    y_true, y_pred = paired("huber", y_true, y_pred)
    error = y_pred - y_true
    size = ops.abs(error)
    return over_last(
        ops.where(size <= delta, 0.5 * ops.square(error), delta * size - 0.5 * delta * delta)
    )


def log_cosh(y_true: Any, y_pred: Any) -> Node:
    """mean(log(cosh(y_pred - y_true)))"""
    y_true, y_pred = paired("log_cosh", y_true, y_pred)
    error = y_pred - y_true
    return over_last(error + ops.softplus(-2.0 * error) - 0.6931471805599453)


def kl_divergence(y_true: Any, y_pred: Any) -> Node:
    """sum(y_true * log(y_true / y_pred))"""
    y_true, y_pred = paired("kl_divergence", y_true, y_pred)
    y_true, y_pred = (ops.clip(v, EPSILON, 1.0) for v in (y_true, y_pred))
    return over_last(y_true * ops.log(y_true / y_pred), ops.sum)


def poisson(y_true: Any, y_pred: Any) -> Node:
    """mean(y_pred - y_true * log(y_pred))"""
    y_true, y_pred = paired("poisson", y_true, y_pred)
    return over_last(y_pred - y_true * ops.log(y_pred + EPSILON))


def _signed(y_true: Node) -> Node:
    """Labels -1 and 1, also where they were given as 0 and 1."""
    zero_or_one = ops.all(ops.logical_or(ops.equal(y_true, 0), ops.equal(y_true, 1)))
    return ops.where(zero_or_one, 2 * y_true - 1, y_true)


def hinge(y_true: Any, y_pred: Any) -> Node:
    """mean(max(1 - y_true * y_pred, 0)); labels -1 and 1, or 0 and 1."""
    y_true, y_pred = paired("hinge", y_true, y_pred)
    return over_last(ops.maximum(1 - _signed(y_true) * y_pred, 0))


def squared_hinge(y_true: Any, y_pred: Any) -> Node:
    """mean(max(1 - y_true * y_pred, 0) ** 2); labels -1 and 1, or 0 and 1."""
    y_true, y_pred = paired("squared_hinge", y_true, y_pred)
    return over_last(ops.square(ops.maximum(1 - _signed(y_true) * y_pred, 0)))


def categorical_hinge(y_true: Any, y_pred: Any) -> Node:
    """max(largest wrong score - right score + 1, 0); y_true one-hot."""
    y_true, y_pred = paired("categorical_hinge", y_true, y_pred)
    right = ops.sum(y_true * y_pred, axis=-1)
    wrong = ops.max((1 - y_true) * y_pred, axis=-1)
    return ops.maximum(wrong - right + 1, 0)


def cosine_similarity(y_true: Any, y_pred: Any, axis: int = -1) -> Node:
    """-cos of the angle between the vectors along axis: -1 is equal direction."""
    y_true, y_pred = paired("cosine_similarity", y_true, y_pred)
    a, b = (
        v * ops.rsqrt(ops.maximum(ops.sum(v * v, axis=axis, keepdims=True), 1e-12))
        for v in (y_true, y_pred)
    )
    return -ops.sum(a * b, axis=axis)
