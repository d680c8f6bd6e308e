"""Writing files so that readers and crashes see the old content or the new one, never a mixture."""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from pathlib import Path

_counter = itertools.count()
_SUFFIX = ".partial"


def write_atomic(path: str | os.PathLike, data: bytes, *, durable: bool = True) -> None:
    """Replace `path` by a file that holds `data`, creating its folder where it is missing.

    durable: the bytes and the name survive a power cut (fsync of file and folder); False suits
    files that can be made again and carry a checksum. Raises OSError; the old file is then
    untouched and no temporary file is left.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temp = path.parent / f".{path.name}.{os.getpid()}.{next(_counter)}{_SUFFIX}"
    try:
        with open(temp, "wb") as file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temp, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temp.unlink()
        raise
    if durable:
        _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Make a rename in `folder` durable; systems that cannot open folders need nothing."""
    with contextlib.suppress(PermissionError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def sweep(folder: str | os.PathLike, older_than: float = 3600.0) -> int:
    """Delete what writes left in `folder` more than `older_than` seconds ago; how many."""
    removed = 0
    try:
        entries = list(os.scandir(Path(folder)))
    except FileNotFoundError:
        return 0
    for entry in entries:
        if not (entry.name.startswith(".") and entry.name.endswith(_SUFFIX)):
            continue
        with contextlib.suppress(OSError):  # another process may sweep at the same time
            if time.time() - entry.stat().st_mtime > older_than:
                os.unlink(entry.path)
                removed += 1
    return removed
