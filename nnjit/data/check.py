"""Checks of user data, made once per fit, evaluate or predict: DataError says which row is wrong
and what was expected.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from nnjit.errors import DataError
from nnjit.spec import Spec, shape_text

FEW = 256  # elements up to which Python's functions are faster, NumPy's not being in the caches


def as_array(value: Any, name: str) -> np.ndarray:
    """`value` (array, list, pandas or Arrow column, anything with __array__) as a numeric array,
    not copied if possible.
    """
    try:
        array = np.asarray(value)
    except ValueError as e:
        raise DataError(f"{name}: rows of different lengths or types ({e})") from None
    if array.dtype == object or array.dtype.kind not in "biuf":
        what = "Python objects" if array.dtype == object else f"dtype {array.dtype}"
        raise DataError(f"{name}: holds {what}; expected numbers in an array of one shape")
    if array.dtype == np.float16 or array.dtype.itemsize > 8:
        array = array.astype(np.float32 if array.dtype == np.float16 else np.float64)
    if array.ndim == 0:
        raise DataError(f"{name}: a single number; expected an array with one row per sample")
    return array


def check_lengths(arrays: Mapping[str, np.ndarray | None]) -> int:
    """The common number of rows of named arrays (None is skipped); DataError when they differ or
    are zero.
    """
    sizes = {name: len(a) for name, a in arrays.items() if a is not None}
    if len(set(sizes.values())) > 1:
        raise DataError(
            "different numbers of rows: " + ", ".join(f"{k} {n}" for k, n in sizes.items())
        )
    rows = next(iter(sizes.values()), 0)
    if rows == 0:
        raise DataError(f"{', '.join(sizes) or 'data'}: no rows")
    return rows


def check_labels(labels: np.ndarray, classes: int, name: str = "y") -> None:
    """DataError unless every label is a whole number from 0 to classes - 1; names the first bad row
    and its label.
    """
    if labels.dtype.kind == "f":
        bad = np.flatnonzero(labels.ravel() != np.floor(labels.ravel()))
        if bad.size:
            row, value = _row(labels, bad[0])
            raise DataError(
                f"{name}: row {row} has label {value}; expected whole numbers 0 to {classes - 1}"
            )
    if labels.size and not _within(labels, classes):
        bad = np.flatnonzero((labels.ravel() < 0) | (labels.ravel() >= classes))
        row, value = _row(labels, bad[0])
        more = f" ({bad.size} such labels)" if bad.size > 1 else ""
        raise DataError(
            f"{name}: row {row} has label {value:g}; the model has {classes} outputs, "
            f"so labels go from 0 to {classes - 1}{more}"
        )


def _within(labels: np.ndarray, classes: int) -> bool:
    """Whether all are from 0 to classes - 1."""
    if labels.size <= FEW:
        values = labels.ravel().tolist()
        return min(values) >= 0 and max(values) < classes
    if labels.dtype.kind == "i":  # read as unsigned, what is below 0 is very large
        return bool(labels.view(f"u{labels.dtype.itemsize}").max() < classes)
    return bool(labels.min() >= 0 and labels.max() < classes)


def check_binary(labels: np.ndarray, name: str = "y") -> None:
    """DataError unless every label lies between 0 and 1, as binary cross-entropy needs it."""
    if labels.size and (labels.min() < 0 or labels.max() > 1):
        row, value = _row(labels, np.flatnonzero((labels.ravel() < 0) | (labels.ravel() > 1))[0])
        raise DataError(
            f"{name}: row {row} has label {value:g}; binary cross-entropy takes labels from 0 to 1"
        )


def _row(array: np.ndarray, flat: int) -> tuple[int, float]:
    return int(np.unravel_index(flat, array.shape)[0]), array.ravel()[flat].item()


def check_rows(array: np.ndarray, spec: Spec, name: str) -> None:
    """DataError unless rows of `array` fit `spec` (its axis 0 is the batch); names the model's
    input and both shapes.
    """
    want = spec.shape
    fits = array.ndim == len(want) and all(
        w == g for w, g in zip(want[1:], array.shape[1:], strict=True) if isinstance(w, int)
    )
    if not fits:
        hint = ""
        if array.ndim + 1 == len(want) and want[-1] == 1:
            hint = "; add the channel axis: x[..., None]"
        elif array.shape == tuple(want[1:]):
            hint = "; for one sample give x[None]"
        raise DataError(
            f"{name}: expected shape {shape_text(want)}, got {shape_text(array.shape)}{hint}"
        )


def first_nonfinite(array: np.ndarray) -> int | None:
    """The first row with NaN or infinity, if any; a sum that is finite has neither in it."""
    if array.dtype.kind != "f" or array.size == 0:
        return None
    # einsum adds three times as fast as sum does, and never warns of inf - inf
    if math.isfinite(np.einsum("i->", array.ravel("K"))):
        return None
    found = np.argwhere(~np.isfinite(array))
    return int(found[0][0]) if len(found) else None


def check_finite(array: np.ndarray, name: str) -> None:
    """DataError naming the first row with NaN or infinity."""
    row = first_nonfinite(array)
    if row is not None:
        raise DataError(f"{name}: row {row} holds NaN or infinity")


def warn_nonfinite(array: np.ndarray, name: str) -> None:
    """One warning if a float array holds NaN or infinity."""
    row = first_nonfinite(array)
    if row is not None:
        warnings.warn(
            f"{name}: NaN or infinity in row {row}; the loss may become NaN", stacklevel=4
        )
