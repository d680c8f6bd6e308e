"""Peak memory of training processes, nnjit beside PyTorch eager.

Usage: python -m bench.memory [--workloads mlp cnn] [--threads 2] [--peers nnjit torch]
[--json FILE]

Two figures of VmHWM in /proc/self/status: of the whole process, and what training added to the
memory after imports. nnjit's kernels are compiled by another process before. Linux only.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

from bench.workloads import WORKLOADS
from nnjit.atomic import write_atomic

PEERS = ("nnjit", "torch", "compile", "jax")
STEPS = 10


def status(field: str) -> float:
    """MB of a field of /proc/self/status."""
    for text in Path("/proc/self/status").read_text().splitlines():
        if text.startswith(f"{field}:"):
            return int(text.split()[1]) * 1024 / 1e6
    raise LookupError(f"/proc/self/status has no {field}")


def child(peer: str, workload: str, threads: int) -> None:
    """Train for some steps in this process and print the two peaks, in MB."""
    import importlib

    from bench.peer import MODULES, occupy

    occupy(threads)
    module, options = MODULES[peer]
    models = importlib.import_module(module)
    before = status("VmHWM")
    try:
        trainer = models.trainer(WORKLOADS[workload], threads, **options)
        for i in range(STEPS):
            trainer.step(i)
    except Exception as error:
        print(json.dumps({"failed": f"{type(error).__name__}: {str(error).splitlines()[0]}"}))
        return
    peak = status("VmHWM")
    print(json.dumps({"training_mb": peak - before, "process_mb": peak}))


def measure(peer: str, workload: str, threads: int) -> dict:
    """The peaks of a process of its own, or why there are none."""
    command = [sys.executable, "-m", "bench.memory", "--child", peer, workload, str(threads)]
    for _ in range(2 if peer == "nnjit" else 1):  # the first one compiles
        done = subprocess.run(
            command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parent.parent
        )
    lines = done.stdout.splitlines()
    return json.loads(lines[-1]) if lines else {"failed": f"it ended with {done.returncode}"}


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        child(*sys.argv[2:4], int(sys.argv[4]))
        return
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--workloads", nargs="+", choices=list(WORKLOADS), default=list(WORKLOADS))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=["nnjit", "torch"])
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    rows = []
    for workload in args.workloads:
        row = {peer: measure(peer, workload, args.threads) for peer in args.peers}
        rows.append({"workload": workload, "threads": args.threads, "peers": row})
        cells = [
            f"{name} FAILED ({r['failed']})" if "failed" in r
            else f"{name} {r['training_mb']:.0f} MB above imports, {r['process_mb']:.0f} MB in all"
            for name, r in row.items()
        ]  # fmt: skip
        print(f"{workload:6s} " + "; ".join(cells), flush=True)
    if args.json:
        write_atomic(args.json, (json.dumps({"rows": rows}, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
