"""Checkpoints of a run: everything that a bit-exact continuation needs, one file each, newest valid
wins.

A file holds every variable of the training step (weights, optimizer slots, counters, random state,
metrics), the cursor (epoch, step), what the order of samples depends on, and the state of the
callbacks. Files are replaced atomically and carry a checksum; a damaged one is passed over in
favour of the one before.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from nnjit.atomic import sweep
from nnjit.container import read_container, write_container
from nnjit.errors import ArgumentError, CacheError, ModelFileError
from nnjit.training.callbacks import Callback, Logs

MAGIC = b"NNJITCK1"
PATTERN = re.compile(r"checkpoint-(\d{10})\.nnjit")


@dataclass
class Cursor:
    """Where a run stands: `step` batches of `epoch` are done. The rest is what the continuation
    must have equal.
    """

    epoch: int = 0
    step: int = 0
    seed: int = 0
    rows: int = 0
    batch_size: int = 0
    shuffle: bool = True
    stopped: bool = False

    def check(self, saved: Cursor, path: Path) -> None:
        """ArgumentError if the data or its order is another one than in the checkpoint."""
        for name in ("seed", "rows", "batch_size", "shuffle"):
            mine, theirs = getattr(self, name), getattr(saved, name)
            if mine != theirs:
                raise ArgumentError(
                    f"{path}: the run was started with {name}={theirs}, now it is {mine}; "
                    "give the same, or another folder"
                )


@dataclass
class Snapshot:
    """What one checkpoint holds: arrays in the order of the model's variables, and states by
    callback.
    """

    cursor: Cursor
    names: list[str]
    arrays: list[np.ndarray]
    callbacks: list[dict[str, Any]] = field(default_factory=list)


class Checkpoints:
    """The checkpoints in a folder; `keep` of them stay."""

    def __init__(self, folder: str | os.PathLike, keep: int = 3):
        if not isinstance(keep, int) or keep < 1:
            raise ArgumentError(f"keep={keep!r}: expected a whole number from 1")
        self.folder, self.keep = Path(folder).expanduser(), keep

    def files(self) -> list[Path]:
        """Checkpoint files, newest first."""
        if not self.folder.is_dir():
            return []
        found = [p for p in self.folder.iterdir() if PATTERN.fullmatch(p.name)]
        return sorted(found, reverse=True)

    def save(self, number: int, snapshot: Snapshot) -> Path:
        """Write checkpoint `number` (steps done so far), then delete those beyond `keep`."""
        path = self.folder / f"checkpoint-{number:010d}.nnjit"
        tensors = {f"variable/{i}": a for i, a in enumerate(snapshot.arrays)}
        states = []
        for i, state in enumerate(snapshot.callbacks):
            plain = {k: v for k, v in state.items() if not isinstance(v, np.ndarray)}
            arrays = {k: v for k, v in state.items() if isinstance(v, np.ndarray)}
            tensors.update({f"callback/{i}/{k}": v for k, v in arrays.items()})
            states.append(plain)
        header = {"cursor": asdict(snapshot.cursor), "names": snapshot.names, "callbacks": states}
        write_container(path, MAGIC, header, tensors)
        for old in self.files()[self.keep :]:
            old.unlink(missing_ok=True)
        return path

    def latest(self, say: Callable[[str], Any] | None = None) -> tuple[Path, Snapshot] | None:
        """The newest checkpoint that is whole, or None. Damaged ones are named through `say`
        (default: stderr).
        """
        sweep(self.folder, older_than=0)
        report = say or (lambda text: print(text, file=sys.stderr))
        for path in self.files():
            try:
                return path, read_snapshot(path)
            except ModelFileError as e:
                report(f"{e}; taking the checkpoint before it")
        return None

    def clear(self) -> None:
        """Delete all checkpoints of the folder, and the folder if it is then empty."""
        for path in self.files():
            path.unlink(missing_ok=True)
        if self.folder.is_dir() and not any(self.folder.iterdir()):
            self.folder.rmdir()


def read_snapshot(path: Path) -> Snapshot:
    """The content of a checkpoint file; ModelFileError if it is damaged."""
    header, tensors = read_container(path, MAGIC, "checkpoint")
    try:
        arrays = [tensors.pop(f"variable/{i}") for i in range(len(header["names"]))]
        states = [dict(state) for state in header["callbacks"]]
        for name, value in tensors.items():
            _, index, key = name.split("/", 2)
            states[int(index)][key] = value
        return Snapshot(Cursor(**header["cursor"]), header["names"], arrays, states)
    except (KeyError, IndexError, TypeError, ValueError) as e:
        raise ModelFileError(f"{path}: the checkpoint cannot be understood: {e!r}") from None


def restore(variables: Sequence[Any], snapshot: Snapshot, path: Path) -> None:
    """Put the arrays back; ModelFileError if the model is another one. Nothing is changed then."""
    if len(variables) != len(snapshot.arrays):
        raise ModelFileError(
            f"{path}: holds {len(snapshot.arrays)} variables, the model has {len(variables)}: "
            "layers, optimizer and metrics must be those of the interrupted run"
        )
    for v, name, array in zip(variables, snapshot.names, snapshot.arrays, strict=True):
        if v.shape != array.shape or v.dtype != array.dtype.name:
            raise ModelFileError(
                f"{path}: {name} has {array.dtype.name}{array.shape}, the model's {v.name} {v.spec}"
            )
    for v, array in zip(variables, snapshot.arrays, strict=True):
        v.assign(array)


class BackupAndRestore(Callback):
    """Save the run while it trains, and continue it exactly after an interruption: fit is called
    the same way again.

    save_freq: "epoch", or a number of steps (then epochs are saved too). keep: how many checkpoints
    stay. delete_checkpoint: remove them when fit has ended. The result of an interrupted and
    resumed run equals that of an undisturbed one bit for bit.
    """

    last = True
    batch_logs = False

    def __init__(
        self,
        backup_dir: str | os.PathLike,
        save_freq: str | int = "epoch",
        delete_checkpoint: bool = True,
        keep: int = 3,
    ):
        super().__init__()
        if save_freq != "epoch" and (not isinstance(save_freq, int) or save_freq < 1):
            raise ArgumentError(f"save_freq={save_freq!r}: expected 'epoch' or a number of steps")
        self.checkpoints = Checkpoints(backup_dir, keep)
        self.save_freq, self.delete_checkpoint = save_freq, delete_checkpoint
        self.run: Any = None  # the training loop; set by it before on_train_begin

    def latest(self) -> tuple[Path, Snapshot] | None:
        """The checkpoint to continue from; the folder is made where there is none."""
        try:
            self.checkpoints.folder.mkdir(parents=True, exist_ok=True)
        except OSError as e:
            raise CacheError(f"{self.checkpoints.folder}: {e.strerror or e}") from None
        return self.checkpoints.latest()

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        if self.save_freq != "epoch" and (batch + 1) % int(self.save_freq) == 0:
            self.save()

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        self.save()

    def save(self) -> None:
        """Save the run as it is now, unless its loss is no longer finite."""
        if self.run.healthy():
            self.checkpoints.save(self.run.steps_done, self.run.snapshot())

    def on_train_end(self, logs: Logs = None) -> None:
        if self.delete_checkpoint:
            self.checkpoints.clear()
