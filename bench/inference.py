"""Predictions side by side: nnjit's ratio to the best of its peers at batch 1 and 64.

Usage: python -m bench.inference [--workloads mlp cnn] [--batches 1 64] [--threads 1 2]
[--peers nnjit torch] [--rounds 8] [--json FILE]

Peers: nnjit (`model.predict_on_batch`, arrays in and out), torch (eager) and compile
(torch.compile) under no_grad, jax (jitted apply), onnx (ONNX Runtime on PyTorch's export).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from bench.turns import figures, line, start, take_turns
from bench.workloads import WORKLOADS
from nnjit.atomic import write_atomic

PEERS = ("nnjit", "torch", "compile", "jax", "onnx")


def measure(
    workload: str, batch: int, threads: int, names: list[str], rounds: int, peak: float
) -> dict | None:
    """One workload at one size and number of threads, None if nnjit cannot do it. peak: GFLOP/s of
    a core.
    """
    label = f"{workload:6s} batch {batch:2d} {threads} thread(s): "
    peers, failed = start("predict", names, workload, threads, batch)
    if "nnjit" in failed:
        for p in peers:
            p.close()
        print(f"{label}skipped, nnjit FAILED ({failed['nnjit']})", flush=True)
        return None
    times = take_turns(peers, rounds, failed)
    flops = WORKLOADS[workload].of_batch(batch).forward_flops
    found = figures(times, flops, peak * threads)
    print(label + line(found, failed), flush=True)
    head = {"workload": workload, "batch": batch, "threads": threads, "gflop": flops / 1e9}
    return {**head, **found, "failed": failed}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--workloads", nargs="+", choices=list(WORKLOADS), default=list(WORKLOADS))
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 64])
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS))
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    from nnjit.profiling.machine import measure as measure_machine

    peak = measure_machine().gflops_core
    print(f"FMA peak of one core: {peak:.0f} GFLOP/s (measured)")
    rows = []
    for workload in args.workloads:
        for batch in args.batches:
            for threads in args.threads:
                row = measure(workload, batch, threads, args.peers, args.rounds, peak)
                rows += [row] if row else []
    if args.json:
        write_atomic(args.json, (json.dumps({"rows": rows}, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
