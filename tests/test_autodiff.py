"""Reverse mode as a whole: what it differentiates, what it leaves alone, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest

from nnjit import ops
from nnjit.autodiff import gradients
from nnjit.errors import DTypeError, GraphError, ShapeError
from nnjit.graph import (
    Graph,
    Node,
    Op,
    Scope,
    enter,
    input_node,
    interpret,
    parameter_node,
    scoped,
    walk,
)
from nnjit.spec import Spec

x = input_node("x", Spec(("batch", 3), "float64"))
w = parameter_node("w", Spec((3, 2), "float64"))
bias = parameter_node("bias", Spec((2,), "float64"))
VALUES = {
    "x": np.array([[1.0, -2.0, 0.5], [0.3, 0.2, -0.1]]),
    "w": np.array([[0.1, 0.2], [-0.3, 0.4], [0.5, -0.6]]),
    "bias": np.array([0.01, -0.02]),
}


def value(*nodes: Node) -> list[np.ndarray]:
    graph = Graph("g", {f"y{i}": n for i, n in enumerate(nodes)} | {"x": x})  # x binds batch
    names = {n.name for n in graph.leaves("input", "parameter")}
    return list(interpret(graph, {k: VALUES[k] for k in names})[0].values())[: len(nodes)]


def test_a_dense_layer_by_hand():
    y = ops.sum(ops.square(x @ w + bias))
    dx, dw, db = value(*gradients(y, [x, w, bias]))
    g = 2 * (VALUES["x"] @ VALUES["w"] + VALUES["bias"])
    np.testing.assert_allclose(dx, g @ VALUES["w"].T)
    np.testing.assert_allclose(dw, VALUES["x"].T @ g)
    np.testing.assert_allclose(db, g.sum(0))


def test_without_cotangent_it_is_the_gradient_of_the_sum():
    plain, summed = value(gradients(x * x, [x])[0], gradients(ops.sum(x * x), [x])[0])
    np.testing.assert_array_equal(plain, summed)


def test_cotangent_weighs_the_output():
    (got,) = value(gradients(x * x, [x], ops.exp(x))[0])
    np.testing.assert_allclose(got, 2 * VALUES["x"] * np.exp(VALUES["x"]))


def test_unreached_inputs_have_zeros():
    dw, dx = gradients(ops.sum(x), [w, ops.stop_gradient(x)])
    assert (value(dw)[0] == 0).all()
    assert dw.spec == w.spec
    assert dx.spec == x.spec


def test_an_inner_node_and_its_input_together():
    """d/dx counts paths through y; d/dy only those from y on."""
    y = ops.exp(x)
    z = y * y + x
    dx, dy = value(*gradients(z, [x, y]))
    np.testing.assert_allclose(dy, 2 * np.exp(VALUES["x"]))
    np.testing.assert_allclose(dx, 2 * np.exp(2 * VALUES["x"]) + 1)


def test_of_itself_it_is_one():
    (got,) = value(gradients(x, [x])[0])
    np.testing.assert_array_equal(got, np.ones((2, 3)))


def test_many_uses_add_up():
    y = x
    for _ in range(5):
        y = y + x
    (got,) = value(gradients(y, [x])[0])
    np.testing.assert_array_equal(got, np.full((2, 3), 6.0))


def test_only_paths_from_what_is_asked_for_are_differentiated():
    y = ops.sum(ops.exp(x @ w) @ ops.full((2, 1), 1.0, "float64"))
    (dw,) = gradients(y, [w])
    assert sum(n.op.name == "matmul" for n in walk([dw])) == 3  # x @ w, and one per way back
    frozen = gradients(ops.tanh(x @ w) @ ops.transpose(w), [x])
    assert not any(n.op.name == "transpose" and n.inputs[0].op.name == "matmul"
                   for n in walk(frozen))  # fmt: skip


def test_gradient_nodes_carry_the_scope_of_their_layer():
    with enter(Scope("model")):
        with scoped("dense"):
            h = x @ w
        with scoped("head"):
            y = ops.sum(ops.tanh(h))
    (dw,) = gradients(y, [w])
    assert dw.op.name == "matmul"
    assert dw.scope == "model/dense"


def test_deep_graphs_need_no_recursion():
    y = x
    for _ in range(3000):
        y = ops.tanh(y)
    assert gradients(y, [x])[0].spec == x.spec


def test_composites_without_a_closed_form_are_differentiated_by_their_parts():
    def parts(a: Node, b: Node) -> Node:
        return a * b + ops.exp(a)

    whole = Op("whole", "composite", lambda a, b: a, expand=parts)
    for a, b in ((ops.sin(x), ops.sin(x) * x), (x, x), (x, ops.sin(x))):
        got, want = (gradients(f(a, b), [x])[0] for f in (whole, parts))
        np.testing.assert_allclose(*value(got, want))


def test_third_derivative():
    y = x**4
    for _ in range(3):
        (y,) = gradients(y, [x])
    np.testing.assert_allclose(value(y)[0], 24 * VALUES["x"])


def test_refusals():
    with pytest.raises(DTypeError, match="not floating point"):
        gradients(ops.argmax(x, 1), [x])
    with pytest.raises(ShapeError, match="cotangent float64"):
        gradients(x, [x], ops.sum(x))
    opaque = Op("opaque", "call", lambda a: a)
    with pytest.raises(GraphError, match=r"opaque.*has no gradient"):
        gradients(opaque(x), [x])
