"""What NNJIT_DEBUG shows of compiled steps, on standard error.

1: a summary of each step, and its memory for each batch size; 2: the time of each launch, by layer,
when the process ends; 5: LLVM and assembly of each kernel. (3 and 4, the graph after each pass and
the source, are shown by `compiler.pipeline`.)
"""

from __future__ import annotations

import atexit
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from nnjit import config
from nnjit.compiler.plan import Arrangement
from nnjit.runtime import driver

_times: dict[tuple[int, str], Times] = {}


def show(text: str) -> None:
    """A line, or more, on standard error."""
    print(text, file=sys.stderr, flush=True)


def built(executable: Any) -> None:
    """What was compiled for a step."""
    graph, plan = executable.graph, executable.compiled
    parameters = [n.spec for n in graph.leaves("parameter")]
    count, nbytes = sum(s.size for s in parameters), sum(s.nbytes for s in parameters)
    kernels = len({k.key for k in executable.kernels})
    show(
        f"nnjit: step {graph.name!r}: {count:,} parameters ({nbytes:,} bytes), "
        f"{len(plan.launches)} launches of {kernels} kernels"
    )
    if executable.report is not None:
        show("  " + executable.report.summary())
    if config.debug() >= 5 and executable.report is not None:
        for source in {k.key: k for k in executable.kernels}.values():
            llvm, assembly = _machine_code(source)
            show(f"-- LLVM of {source.name}\n{llvm}\n-- assembly of {source.name}\n{assembly}")


def _machine_code(source: Any) -> tuple[str, str]:
    from nnjit.runtime import build  # workers, which nothing else here needs

    return build.inspect(source)


def arranged(name: str, a: Arrangement) -> None:
    """The memory of a step for some extents."""
    extents = ", ".join(f"{k} {v}" for k, v in a.extents.items()) or "fixed shapes"
    show(
        f"nnjit: step {name!r}, {extents}: work arena {a.work:,} bytes, "
        f"scratch {a.scratch:,} bytes a thread"
    )


class Times:
    """Nanoseconds and runs of each launch of one step."""

    def __init__(self, name: str, plan: Any, extents: Mapping[str, int]):
        self.plan = plan
        self.name = ", ".join([f"step {name!r}", *(f"{k} {v}" for k, v in extents.items())])
        self.launches = [(", ".join(x.scopes) or "-", x.template.name) for x in plan.launches]
        self.counters = np.zeros((len(self.launches), 2), np.int64)
        self.runs = 0

    def text(self) -> str:
        """A line for each launch, then one for each layer (or layers that share launches)."""
        mean = self.counters[:, 0] / max(self.runs, 1) / 1e6
        total = max(float(mean.sum()), 1e-9)
        width = max(len(layer) for layer, _ in self.launches)
        lines = [f"nnjit: {self.name}: {self.runs} runs, {total:.3f} ms in launches each"]
        by_layer: dict[str, float] = {}
        for (layer, kernel), ms in zip(self.launches, mean, strict=True):
            lines.append(f"  {layer:<{width}} {ms:9.4f} ms {ms / total:6.1%}  {kernel}")
            by_layer[layer] = by_layer.get(layer, 0.0) + float(ms)
        lines.append("  by layer:")
        for layer, ms in sorted(by_layer.items(), key=lambda item: -item[1]):
            lines.append(f"  {layer:<{width}} {ms:9.4f} ms {ms / total:6.1%}")
        return "\n".join(lines)


def timed(executable: Any, bound: Any) -> None:
    """Run a bound program with counters; what they say is shown when the process ends."""
    if not _times:
        atexit.register(_show_times)
    a = bound.arrangement
    key = (id(executable.compiled), str(a.extents))  # Times keeps the plan, and so its id
    if key not in _times:
        _times[key] = Times(executable.graph.name, executable.compiled, a.extents)
    found = _times[key]
    counters = np.zeros((len(found.launches), 2 + config.threads()), np.int64)
    driver.run(bound.program, counters=counters)
    found.counters += counters[:, :2]
    found.runs += 1


def _show_times() -> None:
    for times in _times.values():
        show(times.text())
