"""Facts about where nnjit runs: versions, CPU, threads, cache folder, loader."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

from nnjit import __version__, config

PACKAGES = ("numpy", "numba", "llvmlite", "safetensors", "xxhash", "pydantic", "click")
FEATURES = ("avx2", "fma", "avx512f", "avx512bf16", "avx512vnni", "amx-bf16", "neon", "sve")


def versions() -> dict[str, Any]:
    """Packages, Python, platform."""
    found = {"nnjit": __version__}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return {
        "packages": found,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": platform.machine(),
    }


def facts() -> dict[str, Any]:
    """What `nnjit doctor` reports before it tests anything."""
    from nnjit.kernels import target
    from nnjit.runtime import cache, objects

    machine = cache.environment()
    features = machine["features"].split(",")
    unsupported = objects.unsupported()
    return {
        **versions(),
        "cpu": machine["cpu"],
        "features": [f for f in FEATURES if f"+{f}" in features],
        "vector_bits": int(machine["vector_bits"]),
        "bfloat16": target.multiplies_by(),
        "float32": {"fma": "multiply-adds", "amx": "AMX"}[target.float32_asked()],
        "cores": config.cores(),
        "threads": config.threads(),
        "device": config.device(),
        "loader": config.loader() if unsupported is None else "numba",
        "loader_note": unsupported,
        "cache": cache_state(config.cache_dir()),
    }


def cache_state(folder: Path) -> dict[str, Any]:
    """Path, kernels, bytes, and whether it can be written."""
    files = [p for p in folder.glob("*") if p.is_file()] if folder.is_dir() else []
    parent = folder
    while not parent.exists() and parent != parent.parent:
        parent = parent.parent
    return {
        "path": str(folder),
        "kernels": sum(p.suffix == ".obj" for p in files),
        "bytes": sum(p.stat().st_size for p in files),
        "writable": parent.is_dir() and os.access(parent, os.W_OK | os.X_OK),
    }
