"""Un-jitted execution: the same kernel files and the same launches, run by Python on NumPy arrays.

For debugging: a kernel is imported from its file in the cache folder, so breakpoints and `pdb`
work.
"""

from __future__ import annotations

import importlib.util
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nnjit.runtime import cache

log = logging.getLogger("nnjit")


@dataclass(frozen=True)
class PythonKernel:
    """A kernel as a Python function k(lo, hi, tid, *symbols, *arrays), and the file it came
    from."""

    name: str
    function: Callable[..., None]
    path: Path

    @staticmethod
    def load(source: cache.KernelSource) -> PythonKernel:
        """Import the kernel's file; written first where it is missing. One that was edited by hand
        runs as it is, with a warning: delete it to get the original back."""
        path = source.path
        if not path.exists():
            cache.write_source(source)
        elif path.read_text(encoding="utf-8") != source.text:
            log.warning("%s was edited and runs as it is; delete it to undo that", path)
        name = f"nnjit_{source.name}_{source.key[:12]}"
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
        return PythonKernel(source.name, getattr(module, source.name), path)


@dataclass(frozen=True)
class PythonLaunch:
    """One launch: as a row of a program, with the arrays (flat, 1-D) in place of addresses."""

    kernel: PythonKernel
    trip: int
    symbols: Sequence[int]
    arrays: Sequence[np.ndarray]
    chunks: int = 1
    align: int = 1


def chunk_limits(trip: int, chunks: int = 1, align: int = 1) -> Iterator[tuple[int, int]]:
    """(lo, hi) of each chunk, exactly as the compiled driver sets them."""
    align = max(1, align)
    units = -(-trip // align)
    chunks = min(chunks, units)
    for chunk in range(chunks):
        yield units * chunk // chunks * align, min(units * (chunk + 1) // chunks * align, trip)


def run_python(launches: Sequence[PythonLaunch]) -> None:
    """Run the launches in order, every chunk as thread 0. Floating-point warnings are off, as in
    machine code."""
    with np.errstate(all="ignore"):
        for launch in launches:
            for lo, hi in chunk_limits(launch.trip, launch.chunks, launch.align):
                launch.kernel.function(lo, hi, 0, *launch.symbols, *launch.arrays)
