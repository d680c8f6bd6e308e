"""Callbacks: code that runs between the steps and epochs of fit, evaluate and predict. Keras' names
and defaults.

A callback whose decisions depend on earlier epochs gives them in `get_state` (numbers, text, lists,
arrays), so a resumed run decides as an undisturbed one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from nnjit.errors import ArgumentError, nearest

Logs = dict[str, float] | None
HOOKS = tuple(
    f"on_{what}_{when}"
    for what in ("epoch", "train", "test", "predict", "train_batch", "test_batch", "predict_batch")
    for when in ("begin", "end")
)


class Callback:
    """Base class: override the hooks you need. `self.model` and `self.params` (epochs, steps,
    verbose) are set.
    """

    model: Any = None
    last = False  # runs after all others, and has no state of its own
    batch_logs = True  # False: its batch hooks do not look at logs, so they need not be computed

    def __init__(self) -> None:
        self.params: dict[str, Any] = {}

    def set_params(self, params: dict[str, Any]) -> None:
        self.params = params

    def set_model(self, model: Any) -> None:
        self.model = model

    def get_state(self) -> dict[str, Any]:
        """What a checkpoint must keep of this callback; {} by default."""
        return {}

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue from what `get_state` gave."""

    def close(self) -> None:
        """Release what is open. Called when fit ends, also by an error."""

    def on_train_begin(self, logs: Logs = None) -> None: ...
    def on_train_end(self, logs: Logs = None) -> None: ...
    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None: ...
    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None: ...
    def on_train_batch_begin(self, batch: int, logs: Logs = None) -> None: ...
    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None: ...
    def on_test_begin(self, logs: Logs = None) -> None: ...
    def on_test_end(self, logs: Logs = None) -> None: ...
    def on_test_batch_begin(self, batch: int, logs: Logs = None) -> None: ...
    def on_test_batch_end(self, batch: int, logs: Logs = None) -> None: ...
    def on_predict_begin(self, logs: Logs = None) -> None: ...
    def on_predict_end(self, logs: Logs = None) -> None: ...
    def on_predict_batch_begin(self, batch: int, logs: Logs = None) -> None: ...
    def on_predict_batch_end(self, batch: int, logs: Logs = None) -> None: ...


class CallbackList:
    """The callbacks of one run, those marked `last` behind the others."""

    def __init__(self, callbacks: Iterable[Callback], model: Any, params: dict[str, Any]):
        given = list(callbacks)
        for c in given:
            if not isinstance(c, Callback):
                raise ArgumentError(
                    f"callbacks: {c!r} is a {type(c).__name__}; expected a nnjit Callback"
                )
        self.callbacks = [c for c in given if not c.last] + [c for c in given if c.last]
        for c in self.callbacks:
            c.set_params(params)
            c.set_model(model)
        # a batch hook that nobody overrides costs nothing, and its logs are not computed
        self.listeners = {
            hook: [getattr(c, hook) for c in self.callbacks if _overrides(c, hook)]
            for hook in HOOKS
        }

    def wants(self, hook: str) -> bool:
        return bool(self.listeners[hook])

    def wants_logs(self, hook: str) -> bool:
        return any(c.batch_logs and _overrides(c, hook) for c in self.callbacks)

    def close(self) -> None:
        for c in self.callbacks:
            c.close()

    def call(self, hook: str, *args: Any) -> None:
        for listener in self.listeners[hook]:
            listener(*args)


def _overrides(callback: Callback, hook: str) -> bool:
    bound = getattr(callback, hook)
    return getattr(bound, "__func__", bound) is not getattr(Callback, hook)


class LambdaCallback(Callback):
    """Functions as hooks: LambdaCallback(on_epoch_end=lambda epoch, logs: print(logs))."""

    def __init__(self, **hooks: Callable[..., None]):
        super().__init__()
        for name, function in hooks.items():
            if name not in HOOKS:
                raise ArgumentError(f"LambdaCallback: no hook {name!r}{nearest(name, HOOKS)}")
            setattr(self, name, function)


class Monitor(Callback):
    """Base of callbacks that follow one metric: which way is better, and the best so far.

    mode: "min", "max", or "auto" (max for accuracies, AUC, precision, recall and F-scores, else
    min).
    """

    def __init__(self, monitor: str = "val_loss", min_delta: float = 0.0, mode: str = "auto"):
        super().__init__()
        if mode not in ("auto", "min", "max"):
            raise ArgumentError(f"mode={mode!r}{nearest(mode, ('auto', 'min', 'max'))}")
        self.monitor, self.min_delta, self.mode = monitor, abs(min_delta), mode
        rising = any(
            s in monitor for s in ("acc", "auc", "precision", "recall", "f1", "fbeta", "r2")
        )
        self.sign = -1.0 if mode == "max" or (mode == "auto" and rising) else 1.0
        self.best: float | None = None

    def value(self, logs: Logs) -> float:
        """The metric of this epoch, or an error that names those there are."""
        if self.monitor not in (logs or {}):
            hint = nearest(self.monitor, logs or {})
            if self.monitor.startswith("val_") and not any(
                k.startswith("val_") for k in logs or {}
            ):
                hint += " (no validation data was given)"
            raise ArgumentError(f"{type(self).__name__}: no metric {self.monitor!r}{hint}")
        return logs[self.monitor]  # type: ignore[index]

    def better(self, value: float, than: float | None) -> bool:
        if than is None:
            return not math.isnan(value)
        return self.sign * (value - than) < -self.min_delta

    def get_state(self) -> dict[str, Any]:
        return {"best": self.best}

    def set_state(self, state: dict[str, Any]) -> None:
        self.best = state["best"]


class EarlyStopping(Monitor):
    """Stop when `monitor` has not become better for `patience` epochs (0: at the first epoch that
    is not better).

    baseline: only values better than it count. restore_best_weights: end with the best epoch's
    weights. start_from_epoch: epochs before it are not looked at.
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        min_delta: float = 0,
        patience: int = 0,
        verbose: int = 0,
        mode: str = "auto",
        baseline: float | None = None,
        restore_best_weights: bool = False,
        start_from_epoch: int = 0,
    ):
        super().__init__(monitor, min_delta, mode)
        self.patience, self.verbose, self.baseline = patience, verbose, baseline
        self.restore_best_weights, self.start_from_epoch = restore_best_weights, start_from_epoch
        self._start()

    def _start(self) -> None:
        self.wait, self.stopped_epoch, self.best_epoch = 0, 0, 0
        self.best: float | None = None
        self.best_weights: list[np.ndarray] | None = None

    def on_train_begin(self, logs: Logs = None) -> None:
        self._start()

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        if epoch < self.start_from_epoch:
            return
        value = self.value(logs)
        if self.restore_best_weights and self.best_weights is None:
            self.best_weights, self.best_epoch = self.model.get_weights(), epoch
        self.wait += 1
        if self.better(value, self.best):
            self.best, self.best_epoch = value, epoch
            if self.restore_best_weights:
                self.best_weights = self.model.get_weights()
            if self.baseline is None or self.better(value, self.baseline):
                self.wait = 0
        elif self.wait >= self.patience and epoch > 0:
            self.stopped_epoch = epoch
            self.model.stop_training = True

    def on_train_end(self, logs: Logs = None) -> None:
        if self.stopped_epoch and self.verbose:
            print(f"Epoch {self.stopped_epoch + 1}: early stopping")
        if self.restore_best_weights and self.best_weights is not None:
            if self.verbose:
                print(f"Weights of the best epoch restored: {self.best_epoch + 1}")
            self.model.set_weights(self.best_weights)

    def get_state(self) -> dict[str, Any]:
        names = ("wait", "stopped_epoch", "best_epoch", "best")
        weights = {f"weight_{i}": w for i, w in enumerate(self.best_weights or [])}
        return {**{n: getattr(self, n) for n in names}, **weights}

    def set_state(self, state: dict[str, Any]) -> None:
        self.wait, self.stopped_epoch = state["wait"], state["stopped_epoch"]
        self.best_epoch, self.best = state["best_epoch"], state["best"]
        count = sum(k.startswith("weight_") for k in state)
        self.best_weights = [state[f"weight_{i}"] for i in range(count)] or None


class ReduceLROnPlateau(Monitor):
    """Multiply the learning rate by `factor` when `monitor` has not become better for `patience`
    epochs.
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        factor: float = 0.1,
        patience: int = 10,
        verbose: int = 0,
        mode: str = "auto",
        min_delta: float = 1e-4,
        cooldown: int = 0,
        min_lr: float = 0.0,
    ):
        super().__init__(monitor, min_delta, mode)
        if not 0 < factor < 1:
            raise ArgumentError(f"ReduceLROnPlateau: factor={factor!r}: expected between 0 and 1")
        self.factor, self.patience, self.verbose = factor, patience, verbose
        self.cooldown, self.min_lr = cooldown, min_lr
        self.wait, self.resting = 0, 0

    def on_train_begin(self, logs: Logs = None) -> None:
        self.best, self.wait, self.resting = None, 0, 0

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        rate = float(self.model.optimizer.learning_rate)
        if logs is not None:
            logs["learning_rate"] = rate
        value = self.value(logs)
        if self.resting > 0:
            self.resting -= 1
            self.wait = 0
        if self.better(value, self.best):
            self.best, self.wait = value, 0
        elif self.resting == 0:
            self.wait += 1
            if self.wait >= self.patience and rate > self.min_lr:
                new = max(rate * self.factor, self.min_lr)
                self.model.optimizer.learning_rate = new
                if self.verbose:
                    print(f"Epoch {epoch + 1}: learning rate reduced to {new:g}")
                self.resting, self.wait = self.cooldown, 0

    def get_state(self) -> dict[str, Any]:
        return {"best": self.best, "wait": self.wait, "resting": self.resting}

    def set_state(self, state: dict[str, Any]) -> None:
        self.best, self.wait, self.resting = state["best"], state["wait"], state["resting"]


class LearningRateScheduler(Callback):
    """At the begin of each epoch the learning rate becomes schedule(epoch, learning_rate)."""

    def __init__(self, schedule: Callable[[int, float], float], verbose: int = 0):
        super().__init__()
        self.schedule, self.verbose = schedule, verbose

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        rate = self.schedule(epoch, float(self.model.optimizer.learning_rate))
        if not isinstance(rate, int | float | np.number) or not math.isfinite(rate):
            raise ArgumentError(f"LearningRateScheduler: schedule gave {rate!r}; expected a number")
        self.model.optimizer.learning_rate = float(rate)
        if self.verbose:
            print(f"Epoch {epoch + 1}: learning rate {rate:g}")

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        if logs is not None:
            logs["learning_rate"] = float(self.model.optimizer.learning_rate)


class TerminateOnNaN(Callback):
    """End training quietly when the loss is NaN or infinite (else fit raises NumericError)."""

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        if logs is not None and not math.isfinite(logs.get("loss", 0.0)):
            print(f"Batch {batch}: the loss is {logs['loss']}, training ends")
            self.model.stop_training = True
