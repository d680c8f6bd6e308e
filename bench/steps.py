"""Training steps side by side: nnjit's ratio to its peers, and the share of the machine's measured
FMA peak.

Usage: python -m bench.steps [--workloads mlp cnn] [--threads 1 2] [--rounds 12] [--json FILE]

Peers run in turn, a block of steps each, for several rounds; the figure is the median of all steps,
the ratio the median of the rounds' ratios. Needs torch for the comparison; without it only nnjit is
timed.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from bench.workloads import WORKLOADS, Workload
from nnjit.atomic import write_atomic

BLOCK_SECONDS = 0.4
SETTLE_SECONDS = 0.25  # until the other peer's threads have stopped spinning


class Peer:
    """A running peer process."""

    def __init__(self, name: str, workload: str, threads: int):
        env = {k: v for k, v in os.environ.items() if not k.startswith("OPENBLAS_")}
        env["OMP_NUM_THREADS"] = env["NNJIT_THREADS"] = str(threads)
        command = [sys.executable, "-m", "bench.peer", name, workload, str(threads)]
        self.name = name
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env,
            cwd=Path(__file__).parent.parent,
        )  # fmt: skip
        assert self.process.stdout is not None
        if self.process.stdout.readline().strip() != "ready":
            raise SystemExit(f"{name} failed on {workload}")

    def time(self, steps: int) -> list[float]:
        """Seconds of each of `steps` steps."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(steps, file=self.process.stdin, flush=True)
        return json.loads(self.process.stdout.readline())

    def close(self) -> None:
        self.process.communicate()


def measure(work: Workload, threads: int, names: list[str], rounds: int, peak: float) -> dict:
    """One workload at one number of threads. peak: GFLOP/s of one core."""
    peers = [Peer(name, work.name, threads) for name in names]
    steps = {p.name: max(3, int(BLOCK_SECONDS / min(p.time(5)))) for p in peers}
    times: dict[str, list[list[float]]] = {p.name: [] for p in peers}
    for _ in range(rounds):
        for p in peers:
            time.sleep(SETTLE_SECONDS)
            times[p.name].append(p.time(steps[p.name]))
    for p in peers:
        p.close()
    row: dict = {"workload": work.name, "threads": threads, "gflop": work.flops / 1e9, "peers": {}}
    for name, blocks in times.items():
        median = statistics.median(t for block in blocks for t in block)
        share = work.flops / median / 1e9 / (peak * threads)
        row["peers"][name] = {"ms": 1e3 * median, "share_of_peak": share}
    for name in names[1:]:
        pairs = zip(times["nnjit"], times[name], strict=True)
        ratios = [statistics.median(theirs) / statistics.median(ours) for ours, theirs in pairs]
        row["peers"][name]["nnjit_times_faster"] = statistics.median(ratios)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--workloads", nargs="+", choices=list(WORKLOADS), default=list(WORKLOADS))
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    from nnjit.profiling.machine import measure as measure_machine

    machine = measure_machine()
    peak = machine.gflops_core
    names = ["nnjit", *(["torch"] if importlib.util.find_spec("torch") else [])]
    print(
        f"FMA peak of one core: {peak:.0f} GFLOP/s, memory {machine.bandwidth:.1f} GB/s (measured)"
    )
    rows = []
    for workload in args.workloads:
        for threads in args.threads:
            row = measure(WORKLOADS[workload], threads, names, args.rounds, peak)
            rows.append(row)
            cells = [
                f"{n} {p['ms']:.2f} ms ({100 * p['share_of_peak']:.0f} % of peak)"
                + (f", nnjit {p['nnjit_times_faster']:.2f} times faster" if n != "nnjit" else "")
                for n, p in row["peers"].items()
            ]
            print(f"{workload:5s} {threads} thread(s): " + "; ".join(cells), flush=True)
    if args.json:
        result = {"peak_gflops": peak, "memory_gbytes": machine.bandwidth, "rows": rows}
        write_atomic(args.json, (json.dumps(result, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
