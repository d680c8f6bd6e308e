"""A step's time, launch by launch, against this machine's measured limits.

The step is first timed undisturbed; then the driver's counters say where the time goes. Training
steps change the model.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from nnjit.errors import ArgumentError
from nnjit.profiling.machine import Machine, machine
from nnjit.profiling.report import bytes_text, table

WARM_UP = 3


@dataclass(frozen=True)
class LaunchTime:
    """One launch. calls: of a step; 0 where what it writes lasts. milliseconds: mean of a step.
    share: of the launches' time. roof: the least time that this machine could need, as a share of
    what it took (above 1 where caches beat memory).
    """

    layer: str
    kernel: str
    ops: str
    calls: int
    milliseconds: float
    share: float
    flops: int
    nbytes: int
    gflops: float
    gbytes: float
    roof: float


@dataclass(frozen=True)
class Profile:
    """step_ms: median of undisturbed steps, best_ms: the fastest. work: bytes of the arena. parts:
    "8 slices of up to 6 samples", or "" where a step runs on the whole batch. whole: why it does,
    "" if it does not or was not asked for slices.
    """

    step: str
    extents: dict[str, int]
    steps: int
    threads: int
    step_ms: float
    best_ms: float
    work: int
    launches: tuple[LaunchTime, ...]
    machine: Machine
    parts: str = ""
    whole: str = ""

    @property
    def gflops(self) -> float:
        """Of the whole undisturbed step."""
        return sum(t.flops for t in self.launches) / self.step_ms / 1e6

    def __str__(self) -> str:
        return text(self)

    def get_config(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {**asdict(self), "gflops": self.gflops}


def profile_step(
    executable: Any, inputs: Mapping[str, np.ndarray], name: str, steps: int
) -> Profile:
    """Run the step `steps` times undisturbed and as often with counters. Needs device "cpu"."""
    if steps < 1:
        raise ArgumentError(f"steps={steps}: expected at least 1")
    if not hasattr(executable, "measure"):
        raise ArgumentError("profile: only device 'cpu' counts time per launch")
    times = []
    for i in range(WARM_UP + steps):
        start = time.perf_counter()
        executable.run(inputs)
        if i >= WARM_UP:
            times.append(1e3 * (time.perf_counter() - start))
    counters, arrangement = executable.measure(inputs, steps)
    limits = machine()
    total = max(float(counters[:, 0].sum()), 1.0)
    launches = tuple(
        _launch(launch, row, steps, total, arrangement.extents, limits)
        for launch, row in zip(executable.launches(arrangement.extents), counters, strict=True)
    )
    return Profile(
        name, dict(arrangement.extents), steps, limits.threads, float(np.median(times)),
        min(times), arrangement.work, launches, limits, executable.slices_text(arrangement.extents),
        executable.whole_text(arrangement.extents),
    )  # fmt: skip


def _launch(
    launch: Any, row: np.ndarray, steps: int, total: float, extents: Mapping[str, int],
    limits: Machine,
) -> LaunchTime:  # fmt: skip
    seconds = max(float(row[0]) / steps / 1e9, 1e-9)
    often = min(1.0, float(row[1]) / steps)  # packed weights last from step to step
    flops, nbytes = (
        round(often * n) for n in (launch.flop_count(extents), launch.byte_count(extents))
    )
    return LaunchTime(
        ", ".join(launch.scopes) or "-", launch.template.name, launch.ops, int(row[1]) // steps,
        1e3 * seconds, float(row[0]) / total, flops, nbytes, flops / seconds / 1e9,
        nbytes / seconds / 1e9, limits.roof(flops, nbytes) / seconds,
    )  # fmt: skip


def text(p: Profile) -> str:
    """The profile as a table, and what it adds up to."""
    head = ["layer", "kernel", "calls", "ms", "share", "GFLOP/s", "GB/s", "of roof"]
    rows = [
        [_cut(t.layer), t.kernel, t.calls, f"{t.milliseconds:.3f}", f"{t.share:.1%}",
         f"{t.gflops:.1f}", f"{t.gbytes:.1f}", f"{t.roof:.0%}"]
        for t in p.launches
    ]  # fmt: skip
    measured = sum(t.milliseconds for t in p.launches)
    extents = ", ".join(f"{k} {v}" for k, v in p.extents.items())
    extents += f" in {p.parts}" if p.parts else ""
    m = p.machine
    roof = sum(m.roof(t.flops, t.nbytes) for t in p.launches) * 1e3
    return "\n".join([
        table(head, rows, left=2),
        "",
        f"{p.step} step, {extents}: {p.step_ms:.3f} ms undisturbed (median of {p.steps}, best "
        f"{p.best_ms:.3f}), {measured:.3f} ms in launches; {p.gflops:.1f} GFLOP/s; "
        f"work arena {bytes_text(p.work)}",
        *[f"on the whole batch, not in slices: {p.whole}"] * bool(p.whole),
        f"this machine: {m.gflops:.0f} GFLOP/s and {m.bandwidth:.0f} GB/s on {m.threads} threads: "
        f"at these limits what is counted takes {roof:.3f} ms ({roof / p.step_ms:.0%} of the step)",
    ])  # fmt: skip


def _cut(text_: str, width: int = 40) -> str:
    return text_ if len(text_) <= width else text_[: width - 1] + "…"


def trace(p: Profile) -> str:
    """Chrome's trace format: one step, the launches one after the other with their mean times."""
    events: list[dict[str, Any]] = []
    at = 0.0
    for t in p.launches:
        duration = 1e3 * t.milliseconds
        args = {
            "layer": t.layer,
            "ops": t.ops,
            "GFLOP/s": t.gflops,
            "GB/s": t.gbytes,
            "roof": t.roof,
        }
        events.append(
            {"name": t.kernel, "cat": p.step, "ph": "X", "ts": at, "dur": duration, "pid": 1,
             "tid": 1, "args": args}
        )  # fmt: skip
        at += duration
    about = {"step": p.step, **p.extents, "step_ms": p.step_ms, "times": f"mean of {p.steps} steps"}
    return json.dumps({"traceEvents": events, "displayTimeUnit": "ms", "otherData": about})
