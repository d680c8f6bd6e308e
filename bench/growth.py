"""How nnjit's training step grows: time per sample at one, four and sixteen times the batch, and
from one thread to two, beside what multiply-adds alone gain there.

Usage: python -m bench.growth [--workloads mlp cnn] [--rounds 6] [--limit 10] [--json FILE]

All sizes and threads take turns in one process. Sizes whose step would take longer than --limit
seconds are left out.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nnjit
from bench import models_nnjit
from bench.peer import timed
from bench.trainer import Trainer
from bench.workloads import WORKLOADS
from nnjit import config
from nnjit.atomic import write_atomic
from nnjit.profiling.machine import multiply_adds
from nnjit.runtime import driver

TIMES = (1, 4, 16)
BLOCK_SECONDS = 0.3
PEAK_RUNS = 100  # of some 2 ms


def in_turn(blocks: dict[Any, Callable[[], list[float]]], rounds: int) -> dict[Any, list[float]]:
    """By key: each round's median step in seconds."""
    found: dict[Any, list[float]] = {k: [] for k in blocks}
    for _ in range(rounds):
        for key, block in blocks.items():
            found[key].append(statistics.median(block()))
    return found


def block_of(trainer: Trainer, threads: int, seconds: float) -> Callable[[], list[float]]:
    """A block of steps of about `seconds` each, on so many threads."""
    n = max(2, int(BLOCK_SECONDS / seconds))

    def block() -> list[float]:
        nnjit.set_threads(threads)
        trainer.reset()
        return timed(trainer.step, n)

    return block


def peak_block(threads: int) -> Callable[[], list[float]]:
    """A block of multiply-adds alone: seconds of one on so many threads, all counted."""
    program, flops = multiply_adds(threads)

    def block() -> list[float]:
        seconds = timed(lambda _: driver.run(program, threads), PEAK_RUNS)
        return [s / flops for s in seconds]

    return block


def measure(workload: str, rounds: int, limit: float) -> dict[str, Any]:
    """Microseconds a sample by multiple of the batch on all threads, and how many times faster two
    threads are than one: the step, and multiply-adds alone.
    """
    threads, work = config.threads(), WORKLOADS[workload]
    blocks: dict[Any, Callable[[], list[float]]] = {}
    skipped: list[int] = []
    first = 0.0
    for times in TIMES:
        if first * times > limit:
            skipped.append(times)
            continue
        trainer = models_nnjit.trainer(work.of_batch(work.batch * times), threads)
        trainer.step(0)
        start = time.perf_counter()
        trainer.step(1)
        seconds = time.perf_counter() - start
        first = first or seconds
        blocks[times] = block_of(trainer, threads, seconds)
        if times == 1 and config.cores() > 1:
            blocks["one"] = block_of(trainer, 1, seconds)
            blocks["two"] = block_of(trainer, 2, seconds)
            blocks |= {f"peak {n}": peak_block(n) for n in (1, 2)}
    found = in_turn(blocks, rounds)
    nnjit.set_threads(threads)
    sample = {
        str(t): 1e6 * statistics.median(found[t]) / (work.batch * t) for t in TIMES if t in found
    }

    def ratio(one: str, two: str) -> float | None:
        pairs = zip(found.get(one, []), found.get(two, []), strict=True)
        ratios = [a / b for a, b in pairs]
        return statistics.median(ratios) if ratios else None

    return {
        "workload": workload, "threads": threads, "us_per_sample": sample, "left_out": skipped,
        "two_threads_times_faster": ratio("one", "two"),
        "multiply_adds_times_faster": ratio("peak 1", "peak 2"),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--workloads", nargs="+", choices=list(WORKLOADS), default=list(WORKLOADS))
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--limit", type=float, default=10.0)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    rows = []
    for workload in args.workloads:
        try:
            row = measure(workload, args.rounds, args.limit)
        except Exception as error:  # the others go on
            print(f"{workload:6s} skipped, FAILED ({type(error).__name__}: {error})", flush=True)
            continue
        rows.append(row)
        cells = [f"batch x{t} {us:.3g} us a sample" for t, us in row["us_per_sample"].items()]
        cells += [f"batch x{t} left out, over --limit" for t in row["left_out"]]
        if row["two_threads_times_faster"]:
            cells.append(
                f"two threads {row['two_threads_times_faster']:.2f} times faster than one, "
                f"of multiply-adds alone {row['multiply_adds_times_faster']:.2f}"
            )
        print(f"{workload:6s} {row['threads']} thread(s): " + "; ".join(cells), flush=True)
    if args.json:
        write_atomic(args.json, (json.dumps({"rows": rows}, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
