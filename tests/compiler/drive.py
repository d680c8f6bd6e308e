"""Drive the compiler by hand: variables, and runs of a graph on a device against the interpreter in
float64.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from nnjit.compiler.pipeline import optimise
from nnjit.graph import Graph, Node, interpret, parameter_node, state_node
from nnjit.runtime.executable import Executable, build
from nnjit.runtime.store import Store
from nnjit.spec import Spec, evaluate

DEVICES = ("interpret", "python", "cpu")


class Variable:
    """A parameter or state with a value, as a Store takes it."""

    def __init__(self, name: str, value, state: bool = False):
        self._array = np.array(value)
        self.name, self.spec = name, Spec(self._array.shape, self._array.dtype.name)
        self.node: Node = (state_node if state else parameter_node)(name, self.spec)


def fresh(variables: Sequence[Variable]) -> Store:
    """A Store of copies of these variables' values."""
    copies = []
    for v in variables:
        copy = Variable(v.name, v._array)
        copy.node = v.node
        copies.append(copy)
    return Store(copies)


def feed(graph: Graph, extents: Mapping[str, int], seed: int = 0) -> dict[str, np.ndarray]:
    """Normal numbers, or small integers, for every input."""
    rng = np.random.default_rng(seed)
    out = {}
    for n in graph.leaves("input"):
        shape = [evaluate(d, extents) for d in n.shape]
        values = rng.standard_normal(shape) if "float" in n.dtype else rng.integers(0, 3, shape)
        out[n.name] = np.asarray(values).astype(n.dtype)
    return out


def close(got: np.ndarray, want: np.ndarray, rtol: float, atol: float, label: str) -> None:
    """Equal shapes, and equal values up to rounding at the scale of the largest."""
    assert got.shape == want.shape, f"{label}: shape {got.shape}, expected {want.shape}"
    finite = np.abs(want[np.isfinite(want)]) if want.dtype.kind == "f" else np.abs(want * 1.0)
    scale = max(1.0, float(finite.max(initial=0)))
    np.testing.assert_allclose(
        got.astype("f8"), want.astype("f8"), rtol, atol * scale, err_msg=label
    )


def compare_steps(
    graph: Graph, variables: Sequence[Variable], device: str, batches: Sequence[int] = (1, 7),
    rtol: float = 1e-10, atol: float = 1e-10, executable: Executable | None = None,
) -> Executable:  # fmt: skip
    """Run one step for each batch size, one after the other on one Store; compare outputs and
    leaves after each.
    """
    store = executable.store if executable else fresh(variables)
    ex = executable or build(graph, store, device)
    oracle = optimise(graph)
    for step, batch in enumerate(batches):
        extents = {s: batch + k for k, s in enumerate(graph.symbols)}
        given = feed(graph, extents, seed=step)
        before = {k: a.copy() for k, a in store.arrays.items()}
        outputs, updates = interpret(oracle, {**before, **given}, dtype="float64")
        got = ex.run(given)
        where = f"{device}, step {step}, batch {batch}"
        for name, want in outputs.items():
            close(np.array(got[name]), want, rtol, atol, f"{where}, output {name}")
        for name, value in before.items():
            close(store.arrays[name], updates.get(name, value), rtol, atol, f"{where}, leaf {name}")
    return ex
