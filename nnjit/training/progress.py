"""Progress: a bar on a terminal, else one line per epoch."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from time import perf_counter
from typing import Any

from nnjit.errors import ArgumentError
from nnjit.training.callbacks import Callback, Logs

REDRAW = 0.1  # seconds between two looks at the metrics


def level(verbose: Any) -> int:
    """0 silent, 1 bar, 2 a line per epoch. "auto" and 1 are a bar on a terminal and lines
    elsewhere.
    """
    if verbose not in ("auto", 0, 1, 2) or verbose is None:
        raise ArgumentError(f"verbose={verbose!r}: expected 'auto', 0, 1 or 2")
    if verbose in (0, 2) and verbose is not False:
        return int(verbose)
    terminal = sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
    return 1 if terminal and (verbose == "auto" or verbose) else 2 if verbose else 0


def metrics_text(logs: Mapping[str, float]) -> str:
    """'loss: 0.3127 - accuracy: 0.9123', loss first."""
    names = sorted(logs, key=lambda k: (k.startswith("val_"), not k.endswith("loss")))
    return " - ".join(f"{k}: {_number(logs[k])}" for k in names)


def _number(value: float) -> str:
    return f"{value:.4f}" if value == 0 or 1e-3 <= abs(value) < 1e6 else f"{value:.4e}"


def seconds_text(seconds: float) -> str:
    """'12ms', '3.2s', '2m05s'."""
    if seconds < 1:
        return f"{seconds * 1e3:.0f}ms"
    if seconds < 60:
        return f"{seconds:.1f}s"
    return f"{int(seconds // 60)}m{int(seconds % 60):02d}s"


def rate_text(seconds: float, steps: int, samples: int) -> str:
    """'3.2s - 1.71ms/step - 18,750 samples/s'."""
    step = seconds / max(steps, 1)
    each = f"{step * 1e6:.0f}us" if step < 1e-3 else f"{step * 1e3:.3g}ms"
    return f"{seconds_text(seconds)} - {each}/step - {samples / max(seconds, 1e-9):,.0f} samples/s"


class Lines(Callback):
    """verbose=2: 'Epoch 1/5 - 3.2s - 1.71ms/step - 18,750 samples/s - loss: 0.31'."""

    last = True
    batch_logs = False

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        self.started, self.trained = perf_counter(), 0.0

    def on_test_begin(self, logs: Logs = None) -> None:
        # samples/s is that of training: validation time is not part of it
        self.trained = perf_counter() - getattr(self, "started", perf_counter())

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        seconds = self.trained or perf_counter() - self.started
        rate = rate_text(seconds, self.params["steps"], self.params["samples"])
        head = f"Epoch {epoch + 1}/{self.params['epochs']}"
        print(f"{head} - {rate} - {metrics_text(logs or {})}", flush=True)


class Bar(Lines):
    """verbose=1 on a terminal: a bar of the steps with the metrics so far, then the line."""

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        super().on_epoch_begin(epoch, logs)
        self.bar = Progress(
            TextColumn("Epoch {task.fields[epoch]}"), BarColumn(), MofNCompleteColumn(),
            TextColumn("{task.fields[text]}"), transient=True, refresh_per_second=10,
        )  # fmt: skip
        label = f"{epoch + 1}/{self.params['epochs']}"
        self.task = self.bar.add_task("", total=self.params["steps"], epoch=label, text="")
        self.drawn = self.started
        self.bar.start()

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        now = perf_counter()
        if now - self.drawn >= REDRAW:
            self.drawn = now
            text = metrics_text(self.model.metrics_results())
            self.bar.update(self.task, completed=batch + 1, text=text)

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        self.bar.stop()
        super().on_epoch_end(epoch, logs)

    def close(self) -> None:
        if hasattr(self, "bar"):
            self.bar.stop()  # an exception or stop_training may have left it running


def progress(verbose: Any) -> list[Callback]:
    """The callback that shows training, or none."""
    shown: dict[int, list[Callback]] = {0: [], 1: [Bar()], 2: [Lines()]}
    return shown[level(verbose)]
