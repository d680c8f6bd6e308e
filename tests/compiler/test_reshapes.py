"""What follows a product's reshape is computed on the product's own rows."""

from __future__ import annotations

import numpy as np
import pytest

from nnjit import ops
from nnjit.compiler.passes import expand, share, simplify
from nnjit.compiler.reshapes import lift_over_reshapes
from nnjit.graph import Graph, Scope, enter, input_node, interpret, state_node, verify
from nnjit.spec import Spec

SIZES = {"n": 3, "t": 5}


def product_of(x, w):
    flat = ops.reshape(x, (-1, x.shape[-1]))
    return ops.reshape(ops.matmul(flat, w), (*x.shape[:-1], w.shape[-1]))


def bias_and_activation(x, w, b, labels):
    return ops.gelu(product_of(x, w) + b)


def per_row_and_per_element(x, w, b, labels):
    y = product_of(x, w)
    return y * ops.cast(labels, "float32")[:, :, None] + ops.relu(y) * x[:, :, :1]


def row_sums(x, w, b, labels):
    y = product_of(x, w)
    return ops.exp(y - ops.max(y, axis=-1, keepdims=True)) / ops.sum(y, axis=2, keepdims=True)


def bias_gradient(x, w, b, labels):
    return ops.sum(product_of(x, w) * 2.0, axis=(0, 1))


def everything(x, w, b, labels):
    return ops.sum(ops.square(product_of(x, w)))


def one_hot_difference(x, w, b, labels):
    return product_of(x, w) - ops.one_hot(labels, 6)


def dropped(x, w, b, labels):
    return ops.dropout(product_of(x, w) + b, 0.5)


CASES = [
    bias_and_activation, per_row_and_per_element, row_sums, bias_gradient, everything,
    one_hot_difference, dropped,
]  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_elementwise_and_reductions_are_lifted(case):
    x = input_node("x", Spec(("n", "t", 4)))
    w, b = input_node("w", Spec((4, 6))), input_node("b", Spec((6,)))
    labels = input_node("labels", Spec(("n", "t"), "int32"))
    with enter(Scope(training=True, random=state_node("random", Spec((2,), "int64")))):
        graph = Graph(case.__name__, {"y": case(x, w, b, labels)})
    for run in (expand, simplify, share):
        graph = run(graph)
    lifted = share(lift_over_reshapes(graph))
    verify(Graph("all", {**lifted.outputs, "x": x, "labels": labels}))
    rng = np.random.default_rng(0)
    values = {
        "x": rng.standard_normal((3, 5, 4)), "w": rng.standard_normal((4, 6)),
        "b": rng.standard_normal(6), "labels": rng.integers(0, 6, (3, 5)),
        "random": np.array([7, 1]),
    }  # fmt: skip
    want, got = (interpret(g, values, "float64")[0]["y"] for g in (graph, lifted))
    np.testing.assert_allclose(got, want, 1e-12, 1e-12)
    inside = [n for n in lifted.nodes() if n.op.kind in ("elementwise", "reduce", "random")]
    assert not [n for n in inside if n.rank == 3 and n.inputs and n.op.name != "cast"]


def test_an_update_stays_on_the_shape_of_its_leaf():
    """A kernel of rank 3 whose gradient is a product of rank 2 is updated where it lies."""
    slot = state_node("m", Spec((4, 2, 3)))
    x, w = input_node("x", Spec(("n", 4))), input_node("w", Spec(("n", 6)))
    gradient = ops.reshape(ops.matmul(ops.transpose(x, (1, 0)), w), (4, 2, 3))
    graph = Graph("update", {}, {slot: slot * 0.9 + gradient * 0.1})
    update = lift_over_reshapes(graph).updates[slot]
    assert update.op.name == "add"
    assert [i.op.name for i in update.inputs] == ["multiply", "multiply"]
