"""f'(x) is computed beside f(x), where they share what is expensive."""

from __future__ import annotations

import numpy as np
import pytest

from nnjit import ops
from nnjit.autodiff import gradients
from nnjit.compiler.pipeline import compile_graph
from nnjit.graph import Graph, input_node, interpret
from nnjit.kernels.template import render
from nnjit.runtime.executable import build
from nnjit.runtime.store import Store
from nnjit.spec import Spec

EXPENSIVE = {"normal_cdf", "normal_pdf", "exp", "sigmoid"}


def two_layers(activation, steps=False):
    """Loss and gradients of dense - activation - dense."""
    shape = ("batch", 3, 6) if steps else ("batch", 6)
    x = input_node("x", Spec(shape))
    w, b = input_node("w", Spec((6, 20))), input_node("b", Spec((20,)))
    v = input_node("v", Spec((20, 4)))
    y = ops.matmul(activation(ops.matmul(x, w) + b), v)
    loss = ops.sum(ops.square(y))
    found = gradients(loss, [w, b, v, x])
    return Graph("step", {"loss": loss, **{f"d{i}": g for i, g in enumerate(found)}})


@pytest.mark.parametrize("name", ["gelu", "silu"])
@pytest.mark.parametrize("steps", [False, True])
def test_the_gradient_shares_the_expensive_part(name, steps):
    graph = two_layers(getattr(ops, name), steps)
    launches = compile_graph(graph).launches
    costly = [launch for launch in launches if EXPENSIVE.intersection(launch.ops.split())]
    assert len(costly) == 1, [launch.ops for launch in costly]
    rng = np.random.default_rng(0)
    values = {
        n.name: rng.standard_normal([d if isinstance(d, int) else 5 for d in n.shape], np.float32)
        for n in graph.leaves("input")
    }
    want = interpret(graph, values, "float64")[0]
    got = build(graph, Store([]), "python").run(values)
    for key, value in want.items():
        np.testing.assert_allclose(got[key], value, 2e-4, 2e-4, err_msg=key)


def test_the_kept_slope_is_multiplied_in_registers():
    texts = [render(launch.template) for launch in compile_graph(two_layers(ops.gelu)).launches]
    assert [text for text in texts if 'final="mul"' in text and "residual" in text]


def test_a_value_that_is_kept_anyway_stays_where_it_is():
    """x itself is needed elsewhere: its gradient then computes again what it needs."""
    kept = []

    def activation(x):
        kept.append(ops.transpose(x, (1, 0)))
        return ops.gelu(x)

    graph = two_layers(activation)
    graph = Graph("step", {**graph.outputs, "kept": kept[0]})
    launches = compile_graph(graph).launches
    assert sum(bool(EXPENSIVE.intersection(launch.ops.split())) for launch in launches) == 2
