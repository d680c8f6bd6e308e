"""Callbacks that write files: metrics as CSV or JSON lines, and models."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import IO, Any

from nnjit.errors import ArgumentError, CacheError
from nnjit.training.callbacks import Callback, Logs, Monitor


class FileLogger(Callback):
    """Base: one line per epoch. append=False starts anew; a resumed run goes on where its
    checkpoint was.
    """

    def __init__(self, filename: str | os.PathLike, append: bool = False):
        super().__init__()
        self.filename, self.append = Path(filename), append
        self.file: IO[str] | None = None
        self.fresh = True  # what the file holds goes when the first line is written

    def on_train_begin(self, logs: Logs = None) -> None:
        try:
            self.filename.parent.mkdir(parents=True, exist_ok=True)
            self.file = open(self.filename, "a", newline="", encoding="utf-8")  # noqa: SIM115
        except OSError as e:
            raise CacheError(f"{self.filename}: cannot be written: {e.strerror or e}") from None
        self.fresh = not self.append

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        assert self.file is not None
        if self.fresh:
            self.file.truncate(0)
            self.fresh = False
        self.file.write(self.line(epoch, logs or {}))
        self.file.flush()

    def line(self, epoch: int, logs: dict[str, float]) -> str:
        raise NotImplementedError

    def size(self) -> int:
        """Bytes written so far."""
        return 0 if self.fresh or self.file is None else os.fstat(self.file.fileno()).st_size

    def close(self) -> None:
        if self.file is not None:
            self.file.close()
            self.file = None

    def get_state(self) -> dict[str, Any]:
        return {"bytes": self.size()}

    def set_state(self, state: dict[str, Any]) -> None:
        assert self.file is not None
        self.file.truncate(min(state["bytes"], os.fstat(self.file.fileno()).st_size))
        self.fresh = False


class CSVLogger(FileLogger):
    """epoch and metrics, comma-separated, the names in the first line."""

    def __init__(self, filename: str | os.PathLike, separator: str = ",", append: bool = False):
        super().__init__(filename, append)
        self.separator = separator
        self.keys: list[str] = []

    def line(self, epoch: int, logs: dict[str, float]) -> str:
        head = ""
        if not self.keys:
            self.keys = sorted(logs)
            if self.size() == 0:
                head = self.separator.join(["epoch", *self.keys]) + "\n"
        values = [str(epoch), *(str(logs.get(k, "NA")) for k in self.keys)]
        return head + self.separator.join(values) + "\n"

    def on_train_begin(self, logs: Logs = None) -> None:
        self.keys = []
        super().on_train_begin(logs)


class JSONLogger(FileLogger):
    """One JSON object per epoch: {"epoch": 0, "loss": 0.3, …}. NaN is written as null."""

    def line(self, epoch: int, logs: dict[str, float]) -> str:
        finite = {k: v if v == v and abs(v) != float("inf") else None for k, v in logs.items()}
        return json.dumps({"epoch": epoch, **finite}) + "\n"


class ModelCheckpoint(Monitor):
    """Save the model at `filepath`, which may hold {epoch:02d} and metrics:
    "m-{epoch:02d}-{val_loss:.2f}.nnjit".

    save_best_only: only when `monitor` became better (than initial_value_threshold, at first).
    save_weights_only. save_freq: "epoch", or a number of batches. To continue an interrupted run
    use BackupAndRestore.
    """

    def __init__(
        self,
        filepath: str | os.PathLike,
        monitor: str = "val_loss",
        verbose: int = 0,
        save_best_only: bool = False,
        save_weights_only: bool = False,
        mode: str = "auto",
        save_freq: str | int = "epoch",
        initial_value_threshold: float | None = None,
    ):
        super().__init__(monitor, 0.0, mode)
        if save_freq != "epoch" and (not isinstance(save_freq, int) or save_freq < 1):
            raise ArgumentError(f"save_freq={save_freq!r}: expected 'epoch' or a number of batches")
        self.filepath, self.verbose = str(filepath), verbose
        self.save_best_only, self.save_weights_only = save_best_only, save_weights_only
        self.save_freq, self.best = save_freq, initial_value_threshold
        self.batches, self.epoch = 0, 0

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        self.epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        if self.save_freq != "epoch":
            self.batches += 1
            if self.batches % int(self.save_freq) == 0:
                self._save(self.epoch, {**(logs or {}), "batch": batch + 1})

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        if self.save_freq == "epoch":
            self._save(epoch, logs or {})

    def _save(self, epoch: int, logs: dict[str, Any]) -> None:
        if self.save_best_only:
            value = self.value(logs)
            if not self.better(value, self.best):
                return
            self.best = value
        try:
            path = self.filepath.format(**{**logs, "epoch": epoch + 1})
        except KeyError as e:
            raise ArgumentError(
                f"ModelCheckpoint: filepath {self.filepath!r} asks for {e}; there are epoch, "
                f"{', '.join(sorted(logs))}"
            ) from None
        (self.model.save_weights if self.save_weights_only else self.model.save)(path)
        if self.verbose:
            print(f"Epoch {epoch + 1}: saved {path}")

    def get_state(self) -> dict[str, Any]:
        return {"best": self.best, "batches": self.batches}

    def set_state(self, state: dict[str, Any]) -> None:
        self.best, self.batches = state["best"], state["batches"]
