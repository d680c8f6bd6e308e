"""One file for model files and checkpoints: magic, header (JSON), tensors (safetensors), checksum
over everything.

    8 bytes   magic, which names the kind of file and the version of this layout
    8 bytes   length of the header, little-endian
    header    JSON, UTF-8
    tensors   a safetensors file
    16 bytes  xxh3-128 of all bytes before

Files are replaced atomically and synced, so a reader sees the old file or the new one. Reading runs
no code from the file; anything that is not exactly what was written is a ModelFileError in one
line. safetensors alone would not notice a flipped bit: hence the checksum.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nnjit.atomic import write_atomic
from nnjit.errors import ModelFileError

DIGEST = 16
HEAD = struct.Struct("<8sQ")


def write_container(
    path: str | os.PathLike,
    magic: bytes,
    header: Mapping[str, Any],
    tensors: Mapping[str, np.ndarray],
) -> int:
    """Write the file and return its size in bytes; ModelFileError if that cannot be done."""
    data = pack(magic, header, tensors)
    try:
        write_atomic(path, data)
    except OSError as e:
        raise ModelFileError(f"{path}: cannot be written: {e.strerror or e}") from None
    return len(data)


def pack(magic: bytes, header: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> bytes:
    """The bytes of such a file."""
    import safetensors.numpy
    import xxhash

    text = json.dumps(header, separators=(",", ":")).encode()
    arrays = {k: np.ascontiguousarray(v).reshape(np.shape(v)) for k, v in tensors.items()}
    body = HEAD.pack(magic, len(text)) + text + safetensors.numpy.save(arrays)
    return body + xxhash.xxh3_128_digest(body)


def read_container(
    path: str | os.PathLike, magic: bytes, kind: str
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Header and tensors of a file, checksum verified. kind: "model file" or "checkpoint", for the
    messages.
    """
    import safetensors
    import safetensors.numpy
    import xxhash

    try:
        data = Path(path).read_bytes()
    except FileNotFoundError:
        raise ModelFileError(f"{path}: no such {kind}") from None
    except OSError as e:
        raise ModelFileError(f"{path}: cannot be read: {e.strerror or e}") from None
    if data[:5] != magic[:5]:
        raise ModelFileError(f"{path}: not a {kind} of nnjit")
    if data[:8] != magic:
        raise ModelFileError(
            f"{path}: begins with {data[:8]!r}, expected {magic!r}: "
            f"not a {kind}, or of another version"
        )
    if len(data) < HEAD.size + DIGEST or xxhash.xxh3_128_digest(data[:-DIGEST]) != data[-DIGEST:]:
        raise ModelFileError(f"{path}: the {kind} is truncated or damaged (its checksum differs)")
    length = HEAD.unpack_from(data)[1]
    try:
        header = json.loads(data[HEAD.size : HEAD.size + length])
        tensors = safetensors.numpy.load(data[HEAD.size + length : -DIGEST])
    except (ValueError, safetensors.SafetensorError) as e:
        raise ModelFileError(f"{path}: the {kind} cannot be understood: {e}") from None
    return header, tensors
