"""The order of groups: what is read was computed before, hot values are used at once."""

from __future__ import annotations

import random

import pytest

from nnjit import ops
from nnjit.autodiff import gradients
from nnjit.compiler.fuse import fuse
from nnjit.compiler.pipeline import optimise
from nnjit.compiler.schedule import schedule
from nnjit.graph import Graph, input_node, parameter_node
from nnjit.spec import Spec
from tests.compiler.random_graphs import random_graph


@pytest.mark.parametrize("seed", range(8))
def test_groups_come_after_what_they_read(seed):
    fusion = schedule(fuse(optimise(random_graph(random.Random(seed), nodes=40)[0])))
    place = {g: i for i, g in enumerate(fusion.groups)}
    assert [g.index for g in fusion.groups] == list(range(len(fusion.groups)))
    for n, g in fusion.of.items():
        for x in n.inputs:
            source = fusion.of.get(fusion.base(x))
            assert source is None or place[source] <= place[g]


def test_a_weight_gradient_follows_the_gradient_that_it_reads():
    """Three layers: each dW frees the activations of its layer before the next dy is made."""
    x = input_node("x", Spec(("batch", 32)))
    weights = [parameter_node(f"w{i}", Spec((32, 32))) for i in range(3)]
    y = x
    for w in weights:
        y = ops.relu(ops.matmul(y, w))
    found = gradients(ops.sum(y), weights)
    updates = {w: w - ops.multiply(g, 0.1) for w, g in zip(weights, found, strict=True)}
    fusion = schedule(fuse(optimise(Graph("train", {}, updates))))
    kinds = [
        "dw" if n.attrs["transpose_a"] else "dx" if n.attrs["transpose_b"] else "forward"
        for g in fusion.groups for n in g.nodes if n.op.name == "matmul"
    ]  # fmt: skip
    assert kinds == ["forward"] * 3 + ["dw", "dx", "dw", "dx", "dw"]
    assert all(g.holds_update for g in fusion.groups[-3:])
