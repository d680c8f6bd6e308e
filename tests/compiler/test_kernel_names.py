"""Names of kernels."""

import numpy as np
import pytest

import nnjit
from nnjit import ops
from nnjit.graph import Graph, input_node
from nnjit.kernels.template import render
from nnjit.runtime.executable import build
from nnjit.runtime.store import Store
from nnjit.spec import Spec, symbol


@pytest.mark.parametrize("name", ["rsqrt", "tanh"])
def test_a_kernel_of_one_function_does_not_hide_that_function(name):
    x = np.linspace(0.1, 2, 7, dtype="float32")
    y = nnjit.function(getattr(ops, name))(x)
    expected = 1 / np.sqrt(x) if name == "rsqrt" else np.tanh(x)
    np.testing.assert_allclose(y, expected, rtol=1e-5)


def test_flat_kernels_that_differ_by_the_factor_of_an_extent_are_one():
    x = input_node("x", Spec((symbol("batch"), 2, 5)))
    y = input_node("y", Spec((symbol("batch"), 7, 5)))
    graph = Graph("means", {n.name: ops.mean(n, (0, 1)) for n in (x, y)})
    executable = build(graph, Store(), "cpu")
    dividing = [
        t for t in (x.template for x in executable.plan().launches) if t.name == "map_div_f4"
    ]
    assert sorted(t.sizes for t in dividing) == [(("factor", 2),), (("factor", 7),)]
    assert len({render(t) for t in dividing}) == 1
    rng = np.random.default_rng(0)
    for batch in (1, 3):
        given = {n.name: rng.random((batch, *n.shape[1:]), "float32") for n in (x, y)}
        for name, got in executable.run(given).items():
            np.testing.assert_allclose(got, given[name].mean((0, 1)), rtol=1e-5)
