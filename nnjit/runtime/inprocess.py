"""The loader for platforms where objects are not proven: Numba in this process, with its cache.

Slower to start (Numba is imported) and compiles one kernel at a time; the machine code is the same.
Numba's rules: one kernel and one signature per file, and `sys.modules` must know the module before
it runs. Its index and data files have no checksum and fail to load when damaged, so their hashes
are kept beside them and damaged ones are removed.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
import sys
import types
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from nnjit import config
from nnjit.atomic import write_atomic
from nnjit.errors import CompileError
from nnjit.kernels import target
from nnjit.runtime import cache, frontend, worker

_PREFIX = "nnjit.kernels."
_jitted: dict[str, types.ModuleType] = {}  # the jitted copies of the modules of nnjit.kernels


@dataclass(frozen=True)
class InProcess:
    """A kernel that Numba loaded. reason: why it was compiled, None where the cache had it."""

    address: int
    reason: str | None
    callback: object


def load_kernel(source: cache.KernelSource) -> InProcess:
    """Load or compile one kernel in this process; raises CompileError and CacheError."""
    cache.write_source(source)
    path = _module_path(source)
    cache.writable(lambda: _write_module(path, source.text))
    damaged = _remove_damaged(path)
    try:
        callback = _compile(source, path)
    except (
        EOFError,
        ValueError,
        OSError,
        KeyError,
        IndexError,
        AttributeError,
        ImportError,
    ) as error:
        if not _remove_all(path):
            raise _failed(source, error) from error
        damaged = True
        callback = _compile(source, path)
    reason = None
    if not callback.cache_hits:
        reason = "corrupt: removed" if damaged else "new"
        _write_hashes(path)
    return InProcess(callback.address, reason, callback)


def _module_path(source: cache.KernelSource) -> Path:
    """Numba's settings are not in its own key, so they are in the file's name."""
    settings = {k: v for k, v in sorted(os.environ.items()) if k.startswith("NUMBA_")}
    key = cache.digest(source.key + json.dumps(settings))
    return config.cache_dir() / "numba" / f"{source.name}_{key}.py"


def _write_module(path: Path, text: str) -> None:
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        write_atomic(path, text.encode())


def _compile(source: cache.KernelSource, path: Path):
    """The callback; CompileError where the kernel is wrong, other errors where the cache is."""
    from numba import cfunc
    from numba.core import config as numba_config
    from numba.core import errors

    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    settings = vars(numba_config)
    place = settings["CACHE_DIR"]
    settings["CACHE_DIR"] = ""  # beside the module, not where the user's functions go
    try:
        with jitted_helpers(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            spec.loader.exec_module(module)
            frontend.limit_unrolling()
            frontend.widen_vectors()
            result, arguments = worker.parse_signature(source.signature)
            callback = cfunc(result(*arguments), cache=True, **worker.OPTIONS)
            return callback(getattr(module, source.name))
    except (errors.NumbaError, SyntaxError, NameError, TypeError) as error:
        raise _failed(source, error) from error
    finally:
        settings["CACHE_DIR"] = place


def _failed(source: cache.KernelSource, error: Exception) -> CompileError:
    message = worker.explain(error, str(_module_path(source)))
    return CompileError(f"kernel {source.name} ({source.path}): {message}")


@contextlib.contextmanager
def jitted_helpers() -> Iterator[None]:
    """Inside, imports of nnjit.kernels give the jitted copies; outside, the plain ones stay."""
    import nnjit.kernels as package

    plain = _take_modules(package)
    _put_modules(package, _jitted)
    target.jitting = True
    try:
        yield
    finally:
        target.jitting = False
        _jitted.update(_take_modules(package))
        _put_modules(package, plain)


def _take_modules(package) -> dict[str, types.ModuleType]:
    """Remove the modules of nnjit.kernels, `target` apart, from the import system."""
    names = [n for n in sys.modules if n.startswith(_PREFIX) and n != target.__name__]
    taken = {name: sys.modules.pop(name) for name in names}
    for name in taken:
        package.__dict__.pop(name.removeprefix(_PREFIX), None)
    return taken


def _put_modules(package, modules: dict[str, types.ModuleType]) -> None:
    sys.modules.update(modules)
    for name, module in modules.items():
        if "." not in (short := name.removeprefix(_PREFIX)):
            setattr(package, short, module)


def _numba_files(path: Path) -> list[Path]:
    """What Numba keeps for the module."""
    return [p for p in (path.parent / "__pycache__").glob(f"{path.stem}.*.nb?") if p.is_file()]


def _hashes(path: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in _numba_files(path)}


def _write_hashes(path: Path) -> None:
    write_atomic(path.with_suffix(".sums"), json.dumps(_hashes(path)).encode(), durable=False)


def _remove_damaged(path: Path) -> bool:
    """Remove Numba's files where they are not as they were written; whether they were removed."""
    try:
        expected = json.loads(path.with_suffix(".sums").read_bytes())
    except (OSError, ValueError):
        expected = None
    return expected != _hashes(path) and _remove_all(path)


def _remove_all(path: Path) -> bool:
    files = _numba_files(path)
    for file in files:
        file.unlink(missing_ok=True)
    return bool(files)
