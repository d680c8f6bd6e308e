"""device="cpu": compiled kernels, run by the driver."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nnjit import changes, config
from nnjit.changes import parameters_changed
from nnjit.compiler.plan import Arrangement
from nnjit.graph import Graph
from nnjit.runtime import cache, cpu, driver, objects, plan_cache
from nnjit.runtime.binding import address, words_of
from nnjit.runtime.executable import KEPT_SHAPES
from nnjit.runtime.planned import PlannedExecutable
from nnjit.runtime.progress import on_terminal
from nnjit.runtime.store import Store

NODES_OF_A_KERNEL = 25  # about, in a step as it was built: how many workers are worth starting


@dataclass(eq=False)
class Bound:
    """The rows for one set of extents: all of them; those that write kept buffers, if any; the
    others. patches: for each input, positions in `words` that take its address.
    """

    arrangement: Arrangement
    program: driver.Program
    lasting: driver.Program | None
    others: driver.Program
    words: np.ndarray
    patches: dict[str, list[int]]
    outputs: dict[str, np.ndarray] | None
    generation: int
    last: dict[str, int]


@dataclass(frozen=True, eq=False)
class Known:
    """Inputs that fit as they are: name, dtype and places of the address of each; what they run."""

    inputs: list[tuple[str, np.dtype, list[int]]]
    bound: Bound
    outputs: list[np.ndarray]


class CpuExecutable(PlannedExecutable):
    """A graph as machine code. Compiling happens here, in worker processes, unless the cache has
    the kernels.
    """

    def __init__(self, graph: Graph, store: Store):
        self.started = False
        try:
            super().__init__(graph, store)
            self.report, self.addresses = self.load()
        finally:
            if self.started:
                from nnjit.runtime import build

                build.dismiss()
        kinds = [[b.kind for b in launch.written] for launch in self.compiled.launches]
        self.lasting = np.array(["kept" in k for k in kinds], bool)
        self.made_at: int | None = None  # the clock of parameters when kept buffers were made
        self.known: dict[tuple, Known] = {}  # by the shapes of the inputs

    def starting(self) -> None:
        """Compile workers import Numba while this process compiles the graph to sources."""
        if config.loader() == "object" and objects.unsupported() is None:
            from nnjit.runtime import build  # subprocesses, which a warm start does not need

            build.start_early(len(self.graph.nodes()) // NODES_OF_A_KERNEL)
            self.started = True

    def load(self) -> tuple[cpu.LoadReport, list[int]]:
        """What was loaded, and the address of each launch: from the step's own image, else kernel
        by kernel.
        """
        path = plan_cache.image_path(self.compiled)
        found = None if path is None else cpu.load_image(path, self.compiled.key)
        if found is not None:
            (*addresses, driver_at), report = found
            driver.known_at(driver_at)
            return report, addresses
        loaded = cpu.load(self.kernels, on_terminal)
        if path is not None and loaded.report.loader == "object":
            cpu.write_image(path, self.compiled.key, [*self.kernels, cache.driver_source()])
        return loaded.report, [loaded.addresses[k.key] for k in self.kernels]

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
                    before = row.scratch * self.memory.threads if b.kind == "scratch" else 0
                    words.append(address(self.binder.bytes_of(b, a)) + before)
            counts.append(len(words))
            table += words + [0] * (-len(words) % 4)
        words_array = np.array([*table, 0, 0, 0, 0], np.int64)
        base = address(words_array)
        program = np.zeros((len(rows), driver.COLUMNS), np.int64)
        for k, row in enumerate(rows):
            flags = driver.LINK * row.links + driver.SERIAL * (row.chunks == 1)
            where = base + 8 * starts[k]
            program[k] = (
                self.addresses[k], where, row.trip, row.chunks, flags, counts[k], row.align,
                row.stages,
            )  # fmt: skip
        fixed = all(n.op.name != "input" for n in self.compiled.leaves.values())
        outputs = self.outputs(a, {}) if fixed else None
        whole = driver.Program(program)
        lasting, others = None, whole
        if self.lasting.any():
            lasting = driver.Program(program[self.lasting])
            others = driver.Program(program[~self.lasting])
        return Bound(
            a, whole, lasting, others, words_array, patches, outputs, self.memory.generation, {}
        )  # fmt: skip

    def run(self, inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
        arrays, extents = self.check_inputs(inputs)
        with self.lock:
            bound = self.ready(arrays, extents)
            try:
                if self.checking:
                    from nnjit.runtime.checking import check_launches

                    check_launches(self, bound, arrays)
                elif self.debugging >= 2:
                    from nnjit.runtime import debug

                    debug.timed(self, bound)
                else:
                    self.drive(bound)
            finally:  # an interrupt comes after the launches
                if self.changes_parameters:
                    self.changed()
            return (
                dict(bound.outputs)
                if bound.outputs is not None
                else self.outputs(bound.arrangement, arrays)
            )

    def remember(self, inputs: Mapping[str, np.ndarray]) -> None:
        if self.checking or self.debugging or self.changes_parameters:
            return
        with self.lock:
            bound = self.bound(self.check_inputs(inputs)[1])
            if bound.outputs is None:
                return
            if len(self.known) >= KEPT_SHAPES:
                self.known.clear()
            rows = [(name, a.dtype, bound.patches.get(name, [])) for name, a in inputs.items()]
            key = tuple([a.shape for a in inputs.values()])
            self.known[key] = Known(rows, bound, [*bound.outputs.values()])

    def again(self, arrays: Sequence[Any]) -> list[np.ndarray] | None:
        for a in arrays:
            if type(a) is not np.ndarray:
                return None
        known = self.known.get(tuple([a.shape for a in arrays]))
        if known is None:
            return None
        with self.lock:
            bound = known.bound
            if bound.generation != self.memory.generation or self.threads != config.threads():
                return None
            if bound.lasting is not None and changes.reading() != self.made_at:
                return None
            last = bound.last
            for a, (name, dtype, positions) in zip(arrays, known.inputs, strict=True):
                if a.dtype is not dtype or not a.flags.c_contiguous:
                    return None
                at = address(a)
                if last.get(name) != at:
                    last[name] = at
                    for p in positions:
                        bound.words[p] = at
            driver.run(bound.others, self.threads)
            return [a.copy() for a in known.outputs]

    def drive(self, bound: Bound, counters: np.ndarray | None = None) -> None:
        """Run a program: what is made of parameters alone only if one has changed since.

        counters: as of `driver.run`, for all rows.
        """
        if bound.lasting is not None:
            now = changes.reading()
            if now != self.made_at:
                run_rows(bound.lasting, self.lasting, counters)
                self.made_at = now
        if counters is None:
            driver.run(bound.others, self.threads)
        else:
            run_rows(bound.others, self.lasting, counters, False)

    def changed(self) -> None:
        """This step has changed parameters, none of them among those that kept buffers are of."""
        now = parameters_changed()
        if self.made_at == now - 1:
            self.made_at = now

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
        row = bound.program.rows[k : k + 1].copy()
        row[0, driver.FLAGS] &= driver.SERIAL
        driver.run(driver.Program(row))

    def measure(self, inputs: Mapping[str, Any], steps: int) -> tuple[np.ndarray, Arrangement]:
        """Nanoseconds, calls and chunks per thread of each launch, over `steps` runs; updates take
        effect.
        """
        arrays, extents = self.check_inputs(inputs)
        with self.lock:
            bound = self.ready(arrays, extents)
            counters = np.zeros((len(bound.program.rows), 2 + config.threads()), np.int64)
            try:
                for _ in range(steps):
                    self.drive(bound, counters)
            finally:
                if self.changes_parameters:
                    self.changed()
        return counters, bound.arrangement


def run_rows(
    program: driver.Program, lasting: np.ndarray, counters: np.ndarray | None, which: bool = True
) -> None:
    """Run the program of the rows where `lasting` is `which`; add to their counters, if any."""
    if counters is None:
        driver.run(program)
        return
    own = np.zeros((len(program.rows), counters.shape[1]), np.int64)
    driver.run(program, counters=own)
    counters[lasting == which] += own
