"""What this machine can do, measured: multiply-adds per second and bytes per second from memory.

Both ceilings are measured with kernels of nnjit's own, through the same loader and driver as a
training step, and kept in the cache folder until the CPU, the threads or the kernels change.
"""

from __future__ import annotations

import contextlib
import json
import time
from dataclasses import asdict, dataclass

import numpy as np

from nnjit import config
from nnjit.atomic import write_atomic
from nnjit.kernels import target
from nnjit.kernels.template import Template, render, signature
from nnjit.runtime import cpu, driver
from nnjit.runtime.buffers import aligned
from nnjit.runtime.cache import KernelSource, digest, environment

DEPTH = 1024  # multiply-adds per accumulator in one call of the tile: 4 KiB of the operand A
STREAM = 1 << 24  # float32 values per array: 64 MiB, beyond any core's cache
REPEATS = 60


@dataclass(frozen=True)
class Machine:
    """Measured ceilings: float32 GFLOP/s of all threads and of one (a multiply-add is two), and the
    GB/s of memory that all threads read and write."""

    gflops: float
    gflops_core: float
    bandwidth: float
    threads: int

    def roof(self, flops: float, nbytes: float) -> float:
        """Seconds that no kernel of so many operations and bytes can beat on this machine."""
        return max(flops / (self.gflops * 1e9), nbytes / (self.bandwidth * 1e9))


def machine() -> Machine:
    """This machine's ceilings: from the cache folder, else measured now (about a second)."""
    path = config.cache_dir() / "machine.json"
    key = digest(json.dumps([environment(), config.threads(), *map(render, _templates())]))
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        if stored["key"] == key:
            return Machine(**stored["machine"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # not measured yet, or not by this version
    found = measure()
    text = json.dumps({"key": key, "machine": asdict(found)}, indent=2)
    with contextlib.suppress(OSError):  # a shared folder that is read-only: measured each time
        write_atomic(path, text.encode(), durable=False)
    return found


def measure() -> Machine:
    """Measure now: the best of several repetitions."""
    threads = config.threads()

    def peak_of(count: int) -> float:
        program, flops = multiply_adds(count)
        return flops / _best(program, count) / 1e9

    x, y = aligned(4 * STREAM), aligned(4 * STREAM)
    x[:], y[:] = 0, 0  # touch every page
    words = [x.ctypes.data, y.ctypes.data]
    stream = _address(_templates()[1])
    call = driver.Call(stream, STREAM, words, chunks=min(8 * threads, 256), align=16)
    bandwidth = 12 * STREAM / _best(driver.Program.build([call], (x, y)), threads) / 1e9
    return Machine(round(peak_of(threads), 1), round(peak_of(1), 1), round(bandwidth, 1), threads)


def multiply_adds(threads: int) -> tuple[driver.Program, int]:
    """A program of multiply-adds alone for so many threads, and its operations: about 2 ms."""
    rows, columns = _peak_tile()
    sizes = (DEPTH + rows, columns, rows * columns * config.MAX_THREADS)
    arrays = tuple(aligned(4 * n) for n in sizes)
    trips, words = 256 * threads, [x.ctypes.data for x in arrays]
    call = driver.Call(_address(_templates()[0]), trips, words, chunks=min(8 * threads, 256))
    return driver.Program.build([call], arrays), 2 * rows * columns * DEPTH * trips


def _address(t: Template) -> int:
    source = KernelSource(t.name, signature(t), render(t))
    return cpu.load([source]).addresses[source.key]


def _best(program: driver.Program, threads: int) -> float:
    """Seconds of the fastest of several runs."""
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        driver.run(program, threads)
        times.append(time.perf_counter() - start)
    return float(np.min(times))


def _peak_tile() -> tuple[int, int]:
    """Rows and columns of accumulators that fill the registers, with room for the operands."""
    return (14 if target.registers() == 32 else 6), 2 * target.lanes("f4")


def _templates() -> tuple[Template, Template]:
    """The two kernels: nothing but multiply-adds, and nothing but memory."""
    rows, columns = _peak_tile()
    at_c = ", ".join(str(r * columns) for r in range(rows))
    # A moves on (4 KiB, so it stays near), or its values would take the accumulators' registers
    peak = Template(
        "machine_peak",
        "Multiply-adds on operands that stay in the first-level cache.",
        (
            "from nnjit.kernels.tile import tile",
            "",
            "fma = tile(",
            f"    rows_a=range({rows}), rows_c=({at_c}),",
            f"    vectors=2, lanes={target.lanes('f4')},",
            ")",
        ),
        (),
        (("a", "f4"), ("b", "f4"), ("c", "f4")),
        (
            "for _ in range(lo, hi):",
            f"    fma(1, {DEPTH}, a, 0, 0, b, 0, 0, c, tid * {rows * columns})",
        ),
        trip=1,
    )
    stream = Template(
        "machine_stream",
        "Two arrays read and one written, once.",
        (),
        (),
        (("x", "f4"), ("y", "f4")),
        ("for i in range(lo, hi):", "    y[i] = x[i] + y[i]"),
        trip=STREAM,
    )
    return peak, stream
