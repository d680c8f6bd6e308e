"""The verbs of a model: compile, fit, evaluate, predict and their single-batch forms, save, and
looking inside.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from nnjit import config
from nnjit.compiled import Compiled, usual_labels
from nnjit.errors import ArgumentError, lookup, nearest
from nnjit.layers.variable import Variable
from nnjit.registry import from_config
from nnjit.session import Session
from nnjit.spec import Spec
from nnjit.step import predict_step, test_step, train_step


class Verbs:
    """Mixed into Model, which gives it structure (inputs, outputs, weights) and a session."""

    session: Session
    compiled: Compiled | None = None
    stop_training: bool
    name: str
    built: bool
    weights: Any

    # ---------------------------------------------------------------------------------- compiling
    def compile(
        self,
        optimizer: Any = "rmsprop",
        loss: Any = None,
        metrics: Any = None,
        loss_weights: Any = None,
        weighted_metrics: Any = None,
        device: str | None = None,
        dtype_policy: str = "float32",
        batch_slices: int | str = "auto",
    ) -> None:
        """Say how to train. Nothing is generated yet: that happens when a step is first needed.

        loss, metrics: names, functions (y_true, y_pred) or objects; a list or a dict by output name
        where the model has several outputs. device: "cpu", "python" or "interpret"; default
        NNJIT_DEVICE. dtype_policy: "float32", or "mixed_bfloat16": matrix products and convolutions
        take operands rounded to bfloat16; weights, sums and all that follows stay float32.
        batch_slices: in how many slices a training step runs its batch, their gradients added up
        before the one update: less memory, the same mathematics. "auto": as few as let each fit in
        cache, where that is faster; 1: the whole batch at once. Freezing or thawing layers
        afterwards has an effect at the next compile.
        """
        if device is not None and device not in config.DEVICES:
            raise ArgumentError(f"device={device!r}{nearest(device, config.DEVICES)}")
        self.compiled = Compiled(
            self, optimizer, loss, metrics, loss_weights, weighted_metrics, dtype_policy
        )
        whole = isinstance(batch_slices, int) and not isinstance(batch_slices, bool)
        if batch_slices != "auto" and not (whole and int(batch_slices) >= 1):
            raise ArgumentError(
                f"batch_slices={batch_slices!r}: expected 'auto' or a whole number from 1"
            )
        self.session.device, self.session.batch_slices = device, batch_slices
        self.session.forget()

    def compile_from_config(self, given: Mapping[str, Any], device: str | None = None) -> None:
        """Compile with the arguments that a model file holds."""
        self.compile(**{k: from_config(v) for k, v in given.items()}, device=device)

    @property
    def optimizer(self) -> Any:
        """The optimizer; `model.optimizer.learning_rate = 1e-4` works between steps."""
        return self.need_compiled("optimizer").optimizer

    @property
    def metrics_names(self) -> list[str]:
        """The names of what evaluate returns."""
        compiled = self.need_compiled("metrics_names")
        compiled.resolve()
        return [m.name for m in compiled.trackers()]

    def metrics_results(self) -> dict[str, float]:
        """Loss and metrics since they were last reset."""
        return self.need_compiled("metrics_results").results()

    def reset_metrics(self) -> None:
        self.need_compiled("reset_metrics").reset()

    def need_compiled(self, verb: str) -> Compiled:
        """What compile was given, or an error that says how to call it."""
        if self.compiled is None:
            raise ArgumentError(
                f"{self.name}: call compile(optimizer=…, loss=…) before {verb}, for example "
                'compile("adam", "sparse_categorical_crossentropy", ["accuracy"])'
            )
        return self.compiled

    # --------------------------------------------------------------------------------- executables
    def executable(
        self,
        step: str,
        labels: Mapping[str, Spec] | None = None,
        weight: Spec | None = None,
    ) -> Any:
        """The compiled "train", "test" or "predict" step, made at first use.

        labels: Specs of the labels by graph input; by default the usual ones of the losses.
        weight: Spec of sample weights, None for a step without them.
        """
        if step == "predict":
            held = lambda: [*self.weights, self.session.random]  # noqa: E731
            return self.session.executable("predict", lambda: predict_step(self), held)
        lookup("step", step, {"train": 0, "test": 0, "predict": 0})
        compiled = self.need_compiled(step)
        outputs = compiled.resolve()
        labels = dict(labels or {o.key: usual_labels(o) for o in outputs})
        build = train_step if step == "train" else test_step
        return self.session.executable(
            step_key(step, labels, weight),
            lambda: build(self, compiled, labels, weight),
            self.step_variables,
        )

    def step_variables(self) -> list[Variable]:
        """All that a training step changes or reads, in the order that checkpoints keep it."""
        compiled = self.need_compiled("training")
        state = [*compiled.optimizer_variables(), *compiled.metric_variables()]
        return [*self.weights, self.session.random, *state]

    # ------------------------------------------------------------------------------------ training
    def fit(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = 32,
        epochs: int = 1,
        verbose: Any = "auto",
        callbacks: Sequence[Any] | None = None,
        validation_split: float = 0.0,
        validation_data: Any = None,
        shuffle: bool = True,
        class_weight: Mapping[int, float] | None = None,
        sample_weight: Any = None,
        initial_epoch: int = 0,
        steps_per_epoch: int | None = None,
        validation_steps: int | None = None,
        validation_batch_size: int | None = None,
        validation_freq: int | Sequence[int] = 1,
    ) -> Any:
        """Train, and return a History: `history["loss"]` per epoch, seconds, and time spent
        waiting.

        validation_split: the last fraction of the rows, taken before shuffling. validation_data:
        (x, y) or (x, y, sample_weight). The order of the samples depends on the model's seed and
        the epoch alone. NumericError when the loss becomes NaN or infinite.
        """
        from nnjit.training.loop import fit

        options = {k: v for k, v in locals().items() if k not in ("self", "fit")}
        return fit(self, **options)

    def evaluate(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = 32,
        verbose: Any = "auto",
        sample_weight: Any = None,
        steps: int | None = None,
        callbacks: Sequence[Any] | None = None,
        return_dict: bool = False,
    ) -> Any:
        """The loss, or [loss, metrics…], or a dict of them, over all rows."""
        from nnjit.training.testing import evaluate

        logs = evaluate(
            self,
            x,
            y,
            32 if batch_size is None else batch_size,
            verbose,
            sample_weight,
            steps,
            callbacks,
        )
        return logs if return_dict else _flat(logs)

    def predict(
        self,
        x: Any,
        batch_size: int | None = 32,
        verbose: Any = "auto",
        steps: int | None = None,
        callbacks: Sequence[Any] | None = None,
    ) -> Any:
        """The outputs for all rows: an array, or a list or dict of them as in the model."""
        from nnjit.training.testing import predict

        return predict(self, x, 32 if batch_size is None else batch_size, verbose, steps, callbacks)

    def train_on_batch(
        self,
        x: Any,
        y: Any = None,
        sample_weight: Any = None,
        class_weight: Mapping[int, float] | None = None,
        return_dict: bool = False,
    ) -> Any:
        """One step on these rows; their loss (before the update) and metrics, as from evaluate."""
        from nnjit.training.testing import on_batch

        logs = on_batch(self, "train", x, y, sample_weight, class_weight)
        return logs if return_dict else _flat(logs)

    def test_on_batch(
        self, x: Any, y: Any = None, sample_weight: Any = None, return_dict: bool = False
    ) -> Any:
        """Loss and metrics of these rows."""
        from nnjit.training.testing import on_batch

        logs = on_batch(self, "test", x, y, sample_weight)
        return logs if return_dict else _flat(logs)

    def predict_on_batch(self, x: Any) -> Any:
        """The outputs for these rows, as one batch; the quick way, which does not look for NaN."""
        return _on_batch()(self, x)

    # -------------------------------------------------------------------------------------- saving
    def save(self, path: str | os.PathLike, include_optimizer: bool = True) -> None:
        """Write everything to one file, which `nnjit.load_model` reads."""
        from nnjit.saving import save_model

        save_model(self, path, include_optimizer)

    def save_weights(self, path: str | os.PathLike) -> None:
        from nnjit.saving import save_weights

        save_weights(self, path)

    def load_weights(self, path: str | os.PathLike) -> None:
        from nnjit.saving import load_weights

        load_weights(self, path)

    # ------------------------------------------------------------------------------ looking inside
    def summary(
        self, line_length: int | None = None, print_fn: Callable[[str], Any] | None = None
    ) -> None:
        """Print layers, output shapes, parameters, FLOPs and bytes."""
        from nnjit.summary import summary_text

        text = summary_text(self, line_length)
        (print_fn or print)(text)

    def plan(self, batch_size: int = 32, step: str | None = None, **extents: int) -> Any:
        """Where every buffer of a step lies, and the bytes it needs (`work`), before it runs.

        step: "train", "test" or "predict"; by default "train" if the model is compiled, else
        "predict". extents: the values of further open axes, by symbol.
        """
        return self._step(step).arrange(**self._extents(step, batch_size, extents))

    def listing(self, batch_size: int = 32, step: str | None = None, **extents: int) -> str:
        """The launches of a step as a table: layers, kernel, buffers, trip count."""
        return self._step(step).listing(**self._extents(step, batch_size, extents))

    def source(self, step: str | None = None) -> str:
        """The generated Python source of a step."""
        return self._step(step).source()

    def profile(self, x: Any, y: Any = None, steps: int = 20, step: str | None = None) -> Any:
        """Times of each launch over some steps on these rows as one batch; print it, or look into
        it.

        Training steps change the model.
        """
        from nnjit.profiling.profile import profile_step
        from nnjit.training.feeds import feed

        name = step or ("train" if self.compiled is not None and y is not None else "predict")
        data = feed(self, x, y if name != "predict" else None, training=name != "predict")
        batch = next(data.batches(len(data)).epoch())[2]
        executable = self.executable(name, data.labels or None, data.weight)
        return profile_step(executable, batch, name, steps)

    def _step(self, step: str | None) -> Any:
        return self.executable(step or ("predict" if self.compiled is None else "train"))

    def _extents(self, step: str | None, batch_size: int, given: dict[str, int]) -> dict[str, int]:
        symbols = list(self._step(step).symbols)
        known = {s: v for s, v in {"batch": batch_size, **given}.items() if s in symbols}
        for name in given:
            if name not in symbols:
                raise ArgumentError(f"{self.name}: no open axis {name!r}{nearest(name, symbols)}")
        missing = [s for s in symbols if s not in known]
        if missing:
            raise ArgumentError(f"{self.name}: give the open axes {', '.join(missing)} a value")
        return known


def step_key(step: str, labels: Mapping[str, Spec], weight: Spec | None) -> tuple:
    """What a session knows a training or test step by."""
    return (step, tuple(sorted((k, v.shape, v.dtype) for k, v in labels.items())), weight)


@functools.cache
def _on_batch() -> Callable[[Any, Any], Any]:
    """Found once: an import statement costs a microsecond of ten."""
    from nnjit.training.testing import predict_on_batch

    return predict_on_batch


def _flat(logs: Mapping[str, float]) -> Any:
    values = list(logs.values())
    return values[0] if len(values) == 1 else values
