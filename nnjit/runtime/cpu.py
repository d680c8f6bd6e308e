"""Loading kernels into this process: from the cache, through workers where they are not there.

One registry per process: a kernel is loaded once, however many programs use it, and stays until the
process ends.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nnjit import atomic, config
from nnjit.errors import CacheError, CompileError
from nnjit.runtime import cache, objects
from nnjit.runtime.cache import KernelSource

#: called as progress(done, total, name)
Progress = Callable[[int, int, str], None]


@dataclass
class LoadReport:
    """What a `load` did.

    misses: (kernel, reason), the reason being new, changed, version: ... or corrupt: ...;
    resident: kernels that were in this process already; loader: object, numba, or image, the code
    of a whole step in one file; notes: fall-backs."""

    hits: int = 0
    resident: int = 0
    misses: list[tuple[str, str]] = field(default_factory=list)
    compile_seconds: float = 0.0
    workers: int = 0
    loader: str = "object"
    notes: list[str] = field(default_factory=list)

    def summary(self) -> str:
        """One line for people, and one for each miss."""
        total = self.hits + self.resident + len(self.misses)
        parts = [f"{self.hits} cached", f"{self.resident} loaded before"]
        if self.misses:
            many = "" if self.workers == 1 else "s"
            by = f" by {self.workers} worker{many}" if self.workers else ""
            parts.append(f"{len(self.misses)} compiled in {self.compile_seconds:.1f} s{by}")
        lines = [f"kernels: {total} ({', '.join(parts)}), loader {self.loader}", *self.notes]
        return "\n  ".join([*lines, *(f"{name}: {reason}" for name, reason in self.misses)])


@dataclass(frozen=True)
class Loaded:
    """addresses: by `KernelSource.key`. engines own the machine code."""

    addresses: dict[str, int]
    report: LoadReport
    engines: tuple = field(default=(), repr=False)


@dataclass
class _Registry:
    """The kernels of this process."""

    addresses: dict[str, int] = field(default_factory=dict)
    engines: list[object] = field(default_factory=list)
    compiled: int = 0
    fallback: str | None = None  # why objects are not used, once that is known
    lock: threading.RLock = field(default_factory=threading.RLock)


_registry = _Registry()


def compiled_count() -> int:
    """Kernels compiled since this process started, the driver among them."""
    return _registry.compiled


def load(sources: Sequence[KernelSource], progress: Progress | None = None) -> Loaded:
    """Make `sources`, and the driver that runs them, callable.

    progress(done, total, name) is called after each kernel that had to be compiled. Raises
    CompileError, which names the kernel and its file, and CacheError where something must be
    compiled and the cache folder cannot be written.
    """
    with _registry.lock:
        unique = {source.key: source for source in (*sources, cache.driver_source())}
        report = LoadReport()
        wanted = [s for key, s in unique.items() if key not in _registry.addresses]
        report.resident = len(unique) - len(wanted)
        if wanted:
            _load(wanted, report, progress)
        addresses = {key: _registry.addresses[key] for key in unique}
        return Loaded(addresses, report, tuple(_registry.engines))


def _load(wanted: list[KernelSource], report: LoadReport, progress: Progress | None) -> None:
    """Load by objects, or by Numba where that is asked for or objects are not possible here."""
    if config.loader() == "object":
        if _registry.fallback is None:
            _registry.fallback = objects.unsupported()
            if _registry.fallback is None:
                try:
                    return _load_objects(wanted, report, progress)
                except objects.Unproven as error:
                    _registry.fallback = f"this Numba has no private name for objects: {error}"
                    report.hits, report.misses = 0, []
            import logging  # a warm start has no use for it

            log = logging.getLogger("nnjit")
            log.warning("kernels are loaded by Numba's own cache: %s", _registry.fallback)
        report.notes.append(_registry.fallback)
    report.loader = "numba"
    _load_numba(wanted, report, progress)


def _load_objects(wanted: list[KernelSource], report: LoadReport, progress) -> None:
    entries, missing = _read(wanted, report)
    if missing:
        start = time.perf_counter()
        folder = config.cache_dir()
        cache.writable(lambda: folder.mkdir(parents=True, exist_ok=True))
        atomic.sweep(folder)
        from nnjit.runtime import build  # subprocesses and more, which a warm start does not need

        report.workers = build.compile_missing(missing, progress)
        report.compile_seconds = time.perf_counter() - start
        _registry.compiled += len(missing)
        for source in missing:
            try:
                entries[source.key] = cache.read_entry(source)
            except (OSError, objects.BadEntry) as error:
                raise CacheError(
                    f"{source.object_path} was just written, and is: {error}"
                ) from None
    engine, addresses = objects.link(list(entries.values()))
    _registry.engines.append(engine)
    _registry.addresses.update(zip(entries, addresses, strict=True))


def _read(wanted: list[KernelSource], report: LoadReport):
    """The cached objects by key, and the sources without a usable one."""
    entries: dict[str, objects.Entry] = {}
    missing = []
    known: dict[str, list[Path]] | None = None
    for source in wanted:
        try:
            entries[source.key] = cache.read_entry(source)
            report.hits += 1
            continue
        except FileNotFoundError:
            known = cache.objects_by_name() if known is None else known
            reason = cache.miss_reason(source, known)
        except objects.BadEntry as error:
            reason = f"corrupt: {error}"
        except OSError as error:
            raise CacheError(
                f"cannot read {source.object_path}: {error.strerror or error}; "
                "set NNJIT_CACHE (or nnjit.set_cache_dir) to a folder of your own"
            ) from None
        report.misses.append((source.name, reason))
        missing.append(source)
    return entries, missing


def _load_numba(wanted: list[KernelSource], report: LoadReport, progress) -> None:
    from nnjit.runtime import inprocess

    total = len(wanted)
    for done, source in enumerate(wanted, 1):
        start = time.perf_counter()
        kernel = inprocess.load_kernel(source)
        if kernel.reason is None:
            report.hits += 1
        else:
            report.misses.append((source.name, kernel.reason))
            report.compile_seconds += time.perf_counter() - start
            _registry.compiled += 1
        _registry.engines.append(kernel.callback)
        _registry.addresses[source.key] = kernel.address
        if progress is not None and kernel.reason is not None:
            progress(done, total, source.name)


def load_image(path: Path, key: str) -> tuple[list[int], LoadReport] | None:
    """Addresses from the image of a step, see `image`; None where there is no sound one."""
    from nnjit.runtime import image

    if config.loader() != "object":
        return None
    try:
        memory, addresses = image.take_in(path.read_bytes(), key)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, LookupError, CompileError) as error:
        import logging

        log = logging.getLogger("nnjit")
        log.warning("%s cannot be used (%s): kernels are loaded one by one", path, error)
        return None
    with _registry.lock:
        _registry.engines.append(memory)
    return addresses, LoadReport(hits=len(set(addresses)), loader="image")


def write_image(path: Path, key: str, sources: Sequence[KernelSource]) -> None:
    """Keep the machine code of these kernels as one image, if their objects can be put in one and
    the folder can be written.
    """
    from nnjit.runtime import image

    unique = {source.key: source for source in sources}
    try:
        whole = image.combined([cache.read_entry(source) for source in unique.values()])
        blob = image.encode(whole, key, [source.entry for source in sources])
        atomic.write_atomic(path, blob, durable=False)
    except (OSError, objects.BadEntry, image.NoImage):
        return


def _forked() -> None:
    """In a forked child: code stays usable; another thread may have held the lock."""
    _registry.lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
