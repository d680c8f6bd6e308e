"""Metrics that are the mean of a value per sample: accuracies, errors, cross-entropies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from nnjit import losses, ops
from nnjit.errors import ArgumentError
from nnjit.graph import Node
from nnjit.metrics.base import REGISTRY, MeanMetric


# -------------------------------------------------------------------------------------- functions
def sparse_categorical_accuracy(y_true: Any, y_pred: Any) -> Node:
    """1 where the largest prediction is at class y_true."""
    y_pred = ops.as_node(y_pred)
    labels = losses.class_labels("sparse_categorical_accuracy", y_true, y_pred)
    return ops.cast(ops.equal(ops.argmax(y_pred, axis=-1), labels), "float32")


def categorical_accuracy(y_true: Any, y_pred: Any) -> Node:
    """1 where prediction and one-hot label are largest at the same class."""
    y_true, y_pred = losses.paired("categorical_accuracy", y_true, y_pred)
    hit = ops.equal(ops.argmax(y_true, axis=-1), ops.argmax(y_pred, axis=-1))
    return ops.cast(hit, "float32")


def binary_accuracy(y_true: Any, y_pred: Any, threshold: float = 0.5) -> Node:
    """The share of the last axis where (y_pred > threshold) is y_true."""
    y_true, y_pred = losses.paired("binary_accuracy", y_true, y_pred)
    hit = ops.equal(ops.cast(y_pred > threshold, y_true.dtype), y_true)
    return losses.over_last(ops.cast(hit, "float32"))


def sparse_top_k_categorical_accuracy(y_true: Any, y_pred: Any, k: int = 5) -> Node:
    """1 where fewer than k predictions are larger than that of class y_true."""
    y_pred = ops.as_node(y_pred)
    labels = losses.class_labels("sparse_top_k_categorical_accuracy", y_true, y_pred)
    chosen = ops.one_hot(labels, y_pred.shape[-1], dtype="float32") > 0
    score = ops.sum(ops.where(chosen, y_pred, 0.0), axis=-1, keepdims=True)
    rank = ops.sum(ops.cast(y_pred > score, "float32"), axis=-1)
    return ops.cast(rank < k, "float32")


def top_k_categorical_accuracy(y_true: Any, y_pred: Any, k: int = 5) -> Node:
    """As the sparse one, for one-hot labels."""
    return sparse_top_k_categorical_accuracy(ops.argmax(ops.as_node(y_true), axis=-1), y_pred, k)


# ---------------------------------------------------------------------------------------- classes
class _Plain(MeanMetric):
    """The mean of a function without settings."""

    FUNCTION: ClassVar[Callable[..., Node]]

    def values(self, y_true, y_pred):
        return type(self).FUNCTION(y_true, y_pred)


def _plain(name: str, function: Callable[..., Node], *aliases: str) -> type[_Plain]:
    members = {
        "FUNCTION": staticmethod(function),
        "__doc__": function.__doc__,
        "__module__": __name__,
    }
    return REGISTRY.add(type(name, (_Plain,), members), function.__name__, *aliases)


SparseCategoricalAccuracy = _plain("SparseCategoricalAccuracy", sparse_categorical_accuracy)
CategoricalAccuracy = _plain("CategoricalAccuracy", categorical_accuracy)
MeanSquaredError = _plain("MeanSquaredError", losses.mean_squared_error, "mse", "MSE")
MeanAbsoluteError = _plain("MeanAbsoluteError", losses.mean_absolute_error, "mae", "MAE")
MeanAbsolutePercentageError = _plain(
    "MeanAbsolutePercentageError", losses.mean_absolute_percentage_error, "mape", "MAPE"
)
MeanSquaredLogarithmicError = _plain(
    "MeanSquaredLogarithmicError", losses.mean_squared_logarithmic_error, "msle", "MSLE"
)
LogCoshError = _plain("LogCoshError", losses.log_cosh)
KLDivergence = _plain("KLDivergence", losses.kl_divergence, "kld", "KLD")
Poisson = _plain("Poisson", losses.poisson)
Hinge = _plain("Hinge", losses.hinge)
SquaredHinge = _plain("SquaredHinge", losses.squared_hinge)
CategoricalHinge = _plain("CategoricalHinge", losses.categorical_hinge)


@REGISTRY.named()
class BinaryAccuracy(MeanMetric):
    """See binary_accuracy."""

    def __init__(self, name: str | None = None, threshold: float = 0.5):
        super().__init__(name)
        if not 0 < threshold < 1:
            raise ArgumentError(f"BinaryAccuracy: threshold={threshold!r}: expected within 0 and 1")
        self.threshold = threshold

    def values(self, y_true, y_pred):
        return binary_accuracy(y_true, y_pred, self.threshold)


@REGISTRY.named()
class SparseTopKCategoricalAccuracy(MeanMetric):
    """See sparse_top_k_categorical_accuracy."""

    def __init__(self, k: int = 5, name: str | None = None):
        super().__init__(name)
        self.k = k

    def values(self, y_true, y_pred):
        return sparse_top_k_categorical_accuracy(y_true, y_pred, self.k)


@REGISTRY.named()
class TopKCategoricalAccuracy(SparseTopKCategoricalAccuracy):
    """See top_k_categorical_accuracy."""

    def values(self, y_true, y_pred):
        return top_k_categorical_accuracy(y_true, y_pred, self.k)


@REGISTRY.named("rmse")
class RootMeanSquaredError(MeanMetric):
    """The root of the mean squared error over all samples, masked ones too, as in Keras."""

    masked = False

    def values(self, y_true, y_pred):
        return losses.mean_squared_error(y_true, y_pred)

    def value(self, *state):
        return np.sqrt(super().value(*state))


@REGISTRY.named()
class CosineSimilarity(MeanMetric):
    """cos of the angle between label and prediction: 1 is equal direction."""

    def __init__(self, name: str | None = None, axis: int = -1):
        super().__init__(name)
        self.axis = axis

    def values(self, y_true, y_pred):
        return -losses.cosine_similarity(y_true, y_pred, self.axis)


@REGISTRY.named()
class SparseCategoricalCrossentropy(MeanMetric):
    """The loss of that name, as a metric."""

    def __init__(self, name: str | None = None, from_logits: bool = False):
        super().__init__(name)
        self.from_logits = from_logits

    def values(self, y_true, y_pred):
        return losses.sparse_categorical_crossentropy(y_true, y_pred, self.from_logits)


class _Crossentropy(MeanMetric):
    """The settings of the other two."""

    FUNCTION: ClassVar[Callable[..., Node]]

    def __init__(
        self, name: str | None = None, from_logits: bool = False, label_smoothing: float = 0.0
    ):
        super().__init__(name)
        self.from_logits, self.label_smoothing = from_logits, label_smoothing

    def values(self, y_true, y_pred):
        return type(self).FUNCTION(y_true, y_pred, self.from_logits, self.label_smoothing)


@REGISTRY.named()
class CategoricalCrossentropy(_Crossentropy):
    """The loss of that name, as a metric."""

    FUNCTION = staticmethod(losses.categorical_crossentropy)


@REGISTRY.named()
class BinaryCrossentropy(_Crossentropy):
    """The loss of that name, as a metric."""

    FUNCTION = staticmethod(losses.binary_crossentropy)
