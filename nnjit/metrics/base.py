"""Metrics: numbers gathered over an epoch in state variables that the step itself updates.

`update` says in the graph how the state changes, `result` reads the state with NumPy. State is
float64, so counts stay exact up to 2**53 samples.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np

from nnjit import ops
from nnjit.graph import Node, current_scope, extent_node
from nnjit.layers.variable import Variable
from nnjit.registry import Configurable, Registry, snake_case

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
        if arrays is None:
            return float(self.value(*[v._array for v in self.variables]))
        return float(self.value(*[arrays[v.name] for v in self.variables]))

    def reset(self) -> None:
        """Start anew."""
        for v in self.variables:
            v._array.fill(0)

    def add(self, variable: Variable, amount: Node) -> None:
        """variable += amount, in float64."""
        variable.update(variable.current + ops.cast(amount, "float64"))


def divide(a: np.ndarray, b: np.ndarray) -> Any:
    """a / b, 0 where b is 0."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.ndim == b.ndim == 0:  # the same without NumPy's preparations
        low = b.item()
        return np.float64(a.item() / low if low else 0.0)
    return np.divide(a, b, out=np.zeros(np.broadcast(a, b).shape), where=b != 0)


def _under(mask: Node, sample_weight: Any, values: Node) -> Node:
    """Weights, 0 where the mask is; both hold for all axes that follow theirs."""
    shown = ops.cast(mask, values.dtype)
    if sample_weight is None:
        return shown
    weight = ops.cast(ops.as_node(sample_weight), values.dtype)
    rank = max(weight.rank, shown.rank)
    weight, shown = (ops.reshape(v, (*v.shape, *(1,) * (rank - v.rank))) for v in (weight, shown))
    return weight * shown


class MeanMetric(Metric):
    """The (weighted) mean of a value per sample: override `values(y_true, y_pred)`.

    masked: whether values that the mask of y_pred leaves out do not count.
    """

    masked: ClassVar[bool] = True

    def __init__(self, name: str | None = None):
        super().__init__(name)
        self.total, self.count = self.add_variable("total"), self.add_variable("count")

    def values(self, y_true: Node, y_pred: Node) -> Node:
        """What the mean is of."""
        raise NotImplementedError(f"{type(self).__name__} does not define values(y_true, y_pred)")

    def update(self, y_true, y_pred, sample_weight=None):
        y_pred = ops.as_node(y_pred)
        mask = current_scope().masks.get(y_pred) if self.masked else None
        values = self.values(ops.as_node(y_true), y_pred)
        self.gather(values, sample_weight if mask is None else _under(mask, sample_weight, values))

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
