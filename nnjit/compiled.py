"""Compiled: what `Model.compile` was given, resolved against the model's outputs and the data's
shapes.

For each output: its loss, the loss's weight, and metrics. Metric objects are made once the shape of
the labels is known, because "accuracy" depends on it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nnjit import losses, optimizers
from nnjit import metrics as kinds
from nnjit.errors import ArgumentError, nearest
from nnjit.layers.variable import Variable
from nnjit.precision import check_policy
from nnjit.registry import to_config
from nnjit.spec import FLOATS, Spec


@dataclass
class Output:
    """One output of the model while it is trained. key: the graph input that holds its labels."""

    name: str
    pred: Spec
    loss: losses.Loss | None
    loss_weight: float
    key: str
    metrics: list[kinds.Metric] = field(default_factory=list)
    weighted: list[kinds.Metric] = field(default_factory=list)
    tracker: kinds.Mean | None = None

    @property
    def classes(self) -> int | None:
        """Number of classes where labels are class numbers, else None."""
        last = self.pred.shape[-1] if self.pred.rank else None
        return last if is_sparse(self.loss) and isinstance(last, int) else None

    def label_dtype(self, given: np.dtype) -> str:
        """What labels are cast to: class numbers stay whole, all else is as the predictions."""
        own = type(self.loss).__module__ == "nnjit.losses" and not isinstance(
            self.loss, losses.FunctionLoss
        )
        if is_sparse(self.loss) or (not own and given.kind in "iu"):
            return "int32"
        return self.pred.dtype if self.pred.dtype in FLOATS else "float32"


def is_sparse(loss: losses.Loss | None) -> bool:
    """Whether labels are class numbers."""
    if isinstance(loss, losses.FunctionLoss):
        return loss.function is losses.sparse_categorical_crossentropy
    return isinstance(loss, losses.SparseCategoricalCrossentropy)


class Compiled:
    """Optimizer, losses and metrics of a model."""

    def __init__(
        self,
        model: Any,
        optimizer: Any = "rmsprop",
        loss: Any = None,
        metrics: Any = None,
        loss_weights: Any = None,
        weighted_metrics: Any = None,
        dtype_policy: str = "float32",
    ):
        self.model = model
        self.optimizer = optimizers.get(optimizer)
        if not isinstance(self.optimizer, optimizers.Optimizer):
            raise ArgumentError(f"optimizer={optimizer!r}: expected a name or an Optimizer")
        self.loss, self.loss_weights = loss, loss_weights
        self.metrics, self.weighted_metrics = metrics, weighted_metrics
        self.dtype_policy = check_policy(dtype_policy)
        self.outputs: list[Output] = []
        self.tracker = kinds.Mean("loss")
        self.last_labels: Any = None  # what the labels of the last single batch were
        self._trainable: list[Variable] | None = None
        self._losses: list[losses.Loss | None] | None = None
        if model.built:
            self._trainable = model.trainable_weights
            self.loss_objects()  # an unknown name is an error of compile, not of fit

    @property
    def trainable(self) -> list[Variable]:
        """The parameters that are trained: those not frozen when the model was compiled."""
        if self._trainable is None:
            self._trainable = self.model.trainable_weights
        return self._trainable

    def loss_objects(self) -> list[losses.Loss | None]:
        """One Loss (or None) per output."""
        if self._losses is None:
            given = _per_output("loss", self.loss, self.model.output_names)
            self._losses = [losses.get(x) for x in given]
        return self._losses

    def resolve(self, labels: Sequence[Spec | None] | None = None) -> list[Output]:
        """The outputs with losses and metrics. labels: their Specs; None: the usual ones."""
        if self.outputs:
            return self.outputs
        names, nodes, found = self.model.output_names, self.model.outputs, self.loss_objects()
        if not any(found):
            raise ArgumentError(f"{self.model.name}: compile was given no loss")
        weights = _per_output("loss_weights", self.loss_weights, names)
        many = len(names) > 1
        keys = [f"y_{name}" for name in names] if many else ["y"]
        outputs = [
            Output(name, n.spec, x, 1.0 if w is None else float(w), key)
            for name, n, x, w, key in zip(names, nodes, found, weights, keys, strict=True)
        ]
        labels = labels or [usual_labels(o) for o in outputs]
        used = {"loss"}
        for option in ("metrics", "weighted_metrics"):
            given = _metrics_per_output(option, getattr(self, option), names)
            for o, label, wanted in zip(outputs, labels, given, strict=True):
                prefix = f"{o.name}_" if many else ""
                made = [_metric(m, label, o.pred, prefix, used) for m in wanted]
                setattr(o, "metrics" if option == "metrics" else "weighted", made)
        if many:
            for o in outputs:
                o.tracker = (
                    kinds.Mean(_unused(f"{o.name}_loss", used)) if o.loss is not None else None
                )
        self.outputs = outputs
        return outputs

    # -------------------------------------------------------------------------------------- state
    def trackers(self) -> list[kinds.Metric]:
        """Everything that is shown, in order: the loss, each output's loss, then the metrics."""
        parts = [o.tracker for o in self.outputs if o.tracker is not None]
        found = [m for o in self.outputs for m in (*o.metrics, *o.weighted)]
        return [self.tracker, *parts, *found]

    def metric_variables(self) -> list[Variable]:
        return [v for m in self.trackers() for v in m.variables]

    def optimizer_variables(self) -> list[Variable]:
        return list(self.optimizer.slots(self.trainable))

    def results(self) -> dict[str, float]:
        """The metrics so far."""
        return {m.name: m.result() for m in self.trackers()}

    def reset(self) -> None:
        """Start the metrics anew."""
        for m in self.trackers():
            m.reset()

    def get_config(self) -> dict[str, Any]:
        """The arguments as JSON-able values."""
        names = ("optimizer", "loss", "metrics", "loss_weights", "weighted_metrics", "dtype_policy")
        return {n: to_config(getattr(self, n), f"compile({n}=…)") for n in names}


def usual_labels(output: Output) -> Spec:
    """The Spec that labels of an output usually have."""
    if output.classes is not None:
        return Spec(output.pred.shape[:-1], "int32")
    return output.pred


def _unused(name: str, used: set[str]) -> str:
    base, i = name, 1
    while name in used:
        name, i = f"{base}_{i}", i + 1
    used.add(name)
    return name


def _metric(given: Any, label: Spec | None, pred: Spec, prefix: str, used: set[str]) -> Any:
    found = kinds.get(given, label, pred)
    if found is None:
        raise ArgumentError("metrics: None is not a metric")
    found.name = _unused(prefix + found.name.removeprefix(prefix), used)
    return found


def _per_output(option: str, given: Any, names: Sequence[str]) -> list[Any]:
    """One value per output from one for all, a list, or a dict by the outputs' names."""
    if isinstance(given, Mapping) and not {"class_name", "config"} <= set(given):
        for name in given:
            if name not in names:
                raise ArgumentError(f"{option}: no output {name!r}{nearest(name, names)}")
        return [given.get(name) for name in names]
    if isinstance(given, list | tuple):
        if len(given) != len(names):
            raise ArgumentError(f"{option}: {len(given)} given for {len(names)} outputs")
        return list(given)
    return [given] * len(names)


def _metrics_per_output(option: str, given: Any, names: Sequence[str]) -> list[list[Any]]:
    """A list of metrics per output."""
    if given is None:
        return [[] for _ in names]
    if isinstance(given, list | tuple) and len(names) == 1:
        flat = [m for g in given for m in (g if isinstance(g, list | tuple) else [g])]
        return [flat]
    if isinstance(given, str) or not isinstance(given, list | tuple | Mapping):
        raise ArgumentError(f"{option}={given!r}: expected a list of metrics")
    rows = _per_output(option, given, names)
    return [[] if r is None else list(r) if isinstance(r, list | tuple) else [r] for r in rows]
