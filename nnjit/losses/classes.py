"""Losses as classes: a function's values, weighted and reduced to a scalar."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from nnjit import ops
from nnjit.errors import ArgumentError, ShapeError, nearest
from nnjit.graph import Node, current_scope, extent_node
from nnjit.losses.functions import (
    binary_crossentropy,
    categorical_crossentropy,
    categorical_hinge,
    cosine_similarity,
    hinge,
    huber,
    kl_divergence,
    log_cosh,
    mean_absolute_error,
    mean_absolute_percentage_error,
    mean_squared_error,
    mean_squared_logarithmic_error,
    poisson,
    sparse_categorical_crossentropy,
    squared_hinge,
)
from nnjit.registry import Configurable, Registry, snake_case
from nnjit.spec import shape_text

REGISTRY = Registry("loss")
REDUCTIONS = ("sum_over_batch_size", "mean", "sum")


def weigh(values: Node, sample_weight: Any, what: str = "sample_weight") -> Node:
    """values * sample_weight; weights of fewer axes hold for all that follows."""
    weight = ops.cast(ops.as_node(sample_weight), values.dtype)
    if weight.rank == values.rank + 1 and weight.shape[-1] == 1:
        weight = ops.reshape(weight, weight.shape[:-1])
    if weight.rank > values.rank:
        raise ShapeError(
            f"{what} of shape {shape_text(weight.shape)} for losses of shape "
            f"{shape_text(values.shape)}"
        )
    ones = (1,) * (values.rank - weight.rank)
    return values * ops.reshape(weight, (*weight.shape, *ones))


def mask_weight(mask: Node, dtype: str, mean: bool) -> Node:
    """1 where the mask is true, else 0; mean: times (all / true), so that a mean over all is one
    over what is true, and 0 if nothing is.
    """
    weight = ops.cast(mask, dtype)
    if not mean:
        return weight
    return weight * (extent_node(mask.spec.size, dtype) / ops.maximum(ops.sum(weight), 1.0))


class Loss(Configurable):
    """Base class: override `call(y_true, y_pred)` giving a value per sample.

    reduction: 'sum_over_batch_size' (or 'mean'): sum of loss * weight over the number of values, as
    in Keras; 'sum': the sum. Where y_pred has a mask, only what it leaves is summed and counted.
    """

    kind = "loss"

    def __init__(self, reduction: str = "sum_over_batch_size", name: str | None = None):
        if reduction not in REDUCTIONS:
            raise ArgumentError(
                f"{type(self).__name__}: reduction={reduction!r}: a loss must become a scalar"
                f"{nearest(str(reduction), REDUCTIONS)}"
            )
        self.reduction, self.name = reduction, name or snake_case(type(self).__name__)

    def call(self, y_true: Node, y_pred: Node) -> Node:
        raise NotImplementedError(f"{type(self).__name__} does not define call(y_true, y_pred)")

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Node:
        """The loss of a batch: a scalar Node."""
        y_pred = ops.as_node(y_pred)
        values = self.call(ops.as_node(y_true), y_pred)
        mask = current_scope().masks.get(y_pred)
        if mask is not None:
            weight = mask_weight(mask, values.dtype, mean=self.reduction != "sum")
            values = weigh(values, weight, f"{self.name}: a mask")
        if sample_weight is not None:
            values = weigh(values, sample_weight)
        return ops.sum(values) if self.reduction == "sum" else ops.mean(values)


class FunctionLoss(Loss):
    """A function (y_true, y_pred) -> values as a loss."""

    def __init__(
        self,
        function: Callable[..., Node],
        reduction: str = "sum_over_batch_size",
        name: str | None = None,
    ):
        super().__init__(reduction, name or getattr(function, "__name__", "loss"))
        self.function = function

    def call(self, y_true, y_pred):
        found = self.function(y_true, y_pred)
        if found is None:
            raise ArgumentError(f"loss {self.name!r}: it returned None; expected a symbolic value")
        return ops.as_node(found)


class _Plain(Loss):
    """A loss without settings."""

    FUNCTION: ClassVar[Callable[..., Node]]

    def call(self, y_true, y_pred):
        return type(self).FUNCTION(y_true, y_pred)


def _plain(name: str, function: Callable[..., Node], *aliases: str) -> type[_Plain]:
    members = {
        "FUNCTION": staticmethod(function), "__doc__": function.__doc__, "__module__": __name__,
    }  # fmt: skip
    return REGISTRY.add(type(name, (_Plain,), members), function.__name__, *aliases)


MeanSquaredError = _plain("MeanSquaredError", mean_squared_error, "mse", "MSE")
MeanAbsoluteError = _plain("MeanAbsoluteError", mean_absolute_error, "mae", "MAE")
MeanAbsolutePercentageError = _plain(
    "MeanAbsolutePercentageError", mean_absolute_percentage_error, "mape", "MAPE"
)
MeanSquaredLogarithmicError = _plain(
    "MeanSquaredLogarithmicError", mean_squared_logarithmic_error, "msle", "MSLE"
)
LogCosh = _plain("LogCosh", log_cosh, "logcosh")
KLDivergence = _plain("KLDivergence", kl_divergence, "kld", "KLD")
Poisson = _plain("Poisson", poisson)
Hinge = _plain("Hinge", hinge)
SquaredHinge = _plain("SquaredHinge", squared_hinge)
CategoricalHinge = _plain("CategoricalHinge", categorical_hinge)


@REGISTRY.named()
class SparseCategoricalCrossentropy(Loss):
    """See sparse_categorical_crossentropy."""

    def __init__(self, from_logits: bool = False, **kwargs: Any):
        super().__init__(**kwargs)
        self.from_logits = from_logits

    def call(self, y_true, y_pred):
        return sparse_categorical_crossentropy(y_true, y_pred, self.from_logits)


class _Crossentropy(_Plain):
    """The settings of the other two."""

    def __init__(self, from_logits: bool = False, label_smoothing: float = 0.0, **kwargs: Any):
        super().__init__(**kwargs)
        self.from_logits, self.label_smoothing = from_logits, label_smoothing

    def call(self, y_true, y_pred):
        return type(self).FUNCTION(y_true, y_pred, self.from_logits, self.label_smoothing)


@REGISTRY.named()
class CategoricalCrossentropy(_Crossentropy):
    """See categorical_crossentropy."""

    FUNCTION = staticmethod(categorical_crossentropy)


@REGISTRY.named()
class BinaryCrossentropy(_Crossentropy):
    """See binary_crossentropy."""

    FUNCTION = staticmethod(binary_crossentropy)


@REGISTRY.named("huber_loss")
class Huber(Loss):
    """See huber."""

    def __init__(self, delta: float = 1.0, **kwargs: Any):
        super().__init__(**kwargs)
        self.delta = delta

    def call(self, y_true, y_pred):
        return huber(y_true, y_pred, self.delta)


@REGISTRY.named()
class CosineSimilarity(Loss):
    """See cosine_similarity."""

    def __init__(self, axis: int = -1, **kwargs: Any):
        super().__init__(**kwargs)
        self.axis = axis

    def call(self, y_true, y_pred):
        return cosine_similarity(y_true, y_pred, self.axis)


def get(given: Any) -> Loss | None:
    """The Loss that a name, a configuration, a class, an object or a function stands for."""
    found = REGISTRY.get(given)
    return found if found is None or isinstance(found, Loss) else FunctionLoss(found)
