"""Settings: environment variables, and the functions that override them in a process.

NNJIT_DEBUG (0-5), NNJIT_DEVICE (cpu, python, interpret), NNJIT_CHECK (0, 1), NNJIT_CACHE (folder),
NNJIT_THREADS, NNJIT_SEED, NNJIT_LOADER (object, numba), NNJIT_WINOGRAD (0, 1), NNJIT_CHAINS (0, 1),
NNJIT_PLANS (0, 1); `kernels.target` reads NNJIT_VECTOR_BITS (128, 256, 512), NNJIT_BF16 (auto,
pairs, emulate) and NNJIT_FLOAT32 (fma, amx). A setting is read when it is used, so a test may
change the environment; a compiled step keeps the NNJIT_CHECK and NNJIT_DEBUG it was made under.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nnjit.errors import ConfigError, nearest

DEVICES = ("cpu", "python", "interpret")
LOADERS = ("object", "numba")
MAX_THREADS = 64

_set: dict[str, object] = {}


def _integer(name: str, default: int, low: int, high: int) -> int:
    text = os.environ.get(name, "")
    if not text.strip():
        return default
    try:
        value = int(text)
    except ValueError:
        raise ConfigError(f"{name}={text!r}: expected a whole number") from None
    if not low <= value <= high:
        raise ConfigError(f"{name}={value}: expected {low} to {high}")
    return value


def _choice(name: str, default: str, options: tuple[str, ...]) -> str:
    value = os.environ.get(name) or default
    if value not in options:
        raise ConfigError(f"{name}={value!r}{nearest(value, options)}")
    return value


def debug() -> int:
    """NNJIT_DEBUG: 0 silent, 1 summary, 2 times per launch, 3 graph after each pass, 4 source,
    5 LLVM."""
    return _integer("NNJIT_DEBUG", 0, 0, 5)


def check() -> bool:
    """NNJIT_CHECK=1: verify the graph after each pass, compare every launch with its meaning."""
    return bool(_integer("NNJIT_CHECK", 0, 0, 1))


def winograd() -> bool:
    """NNJIT_WINOGRAD=0: 3 x 3 convolutions are sums of products, as written, on the cpu device."""
    return bool(_integer("NNJIT_WINOGRAD", 1, 0, 1))


def chains() -> bool:
    """NNJIT_CHAINS=0: each launch runs on the whole batch before the next, on the cpu device."""
    return bool(_integer("NNJIT_CHAINS", 1, 0, 1))


def plans() -> bool:
    """NNJIT_PLANS=0: compiled steps are not kept on disk, only their kernels."""
    return bool(_integer("NNJIT_PLANS", 1, 0, 1))


def device() -> str:
    """NNJIT_DEVICE: the device of models and functions that name none; 'cpu'."""
    return _choice("NNJIT_DEVICE", "cpu", DEVICES)


def loader() -> str:
    """NNJIT_LOADER: 'object' (own object cache, no numba when warm) or 'numba' (in-process)."""
    return _choice("NNJIT_LOADER", "object", LOADERS)


def threads() -> int:
    """Threads of a step: `set_threads`, else NNJIT_THREADS, else the cores it may run on."""
    if "threads" in _set:
        return int(_set["threads"])  # type: ignore[call-overload]
    return _integer("NNJIT_THREADS", min(cores(), MAX_THREADS), 1, MAX_THREADS)


def cores() -> int:
    """The cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def set_threads(n: int) -> None:
    """Run steps on n threads (1 to 64) from now on. The results do not depend on it."""
    if not isinstance(n, int) or not 1 <= n <= MAX_THREADS:
        raise ConfigError(f"set_threads({n!r}): expected 1 to {MAX_THREADS}")
    _set["threads"] = n


def cache_dir() -> Path:
    """Where kernels are: `set_cache_dir`, else NNJIT_CACHE, else XDG_CACHE_HOME or ~/.cache."""
    if "cache" in _set:
        return Path(str(_set["cache"]))
    if os.environ.get("NNJIT_CACHE"):
        return Path(os.environ["NNJIT_CACHE"]).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "nnjit"


def set_cache_dir(path: str | os.PathLike) -> None:
    """Keep compiled kernels in `path` from now on."""
    _set["cache"] = Path(path).expanduser()


def seed() -> int:
    """The seed of new models: `set_seed`, else NNJIT_SEED, else 0, so runs are repeatable."""
    if "seed" in _set:
        return int(_set["seed"])  # type: ignore[call-overload]
    return _integer("NNJIT_SEED", 0, 0, 2**63 - 1)


def set_seed(value: int) -> None:
    """Seed initializers, dropout and shuffling of models made from now on (0 to 2**63-1)."""
    if not isinstance(value, int) or not 0 <= value < 2**63:
        raise ConfigError(f"set_seed({value!r}): expected a whole number from 0 to 2**63-1")
    _set["seed"] = value


@contextmanager
def seeded(value: int) -> Iterator[None]:
    """Models made in this block have this seed; afterwards the setting is what it was."""
    before = dict(_set)
    set_seed(value)
    try:
        yield
    finally:
        _set.pop("seed", None)
        _set.update({k: v for k, v in before.items() if k == "seed"})
