"""Start-up: compiling training steps from an empty cache, a warm process up to its first step, and
what a launch costs.

Usage: python -m bench.startup [--workloads cnn gpt] [--runs 5] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from bench.workloads import WORKLOADS
from nnjit.atomic import write_atomic

CHILD = """
import sys
from bench.models_nnjit import build, given
from bench.workloads import WORKLOADS
try:
    work = WORKLOADS[sys.argv[1]]
    model = build(work)
    x, y = work.data(1)
    model.train_on_batch(given(tuple(a[0] for a in x)), y[0])
    print("done", "numba" in sys.modules, flush=True)
except Exception as error:
    print("failed", type(error).__name__, str(error).splitlines()[0], flush=True)
"""
LAUNCHES = 2000


class Failed(Exception):
    """A workload that nnjit cannot do."""


def environment(cache: str) -> dict[str, str]:
    """That of an installed package: Python keeps byte code, whatever this shell has it do."""
    kept = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "NNJIT_CACHE": cache}


def first_step(workload: str, cache: str) -> tuple[float, bool]:
    """Seconds from the start of a process to its first finished step, and whether it imported
    numba.
    """
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD, workload], stdout=subprocess.PIPE, text=True,
        env=environment(cache), cwd=Path(__file__).parent.parent,
    )  # fmt: skip
    assert process.stdout is not None
    words = process.stdout.readline().split()
    seconds = time.perf_counter() - start
    process.communicate()
    if not words or words[0] != "done":
        raise Failed(" ".join(words[1:]) or f"the process ended with {process.returncode}")
    return seconds, words[1] == "True"


def measure(workload: str, runs: int) -> dict[str, float]:
    """Medians and the best, in seconds."""
    cold, warm = [], []
    for _ in range(max(1, runs // 2)):
        with tempfile.TemporaryDirectory() as cache:
            cold.append(first_step(workload, cache)[0])
            for _ in range(runs):
                seconds, numba = first_step(workload, cache)
                if numba:
                    raise Failed("a warm process imported numba")
                warm.append(seconds)
    return {
        "cold_s": statistics.median(cold), "warm_s": statistics.median(warm),
        "warm_best_s": min(warm),
    }  # fmt: skip


def launch_us(threads: int) -> float:
    """Microseconds of a launch that does nothing, from a long row of them: the best of many runs.
    With more than one thread each has a chunk for every thread.
    """
    from nnjit.kernels.template import Template, render, signature
    from nnjit.runtime import cpu, driver
    from nnjit.runtime.cache import KernelSource

    body = ("y[lo] = f4(0)",)
    nothing = Template(
        "bench_nothing", "A launch and no more.", ("from numpy import float32 as f4",), (),
        (("y", "f4"),), body, trip=1,
    )  # fmt: skip
    source = KernelSource(nothing.name, signature(nothing), render(nothing))
    address = cpu.load([source]).addresses[source.key]
    y = np.zeros(threads, np.float32)
    call = driver.Call(address, threads, [y.ctypes.data], chunks=threads)
    program = driver.Program.build([call] * LAUNCHES, (y,))
    seconds = []
    for _ in range(50):
        start = time.perf_counter()
        driver.run(program, threads)
        seconds.append(time.perf_counter() - start)
    return 1e6 * min(seconds) / LAUNCHES


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    usual = ["mlp", "cnn", "gpt", "resnet", "unet"]
    parser.add_argument("--workloads", nargs="+", choices=list(WORKLOADS), default=usual)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    result: dict[str, dict] = {"launch_us": {str(n): launch_us(n) for n in (1, 2)}}
    for threads, us in result["launch_us"].items():
        print(f"a launch on {threads} thread(s): {us:.2f} us")
    for workload in args.workloads:
        try:
            row = measure(workload, args.runs)
        except Failed as why:
            print(f"{workload:6s} skipped, FAILED ({why})", flush=True)
            continue
        result[workload] = row
        print(
            f"{workload:6s} from process start to the first finished step: "
            f"cold {row['cold_s']:.2f} s (all of it, compiling included), "
            f"warm {row['warm_s']:.3f} s (best {row['warm_best_s']:.3f})",
            flush=True,
        )
    if args.json:
        write_atomic(args.json, (json.dumps(result, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
