"""[data] to arrays: the source, the wanted classes, the split, the scaling."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from nnjit.data.prepare import Scaling, Splits, fit_scaling, split
from nnjit.data.sources import Dataset, load_source
from nnjit.errors import ConfigError, DataError, ShapeError
from nnjit.runconfig.schema import Config, Data
from nnjit.spec import shape_text, symbol

PARTS = ("train", "validation", "test")


@dataclass(frozen=True, eq=False)
class Preparation:
    """How rows of a source become rows that the model reads; kept in the run folder."""

    scaling: Scaling
    sample_shape: tuple[int, ...]
    classes: tuple[str, ...] = ()

    def apply(self, x: np.ndarray, name: str) -> np.ndarray:
        """Scaled rows of the model's sample shape; DataError names `name` and both shapes."""
        return self.scaling.apply(self.shaped(x, name))

    def shaped(self, x: np.ndarray, name: str) -> np.ndarray:
        if x.shape[1:] == self.sample_shape:
            return x
        if x.ndim and np.prod(x.shape[1:], dtype=np.int64) == np.prod(self.sample_shape):
            return x.reshape(len(x), *self.sample_shape)
        want = shape_text((symbol("samples"), *self.sample_shape))
        raise DataError(f"{name}: expected shape {want}, got {shape_text(x.shape)}")

    def get_config(self) -> dict:
        return {
            "scaling": self.scaling.get_config(),
            "sample_shape": list(self.sample_shape),
            "classes": list(self.classes),
        }

    @classmethod
    def from_config(cls, config: dict) -> Preparation:
        scaling = Scaling.from_config(config["scaling"])
        return cls(scaling, tuple(config["sample_shape"]), tuple(config["classes"]))


@dataclass(frozen=True, eq=False)
class Prepared:
    """The parts of a data set, ready for a model."""

    splits: Splits
    preparation: Preparation

    def part(self, name: str) -> tuple[np.ndarray, np.ndarray | None]:
        """(x, y) of "train", "validation" or "test"; DataError where the part is empty."""
        x, y = getattr(self.splits, f"x_{name}"), getattr(self.splits, f"y_{name}")
        if x is None:
            raise DataError(f"the {name} part is empty: data.{name} is 0 in the configuration")
        return x, y


def source_of(data: Data) -> Dataset:
    """The raw arrays of data.source."""
    path = Path(data.source)
    keys = {k: v for k, v in (("x", data.x), ("y", data.y)) if v is not None}
    if data.source != "digits" and not path.is_dir():
        return load_source("npz", path=path, **keys)
    if keys:
        raise ConfigError(f"data.{next(iter(keys))}: goes with an .npz source, not {data.source!r}")
    return load_source("digits") if data.source == "digits" else load_source("idx", path=path)


def select_classes(data: Dataset, classes: list[int]) -> Dataset:
    """The rows with these labels, as labels 0, 1, … in this order."""
    if data.y is None or data.y.ndim != 1 or data.y.dtype.kind not in "iu":
        raise DataError(f"{data.name}: data.classes needs one whole-number label per row")
    absent = [c for c in classes if not (data.y == c).any()]
    if absent:
        has = np.unique(data.y).tolist()
        raise DataError(f"{data.name}: no row has label {absent[0]}; its labels are {has}")
    x, y = _rows(data.x, data.y, classes)
    x_test, y_test = data.x_test, data.y_test
    if x_test is not None and y_test is not None:
        x_test, y_test = _rows(x_test, y_test, classes)
    names = tuple(data.classes[c] for c in classes) if data.classes else tuple(map(str, classes))
    return replace(data, x=x, y=y, x_test=x_test, y_test=y_test, classes=names)


def _rows(x: np.ndarray, y: np.ndarray, classes: list[int]) -> tuple[np.ndarray, np.ndarray]:
    number = {c: i for i, c in enumerate(classes)}
    keep = np.isin(y, classes)
    return x[keep], np.array([number[v] for v in y[keep].tolist()], np.int32)


def sample_shape(config: Config, data: Dataset) -> tuple[int, ...]:
    """The shape of one sample: model.input_shape, else the data's, images with a channel axis."""
    own = data.x.shape[1:]
    if config.model.input_shape is not None:
        want = tuple(config.model.input_shape)
        if np.prod(want) != np.prod(own):
            raise ShapeError(
                f"model.input_shape = {list(want)}: samples of {data.name} are {shape_text(own)}"
            )
        return want
    images = config.data.channels
    if images is None:
        images = not data.name.endswith(".npz") and len(own) == 2
    if images and len(own) == 2:
        return (*own, 1)
    return own


def prepare_data(config: Config) -> Prepared:
    """Load, select, split and scale as [data] says. The scaling is fitted on the training part."""
    settings = config.data
    data = source_of(settings)
    if settings.classes:
        data = select_classes(data, settings.classes)
    seed = config.seed if settings.seed is None else settings.seed
    shape = sample_shape(config, data)
    raw = split(data, settings.split, settings.validation, settings.test, seed)
    shapes = Preparation(Scaling("none"), shape, data.classes)
    x_train = shapes.shaped(raw.x_train, f"{data.name}: train")
    fitted = fit_scaling(settings.scaling, x_train, data.full_scale)
    preparation = replace(shapes, scaling=fitted)

    def ready(x: np.ndarray | None, part: str) -> np.ndarray | None:
        return None if x is None else preparation.apply(x, f"{data.name}: {part}")

    splits = replace(
        raw,
        x_train=fitted.apply(x_train),
        x_validation=ready(raw.x_validation, "validation"),
        x_test=ready(raw.x_test, "test"),
    )
    return Prepared(splits, preparation)


def filled_in(config: Config, prepared: Prepared) -> Config:
    """The configuration with what the data decided: split seed and sample shape."""
    seed = config.seed if config.data.seed is None else config.data.seed
    shape = list(prepared.preparation.sample_shape)
    return config.model_copy(
        update={
            "data": config.data.model_copy(update={"seed": seed}),
            "model": config.model.model_copy(update={"input_shape": shape}),
        }
    )
