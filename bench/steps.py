"""Training steps side by side: nnjit's ratio to the best of its peers, and the share of the
machine's measured FMA peak (MFU).

Usage: python -m bench.steps [--workloads mlp cnn] [--threads 1 2] [--peers nnjit torch]
[--rounds 12] [--json FILE] [--losses]

Peers: nnjit (train_on_batch), fit (nnjit's fit, loader included), torch (eager), compile
(torch.compile), jax (Flax and Optax). They run in turn, a block of steps each, for several rounds;
the figure is the median of all steps, the ratio the median of the rounds' ratios. --losses times
nothing and prints each peer's loss before and after 30 steps instead.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from bench.turns import Peer, PeerFailed, figures, line, start, take_turns
from bench.workloads import WORKLOADS
from nnjit.atomic import write_atomic

PEERS = ("nnjit", "fit", "torch", "compile", "jax")
LOSS_STEPS = 30


def measure(workload: str, threads: int, names: list[str], rounds: int, peak: float) -> dict | None:
    """One workload at one number of threads, None if nnjit cannot do it. peak: GFLOP/s of a
    core.
    """
    label = f"{workload:6s} {threads} thread(s): "
    peers, failed = start("train", names, workload, threads)
    if "nnjit" in failed:
        for p in peers:
            p.close()
        print(f"{label}skipped, nnjit FAILED ({failed['nnjit']})", flush=True)
        return None
    times = take_turns(peers, rounds, failed)
    flops = WORKLOADS[workload].flops
    found = figures(times, flops, peak * threads)
    print(label + line(found, failed), flush=True)
    head = {"workload": workload, "threads": threads, "gflop": flops / 1e9}
    return {**head, **found, "failed": failed}


def losses(workload: str, threads: int, names: list[str]) -> None:
    """Print the losses of the first and the thirtieth step; the data is there to be learnt."""
    for name in [n for n in names if n != "fit"]:
        label = f"{workload:6s} {name:8s}"
        try:
            peer = Peer("train", name, workload, threads)
            found = peer.ask("losses", LOSS_STEPS)
            peer.close()
        except PeerFailed as why:
            print(f"{label} FAILED ({why})", flush=True)
            continue
        fell = "fell" if found[-1] < found[0] else "DID NOT FALL"
        print(f"{label} {fell} from {found[0]:.4f} to {found[-1]:.4f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--workloads", nargs="+", choices=list(WORKLOADS), default=list(WORKLOADS))
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS))
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--losses", action="store_true")
    args = parser.parse_args()
    if args.losses:
        for workload in args.workloads:
            losses(workload, args.threads[-1], args.peers)
        return
    from nnjit.profiling.machine import measure as measure_machine

    machine = measure_machine()
    peak = machine.gflops_core
    print(
        f"FMA peak of one core: {peak:.0f} GFLOP/s, memory {machine.bandwidth:.1f} GB/s (measured)"
    )
    rows = []
    for workload in args.workloads:
        for threads in args.threads:
            row = measure(workload, threads, args.peers, args.rounds, peak)
            rows += [row] if row else []
    if args.json:
        result = {"peak_gflops": peak, "memory_gbytes": machine.bandwidth, "rows": rows}
        write_atomic(args.json, (json.dumps(result, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
