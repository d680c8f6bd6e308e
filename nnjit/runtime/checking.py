"""NNJIT_CHECK=1: every launch is compared with the interpreter, and the first NaN is named.

Launches run one by one. After each, what it wrote is compared with the NumPy meaning of the same
Nodes, computed from what the launches before it wrote (a maximum of two nearly equal values may so
be any of them, but the same in both); a difference beyond rounding, a NaN, or an infinity where the
interpreter has none, stops the run. At the end the updated leaves are compared too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from nnjit.bfloat16 import from_bits
from nnjit.errors import GraphError, NumericError
from nnjit.graph import Graph, Node, value_of, walk
from nnjit.spec import computed_as, evaluate

TOLERANCE = {"float32": 2e-3, "float64": 1e-8, "bfloat16": 1e-2}


def check_launches(executable: Any, bound: Any, arrays: Mapping[str, np.ndarray]) -> None:
    """Run a bound program launch by launch and compare."""
    plan, arrangement = executable.compiled, bound.arrangement
    graph, extents = plan.graph, arrangement.extents
    known = leaf_values(graph, {**executable.store.arrays, **arrays}, extents)
    rounding = precision(graph.nodes())
    held: dict[Any, list[Node]] = {}
    for n, b in plan.buffers.items():
        if not n.is_leaf:
            held.setdefault(b, []).append(n)
    done: set[Any] = set()
    for k, launch in enumerate(plan.launches):
        executable.run_row(bound, k)
        fresh = [b for b in launch.written if b not in done]
        done.update(fresh)
        pairs = [
            (n, executable.binder.array(b, arrangement)) for b in fresh for n in held.get(b, [])
        ]
        want = meanings([n for n, _ in pairs], known, extents)
        for n, got in pairs:
            if got.size == want[n].size:
                layers = ", ".join(launch.scopes) or "no layer"
                where = f"launch {k} {launch.template.name} ({layers}), {n!r}"
                got = from_bits(got) if n.dtype == "bfloat16" else got
                got = got.reshape(want[n].shape)
                compare(where, rounding[n], got, want[n])
                known[n] = got.astype(computed_as(n.dtype))  # a copy: what follows is made of it
    want = meanings(graph.updates.values(), known, extents)
    for leaf, n in graph.updates.items():
        got = executable.store.arrays[leaf.name]
        compare(f"after the last launch, {leaf.name!r}", rounding[n], got, want[n])


def leaf_values(
    graph: Graph, values: Mapping[str, np.ndarray], extents: Mapping[str, int]
) -> dict[Node, np.ndarray]:
    """Copies of the values of all leaves, constants and extents."""
    leaves = graph.leaves("input", "parameter", "state")
    found = {n: np.array(values[n.name]) for n in leaves}
    for n in graph.nodes():
        if n.is_leaf and n not in found:
            constant = "value" in n.attrs
            value = n.attrs["value"] if constant else evaluate(n.attrs["dim"], extents)
            found[n] = np.asarray(value, n.dtype)
    return found


def meanings(
    nodes: Iterable[Node], known: Mapping[Node, np.ndarray], extents: Mapping[str, int]
) -> dict[Node, np.ndarray]:
    """The NumPy meaning of `nodes`, computed from the nearest values that are known."""
    env = dict(known)
    needed, todo = set(), [n for n in nodes if n not in known]
    while todo:
        n = todo.pop()
        if n not in needed:
            needed.add(n)
            todo += [x for x in n.inputs if x not in known]
    with np.errstate(all="ignore"):
        for n in walk(needed):
            if n in needed:
                inputs = [env[x] for x in n.inputs]
                env[n] = value_of(n, inputs, extents, computed_as(n.dtype))
    return env


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
