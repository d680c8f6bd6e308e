"""Peers in turn: starts them, times blocks of steps, and says who is how much faster.

The machine drifts, so the figures are medians over all steps, and ratios medians of the rounds'.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

BLOCK_SECONDS = 0.4
SETTLE_SECONDS = 0.25  # until the other peer's threads have stopped spinning
OURS = ("nnjit", "fit")  # what is compared with the others

Times = dict[str, list[list[float]]]  # by peer: seconds of the steps of each round


class PeerFailed(Exception):
    """Why a peer has no figures."""


class Peer:
    """A running peer process; PeerFailed if it cannot do the workload."""

    def __init__(self, task: str, name: str, workload: str, threads: int, batch: int = 0):
        env = {k: v for k, v in os.environ.items() if not k.startswith("OPENBLAS_")}
        env["OMP_NUM_THREADS"] = env["MKL_NUM_THREADS"] = env["NNJIT_THREADS"] = str(threads)
        env["JAX_PLATFORMS"] = "cpu"
        words = [task, name, workload, str(threads), str(batch)]
        self.name = name
        self.process = subprocess.Popen(
            [sys.executable, "-m", "bench.peer", *words],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env,
            cwd=Path(__file__).parent.parent,
        )  # fmt: skip
        self._answer()

    def _answer(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        found = json.loads(line) if line else {"failed": f"it ended with {self.process.wait()}"}
        if isinstance(found, dict) and "failed" in found:
            raise PeerFailed(found["failed"])
        return found

    def ask(self, what: str, n: int) -> list[float]:
        """ "time": seconds of n steps. "losses": the losses of the first n steps."""
        assert self.process.stdin is not None
        print(json.dumps({what: n}), file=self.process.stdin, flush=True)
        return self._answer()

    def close(self) -> None:
        self.process.communicate()


def start(
    task: str, names: list[str], workload: str, threads: int, batch: int = 0
) -> tuple[list[Peer], dict[str, str]]:
    """The peers that can do it, ready; why the others cannot."""
    peers, failed = [], {}
    for name in names:
        try:
            peers.append(Peer(task, name, workload, threads, batch))
        except PeerFailed as why:
            failed[name] = str(why)
    return peers, failed


def block_steps(peer: Peer) -> int:
    """How many steps make a block; a first guess from two steps holds what is once a block."""
    n = 2
    for _ in range(2):
        n = max(2, int(BLOCK_SECONDS / min(peer.ask("time", n))))
    return n


def take_turns(peers: list[Peer], rounds: int, failed: dict[str, str]) -> Times:
    """A block of steps of each in turn, for several rounds; who fails is left out and noted."""
    steps: dict[str, int] = {}
    times: Times = {p.name: [] for p in peers}
    for turn in range(-1, rounds):
        for p in peers:
            if p.name in failed:
                continue
            time.sleep(SETTLE_SECONDS)
            try:
                if turn < 0:
                    steps[p.name] = block_steps(p)
                else:
                    times[p.name].append(p.ask("time", steps[p.name]))
            except PeerFailed as why:
                failed[p.name] = str(why)
                del times[p.name]
    for p in peers:
        p.close()
    return times


def figures(times: Times, flops: float, peak: float) -> dict[str, Any]:
    """By peer: milliseconds (median and best step), share of the peak (GFLOP/s of these threads),
    and nnjit's advantage; the best peer: the one over which that is smallest.
    """
    found: dict[str, Any] = {"peers": {}}
    for name, blocks in times.items():
        seconds = [t for block in blocks for t in block]
        median, least = statistics.median(seconds), min(seconds)
        share = flops / median / 1e9 / peak
        found["peers"][name] = {"ms": 1e3 * median, "best_ms": 1e3 * least, "share_of_peak": share}
    others = [n for n in times if n not in OURS]
    for name in others if "nnjit" in times else []:
        found["peers"][name]["nnjit_times_faster"] = ratio(times["nnjit"], times[name])
    if others and "nnjit" in times:
        best = min(others, key=lambda n: found["peers"][n]["nnjit_times_faster"])
        found["best"] = {"peer": best, **found["peers"][best]}
        if "fit" in times:
            found["best"]["fit_times_faster"] = ratio(times["fit"], times[best])
    return found


def ratio(ours: list[list[float]], theirs: list[list[float]]) -> float:
    """How many times faster ours are: the median over the rounds."""
    pairs = zip(ours, theirs, strict=True)
    return statistics.median(statistics.median(b) / statistics.median(a) for a, b in pairs)


def line(found: dict[str, Any], failed: dict[str, str]) -> str:
    """The figures of a row as text."""
    cells = [
        f"{name} {p['ms']:.3g} ms ({100 * p['share_of_peak']:.0f} %"
        + (f", {p['nnjit_times_faster']:.2f}x)" if "nnjit_times_faster" in p else ")")
        for name, p in found["peers"].items()
    ]
    if "best" in found:
        best = found["best"]
        cells.append(f"nnjit {best['nnjit_times_faster']:.2f} times as fast as {best['peer']}")
        if "fit_times_faster" in best:
            cells[-1] += f", in fit {best['fit_times_faster']:.2f}"
    cells += [f"{name} FAILED ({why})" for name, why in failed.items()]
    return "; ".join(cells)
