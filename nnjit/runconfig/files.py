"""Samples from files and predictions into files (.npy, .npz, .csv), replaced atomically."""

from __future__ import annotations

import io
import zipfile
import zlib
from pathlib import Path

import numpy as np

from nnjit.atomic import write_atomic
from nnjit.data.check import as_array
from nnjit.errors import CacheError, ConfigError, DataError, nearest

INPUTS = (".npy", ".npz")
OUTPUTS = (".npy", ".npz", ".csv")


def read_samples(file: str) -> np.ndarray:
    """The array of a .npy, or "x" (or the only array) of an .npz; DataError names the file."""
    path = Path(file)
    suffix_of(path, INPUTS, "--input")
    try:
        with np.errstate(all="ignore"):
            found = np.load(path, allow_pickle=False)
        if isinstance(found, np.ndarray):
            return as_array(found, str(path))
        with found as archive:
            names = archive.files
            key = names[0] if len(names) == 1 else "x"
            if key not in names:
                raise DataError(
                    f"{path}: no array 'x'; it has {', '.join(sorted(names)) or 'none'}"
                )
            return as_array(archive[key], f"{path}: {key!r}")
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as e:
        if isinstance(e, DataError):
            raise
        raise DataError(f"{path}: not a readable NumPy file: {e}") from None


def suffix_of(path: Path, options: tuple[str, ...], name: str) -> str:
    """The file's suffix; ConfigError names the option where it is none of these."""
    if path.suffix not in options:
        raise ConfigError(f"{name} {path}: suffix {path.suffix!r}{nearest(path.suffix, options)}")
    return path.suffix


def write_predictions(file: str, values: np.ndarray, classes: tuple[str, ...]) -> None:
    """A row per sample. .csv has a header, and the likeliest class where classes are known."""
    path = Path(file)
    suffix = suffix_of(path, OUTPUTS, "--output")
    buffer = io.BytesIO()
    if suffix == ".npy":
        np.save(buffer, values)
    elif suffix == ".npz":
        np.savez(buffer, predictions=values)
    else:
        buffer.write(_csv(values, classes).encode())
    write_file(file, buffer.getvalue())


def write_file(file: str, data: bytes) -> None:
    """Replace a file as a whole; CacheError names it where that cannot be."""
    try:
        write_atomic(file, data)
    except OSError as e:
        raise CacheError(f"{file}: cannot be written: {(e.strerror or str(e)).lower()}") from None


def _csv(values: np.ndarray, classes: tuple[str, ...]) -> str:
    rows = values.reshape(len(values), -1)
    named = len(classes) == rows.shape[1]
    head = list(classes) if named else [f"output_{i}" for i in range(rows.shape[1])]
    lines = [",".join(["class", *head] if named else head)]
    for row in rows.tolist():
        cells = [f"{v:.9g}" for v in row]
        lines.append(",".join([classes[int(np.argmax(row))], *cells] if named else cells))
    return "\n".join(lines) + "\n"
