"""Random graphs give what the interpreter gives, whatever is fused, aliased, updated in place or
swapped.
"""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnjit import ops
from nnjit.compiler.cpu import lower, updates
from nnjit.compiler.fuse import fuse
from nnjit.compiler.pipeline import optimise
from nnjit.graph import Graph, input_node, rebuilt, walk
from nnjit.runtime import binding
from nnjit.runtime.executable import build
from nnjit.runtime.store import Store
from nnjit.spec import Spec
from tests.compiler.drive import Variable, compare_steps
from tests.compiler.random_graphs import random_graph

seeds = st.integers(0, 2**32 - 1)


@settings(max_examples=120, derandomize=True, deadline=None, database=None)
@given(seed=seeds, nodes=st.integers(5, 60))
def test_random_graphs_on_python(seed, nodes):
    graph, variables = random_graph(random.Random(seed), nodes=nodes)
    compare_steps(graph, variables, "python", (1, 3, 2))


@pytest.mark.parametrize("seed", range(3))
def test_random_graphs_on_cpu(seed):
    graph, variables = random_graph(random.Random(seed), nodes=40)
    compare_steps(graph, variables, "cpu", (1, 3, 40))


@pytest.mark.parametrize("seed", range(2))
def test_random_graphs_on_cpu_in_float32(seed):
    graph, variables = random_graph(random.Random(100 + seed), "float32", nodes=30)
    compare_steps(graph, variables, "cpu", (2, 33), rtol=1e-4, atol=1e-4)


@settings(max_examples=60, derandomize=True, deadline=None, database=None)
@given(seed=seeds)
def test_groups_run_after_what_they_read(seed):
    graph = optimise(random_graph(random.Random(seed), nodes=40)[0])
    fusion = fuse(graph)
    indices = [g.index for g in fusion.groups]
    assert indices == sorted(set(indices))
    for n, g in fusion.of.items():
        assert n in g.nodes
        assert g in fusion.groups
        for x in n.inputs:
            home = fusion.of.get(fusion.base(x))
            assert home is None or home.index <= g.index


# ---------------------------------------------------------------------------------------- updates
x = input_node("x", Spec(("batch", 4), "float64"))
TIED = {
    name: Variable(name, np.arange(16.0).reshape(4, 4) / 7 + k, name == "m")
    for k, name in enumerate("wum")
}
W, U, M = (v.node for v in TIED.values())
UPDATES = {
    "in place": ({"y": ops.matmul(x, W)}, {W: W * 0.5 + 1}),
    "swap": ({"y": ops.matmul(x, W)}, {W: U, U: W}),
    "rotation": ({}, {W: U, U: M, M: W}),
    "a leaf by a leaf": ({"y": x + 1}, {W: U}),
    "the old value of an updated leaf": ({"old": W, "row": W[1]}, {W: W * 2}),
    "an old value that another leaf becomes": ({}, {W: W + 1, U: W}),
    "the new value as an output": ({"new": W + U}, {W: W + U}),
    "one value for two leaves": ({}, {W: ops.tanh(U), M: ops.tanh(U)}),
    "one value, negated in place": ({"y": W}, {W: -W, U: W - U}),
    "transposed over itself": ({}, {W: ops.transpose(W, (1, 0)) + 1}),
    "flipped over itself": ({}, {W: ops.flip(W, (0,))}),
    "reshaped": ({}, {W: ops.reshape(ops.reshape(U, (16,)) * 2, (4, 4))}),
    "a reshape of a leaf": (
        {"y": ops.reshape(W, (16,))},
        {U: ops.reshape(ops.reshape(W, (2, 8)), (4, 4)), W: W + 1},
    ),
    "read later through a product": ({"y": ops.matmul(x, W + U)}, {W: W * 0.9}),
    "a product over its operand": ({}, {W: ops.matmul(W, U)}),
    "a product over its other operand": ({}, {U: ops.matmul(W, U, False, True)}),
    "softmax over itself": ({}, {W: ops.softmax(W), U: ops.softmax(U, 0)}),
    "rows shifted over itself": ({}, {W: ops.concatenate([W[1:], W[:1]], 0)}),
    "an input": ({"x": x, "same": ops.reshape(x, (-1,))}, {W: W + ops.mean(x)}),
    "a constant": ({"c": ops.as_node(np.eye(4))}, {W: ops.as_node(np.eye(4))}),
    "a broadcast": ({}, {W: ops.broadcast_to(ops.sum(U, 0), (4, 4))}),
    "a reduction of itself": ({"s": ops.sum(W)}, {W: W - ops.max(W, 1, True)}),
    "unchanged": ({"y": W}, {W: W}),
    "an average": ({"y": x}, {M: M * 0.9 + W * 0.1, W: W - ops.mean(x) * U}),
}  # fmt: skip


@pytest.mark.parametrize("name", UPDATES)
def test_updates_leave_what_the_interpreter_leaves(name):
    outputs, changes = UPDATES[name]
    graph = Graph("update", {**outputs, "mean": ops.mean(x)}, changes)
    compare_steps(graph, list(TIED.values()), "python", (2, 3))


def test_updates_on_cpu():
    """All of them in one graph, on copies of the leaves."""
    variables, outputs, changes = [], {"mean": ops.mean(x)}, {}
    for k, (outs, ups) in enumerate(UPDATES.values()):
        mine = {v.node: Variable(f"{v.name}{k}", v._array, v.name == "m") for v in TIED.values()}
        variables += mine.values()
        new = {}
        for n in walk([*outs.values(), *ups.values(), *mine]):
            fresh = mine[n].node if n in mine else n
            new[n] = fresh if n.is_leaf else rebuilt(n, tuple(new[a] for a in n.inputs))
        outputs |= {f"{name}{k}": new[n] for name, n in outs.items()}
        changes |= {new[leaf]: new[value] for leaf, value in ups.items()}
    compare_steps(Graph("updates", outputs, changes), variables, "cpu", (2, 35))


@pytest.mark.parametrize("device", ["interpret", "python", "cpu"])
@pytest.mark.parametrize("check", ["0", "1"])
def test_an_input_may_give_its_shape_alone(device, check, monkeypatch):
    """Simplifying removes it, and with it the place where its symbols come from."""
    monkeypatch.setenv("NNJIT_CHECK", check)
    t = input_node("t", Spec(("batch", "time", 4)))
    always = ops.as_node(np.array(True))
    steps = ops.cast(ops.iota(t.shape, 1), "float32")
    graph = Graph("shape", {"sum": ops.sum(ops.where(always, steps, t))})
    executable = build(graph, Store(), device)
    for time in (3, 5):
        out = executable.run({"t": np.full((2, time, 4), np.nan, np.float32)})
        assert out["sum"] == 8 * sum(range(time))


@pytest.fixture
def split(monkeypatch):
    """Every launch in as many chunks as there can be."""
    monkeypatch.setattr(binding, "PARALLEL_US", 0)
    monkeypatch.setattr(binding, "CHUNK_US", 1e-9)
    monkeypatch.setattr(lower, "FLAT_GRAIN", 1)
    monkeypatch.setattr(updates, "COPY_GRAIN", 1)


@pytest.mark.parametrize("seed", range(40))
def test_chunks_do_not_matter(seed, split):
    graph, variables = random_graph(random.Random(1000 + seed), nodes=40)
    compare_steps(graph, variables, "python", (3, 6))
