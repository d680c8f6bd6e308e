"""Sources: files and arrays to a Dataset. Every failure is a DataError that names the file and the
row or byte.

Kinds: "digits" (embedded), "npz" (NumPy archive), "idx" (a folder with MNIST's four files, gzipped
or not), "arrays". No pickle is ever read.
"""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nnjit.data.check import as_array, check_lengths
from nnjit.data.idx import find_idx, read_idx
from nnjit.errors import ArgumentError, DataError, lookup, nearest


@dataclass(frozen=True, eq=False)
class Dataset:
    """Arrays with one row per sample; y is None where there are no targets.

    x_test, y_test: the published test set, if the source has one. classes: names of the labels, or
    (). full_scale: the largest value a feature can have (255 for uint8 images), None if unknown.
    """

    x: np.ndarray
    y: np.ndarray | None = None
    x_test: np.ndarray | None = None
    y_test: np.ndarray | None = None
    classes: tuple[str, ...] = ()
    full_scale: float | None = None
    name: str = "data"

    def __post_init__(self) -> None:
        check_lengths({f"{self.name}: x": self.x, "y": self.y})
        if self.y is not None and (self.x_test is None) != (self.y_test is None):
            given, missing = ("x_test", "y_test") if self.y_test is None else ("y_test", "x_test")
            raise DataError(f"{self.name}: has {given}, but no {missing}")
        if self.x_test is not None:
            check_lengths({f"{self.name}: x_test": self.x_test, "y_test": self.y_test})
            if self.x_test.shape[1:] != self.x.shape[1:]:
                raise DataError(
                    f"{self.name}: rows of x have shape {self.x.shape[1:]}, "
                    f"of x_test {self.x_test.shape[1:]}"
                )

    def __len__(self) -> int:
        return len(self.x)


def _digits() -> Dataset:
    path = Path(__file__).with_name("digits.npz")
    with np.load(path, allow_pickle=False) as file:
        x, y = file["x"], file["y"]
    return Dataset(x, y, classes=tuple("0123456789"), full_scale=16.0, name="digits")


def _arrays(
    x: Any, y: Any = None, x_test: Any = None, y_test: Any = None, classes: Any = ()
) -> Dataset:
    features = as_array(x, "x")
    given = {"y": y, "x_test": x_test, "y_test": y_test}
    others = {k: None if v is None else as_array(v, k) for k, v in given.items()}
    return Dataset(
        features, classes=tuple(classes), full_scale=_full_scale(features), name="arrays", **others
    )


def _full_scale(x: np.ndarray) -> float | None:
    return 255.0 if x.dtype == np.uint8 else None


def _npz(path: str | os.PathLike, x: str | None = None, y: str | None = None) -> Dataset:
    """x, y: the keys, by default "x" and "y" or "x_train" and "y_train" ("x_test", "y_test" beside
    them).
    """
    file = Path(path).expanduser()
    arrays = _read_npz(file)
    x_key = _key(file, arrays, x, ("x", "x_train"), required=True)
    y_key = _key(file, arrays, y, ("y", "y_train"), required=False)
    assert x_key is not None
    return Dataset(
        arrays[x_key],
        None if y_key is None else arrays[y_key],
        arrays.get("x_test"),
        arrays.get("y_test"),
        full_scale=_full_scale(arrays[x_key]),
        name=str(file),
    )


def _read_npz(file: Path) -> dict[str, np.ndarray]:
    key = ""
    try:
        # an open file of our own: np.load leaves it open when the archive is damaged
        with open(file, "rb") as raw:
            archive = np.load(raw, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise DataError(f"{file}: one array (.npy); expected an .npz archive with x and y")
            out = {}
            for key in archive.files:
                out[key] = as_array(archive[key], f"{file}: {key!r}")
            return out
    except FileNotFoundError:
        raise DataError(f"{file}: no such file") from None
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as e:
        if isinstance(e, DataError):
            raise
        if "allow_pickle" in str(e):
            where = (
                f"{key!r} holds Python objects, which"
                if key
                else "not a NumPy archive, or pickled, which"
            )
            raise DataError(f"{file}: {where} nnjit does not read; save plain numbers") from None
        where = f" at {key!r}" if key else ""
        raise DataError(f"{file}: not a readable .npz archive{where}: {e}") from None


def _key(
    file: Path, arrays: dict, wanted: str | None, usual: tuple[str, ...], required: bool
) -> str | None:
    if wanted is not None:
        if wanted not in arrays:
            raise DataError(f"{file}: no array {wanted!r}{nearest(wanted, arrays)}")
        return wanted
    found = next((k for k in usual if k in arrays), None)
    if found is None and required:
        raise DataError(
            f"{file}: no array {' or '.join(map(repr, usual))}; "
            f"it has {', '.join(sorted(arrays)) or 'none'}"
        )
    return found


def _idx(path: str | os.PathLike) -> Dataset:
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; expected one with MNIST's IDX files")
    files = find_idx(folder)
    arrays = {part: read_idx(file) for part, file in files.items()}
    for part in ("train", "t10k"):
        images, labels = arrays.get(f"{part}-images"), arrays.get(f"{part}-labels")
        if images is not None and labels is not None and len(images) != len(labels):
            raise DataError(
                f"{files[f'{part}-images']}: {len(images)} images, but "
                f"{files[f'{part}-labels']}: {len(labels)} labels"
            )
    x, y = arrays["train-images"], arrays["train-labels"]
    classes = (
        tuple(str(i) for i in range(int(y.max()) + 1)) if y.size and y.dtype.kind in "iu" else ()
    )
    return Dataset(
        x,
        y,
        arrays.get("t10k-images"),
        arrays.get("t10k-labels"),
        classes,
        _full_scale(x),
        str(folder),
    )


SOURCES: dict[str, Callable[..., Dataset]] = {
    "digits": _digits,
    "npz": _npz,
    "idx": _idx,
    "arrays": _arrays,
}


def load_source(kind: str, **options: Any) -> Dataset:
    """The Dataset of a source: "digits", "npz" (path, x, y), "idx" (path of a folder), "arrays" (x,
    y, x_test, y_test).
    """
    name = str(kind).lstrip(".")
    source = lookup("data source", name, SOURCES)
    code = source.__code__  # type: ignore[attr-defined]
    known = code.co_varnames[: code.co_argcount]
    for option in options:
        if option not in known:
            hint = nearest(option, known) if known else "; it takes none"
            raise ArgumentError(f"data source {name!r} has no option {option!r}{hint}")
    if known and known[0] not in options:
        raise ArgumentError(f"data source {name!r} needs the option {known[0]!r}")
    return source(**options)
