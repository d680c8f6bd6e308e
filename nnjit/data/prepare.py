"""Preparation: splits by a seed, and scaling that is fitted on the training part alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from nnjit.data.order import permutation
from nnjit.data.sources import Dataset
from nnjit.errors import ArgumentError, DataError, lookup, nearest

SPLIT_STREAM = 2**63  # an "epoch" that training never reaches


@dataclass(frozen=True)
class Scaling:
    """x -> (x - offset) * factor in float32; offset, factor: a number or one value per feature."""

    kind: str
    offset: Any = 0.0
    factor: Any = 1.0

    def apply(self, x: np.ndarray) -> np.ndarray:
        """Scaled rows, float32 (float64 stays)."""
        dtype = np.float64 if x.dtype == np.float64 else np.float32
        if self.kind == "none":
            return x
        return (x.astype(dtype) - np.asarray(self.offset, dtype)) * np.asarray(self.factor, dtype)

    def get_config(self) -> dict:
        """Plain numbers and lists, for a model file or a run folder."""
        return {"kind": self.kind, "offset": np.asarray(self.offset).tolist(),
                "factor": np.asarray(self.factor).tolist()}  # fmt: skip

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Scaling:
        lookup("scaling", config["kind"], SCALINGS)
        return cls(config["kind"], np.asarray(config["offset"]), np.asarray(config["factor"]))


def _none(x: np.ndarray, full_scale: float | None) -> Scaling:
    return Scaling("none")


def _unit(x: np.ndarray, full_scale: float | None) -> Scaling:
    top = float(full_scale if full_scale is not None else np.abs(x).max())
    if not np.isfinite(top):
        raise DataError("scaling 'unit': the training part holds NaN or infinity")
    return Scaling("unit", 0.0, 1.0 / top if top else 1.0)


def _standard(x: np.ndarray, full_scale: float | None) -> Scaling:
    mean = x.mean(axis=0, dtype=np.float64)
    deviation = x.std(axis=0, dtype=np.float64)
    if not (np.isfinite(mean).all() and np.isfinite(deviation).all()):
        raise DataError("scaling 'standard': the training part holds NaN or infinity")
    # a feature that never changes carries nothing: it becomes 0 instead of being divided by 0
    return Scaling("standard", mean, 1.0 / np.where(deviation > 1e-12, deviation, 1.0))


SCALINGS = {"none": _none, "unit": _unit, "standard": _standard}


def fit_scaling(kind: str, x_train: np.ndarray, full_scale: float | None = None) -> Scaling:
    """Scaling fitted on the training rows: "none", "unit" (divide by full_scale, else by the
    largest absolute value), "standard" (per feature: mean 0, deviation 1)."""
    return lookup("scaling", kind, SCALINGS)(x_train, full_scale)


@dataclass(frozen=True, eq=False)
class Splits:
    """The three parts; validation and test are None where they are empty."""

    x_train: np.ndarray
    y_train: np.ndarray | None
    x_validation: np.ndarray | None = None
    y_validation: np.ndarray | None = None
    x_test: np.ndarray | None = None
    y_test: np.ndarray | None = None


def split(
    data: Dataset,
    method: str = "random",
    validation: float | int = 0.1,
    test: float | int | None = None,
    seed: int = 0,
) -> Splits:
    """Train, validation and test parts.

    method: "random"; "stratified" (each class keeps its share); "fixed" (in the order of the rows:
    train first, then validation, then test). validation, test: a fraction (float below 1) or a
    number of rows (int). test=None: the published test set if there is one, else 0.1; a data set
    with a published test set takes no other.
    """
    if method not in METHODS:
        raise ArgumentError(f"unknown split {method!r}{nearest(method, METHODS)}")
    published = data.x_test is not None
    if published and test:
        raise ArgumentError(f"test={test!r}: {data.name} has a published test set; leave test out")
    rows = len(data.x)
    n_test = 0 if published else _count("test", 0.1 if test is None else test, rows)
    n_validation = _count("validation", validation, rows)
    if n_test + n_validation >= rows:
        raise DataError(
            f"{data.name}: {rows} rows cannot give {n_validation} for validation and "
            f"{n_test} for test "
            "and leave some to train on"
        )
    train, held, tested = METHODS[method](data, n_validation, n_test, seed)
    x, y = data.x, data.y

    def rows_of(index):
        return (x[index], None if y is None else y[index]) if len(index) else (None, None)

    parts = (*rows_of(train), *rows_of(held), *rows_of(tested))
    if published:
        parts = (*parts[:4], data.x_test, data.y_test)
    return Splits(*parts)  # type: ignore[arg-type]


def _count(name: str, amount: float | int, rows: int) -> int:
    if isinstance(amount, bool) or amount < 0 or (isinstance(amount, float) and amount >= 1):
        raise ArgumentError(
            f"{name}={amount!r}: expected a fraction from 0 up to 1, or a number of rows"
        )
    return round(amount * rows) if isinstance(amount, float) else int(amount)


Parts = tuple[np.ndarray, np.ndarray, np.ndarray]


def _cut(order: np.ndarray, n_validation: int, n_test: int) -> Parts:
    n_train = len(order) - n_validation - n_test
    return order[:n_train], order[n_train : n_train + n_validation], order[n_train + n_validation :]


def _fixed(data: Dataset, n_validation: int, n_test: int, seed: int) -> Parts:
    return _cut(np.arange(len(data.x)), n_validation, n_test)


def _random(data: Dataset, n_validation: int, n_test: int, seed: int) -> Parts:
    return _cut(permutation(len(data.x), seed, SPLIT_STREAM), n_validation, n_test)


def _stratified(data: Dataset, n_validation: int, n_test: int, seed: int) -> Parts:
    y = data.y
    if y is None or y.ndim != 1:
        raise DataError(f"{data.name}: a stratified split needs one label per row")
    order = permutation(len(y), seed, SPLIT_STREAM)
    values, counts = np.unique(y, return_counts=True)
    held = _shares(counts, n_validation)
    tested = _shares(counts - held, n_test)
    parts: tuple[list, list, list] = ([], [], [])
    for value, count, h, t in zip(values, counts, held, tested, strict=True):
        if count - h - t < 1 or (n_validation and h < 1) or (n_test and t < 1):
            raise DataError(
                f"{data.name}: class {value} has {count} row(s), too few for a stratified split "
                f"into "
                f"{n_validation} validation and {n_test} test rows"
            )
        for part, index in zip(parts, _cut(order[y[order] == value], h, t), strict=True):
            part.append(index)
    rank = np.argsort(order)  # rows of all classes go back to the shuffled order
    a, b, c = (np.concatenate(p) for p in parts)
    return a[np.argsort(rank[a])], b[np.argsort(rank[b])], c[np.argsort(rank[c])]


def _shares(counts: np.ndarray, total: int) -> np.ndarray:
    """`total` shared out by counts, largest remainders first."""
    exact = counts * (total / counts.sum())
    out = np.floor(exact).astype(np.int64)
    for i in np.argsort(-(exact - out), kind="stable")[: total - out.sum()]:
        out[i] += 1
    return out


METHODS = {"random": _random, "stratified": _stratified, "fixed": _fixed}
