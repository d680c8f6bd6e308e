"""Metrics from counts of true and false positives and negatives, with Keras' names and defaults.

Predictions are probabilities; one above a threshold is positive. Labels are 0 or 1. Leading axes do
not matter.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from nnjit import losses, ops
from nnjit.errors import ArgumentError, nearest
from nnjit.graph import Node, constant
from nnjit.metrics.base import REGISTRY, Metric, divide

# Whether label and prediction are positive, for each of the four counts.
COUNTS = {
    "true_positives": (True, True),
    "false_positives": (False, True),
    "true_negatives": (False, False),
    "false_negatives": (True, False),
}


class CountMetric(Metric):
    """Keeps the counts in KEEPS for each of some thresholds."""

    KEEPS: ClassVar[Sequence[str]] = ()

    def __init__(self, thresholds: float | Sequence[float] | None, name: str | None = None):
        super().__init__(name)
        given = [0.5] if thresholds is None else np.atleast_1d(thresholds).tolist()
        if not given or not all(isinstance(t, int | float) for t in given):
            raise ArgumentError(f"{self.name}: thresholds={thresholds!r}: expected numbers")
        self.limits = np.array(given, np.float32)
        self.counts = {k: self.add_variable(k, (len(given),)) for k in self.KEEPS}

    def update(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        t, p = losses.paired(self.name, y_true, y_pred)
        weight = None
        if sample_weight is not None:
            weight = losses.weigh(ops.full_like(p, 1), sample_weight)
        self.count(t, p, weight)

    def count(self, t: Node, p: Node, weight: Node | None) -> None:
        """Add to the counts: labels, predictions and weights of one shape."""
        flat = lambda x: ops.reshape(x, (x.spec.size, 1))  # noqa: E731
        label = flat(t) > 0
        positive = flat(p) > ops.cast(constant(self.limits), p.dtype)
        one = 1.0 if weight is None else flat(weight)
        for name, (is_true, is_positive) in COUNTS.items():
            if name in self.counts:
                hit = ops.logical_and(
                    label if is_true else ops.logical_not(label),
                    positive if is_positive else ops.logical_not(positive),
                )
                self.add(self.counts[name], ops.sum(ops.where(hit, one, 0.0), axis=0))


class _Count(CountMetric):
    """One count."""

    def __init__(self, thresholds: float | None = None, name: str | None = None):
        super().__init__(thresholds, name)

    def value(self, *state):
        return state[0][0]


def _count(name: str, keeps: str) -> type[_Count]:
    doc = f"The (weighted) number of {keeps.replace('_', ' ')}."
    members = {"KEEPS": (keeps,), "__doc__": doc, "__module__": __name__}
    return REGISTRY.add(type(name, (_Count,), members))


TruePositives = _count("TruePositives", "true_positives")
FalsePositives = _count("FalsePositives", "false_positives")
TrueNegatives = _count("TrueNegatives", "true_negatives")
FalseNegatives = _count("FalseNegatives", "false_negatives")


class _Ratio(CountMetric):
    """The first count over the sum of both."""

    def __init__(
        self,
        thresholds: float | None = None,
        class_id: int | None = None,
        name: str | None = None,
    ):
        super().__init__(thresholds, name)
        self.class_id = class_id

    def update(self, y_true, y_pred, sample_weight=None):
        if self.class_id is None:
            return super().update(y_true, y_pred, sample_weight)
        t, p = losses.paired(self.name, y_true, y_pred)
        classes = p.shape[-1]
        if not isinstance(classes, int) or not 0 <= self.class_id < classes:
            raise ArgumentError(f"{self.name}: class_id={self.class_id}: there are {classes}")
        t, p = t[..., self.class_id], p[..., self.class_id]
        return super().update(t, p, sample_weight)

    def value(self, *state):
        return divide(state[0], state[0] + state[1])[0]


@REGISTRY.named()
class Precision(_Ratio):
    """The share of positive predictions that are right. class_id: of one class only."""

    KEEPS = ("true_positives", "false_positives")


@REGISTRY.named()
class Recall(_Ratio):
    """The share of positive labels that are found. class_id: of one class only."""

    KEEPS = ("true_positives", "false_negatives")


@REGISTRY.named("f1")
class F1Score(Metric):
    """2 * precision * recall / (precision + recall) per class (last axis), averaged over classes.

    average: 'macro', 'micro' (all classes as one) or 'weighted' (by the classes' labels).
    threshold: above it is positive; None: the largest prediction of a row is.
    """

    AVERAGES = ("macro", "micro", "weighted")

    def __init__(
        self,
        average: str = "macro",
        threshold: float | None = None,
        classes: int = 1,
        name: str = "f1_score",
    ):
        super().__init__(name)
        if average not in self.AVERAGES:
            raise ArgumentError(
                f"{self.name}: average={average!r}{nearest(str(average), self.AVERAGES)}"
            )
        self.average, self.threshold, self.classes = average, threshold, classes
        self.parts = [
            self.add_variable(k, (classes,))
            for k in ("true_positives", "false_positives", "false_negatives")
        ]

    def update(self, y_true, y_pred, sample_weight=None):
        t, p = losses.paired(self.name, y_true, y_pred)
        if p.shape[-1] != self.classes:
            raise ArgumentError(
                f"{self.name}: classes={self.classes} for {p.shape[-1]} outputs; "
                f"give classes={p.shape[-1]}"
            )
        limit = self.threshold
        positive = p >= ops.max(p, axis=-1, keepdims=True) if limit is None else p > limit
        label = t > 0
        weight = ops.full_like(p, 1)
        if sample_weight is not None:
            weight = losses.weigh(weight, sample_weight)
        axes = tuple(range(p.rank - 1))
        for part, hit in zip(
            self.parts,
            (
                ops.logical_and(label, positive),
                ops.logical_and(ops.logical_not(label), positive),
                ops.logical_and(label, ops.logical_not(positive)),
            ),
            strict=True,
        ):
            self.add(part, ops.sum(ops.where(hit, weight, 0.0), axis=axes))

    def value(self, *state):
        right, wrong, missed = state
        if self.average == "micro":
            right, wrong, missed = right.sum(), wrong.sum(), missed.sum()
        scores = divide(2 * right, 2 * right + wrong + missed)
        if self.average == "weighted":
            return (scores * divide(right + missed, (right + missed).sum())).sum()
        return scores.mean()


@REGISTRY.named("auc")
class AUC(CountMetric):
    """Area under the curve of recall over false positive rate ('ROC') or precision over recall
    ('PR').

    From num_thresholds points between 0 and 1 (or `thresholds`). summation_method: 'interpolation',
    'minoring' or 'majoring'; the PR curve is interpolated as in Davis and Goadrich (2006).
    """

    KEEPS = tuple(COUNTS)
    METHODS = ("interpolation", "minoring", "majoring")

    def __init__(
        self,
        num_thresholds: int = 200,
        curve: str = "ROC",
        summation_method: str = "interpolation",
        name: str | None = None,
        thresholds: Sequence[float] | None = None,
        from_logits: bool = False,
    ):
        if curve not in ("ROC", "PR"):
            raise ArgumentError(f"auc: curve={curve!r}{nearest(str(curve), ('ROC', 'PR'))}")
        if summation_method not in self.METHODS:
            raise ArgumentError(
                f"auc: summation_method={summation_method!r}"
                f"{nearest(str(summation_method), self.METHODS)}"
            )
        if thresholds is None and num_thresholds < 2:
            raise ArgumentError(f"auc: num_thresholds={num_thresholds}: expected at least 2")
        inner = sorted(thresholds or np.arange(1, num_thresholds - 1) / (num_thresholds - 1))
        super().__init__([-1e-7, *map(float, inner), 1 + 1e-7], name)
        self.curve, self.method, self.from_logits = curve, summation_method, from_logits

    def update(self, y_true, y_pred, sample_weight=None):
        y_pred = ops.as_node(y_pred)
        super().update(y_true, ops.sigmoid(y_pred) if self.from_logits else y_pred, sample_weight)

    def value(self, *state):
        tp, fp, tn, fn = state
        recall = divide(tp, tp + fn)
        if self.curve == "PR" and self.method == "interpolation":
            return self._interpolated(tp, fp, fn)
        x, y = (
            (divide(fp, fp + tn), recall) if self.curve == "ROC" else (recall, divide(tp, tp + fp))
        )
        heights = {
            "interpolation": (y[:-1] + y[1:]) / 2,
            "minoring": np.minimum(y[:-1], y[1:]),
            "majoring": np.maximum(y[:-1], y[1:]),
        }[self.method]
        return ((x[:-1] - x[1:]) * heights).sum()

    @staticmethod
    def _interpolated(tp, fp, fn):
        positive = tp + fp
        slope = divide(tp[:-1] - tp[1:], np.maximum(positive[:-1] - positive[1:], 0))
        intercept = tp[1:] - slope * positive[1:]
        both = (positive[:-1] > 0) & (positive[1:] > 0)
        ratio = np.where(both, divide(positive[:-1], np.maximum(positive[1:], 0)), 1.0)
        gain = slope * (tp[:-1] - tp[1:] + intercept * np.log(np.where(ratio > 0, ratio, 1)))
        return divide(gain, np.maximum(tp[1:] + fn[1:], 0)).sum()
