"""device="python": the very kernel files that the cpu device compiles, run un-jitted. Slow; a
breakpoint works.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from nnjit.changes import parameters_changed
from nnjit.compiler.plan import Arrangement
from nnjit.graph import Graph
from nnjit.kernels.target import itemsize, storage
from nnjit.runtime.binding import words_of
from nnjit.runtime.checking import check_launches
from nnjit.runtime.planned import PlannedExecutable
from nnjit.runtime.python import PythonKernel, PythonLaunch, run_python
from nnjit.runtime.store import Store


@dataclass(eq=False)
class PythonBound:
    """Launches with their arrays; None stands for an input that each run brings."""

    arrangement: Arrangement
    launches: list[tuple[PythonLaunch, list[str | None]]]
    generation: int
    now: list[PythonLaunch]


class PythonExecutable(PlannedExecutable):
    """A graph as Python functions on NumPy arrays."""

    def __init__(self, graph: Graph, store: Store):
        super().__init__(graph, store)
        loaded = {k.key: PythonKernel.load(k) for k in self.kernels}
        self.functions = [loaded[k.key] for k in self.kernels]

    def bind(self, a: Arrangement) -> PythonBound:
        """The arrays of every launch: flat, typed, to the end of their region."""
        out = []
        for row, function in zip(self.rows(a.extents), self.functions, strict=True):
            arrays, names = [], []
            for (_, code), b in zip(row.launch.template.params, row.launch.buffers, strict=True):
                names.append(b.name if b.kind == "input" else None)
                raw = np.empty(0, np.uint8) if b.kind == "input" else self.binder.bytes_of(b, a)
                size = raw.nbytes // itemsize(code) * itemsize(code)
                arrays.append(raw[:size].view(storage(code)))
            words = words_of(row.launch, a.extents)
            out.append(
                (PythonLaunch(function, row.trip, words, arrays, row.chunks, row.align), names)
            )
        return PythonBound(a, out, self.memory.generation, [])

    def ready(self, arrays: Mapping[str, np.ndarray], extents: Mapping[str, int]) -> PythonBound:
        """The Bound for these extents with the inputs in place."""
        bound = self.bound(extents)
        bound.now = []
        for launch, names in bound.launches:
            filled = [
                flat(arrays[n]) if n is not None else a
                for n, a in zip(names, launch.arrays, strict=True)
            ]
            bound.now.append(
                PythonLaunch(
                    launch.kernel, launch.trip, launch.symbols, filled, launch.chunks, launch.align
                )
            )
        return bound

    def run(self, inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
        arrays, extents = self.check_inputs(inputs)
        with self.lock:
            bound = self.ready(arrays, extents)
            try:
                if self.checking:
                    check_launches(self, bound, arrays)
                else:
                    run_python(bound.now)
            finally:
                if self.changes_parameters:
                    parameters_changed()
            return self.outputs(bound.arrangement, arrays)

    def run_row(self, bound: PythonBound, k: int) -> None:
        """One launch alone, for checks."""
        run_python(bound.now[k : k + 1])


def flat(a: np.ndarray) -> np.ndarray:
    """A contiguous array as 1-D; a bool as bytes."""
    out = a.reshape(-1)
    return out.view(np.uint8) if out.dtype == np.bool_ else out
