"""Every row of the table of ops, forward and gradient, on every device against the interpreter in
float64.

On the cpu device rows are compiled many to a graph, so that a file of some hundred kernels is built
at once; each row is still a test of its own. One compile serves all batch sizes.
"""

from __future__ import annotations

import functools

import numpy as np
import pytest

from nnjit.compiler.pipeline import optimise
from nnjit.graph import Graph, input_node, interpret, rebuilt
from nnjit.runtime import cpu
from nnjit.runtime.executable import build
from nnjit.runtime.store import Store
from nnjit.spec import evaluate
from tests.compiler.drive import close
from tests.ops.table import ROWS, Row

BATCHES = (1, 7, 32, 33)
TOGETHER = 32  # rows in one graph
KINDS = [r for r in ROWS if r.empty], [r for r in ROWS if not r.empty]
PARTS = [kind[k : k + TOGETHER] for kind in KINDS for k in range(0, len(kind), TOGETHER)]
PART = {row.name: k for k, rows in enumerate(PARTS) for row in rows}


@functools.cache
def graph_of(row: Row, floats: str) -> Graph:
    """The row's values and gradients, its inputs renamed so that rows can share a graph."""
    return renamed(row.graph(floats, backward=row.grad), row.name)


def renamed(graph: Graph, prefix: str) -> Graph:
    """Every input and output named `prefix.name`."""
    new = {}
    for n in graph.nodes():
        if n.op.name == "input":
            new[n] = input_node(f"{prefix}.{n.name}", n.spec)
        else:
            new[n] = n if n.is_leaf else rebuilt(n, tuple(new[x] for x in n.inputs))
    return Graph(prefix, {f"{prefix}.{k}": new[n] for k, n in graph.outputs.items()})


def values(row: Row, floats: str, batch: int) -> dict[str, np.ndarray]:
    """The row's samples and a cotangent, by input name."""
    graph, extents = graph_of(row, floats), {"batch": batch}
    given = {f"{row.name}.x{i}": a for i, a in enumerate(row.sample(extents, floats))}
    rng = np.random.default_rng(1)
    out = {}
    for n in graph.leaves("input"):
        shape = [evaluate(d, extents) for d in n.shape]
        out[n.name] = given[n.name] if n.name in given else rng.standard_normal(shape)
        out[n.name] = np.asarray(out[n.name]).astype(n.dtype)
    return out


@functools.cache
def expected(row: Row, floats: str, batch: int) -> dict[str, np.ndarray]:
    given = values(row, floats, batch)
    return interpret(optimise(graph_of(row, floats)), given, dtype="float64")[0]


def check(row: Row, floats: str, batch: int, got: dict[str, np.ndarray]) -> None:
    graph = graph_of(row, floats)
    for name, want in expected(row, floats, batch).items():
        assert got[name].dtype == graph.outputs[name].dtype
        narrow = "float32" in (floats, got[name].dtype)
        rtol, atol = (5 * row.rtol, 5 * row.atol) if narrow else (1e-10, 1e-10)
        close(got[name], want, rtol, atol, f"{name}, batch {batch}")


@functools.cache
def compiled(part: int, floats: str) -> dict[int, dict[str, np.ndarray]]:
    """Outputs of a part of the table at every batch size, all from one executable; 0 among them
    where that is legal.
    """
    rows = PARTS[part]
    outputs = {k: n for row in rows for k, n in graph_of(row, floats).outputs.items()}
    executable = build(Graph(f"rows_{part}", outputs), Store(), "cpu")
    before, out = cpu.compiled_count(), {}
    for batch in (*BATCHES, 0) if rows[0].empty else BATCHES:
        given = {k: a for row in rows for k, a in values(row, floats, batch).items()}
        out[batch] = {k: np.array(a) for k, a in executable.run(given).items()}
    assert cpu.compiled_count() == before, "another batch size compiled something"
    return out


floats = pytest.mark.parametrize("floats", ["float32", "float64"])


@pytest.mark.parametrize("row", ROWS, ids=lambda r: r.name)
@floats
def test_cpu_computes_what_the_interpreter_does(floats, row):
    results = compiled(PART[row.name], floats)
    for batch, got in results.items():
        check(row, floats, batch, got)


@pytest.mark.parametrize("row", ROWS, ids=lambda r: r.name)
@floats
def test_python_computes_what_the_interpreter_does(floats, row):
    executable = build(graph_of(row, floats), Store(), "python")
    for batch in (1, 7, 18, *([0] if row.empty else [])):
        check(row, floats, batch, executable.run(values(row, floats, batch)))
