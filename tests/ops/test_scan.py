"""Scan against the same step written out time by time: values, gradients, second derivatives."""

from __future__ import annotations

import numpy as np
import pytest

from nnjit import ops
from nnjit.autodiff import gradients
from nnjit.compiler.passes import expand
from nnjit.errors import ArgumentError, DTypeError, ShapeError
from nnjit.graph import Graph, Scope, enter, input_node, interpret, state_node, verify, walk
from nnjit.printing import show
from nnjit.spec import Spec

U = 3


def lstm(carries, inputs, constants):
    (h, c), (x,), (kernel, bias) = carries, inputs, constants
    i, f, g, o = ops.split(x + ops.matmul(h, kernel) + bias, 4)
    c = ops.sigmoid(f) * c + ops.sigmoid(i) * ops.tanh(g)
    h = ops.sigmoid(o) * ops.tanh(c)
    return [h, c], [h]


def gru(carries, inputs, constants):
    """Reset before the second product; the reset state is an operand that is no carry."""
    (h,), (x,), (kernel, bias) = carries, inputs, constants
    z, r = ops.split(ops.sigmoid(x[:, : 2 * U] + ops.matmul(h, kernel[:, : 2 * U])), 2)
    new = ops.tanh(x[:, 2 * U :] + ops.matmul(r * h, kernel[:, 2 * U :]) + bias[:U])
    h = z * h + (1 - z) * new
    return [h], [h, r]


def masked(carries, inputs, constants):
    """Padded steps keep the state; a value per sample scales it."""
    (h,), (x, mask), (kernel, scale) = carries, inputs, constants
    new = ops.relu(x + ops.matmul(h * scale, kernel))
    h = ops.where(mask, new, h)
    return [h], [ops.gelu(h)]


def two_products(carries, inputs, constants):
    """One matrix twice, straight and transposed; a number, a vector of one, an output of inputs."""
    (h, s), (x,), (kernel, alpha) = carries, inputs, constants
    a = ops.matmul(ops.tanh(h), kernel) * alpha
    b = ops.matmul(a + x, kernel, transpose_b=True)
    s = 0.5 * s + ops.sum(h * b, axis=-1, keepdims=True)
    return [ops.tanh(b) + s, s], [ops.softplus(x), x]


def normalised(carries, inputs, constants):
    """Mean and variance over the features."""
    (h,), (x,), (gamma,) = carries, inputs, constants
    z = h + x
    z = z - ops.mean(z, -1, keepdims=True)
    z = z / ops.sqrt(ops.mean(ops.square(z), -1, keepdims=True) + 0.1)
    return [ops.tanh(z * gamma)], [ops.concatenate([z, h], -1)]


def delay(carries, inputs, constants):
    """No function at all: the input of two steps ago."""
    return [inputs[0], carries[0]], [carries[1]]


MATRIX = (U, 4 * U)
STEPS = {
    "lstm": (lstm, [U, U], [4 * U], [MATRIX, (4 * U,)]),
    "gru": (gru, [U], [3 * U], [(U, 3 * U), (U,)]),
    "masked": (masked, [U], [U, "mask"], [(U, U), ("batch", U)]),
    "two products": (two_products, [U, 1], [U], [(U, U), ()]),
    "normalised": (normalised, [U], [U], [(1, U)]),
    "delay": (delay, [U, U], [U], []),
}


def leaves(name, time="time", batch="batch"):
    _, carries, inputs, constants = STEPS[name]
    found = [input_node(f"c{i}", Spec((batch, k))) for i, k in enumerate(carries)]
    for i, k in enumerate(inputs):
        spec = Spec((time, batch, 1), "bool") if k == "mask" else Spec((time, batch, k))
        found.append(input_node(f"x{i}", spec))
    shapes = [tuple(batch if d == "batch" else d for d in s) for s in constants]
    return found + [input_node(f"w{i}", Spec(s)) for i, s in enumerate(shapes)]


def scanned(name, nodes, reverse):
    function, carries, inputs, _ = STEPS[name]
    a, b = len(carries), len(carries) + len(inputs)
    last, stacked = ops.scan(function, nodes[:a], nodes[a:b], nodes[b:], reverse=reverse)
    return [*last, *stacked]


def unrolled(name, nodes, reverse, times):
    function, carries, inputs, _ = STEPS[name]
    a, b = len(carries), len(carries) + len(inputs)
    state, rows = list(nodes[:a]), {}
    for t in range(times)[:: -1 if reverse else 1]:
        state, rows[t] = function(state, [x[t] for x in nodes[a:b]], nodes[b:])
    return [*state, *(ops.stack([rows[t][i] for t in range(times)]) for i in range(len(rows[0])))]


def outputs(results, nodes, second):
    """A weighted sum of everything, its gradients, and those of a function of the gradients."""
    wrt = [n for n in nodes if n.dtype != "bool"]
    loss = sum(ops.sum(ops.sin(r + i)) for i, r in enumerate(results))
    found = {f"y{i}": r for i, r in enumerate(results)}
    first = gradients(loss, wrt)
    found |= {f"d{n.name}": g for n, g in zip(wrt, first, strict=True)}
    if second:
        again = gradients(sum(ops.sum(ops.sin(g)) for g in first), wrt)
        found |= {f"dd{n.name}": g for n, g in zip(wrt, again, strict=True)}
    return found


def sample(nodes, times, batch):
    rng = np.random.default_rng(3)
    sizes = {"time": times, "batch": batch}
    shapes = {n.name: [sizes.get(str(d), d) for d in n.shape] for n in nodes}
    return {
        n.name: rng.random(shapes[n.name]) < 0.6 if n.dtype == "bool"
        else rng.uniform(-1, 1, shapes[n.name]) for n in nodes
    }  # fmt: skip


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("name", STEPS)
def test_values_gradients_and_second_derivatives_are_those_of_the_written_out_steps(name, reverse):
    times, batch = 3, 2
    nodes = leaves(name)
    graph = Graph("scan", outputs(scanned(name, nodes, reverse), nodes, second=True))
    verify(graph)
    fixed = leaves(name, times, batch)
    want = Graph("steps", outputs(unrolled(name, fixed, reverse, times), fixed, second=True))
    values = sample(nodes, times, batch)
    got = interpret(expand(graph), values, "float64")[0]
    for key, array in interpret(expand(want), values, "float64")[0].items():
        np.testing.assert_allclose(got[key], array, rtol=1e-9, atol=1e-10, err_msg=key)


@pytest.mark.parametrize("times", [0, 1])
def test_no_step_and_one_step(times):
    nodes = leaves("lstm")
    graph = Graph("scan", outputs(scanned("lstm", nodes, False), nodes, second=False))
    values = sample(nodes, times, 2)
    got = interpret(graph, values, "float64")[0]
    if times == 0:
        assert np.array_equal(got["y0"], values["c0"])
        assert np.array_equal(got["y1"], values["c1"])
        assert got["y2"].shape == (0, 2, U)
        np.testing.assert_allclose(got["dc0"], np.cos(values["c0"]))
        assert not got["dw0"].any()
    else:
        np.testing.assert_array_equal(got["y0"], got["y2"][0])


def test_float32_stays_float32():
    nodes = leaves("masked")
    graph = Graph("scan", outputs(scanned("masked", nodes, False), nodes, second=False))
    assert all(a.dtype == np.float32 for a in interpret(graph, sample(nodes, 2, 2))[0].values())


def test_what_does_not_change_in_time_is_computed_once_outside():
    x = input_node("x", Spec(("time", "batch", U)))
    h0 = input_node("h", Spec(("batch", U)))
    w = input_node("w", Spec((U, 2 * U)))
    rate = input_node("rate", Spec(("batch", U)))
    keep = ops.exp(rate)
    (last,), _ = ops.scan(
        lambda c, i, _: ([ops.matmul(c[0], ops.tanh(w)[:, :U]) * (1 - keep) + i[0]], []), [h0], [x]
    )
    step = last.attrs["step"]
    assert [str(c.spec) for c in step.constants] == ["float32(3, 3)", "float32(batch, 3)"]
    assert {n.op.name for n in step.nodes()} == {"input", "matmul", "multiply", "add"}


def test_the_backward_step_stores_products_and_functions_and_computes_the_rest_again():
    nodes = leaves("lstm")
    (dx,) = gradients(ops.sum(scanned("lstm", nodes, False)[2]), [nodes[2]])
    found = walk([dx])
    stacked = {n.inputs[0].op.name if n.inputs else "" for n in found if n.op.name == "scan"}
    assert stacked
    kept = [n.attrs for n in found if n.op.name == "scan" and not n.attrs["reverse"]]
    body = kept[0]["step"].nodes()
    names = [body[a["result"][1]].op.name for a in kept if a["result"][0] == "all"]
    assert sorted(names) == ["input", "sigmoid", "sigmoid", "sigmoid", "tanh", "tanh"]


def test_equal_steps_have_equal_text():
    a, b = (scanned("gru", leaves("gru"), False)[0].attrs["step"] for _ in range(2))
    assert a is not b
    assert repr(a) == repr(b)
    assert repr(a) != repr(scanned("lstm", leaves("lstm"), False)[0].attrs["step"])


X, H = Spec(("time", 2, 2)), Spec((2, 2))  # shapes in which any mistake broadcasts
PROBLEMS = {
    "carry 0 is float32(2, 2), the step makes it float32(2, 4)": (
        ShapeError, lambda c, i, _: ([ops.concatenate([c[0], i[0]])], [])),
    "1 carries, the step gives 2": (ShapeError, lambda c, i, _: ([c[0], c[0]], [])),
    "(next carries, results)": (ArgumentError, lambda c, i, _: c[0]),
    "a constant on the right": (
        ArgumentError, lambda c, i, _: ([ops.matmul(c[0], i[0])], [])),
    "the step holds max": (
        ArgumentError, lambda c, i, _: ([c[0] + ops.max(i[0], -1, keepdims=True)], [])),
    "needs keepdims=True": (
        ArgumentError, lambda c, i, _: ([c[0] * ops.sum(i[0], -1)], [])),
}  # fmt: skip


@pytest.mark.parametrize("text", PROBLEMS)
def test_errors_say_what_the_step_may_hold(text):
    error, function = PROBLEMS[text]
    with pytest.raises(error) as e:
        ops.scan(function, [input_node("h", H)], [input_node("x", X)])
    assert text in str(e.value)


def test_errors_name_the_carry_and_the_sequence():
    def keep(c, i, _):
        return [c[0]], []

    h, x = input_node("h", H), input_node("x", X)
    with pytest.raises(ArgumentError, match="at least one carry and one sequence"):
        ops.scan(keep, [h], [])
    with pytest.raises(DTypeError, match="carry 0 is int32"):
        ops.scan(keep, [input_node("h", Spec(("batch", 2), "int32"))], [x])
    with pytest.raises(ShapeError, match="sequence 1: floats or bools"):
        ops.scan(keep, [h], [x, input_node("y", Spec(("time", 2)))])
    with pytest.raises(ShapeError, match="sequence 1 is float32\\(other, 2, 2\\)"):
        ops.scan(keep, [h], [x, input_node("y", Spec(("other", 2, 2)))])
    state = state_node("count", H)
    with enter(Scope()) as scope, pytest.raises(ArgumentError, match="updates 'count'"):
        ops.scan(lambda c, i, _: (scope.update(state, c[0]), ([c[0]], []))[1], [h], [x])
    with enter(Scope()) as scope, pytest.raises(ArgumentError, match="adds a loss"):
        ops.scan(lambda c, i, _: (scope.losses.append(ops.sum(c[0])), ([c[0]], []))[1], [h], [x])


def test_a_printed_graph_shows_each_step_once():
    text = show(
        Graph("g", {f"y{i}": n for i, n in enumerate(scanned("gru", leaves("gru"), False))})
    )
    assert text.count("step=step 1, reverse=False") == 3
    assert text.count("  step 1:\n    carries[0] float32(batch, 3)\n") == 1
    assert text.count("= tanh(") == 1
