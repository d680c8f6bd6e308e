"""The kernels of scans: their results, on any number of threads, and how they read."""

from __future__ import annotations

import numpy as np
import pytest

from nnjit import config, ops
from nnjit.compiler.passes import expand
from nnjit.compiler.pipeline import compile_graph
from nnjit.graph import Graph, input_node, interpret
from nnjit.kernels.template import render
from nnjit.runtime import cpu
from nnjit.runtime.executable import build
from nnjit.runtime.store import Store
from nnjit.spec import Spec
from tests.compiler.drive import Variable, close, compare_steps
from tests.compiler.random_steps import random_scan, sample
from tests.compiler.test_golden import check_style
from tests.ops.test_scan import STEPS, leaves, outputs, scanned


def run(executable, values):
    with np.errstate(all="ignore"):
        return {name: np.array(a) for name, a in executable.run(values).items()}


def check(executable, graph, values, tolerance, label):
    want = interpret(expand(graph), values, "float64")[0]
    got = run(executable, values)
    for name, array in want.items():
        close(got[name], array, tolerance, tolerance, f"{label}, {name}")
    return got


def of_dtype(nodes, dtype):
    return [n if n.dtype == "bool" else input_node(n.name, n.spec.with_dtype(dtype)) for n in nodes]


def lstm_graph(units, dtype="float32", reverse=False, **extents):
    """States of an LSTM whose inputs are gates already."""
    time, batch = extents.get("time", "time"), extents.get("batch", "batch")
    x = input_node("x", Spec((time, batch, 4 * units), dtype))
    h, c = (input_node(name, Spec((batch, units), dtype)) for name in "hc")
    kernel = input_node("u", Spec((units, 4 * units), dtype))

    def step(carries, inputs, constants):
        old, cell = carries
        i, f, g, o = ops.split(inputs[0] + ops.matmul(old, kernel), 4)
        cell = ops.sigmoid(f) * cell + ops.sigmoid(i) * ops.tanh(g)
        new = ops.sigmoid(o) * ops.tanh(cell)
        return [new, cell], [new]

    (last, cell), (every,) = ops.scan(step, [h, c], [x], reverse=reverse)
    return Graph("lstm", {"every": every, "last": last, "cell": cell})


@pytest.mark.parametrize("seed", range(40))
def test_random_steps_and_their_gradients(seed):
    graph = random_scan(seed)
    executable = build(graph, Store([]), "python")
    for time, batch in ((3, 2), (1, 1)):
        values = sample(graph, time=time, batch=batch)
        check(executable, graph, values, 1e-9, f"time {time}, batch {batch}")


@pytest.mark.parametrize("name", ["lstm", "gru", "masked"])
def test_compiled_steps_and_their_gradients(name):
    nodes = of_dtype(leaves(name), "float64")
    reverse = name in ("lstm", "masked")
    graph = Graph("scan", outputs(scanned(name, nodes, reverse), nodes, second=False))
    executable = build(graph, Store([]), "cpu")
    compiled = cpu.compiled_count()
    for time, batch in ((3, 17), (1, 1), (0, 3), (2, 40)):
        values = sample(graph, time=time, batch=batch)
        check(executable, graph, values, 1e-10, f"time {time}, batch {batch}")
    assert cpu.compiled_count() == compiled, "other extents compile nothing"


@pytest.mark.parametrize("units", [1, 17, 65])
def test_ragged_units_in_float32(units):
    graph = lstm_graph(units, reverse=units == 17)
    executable = build(graph, Store([]), "cpu")
    for time, batch in ((3, 1), (2, 9), (2, 40)):
        values = sample(graph, time=time, batch=batch)
        check(executable, graph, values, 1e-5, f"time {time}, batch {batch}")


def test_known_extents():
    graph = lstm_graph(6, time=1, batch=1)
    check(build(graph, Store([]), "cpu"), graph, sample(graph), 1e-5, "one step of one row")


def test_bits_of_a_row_depend_on_neither_threads_nor_other_rows():
    graph = lstm_graph(65)
    executable = build(graph, Store([]), "cpu")
    values = sample(graph, time=9, batch=77)
    assert max(row.chunks for row in executable.rows({"batch": 77, "time": 9})) > 2
    before, found = config.threads(), []
    try:
        for threads in (1, 2, 3):
            config.set_threads(threads)
            found.append(run(executable, values))
    finally:
        config.set_threads(before)
    for name, array in found[0].items():
        assert all(np.array_equal(array, other[name]) for other in found[1:])
    for first, count in ((0, 1), (5, 3), (70, 7), (11, 20)):
        part = {
            name: a if name == "u" else a[..., first : first + count, :]
            for name, a in values.items()
        }
        for name, array in run(executable, part).items():
            assert np.array_equal(array, found[0][name][..., first : first + count, :]), name


def test_nan_and_infinity_stay_in_their_rows():
    graph = lstm_graph(65)
    values = sample(graph, time=3, batch=9)
    values["x"][1, 2, :] = np.nan
    values["x"][0, 4, 0] = np.inf
    values["c"][7, 1] = -np.inf
    want = interpret(graph, values, "float64")[0]
    got = run(build(graph, Store([]), "cpu"), values)
    for name in want:
        np.testing.assert_allclose(got[name], want[name], 1e-5, 1e-6)
    assert np.isnan(got["every"][1:, 2]).all()
    assert np.isfinite(got["every"][:, [0, 1, 3, 5, 6, 8]]).all()


def test_a_state_that_the_last_carry_replaces():
    state = Variable("state", np.linspace(-1, 1, 20).reshape(4, 5), state=True)
    kernel = Variable("kernel", np.linspace(-0.5, 0.5, 25).reshape(5, 5))
    x = input_node("x", Spec(("time", 4, 5), "float64"))
    (last,), (every,) = ops.scan(
        lambda c, i, w: ([n := ops.tanh(i[0] + ops.matmul(c[0], w[0]))], [n]),
        [state.node], [x], [kernel.node],
    )  # fmt: skip
    graph = Graph("stateful", {"every": every}, {state.node: last})
    compare_steps(graph, [state, kernel], "python", batches=(2, 3))


def scans(graph):
    launches = compile_graph(graph).launches
    return [x for x in launches if x.template.name.startswith("scan")]


def test_all_results_come_from_one_kernel_that_says_what_it_does():
    graph = lstm_graph(6, "float64")
    (launch,) = scans(graph)
    assert launch.template.name == "scan_6x24_sigmoid_tanh_f8"
    assert len(launch.written) >= 3
    node = graph.outputs["last"]
    extents = {"batch": 3, "time": 5}
    assert launch.flop_count(extents) == interpreted(node.op.flops(node), extents)
    assert launch.flop_count(extents) > 2 * 5 * 3 * 6 * 24


def interpreted(dim, extents):
    return dim.factor * int(np.prod([extents[s] for s in dim.symbols]))


@pytest.mark.parametrize("name", STEPS)
def test_kernels_read_well(name):
    nodes = leaves(name)
    graph = Graph("scan", outputs(scanned(name, nodes, False), nodes, second=False))
    for launch in scans(graph):
        check_style(render(launch.template))


def test_what_nobody_wants_is_not_computed():
    nodes = leaves("delay")
    last, _, stacked = scanned("delay", nodes, False)
    (launch,) = scans(Graph("scan", {"last": last}))
    assert "y0" not in dict(launch.template.params)
    assert "c1" not in dict(launch.template.params), "the carry that only feeds the other"
    (launch,) = scans(Graph("scan", {"stacked": stacked}))
    assert {"c0", "c1", "y0"} <= set(dict(launch.template.params))
