"""NNJIT_CHECK=1: every launch is compared with the interpreter, and the first NaN is named.

Launches run one by one. After each, what it wrote is compared with the NumPy meaning of the same
Nodes, computed from the same inputs; a difference beyond rounding, a NaN, or an infinity where the
interpreter has none, stops the run. At the end the updated leaves are compared too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from nnjit.compiler.pipeline import with_inputs
from nnjit.errors import GraphError, NumericError
from nnjit.graph import Node, interpret, walk

TOLERANCE = {"float32": 2e-3, "float64": 1e-8}


def check_launches(executable: Any, bound: Any, arrays: Mapping[str, np.ndarray]) -> None:
    """Run a bound program launch by launch and compare."""
    plan = executable.compiled
    values = {**{k: v.copy() for k, v in executable.store.arrays.items()}, **arrays}
    want: dict[Node, np.ndarray] = {}
    interpret(with_inputs(plan.graph, executable.inputs), values, trace=want)
    rounding = precision(want)
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
                    layers = ", ".join(launch.scopes) or "no layer"
                    where = f"launch {k} {launch.template.name} ({layers}), {n!r}"
                    compare(where, rounding[n], got.reshape(want[n].shape), want[n])
            done.add(b)
    for leaf, n in plan.graph.updates.items():
        got = executable.store.arrays[leaf.name]
        compare(f"after the last launch, {leaf.name!r}", rounding[n], got, want[n])


def precision(nodes: Iterable[Node]) -> dict[Node, float]:
    """The tolerance of each Node: that of the coarsest float which it is computed from, 0 if none.

    A mean in float64 of losses in float32 is as exact as they are.
    """
    found: dict[Node, float] = {}
    for n in walk(nodes):
        found[n] = max([TOLERANCE.get(n.dtype, 0.0), *(found[x] for x in n.inputs)])
    return found


def compare(where: str, tolerance: float, got: np.ndarray, want: np.ndarray) -> None:
    """NumericError for a NaN, or an infinity that the interpreter has not; GraphError for a
    difference.
    """
    if got.dtype.kind != "f":
        bad = int(np.count_nonzero(got.astype(want.dtype) != want))
        # computed from floats, a tie may go either way
        if bad > (1 + want.size // 100 if tolerance else 0):
            raise GraphError(f"{where}: {bad} of {want.size} values differ from the interpreter")
        return
    odd = np.isnan(got) | (np.isinf(got) & (got != want))
    if odd.any():
        kind = "NaN" if np.isnan(got).any() else "infinity"
        first = tuple(int(i) for i in np.argwhere(odd)[0])
        raise NumericError(
            f"{kind} first made by {where} at {first}; the interpreter has {want[first]}"
        )
    same = np.isinf(got)
    got, want = np.where(same, 0, got), np.where(same, 0, want)
    scale = max(float(np.abs(want).max(initial=0)), 1e-3)
    worst = float(np.abs(got - want).max(initial=0))
    if worst > tolerance * scale:
        raise GraphError(
            f"{where}: differs from the interpreter by {worst:.3g} (values up to {scale:.3g})"
        )
