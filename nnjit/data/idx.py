"""IDX files, as MNIST, Fashion-MNIST, KMNIST and EMNIST are published: big-endian, plain or
gzipped.

Bytes 0-1 are zero, byte 2 the type, byte 3 the number of axes, then one uint32 per axis, then the
values.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import IO

import numpy as np

from nnjit.errors import DataError

TYPES = {8: ">u1", 9: ">i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}
MAX_BYTES = 1 << 36
PARTS = {
    "train-images": ("train-images",),
    "train-labels": ("train-labels",),
    "t10k-images": ("t10k-images", "test-images"),
    "t10k-labels": ("t10k-labels", "test-labels"),
}


def find_idx(folder: Path) -> dict[str, Path]:
    """The four files of a folder by part; the two test files may be missing together."""
    names = sorted(p for p in folder.iterdir() if p.is_file() and "ubyte" in p.name)
    found: dict[str, Path] = {}
    for part, stems in PARTS.items():
        hits = [p for p in names if any(stem in p.name for stem in stems)]
        plain = {p.name.removesuffix(".gz") for p in hits}
        if len(plain) > 1:
            raise DataError(
                f"{folder}: several files for {part}: {', '.join(p.name for p in hits)}"
            )
        if hits:
            found[part] = hits[0]
    missing = [part for part in ("train-images", "train-labels") if part not in found]
    missing += [p for p in ("t10k-images", "t10k-labels") if p not in found] if (
        "t10k-images" in found) != ("t10k-labels" in found) else []  # fmt: skip
    if missing:
        kinds = {"images": "idx3-ubyte", "labels": "idx1-ubyte"}
        wanted = ", ".join(f"{m}-{kinds[m.split('-')[1]]}[.gz]" for m in missing)
        raise DataError(f"{folder}: missing {wanted}")
    return found


def read_idx(path: Path) -> np.ndarray:
    """The array in an IDX file, native byte order; DataError names the file and the byte."""
    try:
        with open(path, "rb") as raw:
            zipped = raw.read(2) == b"\x1f\x8b"
        if zipped:
            with gzip.open(path, "rb") as file:
                return _read(file, path)
        with open(path, "rb") as plain:
            return _read(plain, path)
    except (gzip.BadGzipFile, EOFError, zlib.error) as e:
        raise DataError(f"{path}: damaged gzip file: {e}") from None
    except OSError as e:
        raise DataError(f"{path}: cannot be read: {e.strerror or e}") from None


def _read(file: IO[bytes] | gzip.GzipFile, path: Path) -> np.ndarray:
    head = file.read(4)
    if len(head) < 4:
        raise DataError(f"{path}: truncated at byte {len(head)}, inside the magic number")
    if head[:2] != b"\0\0" or head[2] not in TYPES or not 1 <= head[3] <= 8:
        raise DataError(f"{path}: not an IDX file: magic number {head.hex()} at byte 0")
    sizes = file.read(4 * head[3])
    if len(sizes) < 4 * head[3]:
        raise DataError(f"{path}: truncated at byte {4 + len(sizes)}, inside the sizes")
    shape = struct.unpack(f">{head[3]}I", sizes)
    kind = np.dtype(TYPES[head[2]])
    want, start = math.prod(shape) * kind.itemsize, 4 + 4 * head[3]
    if want > MAX_BYTES:
        raise DataError(f"{path}: sizes {shape} at byte 4 ask for {want} bytes")
    data = file.read(want)
    if len(data) < want:
        raise DataError(
            f"{path}: truncated at byte {start + len(data)}: "
            f"shape {shape} needs {start + want} bytes"
        )
    if file.read(1):
        raise DataError(f"{path}: more bytes than shape {shape} needs, from byte {start + want} on")
    return np.frombuffer(data, kind).reshape(shape).astype(kind.newbyteorder("="))
