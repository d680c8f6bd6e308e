"""device="cpu": compiled kernels, run by the driver."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from nnjit import config
from nnjit.compiler.plan import Arrangement
from nnjit.graph import Graph
from nnjit.runtime import cpu, driver
from nnjit.runtime.binding import address, words_of
from nnjit.runtime.planned import PlannedExecutable
from nnjit.runtime.progress import on_terminal
from nnjit.runtime.store import Store


@dataclass(eq=False)
class Bound:
    """The rows for one set of extents. patches: for each input, positions in `words` that take its
    address.
    """

    arrangement: Arrangement
    program: driver.Program
    words: np.ndarray
    patches: dict[str, list[int]]
    outputs: dict[str, np.ndarray] | None
    generation: int
    last: dict[str, int]


class CpuExecutable(PlannedExecutable):
    """A graph as machine code. Compiling happens here, in worker processes, unless the cache has
    the kernels.
    """

    def __init__(self, graph: Graph, store: Store):
        super().__init__(graph, store)
        loaded = cpu.load(self.kernels, on_terminal)
        self.report = loaded.report
        self.addresses = [loaded.addresses[k.key] for k in self.kernels]

    def bind(self, a: Arrangement) -> Bound:
        """Rows, argument tables and addresses for an arrangement."""
        rows = self.rows(a.extents)
        table: list[int] = []
        starts: list[int] = []
        counts: list[int] = []
        patches: dict[str, list[int]] = {}
        for row in rows:
            starts.append(len(table))
            words = words_of(row.launch, a.extents)
            for b in row.launch.buffers:
                if b.kind == "input":
                    patches.setdefault(b.name, []).append(len(table) + len(words))
                    words.append(0)
                else:
                    words.append(address(self.binder.bytes_of(b, a)))
            counts.append(len(words))
            table += words + [0] * (-len(words) % 4)
        words_array = np.array([*table, 0, 0, 0, 0], np.int64)
        base = address(words_array)
        program = np.zeros((len(rows), driver.COLUMNS), np.int64)
        for k, row in enumerate(rows):
            serial = driver.SERIAL if row.chunks == 1 else 0
            where = base + 8 * starts[k]
            program[k, :7] = (
                self.addresses[k], where, row.trip, row.chunks, serial, counts[k], row.align,
            )  # fmt: skip
        fixed = all(n.op.name != "input" for n in self.compiled.leaves.values())
        outputs = self.outputs(a, {}) if fixed else None
        return Bound(
            a, driver.Program(program), words_array, patches, outputs, self.memory.generation, {}
        )

    def run(self, inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
        arrays, extents = self.check_inputs(inputs)
        with self.lock:
            bound = self.ready(arrays, extents)
            if self.checking:
                from nnjit.runtime.checking import check_launches

                check_launches(self, bound, arrays)
            elif self.debugging >= 2:
                from nnjit.runtime import debug

                debug.timed(self, bound)
            else:
                driver.run(bound.program)
            return (
                dict(bound.outputs)
                if bound.outputs is not None
                else self.outputs(bound.arrangement, arrays)
            )

    def ready(self, arrays: Mapping[str, np.ndarray], extents: Mapping[str, int]) -> Bound:
        """The Bound for these extents with the inputs' addresses in place."""
        bound = self.bound(extents)
        for name, positions in bound.patches.items():
            at = address(arrays[name])
            if bound.last.get(name) != at:
                bound.last[name] = at
                for p in positions:
                    bound.words[p] = at
        return bound

    def run_row(self, bound: Bound, k: int) -> None:
        """One launch alone, for checks."""
        row = np.ascontiguousarray(bound.program.rows[k : k + 1])
        driver.run(driver.Program(row))

    def measure(self, inputs: Mapping[str, Any], steps: int) -> tuple[np.ndarray, Arrangement]:
        """Nanoseconds, calls and chunks per thread of each launch, over `steps` runs; updates take
        effect.
        """
        arrays, extents = self.check_inputs(inputs)
        with self.lock:
            bound = self.ready(arrays, extents)
            counters = np.zeros((len(bound.program.rows), 2 + config.threads()), np.int64)
            for _ in range(steps):
                driver.run(bound.program, counters=counters)
        return counters, bound.arrangement
