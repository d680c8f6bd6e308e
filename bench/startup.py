"""Start-up: compiling the CNN's training step from an empty cache, and a warm process up to its
first step.

Usage: python -m bench.startup [--runs 5] [--json FILE]
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

from nnjit.atomic import write_atomic

CHILD = """
import sys, time
from bench.workloads import nnjit_step
from nnjit import config
step = nnjit_step(sys.argv[1], config.threads())
step(0)
print("done", "numba" in sys.modules, flush=True)
"""


def first_step(workload: str, cache: str) -> tuple[float, bool]:
    """Seconds from the start of a process to its first finished step, and whether it imported
    numba.
    """
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD, workload], stdout=subprocess.PIPE, text=True,
        env={**os.environ, "NNJIT_CACHE": cache}, cwd=Path(__file__).parent.parent,
    )  # fmt: skip
    assert process.stdout is not None
    words = process.stdout.readline().split()
    seconds = time.perf_counter() - start
    process.communicate()
    if not words or words[0] != "done":
        raise SystemExit(f"the first step of {workload} failed")
    return seconds, words[1] == "True"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    result = {}
    for workload in ("mlp", "cnn"):
        cold, warm = [], []
        for _ in range(max(1, args.runs // 2)):
            with tempfile.TemporaryDirectory() as cache:
                cold.append(first_step(workload, cache)[0])
                for _ in range(args.runs):
                    seconds, numba = first_step(workload, cache)
                    assert not numba, "a warm process imported numba"
                    warm.append(seconds)
        result[workload] = {"cold_s": statistics.median(cold), "warm_s": statistics.median(warm)}
        print(
            f"{workload}: from process start to the first finished step: "
            f"cold {statistics.median(cold):.2f} s (all of it, compiling included), "
            f"warm {statistics.median(warm):.3f} s (best {min(warm):.3f})"
        )
    if args.json:
        write_atomic(args.json, (json.dumps(result, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
