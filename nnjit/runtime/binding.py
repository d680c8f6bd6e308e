"""Binding a Plan: for the extents at hand, where everything lies, how long each trip is, how it is
cut into chunks.

A Bound holds the rows that the driver walks. Inputs are read where the caller has them: their
addresses are put into the argument tables before each run. Everything else has a fixed address from
bind to bind.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from nnjit.compiler import chains
from nnjit.compiler.cpu.text import mangle, unmangle
from nnjit.compiler.groups import Buffer, Launch, number
from nnjit.compiler.plan import Arrangement, Plan, scratch_of
from nnjit.kernels.target import CODES, storage
from nnjit.runtime.buffers import aligned
from nnjit.runtime.store import Store
from nnjit.spec import evaluate

FLOPS_PER_US = (
    5e4  # a core does at least this much: for the decision whether a launch is worth two threads
)
BYTES_PER_US = 1e4
PARALLEL_US = 2.0  # serial work below which a launch is not cut
CHUNK_US = 2.0  # work of one chunk
MAX_CHUNKS = 32


_first_byte = ctypes.c_char.from_buffer


def address(array: np.ndarray) -> int:
    """Where the data of a contiguous array begin."""
    try:
        # a sixth of what the other way costs
        return ctypes.addressof(_first_byte(array))  # type: ignore[arg-type]
    except (TypeError, ValueError):  # nothing to write to, or nothing at all
        return array.__array_interface__["data"][0]


@dataclass(frozen=True)
class Row:
    """One launch as it will run: trip count, chunks (of each stage), alignment of their limits.

    links: the rows that follow in its chain; samples: those of a unit of a chain. scratch: bytes a
    thread that rows of the same chain take before this one.
    """

    launch: Launch
    trip: int
    chunks: int
    align: int
    stages: int = 1
    links: int = 0
    samples: int = 0
    scratch: int = 0


def row_of(launch: Launch, extents: Mapping[str, int], names: Mapping[str, int]) -> Row:
    """Trip and chunks of a launch. Chunks depend on the extents alone, never on the threads."""
    trip = number(launch.trip, names)
    grain = max(1, number(launch.template.grain, names))
    work = max(launch.flop_count(extents) / FLOPS_PER_US, launch.byte_count(extents) / BYTES_PER_US)
    stages = number(launch.template.stages, names)
    work, units = work / stages, -(-trip // stages // grain)
    if work < PARALLEL_US or units < 2:
        return Row(launch, trip, 1, grain, stages)
    chunks = max(1, min(MAX_CHUNKS, units, int(work / CHUNK_US) + 1))
    return Row(launch, trip, chunks, grain, stages)


def rows_of(plan: Plan, extents: Mapping[str, int]) -> list[Row]:
    """The rows of a Plan. In a chain chunks are runs of units, and a unit of each row is `align`
    indices.
    """
    names = named(extents)
    rows = [row_of(launch, extents, names) for launch in plan.launches]
    if not plan.chains or plan.peak(extents) < chains.FAR:
        return rows
    trips = [row.trip for row in rows]
    for chain in plan.chains:
        for found in chains.links(chain, plan.launches, trips, extents):
            more, scratch = len(found.steps) - 1, 0
            for k, step in enumerate(found.steps, found.first):
                rows[k] = replace(
                    rows[k], chunks=min(MAX_CHUNKS, found.units), align=step, links=more,
                    samples=found.samples, scratch=scratch,
                )  # fmt: skip
                scratch += scratch_of(rows[k].launch, extents)
                more = 0
    return rows


@dataclass(eq=False)
class Memory:
    """The arena and the scratch of one executable; they grow, and then every Bound is made anew."""

    work: np.ndarray = field(default_factory=lambda: aligned(64))
    scratch: np.ndarray = field(default_factory=lambda: aligned(64))
    threads: int = 1
    generation: int = 0

    def reserve(self, a: Arrangement, threads: int) -> None:
        """Room for an arrangement on this many threads."""
        scratch = a.scratch * max(threads, self.threads)
        if (
            a.work <= self.work.nbytes
            and scratch <= self.scratch.nbytes
            and threads <= self.threads
        ):
            return
        self.threads = max(threads, self.threads)
        if a.work > self.work.nbytes:
            self.work = aligned(a.work)
        if scratch > self.scratch.nbytes:
            self.scratch = aligned(scratch)
        self.generation += 1


class Binder:
    """Places buffers for one Plan and Store: arrays by Buffer."""

    def __init__(self, plan: Plan, store: Store, memory: Memory):
        self.plan, self.store, self.memory = plan, store, memory
        self.constants: dict[Buffer, np.ndarray] = {}
        for b in {b for launch in plan.launches for b in launch.touched if b.kind == "constant"}:
            assert b.node is not None
            value = b.node.attrs["value"]
            home = aligned(max(value.nbytes, 64))
            home[: value.nbytes] = np.ascontiguousarray(value).reshape(-1).view(np.uint8)
            self.constants[b] = home
        kept = dict.fromkeys(b for launch in plan.launches for b in launch.written)
        self.kept = {b: aligned(max(b.nbytes({}), 64)) for b in kept if b.kind == "kept"}

    def bytes_of(self, b: Buffer, a: Arrangement) -> np.ndarray:
        """The bytes from a buffer's start to the end of the region that it lies in."""
        if b.kind == "work":
            return self.memory.work[a.offsets[b] :]
        if b.kind == "scratch":
            return self.memory.scratch
        if b.kind == "constant":
            return self.constants[b]
        if b.kind == "kept":
            return self.kept[b]
        block, offset = self.store.layout[b.name]
        return self.store.blocks[block][offset:]

    def array(self, b: Buffer, a: Arrangement) -> np.ndarray:
        """A buffer as an array of its shape."""
        shape = tuple(evaluate(d, a.extents) for d in b.spec.dims)
        dtype = np.dtype("bool" if b.spec.dtype == "bool" else storage(CODES[b.spec.dtype]))
        size = int(np.prod(shape)) * dtype.itemsize
        return self.bytes_of(b, a)[:size].view(dtype).reshape(shape)


def named(extents: Mapping[str, int]) -> dict[str, int]:
    """Values by the names that kernel text uses."""
    return {mangle(k): v for k, v in extents.items()}


def words_of(launch: Launch, extents: Mapping[str, int]) -> list[int]:
    """The values of symbols and sizes, in the order of the kernel's parameters."""
    template = launch.template
    return [*(extents[unmangle(s)] for s in template.symbols), *(n for _, n in template.sizes)]
