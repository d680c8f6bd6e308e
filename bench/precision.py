"""Our float32 step beside our mixed_bfloat16 step, in turn in one process.

Usage: python -m bench.precision [--workloads gptm cnn] [--threads 1 2] [--rounds 8] [--json FILE]

The ratio is the median over the rounds of float32's best step to mixed_bfloat16's; the losses are
those after equally many steps on the same two batches.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import nnjit
from bench.models_nnjit import LOSSES, MODELS, given
from bench.workloads import WORKLOADS
from nnjit.atomic import write_atomic
from nnjit.precision import POLICIES

STEPS = 2  # of each policy in a round, one a batch


def measure(workload: str, threads: int, rounds: int) -> dict[str, Any]:
    """Milliseconds of the best step, the loss at the end, and how many times faster."""
    nnjit.set_threads(threads)
    work = WORKLOADS[workload]
    x, y = work.data(STEPS)
    batches = [given(tuple(a[i] for a in x)) for i in range(STEPS)]
    models = {}
    for policy in POLICIES:
        nnjit.set_seed(0)
        models[policy] = MODELS[workload](work)
        models[policy].compile("adam", LOSSES[work.loss](), dtype_policy=policy)
    best: dict[str, list[float]] = {policy: [] for policy in POLICIES}
    loss = {}
    for _ in range(rounds + 1):
        for policy, model in models.items():
            seconds = []
            for i in range(STEPS):
                start = time.perf_counter()
                loss[policy] = float(model.train_on_batch(batches[i], y[i]))
                seconds.append(time.perf_counter() - start)
            best[policy].append(min(seconds))
    plain, mixed = (best[policy][1:] for policy in POLICIES)  # the first round compiles
    ratio = statistics.median(a / b for a, b in zip(plain, mixed, strict=True))
    ms = {policy: 1e3 * min(found[1:]) for policy, found in best.items()}
    return {"workload": workload, "threads": threads, "ms": ms, "loss": loss, "ratio": ratio}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--workloads", nargs="+", choices=list(WORKLOADS), default=["gptm", "cnn"])
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    rows = []
    for workload in args.workloads:
        for threads in args.threads:
            row = measure(workload, threads, args.rounds)
            rows.append(row)
            print(
                f"{workload:6s} {threads} thread(s): mixed_bfloat16 {row['ratio']:.2f} times as "
                f"fast; best steps {row['ms']}, losses {row['loss']}", flush=True,
            )  # fmt: skip
    if args.json:
        write_atomic(args.json, (json.dumps({"rows": rows}, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
