"""Parameters that are updated where their gradient is computed: which are, and that it is right."""

from __future__ import annotations

import numpy as np
import pytest

import nnjit
from nnjit import Sequential, layers, ops
from nnjit.autodiff import gradients
from nnjit.compiler.fuse import fuse
from nnjit.compiler.pipeline import optimise
from nnjit.graph import Graph, input_node
from nnjit.kernels import contraction_sums, contraction_updates, target
from nnjit.spec import Spec
from tests.compiler.drive import Variable, compare_steps

ROWS, COLUMNS = 19, 75


@pytest.fixture(autouse=True)
def _small_ones_too(monkeypatch):
    monkeypatch.setattr(contraction_updates, "LEAST", 1)


def adam(w, g, m, v):
    new = {m: m + (g - m) * 0.1, v: v + (g * g - v) * 0.2}
    return {**new, w: w - new[m] * 0.01 / (ops.sqrt(new[v]) + 0.1)}


# name -> (whether its update is computed with its gradient, updates from w, g and two slots)
UPDATES = {
    "adam": (True, adam),
    "sgd": (True, lambda w, g, m, v: {w: w - g * 0.1}),
    "decay": (True, lambda w, g, m, v: {w: w - (g + w * 0.1) * 0.1}),
    "sum": (True, lambda w, g, m, v: {m: m + g}),
    "step or not": (True, lambda w, g, m, v: {w: ops.where(m > 0, w - g, w), v: v + w * g}),
    "by column": (True, lambda w, g, m, v: {w: w - g * ops.reshape(m[0], (1, COLUMNS)), m: m * 2}),
    "old value too": (True, lambda w, g, m, v: {w: w - g, m: w + 0.0 * g}),
    "swapped": (True, lambda w, g, m, v: {w: m + g, m: w - g}),
    "clipped": (False, lambda w, g, m, v: {w: w - g / (1 + ops.sum(g * g))}),
    "by row": (False, lambda w, g, m, v: {w: w - g * ops.mean(m, axis=1, keepdims=True)}),
}  # fmt: skip


def case(names, rows=ROWS):
    """One step that has a weight for each of these updates, and its variables."""
    rng = np.random.default_rng(0)
    x = input_node("x", Spec(("batch", rows), "float64"))
    made, total = [], 0.0
    for i, _ in enumerate(names):
        values = rng.standard_normal((3, rows, COLUMNS))
        made.append([Variable(f"{n}{i}", a, n != "w") for n, a in zip("wmv", values, strict=True)])
        total = total + ops.sum(ops.tanh(ops.matmul(x, made[-1][0].node)))
    found = gradients(total, [w.node for w, _, _ in made])
    updates = {}
    for name, slots, g in zip(names, made, found, strict=True):
        updates |= UPDATES[name][1](slots[0].node, g, *(v.node for v in slots[1:]))
    return Graph("train", {"total": total}, updates), [v for slots in made for v in slots]


@pytest.mark.parametrize("name", UPDATES)
def test_updates_with_their_gradient(name):
    graph, _ = case([name])
    fusion = fuse(optimise(graph))
    assert any(g.apart for g in fusion.groups) == UPDATES[name][0]


@pytest.mark.parametrize("device", ["cpu", "python"])
def test_they_are_right(device):
    """Batches with no whole tile, with some, and one row."""
    graph, variables = case(list(UPDATES))
    ex = compare_steps(graph, variables, device, (5, 1, 40) if device == "cpu" else (3,))
    names = [x.template.name for x in ex.plan().launches]
    assert sum("update_TN" in n for n in names) == sum(together for together, _ in UPDATES.values())


# other rows than above, since a Plan that was kept knows nothing of the sizes set here
@pytest.mark.parametrize(("rows", "copied_a"), [(23, 2048), (22, 0)])
@pytest.mark.parametrize("device", ["cpu", "python"])
def test_they_are_right_where_rows_are_copied(device, rows, copied_a, monkeypatch):
    """In several parts of rows and columns, each of several blocks; of b alone, and of a too."""
    sizes = {"LEAST": 1, "FAR_ROW": 8, "PART": 8, "BLOCK": 4, "COPIED_A": copied_a}
    for name, value in sizes.items():
        monkeypatch.setattr(contraction_sums, name, value)
    graph, variables = case(list(UPDATES), rows)
    ex = compare_steps(graph, variables, device, (5, 1, 40) if device == "cpu" else (3,))
    found = [x.template for x in ex.plan().launches if "update_TN" in x.template.name]
    assert len(found) == sum(together for together, _ in UPDATES.values())
    copied = "b is copied 4 rows" if copied_a else "a and b are copied 4 rows"
    assert all(copied in t.doc.replace("\n", " ") for t in found)


def test_a_gradient_that_others_read_is_stored():
    graph, variables = case(["sgd", "adam"])
    found = [n for n in graph.nodes() if n.op.name == "matmul" and n.attrs["transpose_a"]]
    graph = Graph("train", {**graph.outputs, "g": found[0]}, graph.updates)
    assert sum(g.apart for g in fuse(optimise(graph)).groups) == len(found) - 1 == 1
    compare_steps(graph, variables, "python", (4,))


def test_an_update_waits_for_those_that_read_the_old_weights():
    """The input's gradient needs the weights, so that it comes before their update."""
    nnjit.set_seed(0)
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, 12, 8)).astype("f4")
    losses = {}
    for device in ("interpret", "python"):
        model = Sequential([layers.Dense(9, "tanh", input_shape=(8,)), layers.Dense(8)])
        model.compile("adam", "mse", device=device)
        losses[device] = [model.train_on_batch(x, y) for _ in range(4)]
    np.testing.assert_allclose(losses["python"], losses["interpret"], rtol=1e-5)
    launches = [x.template.name for x in model.executable("train").plan().launches]
    updates = [i for i, n in enumerate(launches) if "update_TN" in n]
    assert len(updates) == 2
    assert launches.index(next(n for n in launches if "NT" in n and "pack" not in n)) < updates[0]


@pytest.mark.parametrize(
    ("sizes", "wanted"),
    [((784, 512, "batch", "f4"), True), ((784, "n", "batch", "f4"), False),
     ((784, 512, "batch", "b2"), target.multiplies_blocks()), ((2048, 512, "batch", "f4"), True),
     ((64, 5000, "batch", "f4"), False)],
)  # fmt: skip
def test_what_has_such_a_kernel(sizes, wanted):
    """Not where columns are open or very many, or in bfloat16 without AMX."""
    assert contraction_updates.update_applies(*sizes) == wanted
