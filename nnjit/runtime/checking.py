"""NNJIT_CHECK=1: every launch is compared with the interpreter, and the first NaN is named.

Launches run one by one. After each, what it wrote is compared with the NumPy meaning of the same
Nodes, computed from the same inputs; a difference beyond rounding, or a NaN or infinity where the
interpreter has none, stops the run.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from nnjit.compiler.groups import Launch
from nnjit.errors import GraphError, NumericError
from nnjit.graph import Node, interpret

TOLERANCE = {"float32": 2e-3, "float64": 1e-8}


def check_launches(executable: Any, bound: Any, arrays: Mapping[str, np.ndarray]) -> None:
    """Run a bound program launch by launch and compare."""
    plan = executable.compiled
    values = {**{k: v.copy() for k, v in executable.store.arrays.items()}, **arrays}
    want: dict[Node, np.ndarray] = {}
    interpret(plan.graph, values, trace=want)
    held: dict[Any, list[Node]] = {}
    for n, b in plan.buffers.items():
        if not n.is_leaf:
            held.setdefault(b, []).append(n)
    done: set[Any] = set()
    for k, launch in enumerate(plan.launches):
        executable.run_row(bound, k)
        for b in launch.written:
            if b in done:
                continue
            for n in held.get(b, []):
                got = executable.binder.array(b, bound.arrangement)
                if got.size == want[n].size:
                    compare(launch, k, n, got.reshape(want[n].shape), want[n])
            done.add(b)


def compare(launch: Launch, k: int, n: Node, got: np.ndarray, want: np.ndarray) -> None:
    """NumericError for a new NaN or infinity, GraphError for a difference."""
    where = f"launch {k} {launch.template.name} ({', '.join(launch.scopes) or 'no layer'}), {n!r}"
    if got.dtype.kind != "f":
        if not np.array_equal(got.astype(want.dtype), want) and n.op.name not in (
            "argmax",
            "argmin",
        ):
            bad = int(np.count_nonzero(got.astype(want.dtype) != want))
            raise GraphError(f"{where}: {bad} of {want.size} values differ from the interpreter")
        return
    odd = ~np.isfinite(got)
    if odd.any():
        kind = "NaN" if np.isnan(got).any() else "infinity"
        first = tuple(int(i) for i in np.argwhere(odd)[0])
        raise NumericError(
            f"{kind} first made by {where} at {first}; the interpreter has {want[first]}"
        )
    scale = max(float(np.abs(want).max(initial=0)), 1e-3)
    worst = float(np.abs(got - want).max(initial=0))
    if worst > TOLERANCE[n.dtype] * scale:
        raise GraphError(
            f"{where}: differs from the interpreter by {worst:.3g} (values up to {scale:.3g})"
        )
