"""Convolutions over an open number of steps, compiled once for all batch sizes and lengths."""

from __future__ import annotations

import numpy as np

from nnjit import ops
from nnjit.autodiff import gradients
from nnjit.graph import Graph, input_node
from nnjit.runtime import cpu
from nnjit.spec import Spec
from tests.compiler.drive import Variable, compare_steps

RNG = np.random.default_rng(0)


def test_another_number_of_steps_compiles_nothing():
    kernels = [
        Variable("wide", RNG.standard_normal((3, 5, 9))),
        Variable("deep", RNG.standard_normal((2, 9, 1))),
        Variable("last", RNG.standard_normal((1, 9, 3))),
    ]
    x = input_node("x", Spec(("batch", "time", 5), "float64"))
    w, d, p = (v.node for v in kernels)
    h = ops.tanh(ops.conv(x, w, padding="same"))
    h = ops.relu(ops.depthwise_conv(h, d, padding="causal", dilation_rate=2))
    y = ops.upsample(ops.conv(h, p), 2)
    loss = ops.sum(ops.square(y))
    grads = zip(("x", "w", "d", "p"), gradients(loss, [x, w, d, p]), strict=True)
    graph = Graph("open", {"y": y, **{f"d{k}": g for k, g in grads}})
    executable = compare_steps(graph, kernels, "cpu", (1, 7))
    before = cpu.compiled_count()
    compare_steps(graph, kernels, "cpu", (2, 33), executable=executable)
    assert cpu.compiled_count() == before
