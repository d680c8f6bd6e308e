"""Dead borders: what a pooling leaves over is not computed, forward or backward."""

from __future__ import annotations

import numpy as np
import pytest

from nnjit import ops
from nnjit.autodiff import gradients
from nnjit.compiler.borders import crop_dead_borders
from nnjit.compiler.passes import PASSES
from nnjit.graph import Graph, Node, input_node, interpret, verify
from nnjit.spec import Spec


def graph_of(shape: tuple, kernels: list[tuple], build) -> Graph:
    """y and the gradients of its sum of squares for all inputs."""
    x = input_node("x", Spec(shape))
    w = [input_node(f"w{i}", Spec(k)) for i, k in enumerate(kernels)]
    y = build(x, *w)
    grads = gradients(ops.sum(y * y), [x, *w])
    return Graph("g", {"y": y, **{f"d{i}": g for i, g in enumerate(grads)}})


def optimised(graph: Graph, crop: bool) -> Graph:
    for run in PASSES:
        if crop or run is not crop_dead_borders:
            graph = run(graph)
    verify(graph)
    return graph


def values(graph: Graph, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    shape = {n.name: [2 if d == "batch" else d for d in map(plain, n.shape)]
             for n in graph.leaves("input")}  # fmt: skip
    return {k: rng.standard_normal(s).astype(np.float32) for k, s in shape.items()}


def plain(d) -> int | str:
    return d if isinstance(d, int) else str(d)


def images(graph: Graph, name: str) -> list[tuple]:
    return [n.shape[1:3] for n in graph.nodes() if n.op.name == name]


def block(x: Node, w: Node, **options) -> Node:
    return ops.relu(ops.conv(x, w, **options))


def two_blocks(x, w0, w1):
    return ops.max_pool(block(ops.max_pool(block(x, w0), 2), w1), 2)


def strided(x, w0, w1):
    y = block(x, w0, strides=2, padding=1)
    return ops.average_pool(block(y, w1, dilation_rate=2, padding=((2, 1), (0, 2))), 3, 2)


def with_a_skip(x, w0, w1):
    y = block(x, w0, padding="same")
    z = ops.max_pool(y, 2)
    return ops.sum(y) * 0.01 + ops.max_pool(block(z, w1), (2, 3))


def scaled_and_added(x, w0, w1):
    y = block(x, w0) * 0.5
    z = y + ops.tanh(y)
    return ops.average_pool(ops.max_pool(z, 3), 2) + ops.mean(w1)


def overlapping(x, w0, w1):
    return ops.max_pool(block(ops.max_pool(block(x, w0), 3, 2, 1), w1), 2)


TWO = [(3, 3, 2, 4), (3, 3, 4, 3)]
NETWORKS = {
    "two blocks": (("batch", 15, 14, 2), TWO, two_blocks),
    "stride, dilation, mean": (("batch", 18, 17, 2), TWO, strided),
    "an activation with another reader": (("batch", 11, 13, 2), TWO, with_a_skip),
    "elementwise between": (("batch", 12, 13, 2), TWO, scaled_and_added),
    "padded pooling": (("batch", 13, 14, 2), TWO, overlapping),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_results_are_the_same(name):
    shape, kernels, build = NETWORKS[name]
    graph = graph_of(shape, kernels, build)
    whole, cropped = optimised(graph, False), optimised(graph, True)
    v = values(graph)
    wants, gots = (interpret(g, v, "float64")[0] for g in (whole, cropped))
    for key, want in wants.items():
        np.testing.assert_allclose(gots[key], want, rtol=1e-9, atol=1e-9, err_msg=key)


def test_what_is_not_read_is_not_computed():
    """29 rows: 27 after the convolution, 13 pooled, 11 after the next, of which 5 windows read 10;
    so 12 are needed before, and 24. 14 columns leave nothing over.
    """
    _, kernels, build = NETWORKS["two blocks"]
    graph = optimised(graph_of(("batch", 29, 14, 2), kernels, build), True)
    assert images(graph, "conv2d") == [(24, 12), (10, 4)]
    assert images(graph, "max_pool_grad") == [(10, 4), (24, 12)]
    assert sorted(images(graph, "conv2d_dx")) == [(12, 6), (29, 14)]


def test_other_readers_keep_the_whole_image():
    shape, kernels, build = NETWORKS["an activation with another reader"]
    graph = optimised(graph_of(shape, kernels, build), True)
    assert images(graph, "conv2d")[0] == (11, 13)


def test_a_graph_without_a_remainder_is_left_alone():
    _, kernels, build = NETWORKS["two blocks"]
    graph = optimised(graph_of(("batch", 14, 14, 2), kernels, build), False)
    assert crop_dead_borders(graph) is graph


def test_values_that_are_not_read_have_no_effect():
    _, kernels, build = NETWORKS["two blocks"]
    graph = graph_of(("batch", 29, 14, 2), kernels, build)
    cropped, v = optimised(graph, True), values(graph)
    want = interpret(cropped, v)[0]
    v["x"] = v["x"].copy()
    v["x"][:, 26:] = np.nan
    got = interpret(cropped, v)[0]
    for key in want:
        np.testing.assert_array_equal(got[key], want[key], err_msg=key)
