"""Metrics with Keras' names and defaults: state that the step updates, results read with NumPy."""

from collections.abc import Callable
from typing import Any

from nnjit import losses
from nnjit.errors import ArgumentError, lookup
from nnjit.metrics.base import REGISTRY, FunctionMetric, Mean, MeanMetric, Metric
from nnjit.metrics.confusion import (
    AUC,
    F1Score,
    FalseNegatives,
    FalsePositives,
    Precision,
    Recall,
    TrueNegatives,
    TruePositives,
)
from nnjit.metrics.means import (
    BinaryAccuracy,
    BinaryCrossentropy,
    CategoricalAccuracy,
    CategoricalCrossentropy,
    CategoricalHinge,
    CosineSimilarity,
    Hinge,
    KLDivergence,
    LogCoshError,
    MeanAbsoluteError,
    MeanAbsolutePercentageError,
    MeanSquaredError,
    MeanSquaredLogarithmicError,
    Poisson,
    RootMeanSquaredError,
    SparseCategoricalAccuracy,
    SparseCategoricalCrossentropy,
    SparseTopKCategoricalAccuracy,
    SquaredHinge,
    TopKCategoricalAccuracy,
    binary_accuracy,
    categorical_accuracy,
    sparse_categorical_accuracy,
    sparse_top_k_categorical_accuracy,
    top_k_categorical_accuracy,
)
from nnjit.spec import Spec

__all__ = [
    "AUC",
    "REGISTRY",
    "BinaryAccuracy",
    "BinaryCrossentropy",
    "CategoricalAccuracy",
    "CategoricalCrossentropy",
    "CategoricalHinge",
    "CosineSimilarity",
    "F1Score",
    "FalseNegatives",
    "FalsePositives",
    "FunctionMetric",
    "Hinge",
    "KLDivergence",
    "LogCoshError",
    "Mean",
    "MeanAbsoluteError",
    "MeanAbsolutePercentageError",
    "MeanMetric",
    "MeanSquaredError",
    "MeanSquaredLogarithmicError",
    "Metric",
    "Poisson",
    "Precision",
    "Recall",
    "RootMeanSquaredError",
    "SparseCategoricalAccuracy",
    "SparseCategoricalCrossentropy",
    "SparseTopKCategoricalAccuracy",
    "SquaredHinge",
    "TopKCategoricalAccuracy",
    "TrueNegatives",
    "TruePositives",
    "binary_accuracy",
    "categorical_accuracy",
    "get",
    "sparse_categorical_accuracy",
    "sparse_top_k_categorical_accuracy",
    "top_k_categorical_accuracy",
]

CHOICES: dict[str, tuple[Callable[..., Metric], ...]] = {
    "accuracy": (BinaryAccuracy, SparseCategoricalAccuracy, CategoricalAccuracy),
    "crossentropy": (BinaryCrossentropy, SparseCategoricalCrossentropy, CategoricalCrossentropy),
}
CHOICES["acc"], CHOICES["ce"] = CHOICES["accuracy"], CHOICES["crossentropy"]


def get(given: Any, y_true: Spec | None = None, y_pred: Spec | None = None) -> Metric | None:
    """The Metric that a name, a configuration, a class, an object or a function stands for.

    'accuracy' ('acc') and 'crossentropy' ('ce') need the specs: binary for one output, sparse where
    the labels have one axis less (or a last axis of 1), else categorical.
    """
    if isinstance(given, str) and given in CHOICES:
        if y_true is None or y_pred is None:
            raise ArgumentError(f"metric {given!r} depends on shapes: name one of its kinds here")
        binary, sparse, categorical = CHOICES[given]
        if y_pred.rank and y_pred.shape[-1] == 1:
            return binary(name=given)
        if y_true.rank < y_pred.rank or (y_true.rank and y_true.shape[-1] == 1):
            return sparse(name=given)
        return categorical(name=given)
    if isinstance(given, losses.Loss):
        return FunctionMetric(given.call, name=given.name)
    if isinstance(given, str) and given not in REGISTRY.items:
        lookup("metric", given, dict.fromkeys([*REGISTRY.items, *CHOICES]))
    found = REGISTRY.get(given)
    if found is not None and not isinstance(found, Metric):
        found = FunctionMetric(found)
    if isinstance(given, str):  # as Keras: history["mae"] for metrics=["mae"]
        found.name = given
    return found
