"""Scans of few rows, whose threads share the columns and meet after each step."""

from __future__ import annotations

import numpy as np
import pytest

import nnjit
from nnjit import config, ops
from nnjit.compiler.cpu import scan
from nnjit.compiler.cpu.scan_pieces import FEW
from nnjit.compiler.pipeline import compile_graph
from nnjit.graph import Graph, input_node
from nnjit.kernels.template import render
from nnjit.layers import GRU, LSTM, Dense, Embedding, Input
from nnjit.models import Sequential
from nnjit.runtime import cpu
from nnjit.runtime.executable import build
from nnjit.runtime.store import Store
from nnjit.spec import Spec
from tests.compiler import random_steps
from tests.compiler.random_steps import random_scan, sample
from tests.compiler.test_golden import check_style
from tests.compiler.test_scan_cpu import check, lstm_graph, run, scans
from tests.ops.test_scan import leaves, scanned


@pytest.fixture
def pieces(monkeypatch):
    """Every scan that can be cut is."""
    monkeypatch.setattr(scan, "worth_pieces", lambda _: True)


def step_graph(name, units, dtype, reverse, batch="batch"):
    """All results of one of these steps with open extents."""
    x = input_node("x", Spec(("time", batch, 3 * units), dtype))
    h, s = (input_node(k, Spec((batch, units), dtype)) for k in "hs")
    u = input_node("u", Spec((units, 3 * units), dtype))
    v = input_node("v", Spec((units, units), dtype))
    mask = input_node("mask", Spec(("time", batch, 1), "bool"))

    def reset_before(c, i, _):
        """Two products, one after the other: two parts a step."""
        a, b, _ = ops.split(i[0], 3)
        r = ops.sigmoid(a + ops.matmul(c[0], v))
        z = ops.sigmoid(b + ops.matmul(c[0], v, transpose_b=True))
        new = ops.where(i[1], z * c[0] + ops.tanh(ops.matmul(r * c[0], v)), c[0])
        return [new, c[1]], [new * c[1]]

    def reset_after(c, i, _):
        """One column of a state scales all of them; the next one is the other state."""
        z, r, n = ops.split(i[0] + ops.matmul(c[0], u), 3)
        z = ops.sigmoid(z) * c[1][:, :1]
        new = ops.where(i[1], z * c[0] + ops.tanh(n * r), c[1])
        return [new, c[0]], [new]

    step = {"reset before": reset_before, "reset after": reset_after}[name]
    last, stacked = ops.scan(step, [h, s], [x, mask], reverse=reverse)
    return Graph("scan", {f"y{k}": r for k, r in enumerate([*last, *stacked])})


def cut(graph, **extents):
    """Stages of the scan's launch."""
    executable = build(graph, Store([]), "python")
    (row,) = [r for r in executable.rows(extents) if r.launch.template.name.startswith("scan")]
    return row.stages


def test_random_steps(pieces, monkeypatch):
    monkeypatch.setattr(random_steps, "WIDTHS", (3,))
    monkeypatch.setenv("NNJIT_VECTOR_BITS", "128")
    found = 0
    for seed in range(0, 60, 2):
        graph = random_scan(seed)
        template = scans(graph)[0].template
        found += template.stages != 1
        if template.stages != 1:
            executable = build(graph, Store([]), "python")
            for time, batch in ((3, 2), (1, 1), (0, 3), (2, FEW)):
                values = sample(graph, time=time, batch=batch)
                check(executable, graph, values, 1e-9, f"seed {seed}, time {time}, batch {batch}")
    assert found >= 5


@pytest.mark.parametrize(
    ("graph", "parts", "tolerance"),
    [
        (lstm_graph(65, reverse=True), 1, 1e-5),
        (step_graph("reset before", 17, "float64", False), 2, 1e-11),
        (step_graph("reset after", 40, "float32", True), 1, 1e-5),
    ],
    ids=["lstm", "reset before", "reset after"],
)
def test_compiled_steps_on_any_number_of_threads(graph, parts, tolerance, pieces):
    executable = build(graph, Store([]), "cpu")
    compiled = cpu.compiled_count()
    before = config.threads()
    try:
        for time, batch in ((5, 1), (64, 2), (3, 3), (0, 2), (2, FEW - 1), (2, FEW)):
            extents = {"time": time, "batch": batch}
            (row,) = [r for r in executable.rows(extents) if r.launch.ops == "scan"]
            assert row.stages == (time * parts + 2 if batch < FEW else 1)
            values, found = sample(graph, **extents), []
            values |= {name: values[name] * 0.2 for name in "uv" if name in values}
            for threads in (1, 2, 3):
                config.set_threads(threads)
                found.append(check(executable, graph, values, tolerance, f"{extents}"))
            for name, array in found[0].items():
                assert all(np.array_equal(array, other[name]) for other in found[1:]), name
    finally:
        config.set_threads(before)
    assert cpu.compiled_count() == compiled, "other extents compile nothing"


def test_a_row_has_the_same_bits_by_pieces_and_among_many_rows(pieces):
    graph = lstm_graph(65)
    executable = build(graph, Store([]), "cpu")
    values = sample(graph, time=7, batch=40)
    many = run(executable, values)
    for first, count in ((0, 1), (3, 2), (11, FEW - 1)):
        part = {
            name: a if name == "u" else a[..., first : first + count, :]
            for name, a in values.items()
        }
        for name, array in run(executable, part).items():
            assert np.array_equal(array, many[name][..., first : first + count, :]), name


def test_nan_and_infinity_stay_in_their_rows(pieces):
    graph = lstm_graph(65)
    values = sample(graph, time=3, batch=4)
    values["x"][1, 2, 7] = np.nan
    values["x"][0, 1, 0] = np.inf
    values["c"][0, 1] = -np.inf
    check(build(graph, Store([]), "cpu"), graph, values, 1e-5, "not finite")


@pytest.mark.parametrize(("batch", "stages"), [(1, 7), (FEW - 1, 7), (FEW, 1)])
def test_a_known_number_of_rows_has_one_way(pieces, batch, stages):
    graph = lstm_graph(33, time=5, batch=batch)
    assert cut(graph) == stages
    check(build(graph, Store([]), "python"), graph, sample(graph), 1e-5, f"batch {batch}")


def test_what_cannot_be_cut_is_not(pieces):
    assert cut(lstm_graph(16), time=5, batch=1) == 1, "one vector of units is one piece"
    nodes = leaves("two products")
    graph = Graph("scan", {"y": scanned("two products", nodes, False)[0]})
    assert cut(graph, time=5, batch=1) == 1, "a product of a product, a sum over columns"


def test_kernels_read_well(pieces):
    for graph in (lstm_graph(65), step_graph("reset before", 40, "float32", True)):
        for launch in compile_graph(graph).launches:
            check_style(render(launch.template))


def model(device):
    nnjit.set_seed(3)
    made = Sequential([
        Input((None,), dtype="int32"),
        Embedding(20, 6, mask_zero=True),
        GRU(144, reset_after=False, go_backwards=True),
        Dense(3),
    ])  # fmt: skip
    made.compile("sgd", "mse", device=device)
    return made


def test_layers_that_predict_few_rows():
    both = {device: model(device) for device in ("interpret", "cpu")}
    both["cpu"].set_weights(both["interpret"].get_weights())
    rng = np.random.default_rng(1)
    for batch, time in ((1, 9), (2, 1), (FEW, 3)):
        x = rng.integers(0, 20, (batch, time)).astype("int32")
        got, want = (both[k].predict_on_batch(x) for k in ("cpu", "interpret"))
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=2e-6)
    executable = both["cpu"].executable("predict")
    extents = dict(zip(executable.symbols, (1, 9), strict=True))
    rows = [r for r in executable.rows(extents) if r.launch.ops == "scan"]
    assert [r.stages for r in rows] == [20]
    assert "chunk(s) of each of 20 stages" in executable.listing(**extents)
    packed = [x for x in executable.plan().launches if x.ops == "pack scan"]
    assert all(b.kind == "kept" for x in packed for b in x.written), "packed once"


def test_small_matrices_and_training_steps_have_one_way():
    small, large = Sequential([Input((4, 3)), LSTM(64)]), Sequential([Input((4, 3)), LSTM(128)])
    x = np.ones((2, 4, 3), "float32")
    for made in (small, large):
        made.compile("sgd", "mse", device="python")
        made.predict_on_batch(x)
    large.train_on_batch(x, np.ones((2, 128), "float32"))
    found = [small.executable("predict"), large.executable("train"), large.executable("predict")]
    stages = [[x.template.stages for x in e.plan().launches if x.ops == "scan"] for e in found]
    assert stages[:2] == [[1], [1, 1]]
    assert stages[2] != [1]
