"""Programs: a table of launches, and running it: one call from Python, no interpreter lock.

A row is eight int64 words:

    0 address of the kernel            4 flags: 1 = all chunks on the calling thread; 256 * links
    1 address of its argument table    5 number of words in the table
    2 trip count                       6 align: chunk limits are multiples of it (0 or 1: any)
    3 chunks                           7 stages (0 or 1: one)

The kernel is called as k(lo, hi, tid, *words) for each chunk; words are run-time symbols by value,
then pointers. Chunk c of n covers the units units*c//n to units*(c+1)//n of `align` indices each,
with n = min(chunks, units). The number of threads is not in it: results are the same for any. A
trip count of 0 calls nothing.

A row may have stages: its indices in so many equal parts, each cut into chunks, one part after the
other. Such a kernel takes any run of indices in order: on one thread that is all of them at once.

A row with links is the first of a chain of links + 1 rows that have equally many units. Chunks are
runs of units; who runs one calls all kernels of the chain on a unit before it goes on to the next.
"""

from __future__ import annotations

import ctypes
import functools
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from nnjit import config
from nnjit.errors import ArgumentError
from nnjit.kernels import target
from nnjit.runtime import cache, cpu, threads
from nnjit.runtime.threads import MAX_CHUNKS, RUN, TICKS

COLUMNS = 8
ADDRESS, TABLE, TRIP, CHUNKS, FLAGS, WORDS, ALIGN, STAGES = range(8)
SERIAL, LINK = 1, 256
MAX_WORDS = 64


@dataclass(frozen=True)
class Call:
    """One launch, for `Program.build`. words: symbols by value, then addresses of arrays."""

    address: int
    trip: int
    words: Sequence[int]
    chunks: int = 1
    serial: bool = False
    align: int = 1
    stages: int = 1
    links: int = 0


@dataclass(frozen=True, eq=False)
class Program:
    """Rows (n, 8) int64, and what they point to (kept alive).

    Do not run one program from two threads at once: its kernels write to the same buffers.

    An argument table must be readable up to a multiple of four words; `build` and `table` see to
    it.
    """

    rows: np.ndarray
    keep: tuple = ()
    address: int = field(init=False)
    given: tuple[ctypes.c_int64, ctypes.c_int64] = field(init=False)  # address and rows
    parallel: bool = field(init=False)

    def __post_init__(self) -> None:
        rows = self.rows
        if rows.dtype != np.int64 or rows.ndim != 2 or rows.shape[1] != COLUMNS:
            raise ValueError(f"rows: expected int64 of shape (n, 8), got {rows.dtype} {rows.shape}")
        if not rows.flags.c_contiguous:
            raise ValueError("rows: expected a C-contiguous array")
        for column, name, low, high in (
            (ADDRESS, "address", 1, 2**63 - 1),
            (TRIP, "trip", 0, 2**40),
            (CHUNKS, "chunks", 1, MAX_CHUNKS),
            (WORDS, "number of words", 0, MAX_WORDS),
            (ALIGN, "align", 0, 2**31),
            (STAGES, "stages", 0, 2**31),
        ):
            bad = np.flatnonzero((rows[:, column] < low) | (rows[:, column] > high))
            if bad.size:
                value = rows[bad[0], column]
                raise ValueError(f"row {bad[0]}: {name} {value}, expected {low} to {high}")
        uneven = np.flatnonzero(rows[:, TRIP] % np.maximum(rows[:, STAGES], 1))
        if uneven.size:
            trip, stages = rows[uneven[0], [TRIP, STAGES]]
            raise ValueError(f"row {uneven[0]}: trip {trip} is no multiple of its {stages} stages")
        self._check_chains()
        several = (rows[:, CHUNKS] > 1) & (rows[:, FLAGS] & SERIAL == 0)
        object.__setattr__(self, "address", rows.ctypes.data)
        given = ctypes.c_int64(rows.ctypes.data), ctypes.c_int64(len(rows))
        object.__setattr__(self, "given", given)
        object.__setattr__(self, "parallel", bool(several.any()))

    def _check_chains(self) -> None:
        """ValueError where the rows of a chain are missing, have stages, or differ in units."""
        for first in np.flatnonzero(self.rows[:, FLAGS] >= LINK):
            count = int(self.rows[first, FLAGS]) // LINK + 1
            chain = self.rows[first : first + count]
            units = {-(-int(trip) // max(int(a), 1)) for trip, a in chain[:, [TRIP, ALIGN]]}
            linked = (chain[1:, FLAGS] >= LINK).any()
            if len(chain) < count or linked or len(units) > 1 or (chain[:, STAGES] > 1).any():
                raise ValueError(f"row {first}: no chain of {count} rows of {sorted(units)} units")

    @staticmethod
    def build(calls: Sequence[Call], keep: tuple = ()) -> Program:
        """The program of `calls`; `keep` are the arrays behind the addresses."""
        rows = np.zeros((len(calls), COLUMNS), np.int64)
        tables = [table(call.words) for call in calls]
        for row, call, words in zip(rows, calls, tables, strict=True):
            flags = (SERIAL if call.serial else 0) + LINK * call.links
            address = words.ctypes.data
            row[:] = (
                call.address, address, call.trip, call.chunks, flags, len(call.words), call.align,
                call.stages,
            )  # fmt: skip
        return Program(rows, (*tables, *keep))


def table(words: Sequence[int]) -> np.ndarray:
    """An argument table, padded to a multiple of four words."""
    padded = np.zeros(max(4, -(-len(words) // 4) * 4), np.int64)
    padded[: len(words)] = words
    return padded


def run(program: Program, threads: int | None = None, counters: np.ndarray | None = None) -> None:
    """Run all rows in order.

    threads: 1 to 64; None is `config.threads()`. Another caller's program may have the threads:
    this one then runs on the calling thread alone, with the same results. tid is below `threads` in
    every call.
    counters: int64 (rows, 2 + threads) to add to, per row: nanoseconds, calls, chunks run by each
    thread.
    """
    count = config.threads() if threads is None else threads
    if not 1 <= count <= config.MAX_THREADS:
        raise ArgumentError(f"threads={count}: expected 1 to {config.MAX_THREADS}")
    drive = _drive or driver()
    control, asked = 0, count
    if count > 1 and program.parallel:
        pool = _pool_of(drive)
        count, control = pool.grow(count), pool.control
    else:
        count = 1
    if counters is None:
        drive(_number(RUN), _number(control), *program.given, _number(count), _NONE, _NONE)
        return
    rows = len(program.rows)
    _check_counters(counters, (rows, 2 + asked))
    ticks = np.zeros(counters.shape, np.int64)
    drive(RUN, control, program.address, rows, count, ticks.ctypes.data, counters.shape[1])
    counters[:, 0] += np.rint(ticks[:, 0] * ns_per_tick()).astype(np.int64)
    counters[:, 1:] += ticks[:, 1:]


def _check_counters(counters: np.ndarray, least: tuple[int, int]) -> None:
    shape = counters.shape
    fits = len(shape) == 2 and shape[0] == least[0] and shape[1] >= least[1]
    if not fits or counters.dtype != np.int64:
        raise ArgumentError(
            f"counters: expected int64 of shape {least}, got {counters.dtype} of shape {shape}"
        )


_number = functools.lru_cache(maxsize=256)(ctypes.c_int64)  # made once: half of a call's time
_NONE = ctypes.c_int64(0)
_drive: threads.Drive | None = None
_pool_of = threads.pool  # `threads` is a parameter of run


def driver() -> threads.Drive:
    """The compiled driver; compiled once per machine, loaded once per process."""
    if _drive is None:
        known_at(cpu.load([cache.driver_source()]).addresses[cache.driver_source().key])
    assert _drive is not None
    return _drive


def known_at(address: int) -> None:
    """The driver was loaded with the kernels of a step; one that is in use already stays."""
    global _drive
    if _drive is None:
        target.amx_allowed()  # kernels that were compiled by another process may use it
        _drive = ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_int64] * 7)(address)


@functools.cache
def ns_per_tick() -> float:
    """Nanoseconds of one tick of the driver's counter, measured over 20 ms."""
    drive = driver()

    def now() -> tuple[int, int]:
        return time.perf_counter_ns(), drive(TICKS, 0, 0, 0, 0, 0, 0)

    ns0, ticks0 = now()
    time.sleep(0.02)
    ns1, ticks1 = now()
    return (ns1 - ns0) / max(1, ticks1 - ticks0)
