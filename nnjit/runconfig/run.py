"""A whole run: data, model, training with checkpoints, the final model, and its held-out score."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nnjit.errors import ConfigError
from nnjit.models import Model
from nnjit.runconfig import tables
from nnjit.runconfig.building import build_model, compile_model
from nnjit.runconfig.data import PARTS, Prepared, filled_in, prepare_data
from nnjit.runconfig.files import write_file
from nnjit.runconfig.folder import RunFolder, is_run
from nnjit.runconfig.reading import read_config
from nnjit.runconfig.schema import Config
from nnjit.saving import load_model
from nnjit.training.callbacks import Callback, EarlyStopping
from nnjit.training.checkpoint import BackupAndRestore
from nnjit.training.feeds import feed
from nnjit.training.loggers import JSONLogger, ModelCheckpoint
from nnjit.training.progress import metrics_text


@dataclass(frozen=True)
class Result:
    """What a run came to. held_out: metrics on the test part, else on validation (`part` says)."""

    folder: RunFolder
    epochs: int
    history: dict[str, list[float]]
    part: str | None
    held_out: dict[str, float]
    samples: int


class RunLog(Callback):
    """Writes the run's log.txt."""

    def __init__(self, folder: RunFolder):
        super().__init__()
        self.folder = folder

    def on_train_begin(self, logs: dict | None = None) -> None:
        self.folder.log("training starts")

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        self.folder.log(f"epoch {epoch + 1}: {metrics_text(logs or {})}")

    def on_train_end(self, logs: dict | None = None) -> None:
        self.folder.log("training ends")


def train_run(config: Config, folder: RunFolder, verbose: Any = "auto") -> Result:
    """Train as the configuration says, from the folder's newest checkpoint if it has one.

    Nothing is written before data and model are known to be right.
    """
    resumed = is_run(folder.path)
    if resumed:
        config = same_run(config, folder)
    prepared = prepare_data(config)
    model = build_model(config, prepared.preparation.sample_shape)
    compile_model(model, config)
    for part in PARTS:
        if _has(prepared, part):
            feed(model, *prepared.part(part), where=f"data, {part} part: ")
    if not resumed:
        config = _keep_base(filled_in(config, prepared), folder)
        folder.write_start(config, prepared.preparation)
    history = _fit(model, config, folder, prepared, verbose)
    model.save(folder.model)
    result = Result(folder, len(history.epoch), history.history, None, {}, 0)
    for part in ("test", "validation"):
        if _has(prepared, part):
            held_out, samples = evaluate_part(model, config, prepared, part)
            folder.log(f"{part}: {metrics_text(held_out)} ({samples} samples)")
            return replace(result, part=part, held_out=held_out, samples=samples)
    return result


def _fit(model: Model, config: Config, folder: RunFolder, prepared: Prepared, verbose: Any) -> Any:
    train = config.train
    x, y = prepared.part("train")
    held = prepared.part("validation") if _has(prepared, "validation") else None
    monitor = train.monitor or ("val_loss" if held else "loss")
    callbacks: list[Callback] = [tables.make("callback", table) for table in train.callbacks]
    if train.early_stopping is not None:
        callbacks.append(EarlyStopping(**train.early_stopping.model_dump()))
    best = str(folder.best).replace("{", "{{").replace("}", "}}")
    callbacks += [
        ModelCheckpoint(best, monitor=monitor, save_best_only=True),
        JSONLogger(folder.metrics),
        RunLog(folder),
        BackupAndRestore(folder.checkpoints, train.save_freq(), False, train.keep),
    ]
    return model.fit(
        x, y, batch_size=train.batch_size, epochs=train.epochs, validation_data=held,
        shuffle=train.shuffle, callbacks=callbacks, verbose=verbose,
    )  # fmt: skip


def _has(prepared: Prepared, part: str) -> bool:
    return getattr(prepared.splits, f"x_{part}") is not None


def evaluate_part(
    model: Model, config: Config, prepared: Prepared, part: str
) -> tuple[dict[str, float], int]:
    """(loss and metrics, samples) of "train", "validation" or "test"."""
    if part not in PARTS:
        raise ConfigError(f"data part {part!r}: expected one of {', '.join(PARTS)}")
    x, y = prepared.part(part)
    size = config.train.batch_size
    values = model.evaluate(x, y, batch_size=size, verbose=0, return_dict=True)
    return {k: float(v) for k, v in values.items()}, len(x)


def _keep_base(config: Config, folder: RunFolder) -> Config:
    """A copy of the model that the run starts from, so that the run can be resumed without it."""
    if config.model.base is None:
        return config
    base = Path(config.model.base)
    folder.make()
    data = (RunFolder(base).model if is_run(base) else base).read_bytes()
    write_file(str(folder.base), data)
    model = config.model.model_copy(update={"base": folder.base.name})  # the folder may move
    return config.model_copy(update={"model": model})


def same_run(config: Config, folder: RunFolder) -> Config:
    """The stored configuration of a run to resume; only the number of epochs may differ."""
    stored, _ = read_config(folder.config)
    mine, theirs = _flat(config.model_dump()), _flat(stored.model_dump())
    decided = ("data.seed", "model.input_shape", "model.base", "train.epochs")
    for key in sorted(set(mine) | set(theirs)):
        if mine.get(key) != theirs.get(key) and key not in decided:
            raise ConfigError(
                f"run folder {folder.path}: was started with {key} = {theirs.get(key)!r}, now it "
                f"is {mine.get(key)!r}; resume with the same, or give another folder"
            )
    epochs = max(config.train.epochs, 1)
    return stored.model_copy(update={"train": stored.train.model_copy(update={"epochs": epochs})})


def _flat(values: Any, at: str = "") -> dict[str, Any]:
    """Nested tables, and lists of tables, by dotted path."""
    pairs = values.items() if isinstance(values, dict) else enumerate(values)
    out: dict[str, Any] = {}
    for key, value in pairs:
        path = f"{at}.{key}" if at else str(key)
        tables_inside = isinstance(value, list) and any(isinstance(v, dict) for v in value)
        if (isinstance(value, dict) and value) or tables_inside:
            out.update(_flat(value, path))
        else:
            out[path] = value
    return out


@dataclass(frozen=True)
class Opened:
    """A finished (or checkpointed) run, read back."""

    config: Config
    folder: RunFolder
    model: Model


def open_run(path: str, best: bool = False, device: str | None = None) -> Opened:
    """The configuration and the trained model of a run folder; ConfigError where it has none.

    The data need not be where it was: `predict` works without.
    """
    folder = RunFolder(Path(path))
    if not folder.path.is_dir():
        raise ConfigError(f"{path}: no such run folder")
    if not is_run(path):
        raise ConfigError(f"{path}: not a run folder: it has no config.toml")
    options = [("--device", ("device",), device)] if device else []
    config, _ = read_config(folder.config, (), options, must_exist=False)
    file = folder.best if best else folder.model
    if not file.is_file():
        raise ConfigError(f"{file}: no such file: the run has not ended (train --resume ends it)")
    if config.model.builder:  # its layers may be the user's own: only the builder knows them
        model = build_model(config, folder.preparation().sample_shape)
        model.load_weights(file)
    else:
        model = load_model(file, compile=False)
    compile_model(model, config)
    return Opened(config, folder, model)
