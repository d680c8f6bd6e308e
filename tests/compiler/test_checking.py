"""NNJIT_CHECK=1 compares every launch with the interpreter and names the first that is wrong."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from nnjit import ops
from nnjit.compiler.cpu import lower as lowering
from nnjit.errors import GraphError, NumericError
from nnjit.graph import Graph, input_node, scoped
from nnjit.runtime.executable import build
from nnjit.runtime.store import Store
from nnjit.spec import Spec
from tests.compiler.drive import Variable, feed
from tests.compiler.networks import NETWORKS, cnn

devices = pytest.mark.parametrize("device", ["python", "cpu"])


@pytest.fixture(autouse=True)
def _check(monkeypatch):
    monkeypatch.setenv("NNJIT_CHECK", "1")


@devices
@pytest.mark.parametrize("name", NETWORKS)
def test_right_kernels_pass(name, device):
    net = NETWORKS[name]()
    executable = build(net.graph(), net.store(), device)
    for step, batch in enumerate((5, 3)):
        executable.run(feed(net.graph(), {"batch": batch}, seed=step))


def wrong(monkeypatch, start: str, old: str, new: str) -> None:
    """Plant a mistake in the kernels whose names start so."""
    real = lowering.Lowering.emit

    def emit(self, template, *args, **options):
        if template.name.startswith(start):
            body = tuple(line.replace(old, new) for line in template.body)
            assert body != template.body
            template = dataclasses.replace(template, body=body)
        real(self, template, *args, **options)

    monkeypatch.setattr(lowering.Lowering, "emit", emit)


@devices
def test_a_wrong_loop_is_named(device, monkeypatch):
    wrong(monkeypatch, "map_dropout", "/ f4(0.75)", "/ f4(0.7)")
    net = cnn(dropout=True)
    executable = build(net.graph(), net.store(), device)
    with pytest.raises(GraphError, match=r"launch \d+ map_dropout_f4 \(dropout\).*differs from"):
        executable.run(feed(net.graph(), {"batch": 4}))


def test_a_wrong_template_is_named(monkeypatch):
    wrong(monkeypatch, "max_pool_index_4x4x16", "best = x[a + c]", "best = x[a + c] + f4(1)")
    net = cnn()
    executable = build(net.graph(), net.store(), "python")
    with pytest.raises(GraphError, match=r"launch \d+ max_pool_index_4x4x16"):
        executable.run(feed(net.graph(), {"batch": 4}))


def test_a_wrong_update_is_named(monkeypatch):
    wrong(monkeypatch, "sgd_update", "f4(0.9)", "f4(0.8)")
    net = cnn()
    store = net.store()
    for name, a in store.arrays.items():
        if name.startswith("velocity"):
            a[...] = 1
    executable = build(net.graph(), store, "python")
    with pytest.raises(GraphError, match=r"sgd_update_f4 \(.*sgd\)"):
        executable.run(feed(net.graph(), {"batch": 4}))


@devices
def test_the_launch_that_makes_the_first_nan_is_named(device):
    x = input_node("x", Spec(("batch", 3)))
    with scoped("first"):
        h = ops.sum(ops.log(x), 0)
    with scoped("second"):
        y = ops.sum(ops.exp(h) * x)
    executable = build(Graph("logs", {"y": y}), Store(), device)
    fine = {"x": np.full((4, 3), 0.5, np.float32)}
    executable.run(fine)
    with pytest.raises(NumericError, match=r"NaN first made by launch 0 .*\(first\)"):
        executable.run({"x": -fine["x"]})


def test_an_infinity_that_is_meant_passes():
    x = input_node("x", Spec(("batch", 3)))
    y = ops.softmax(ops.where(x > 0, x, -np.inf))
    executable = build(Graph("masked", {"y": y, "e": ops.exp(x)}), Store(), "python")
    out = executable.run({"x": np.array([[1, -1, 200]], np.float32)})
    assert out["e"][0, 2] == np.inf


def test_an_infinity_that_is_a_mistake_is_named(monkeypatch):
    wrong(monkeypatch, "map_mul", "f4(2.0)", "f4(2.0) / f4(0)")
    x = input_node("x", Spec(("batch", 3)))
    with scoped("big"):
        y = x * 2.0
    executable = build(Graph("big", {"y": y}), Store(), "python")
    with pytest.raises(NumericError, match=r"infinity first made by launch 0 map_mul_f4 \(big\)"):
        executable.run({"x": np.full((2, 3), 200, np.float32)})


def test_an_update_that_is_lost_is_named(monkeypatch):
    """A launch too few: no launch is wrong, the leaf is."""
    v, u = (Variable(n, np.arange(4, dtype=np.float32) + k) for k, n in enumerate("vu"))
    executable = build(Graph("swap", {}, {v.node: u.node, u.node: v.node}), Store([v, u]), "python")
    monkeypatch.setattr(executable, "run_row", lambda bound, k: None)
    with pytest.raises(GraphError, match="after the last launch, 'v'"):
        executable.run({})


def test_an_input_that_is_nan_already_is_named_too():
    """The first launch that spreads it."""
    v = Variable("w", np.ones(3, np.float32))
    x = input_node("x", Spec(("batch", 3)))
    executable = build(Graph("spread", {"y": x * v.node}), Store([v]), "python")
    given = np.ones((2, 3), np.float32)
    given[1, 2] = np.nan
    with pytest.raises(NumericError, match=r"NaN first made by launch 0 .* at \(1, 2\)"):
        executable.run({"x": given})
