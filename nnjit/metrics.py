"""Metrics: numbers gathered over an epoch in state variables that the step itself updates.

`update` says in the graph how the state changes, `result` reads the state with NumPy. State is
float64, so counts stay exact up to 2**53 samples.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np

from nnjit import losses, ops
from nnjit.errors import ArgumentError, lookup
from nnjit.graph import Node, extent_node
from nnjit.layers.variable import Variable
from nnjit.registry import Configurable, Registry, snake_case
from nnjit.spec import Spec

REGISTRY = Registry("metric")


class Metric(Configurable):
    """Base class: make state with `add_variable` in __init__, override `update` and `value`.

    A model that finds two metrics of one name renames the later one (set `.name`).
    """

    kind = "metric"

    def __init__(self, name: str | None = None):
        self.name = name or snake_case(type(self).__name__)
        self.variables: list[Variable] = []

    @property
    def path(self) -> str:
        """What the names of the variables begin with."""
        return self.name

    def add_variable(self, name: str, shape: tuple[int, ...] = ()) -> Variable:
        """A float64 state variable that starts at 0."""
        v = Variable(name, shape, "float64", "zeros", trainable=False, owner=self)
        self.variables.append(v)
        return v

    def update(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Put this batch's share into the scope's updates."""
        raise NotImplementedError(f"{type(self).__name__} does not define update")

    def value(self, *state: Any) -> Any:
        """The metric from the values of its variables."""
        raise NotImplementedError(f"{type(self).__name__} does not define value")

    def result(self, arrays: Mapping[str, np.ndarray] | None = None) -> float:
        """The metric now; arrays: values by variable name in place of the variables' own."""
        return float(self.value(*(
            arrays[v.name] if arrays is not None else v.numpy() for v in self.variables
        )))  # fmt: skip

    def reset(self) -> None:
        """Start anew."""
        for v in self.variables:
            v.assign(np.zeros(v.shape))

    def add(self, variable: Variable, amount: Node) -> None:
        """variable += amount, in float64."""
        variable.update(variable.current + ops.cast(amount, "float64"))


def divide(a: np.ndarray, b: np.ndarray) -> Any:
    """a / b, 0 where b is 0."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return np.divide(a, b, out=np.zeros(np.broadcast(a, b).shape), where=b != 0)


class MeanMetric(Metric):
    """The (weighted) mean of a value per sample: override `values(y_true, y_pred)`."""

    def __init__(self, name: str | None = None):
        super().__init__(name)
        self.total, self.count = self.add_variable("total"), self.add_variable("count")

    def values(self, y_true: Node, y_pred: Node) -> Node:
        """What the mean is of."""
        raise NotImplementedError(f"{type(self).__name__} does not define values(y_true, y_pred)")

    def update(self, y_true, y_pred, sample_weight=None):
        self.gather(self.values(ops.as_node(y_true), ops.as_node(y_pred)), sample_weight)

    def gather(self, values: Node, sample_weight: Any = None) -> None:
        """Add values; where weights have fewer axes, the mean over the others is weighted."""
        count = extent_node(values.spec.size, "float64")
        if sample_weight is not None:
            weight = ops.cast(ops.as_node(sample_weight), values.dtype)
            if weight.rank == values.rank + 1 and weight.shape[-1] == 1:
                weight = ops.reshape(weight, weight.shape[:-1])
            if values.rank > weight.rank:
                values = ops.mean(values, axis=tuple(range(weight.rank, values.rank)))
            values, count = values * weight, ops.sum(ops.broadcast_to(weight, values.shape))
        self.add(self.total, ops.sum(values) if values.rank else values)
        self.add(self.count, count)

    def value(self, *state):
        total, count = state
        return divide(total, count)


@REGISTRY.named()
class Mean(MeanMetric):
    """The (weighted) mean of all values given."""

    def update(self, values: Any, sample_weight: Any = None) -> None:  # type: ignore[override]
        """values of any shape. sample_weight: of as many axes, or of the first ones."""
        self.gather(ops.as_node(values), sample_weight)


class FunctionMetric(MeanMetric):
    """The mean of a function (y_true, y_pred) -> values."""

    def __init__(self, function: Callable[..., Node], name: str | None = None):
        super().__init__(name or getattr(function, "__name__", "metric"))
        self.function = function

    def values(self, y_true, y_pred):
        return ops.as_node(self.function(y_true, y_pred))


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
    return losses._over_last(ops.cast(hit, "float32"))


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
        "FUNCTION": staticmethod(function), "__doc__": function.__doc__, "__module__": __name__,
    }  # fmt: skip
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
    """The root of the mean squared error over all samples."""

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
    if isinstance(given, str) and given not in REGISTRY.items:
        known = dict.fromkeys([*REGISTRY.items, *CHOICES])
        lookup("metric", given, known)
    found = REGISTRY.get(given)
    if found is None or isinstance(found, Metric):
        return found
    if isinstance(found, losses.Loss):
        return FunctionMetric(found.call, name=found.name)
    return FunctionMetric(found)
