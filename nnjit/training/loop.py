"""fit: epochs of steps, validation, callbacks, and exact continuation of an interrupted run.

All that a step changes lies in the model's variables, so a run is those plus a cursor (epoch,
step), and the callbacks' own state.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from nnjit.errors import ArgumentError, DataError, NumericError
from nnjit.training.callbacks import Callback, CallbackList, TerminateOnNaN
from nnjit.training.checkpoint import BackupAndRestore, Cursor, Snapshot, restore
from nnjit.training.feeds import Feed, feed
from nnjit.training.history import History
from nnjit.training.progress import progress
from nnjit.training.testing import check_counts, run_test


def fit(
    model: Any,
    x: Any,
    y: Any,
    batch_size: int | None,
    epochs: int,
    verbose: Any,
    callbacks: Sequence[Callback] | None,
    validation_split: float,
    validation_data: Any,
    shuffle: bool,
    class_weight: Mapping[int, float] | None,
    sample_weight: Any,
    initial_epoch: int,
    steps_per_epoch: int | None,
    validation_steps: int | None,
    validation_batch_size: int | None,
    validation_freq: int | Sequence[int],
) -> History:
    """See `Model.fit`."""
    model.need_compiled("fit")
    check_counts(0, epochs=epochs, initial_epoch=initial_epoch)
    check_counts(1, steps_per_epoch=steps_per_epoch, validation_steps=validation_steps,
                 validation_batch_size=validation_batch_size)  # fmt: skip
    due = _due(validation_freq)
    data = feed(model, x, y, sample_weight, class_weight)
    held = None
    if validation_data is not None:
        held = _validation(model, validation_data)
    elif validation_split:
        data, held = _split(data, validation_split)
    batches = data.batches(32 if batch_size is None else batch_size, shuffle, model.seed)
    run = Run(model, data, batches, steps_per_epoch)
    history = History()
    given = _listed(callbacks)
    params = {"epochs": epochs, "steps": run.steps, "verbose": verbose,
              "samples": min(len(data), run.steps * batches.batch_size)}  # fmt: skip
    run.callbacks = CallbackList([history, *given, *progress(verbose)], model, params)
    validate = None
    if held is not None:
        size = validation_batch_size or batches.batch_size

        def validate():
            return run_test(model, held, size, validation_steps, run.callbacks)

    model.stop_training = False
    try:
        run.train(initial_epoch, epochs, validate, due, history)
    finally:
        run.callbacks.close()
    return history


def _due(frequency: Any) -> Callable[[int], bool]:
    """Whether an epoch (from 0) ends with validation: every n-th, or those in a list (from 1)."""
    if isinstance(frequency, int | np.integer):
        check_counts(1, validation_freq=frequency)
        return lambda epoch: (epoch + 1) % frequency == 0
    if not isinstance(frequency, list | tuple | set | range):
        raise ArgumentError(
            f"validation_freq={frequency!r}: expected a whole number or a list of epochs"
        )
    return lambda epoch: epoch + 1 in frequency


def _listed(callbacks: Any) -> list[Callback]:
    if callbacks is None:
        return []
    return list(callbacks) if isinstance(callbacks, list | tuple) else [callbacks]


def _validation(model: Any, given: Any) -> Feed:
    if not isinstance(given, list | tuple) or not 1 <= len(given) <= 3:
        raise DataError("validation_data: expected (x, y) or (x, y, sample_weight)")
    x, y, weight = (*given, None, None)[:3]
    return feed(model, x, y, weight, where="validation_data: ")


def _split(data: Feed, fraction: float) -> tuple[Feed, Feed]:
    """The last rows become validation data."""
    if not isinstance(fraction, float) or not 0 < fraction < 1:
        raise ArgumentError(f"validation_split={fraction!r}: expected a fraction between 0 and 1")
    rows = len(data)
    cut = math.floor(rows * (1 - fraction))
    if cut in (0, rows):
        raise DataError(f"validation_split={fraction!r} of {rows} rows leaves one part empty")
    return data.part(0, cut), data.part(cut, rows)


class Run:
    """One call of fit: where it stands, and what a checkpoint of it holds."""

    callbacks: CallbackList

    def __init__(self, model: Any, data: Feed, batches: Any, steps_per_epoch: int | None):
        self.model, self.batches = model, batches
        self.steps = min(batches.steps, steps_per_epoch or batches.steps)
        self.executable = model.executable("train", data.labels, data.weight)
        self.compiled = model.compiled
        self.loss = 0.0
        self.cursor = Cursor(
            seed=model.seed, rows=len(data), batch_size=batches.batch_size, shuffle=batches.shuffle
        )

    @property
    def steps_done(self) -> int:
        """Steps since the run began."""
        return self.cursor.epoch * self.steps + self.cursor.step

    def healthy(self) -> bool:
        """Whether the loss has stayed finite."""
        return math.isfinite(self.loss)

    # -------------------------------------------------------------------------------------- epochs
    def train(self, first: int, epochs: int, validate: Any, due: Any, history: History) -> None:
        """All epochs, from `first` on or from where an interrupted run was."""
        found = self._found()
        calls = self.callbacks
        self.cursor.epoch = first
        calls.call("on_train_begin", None)
        if found is not None:
            _, saved = found
            self.cursor.epoch, self.cursor.step = saved.cursor.epoch, saved.cursor.step
            self.model.stop_training = saved.cursor.stopped
            if not saved.cursor.step:
                self._restore(found)
        while self.cursor.epoch < epochs and not self.model.stop_training:
            began, waited = perf_counter(), self.batches.waiting
            epoch = self.cursor.epoch
            self.compiled.reset()
            calls.call("on_epoch_begin", epoch, None)
            if self.cursor.step:
                # in the middle of an epoch: the saved state overwrites what its begin changed
                self._restore(found)  # type: ignore[arg-type]
            self._epoch(epoch)
            logs = self.compiled.results()
            if validate is not None and due(epoch):
                logs.update({f"val_{k}": v for k, v in validate().items()})
            history.add_times(perf_counter() - began, self.batches.waiting - waited)
            self.cursor.epoch, self.cursor.step = epoch + 1, 0
            calls.call("on_epoch_end", epoch, logs)
        calls.call("on_train_end", None)

    def _epoch(self, epoch: int) -> None:
        """The steps of an epoch from the cursor on."""
        calls, execute = self.callbacks, self.executable.run
        ends, wants = calls.wants("on_train_batch_end"), calls.wants_logs("on_train_batch_end")
        begins = calls.wants("on_train_batch_begin")
        quiet = any(isinstance(c, TerminateOnNaN) for c in calls.callbacks)
        for step, _, batch in self.batches.epoch(epoch, self.cursor.step):
            if step >= self.steps:
                break
            if begins:
                calls.call("on_train_batch_begin", step, None)
            self.loss = float(execute(batch)["loss"])
            self.cursor.step = step + 1
            if not math.isfinite(self.loss) and not quiet:
                raise NumericError(self._nan_text(epoch, step))
            if ends:
                logs = self.compiled.results() if wants else None
                calls.call("on_train_batch_end", step, logs)
            if self.model.stop_training:
                break

    def _nan_text(self, epoch: int, step: int) -> str:
        what = "NaN" if math.isnan(self.loss) else "infinite"
        text = f"the loss became {what} in step {step + 1} of epoch {epoch + 1}"
        saved = [c.checkpoints for c in self.callbacks.callbacks if isinstance(c, BackupAndRestore)]
        if saved and saved[0].files():
            text += f"; the last good checkpoint is {saved[0].files()[0]}"
        return (
            f"{text} (a smaller learning rate or clipnorm may help; NNJIT_CHECK=1 finds the place)"
        )

    # --------------------------------------------------------------------------------- checkpoints
    def snapshot(self) -> Snapshot:
        """The run as it is now."""
        variables = self.model.step_variables()
        self.cursor.stopped = bool(self.model.stop_training)
        states = [{"class": type(c).__name__, **c.get_state()} for c in self._stateful()]
        return Snapshot(
            self.cursor, [v.name for v in variables], [v._array for v in variables], states
        )

    def _stateful(self) -> list[Callback]:
        return [c for c in self.callbacks.callbacks if not c.last]

    def _found(self) -> tuple[Path, Snapshot] | None:
        """The checkpoint to continue from, if a BackupAndRestore has one that fits this run."""
        for c in self.callbacks.callbacks:
            if isinstance(c, BackupAndRestore):
                c.run = self
                found = c.latest()
                if found is not None:
                    self.cursor.check(found[1].cursor, found[0])
                    return found
        return None

    def _restore(self, found: tuple[Path, Snapshot]) -> None:
        path, saved = found
        names = [s["class"] for s in saved.callbacks]
        callbacks = self._stateful()
        if names != [type(c).__name__ for c in callbacks]:
            raise ArgumentError(
                f"{path}: the run was started with the callbacks {', '.join(names[1:]) or 'none'}; "
                "give the same, in the same order"
            )
        restore(self.model.step_variables(), saved, path)
        for c, state in zip(callbacks, saved.callbacks, strict=True):
            c.set_state({k: v for k, v in state.items() if k != "class"})
