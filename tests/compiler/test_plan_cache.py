"""Plans on disk: a loaded Plan is the compiled one, another graph has another key, and a file that
is damaged or cannot be written is no error.
"""

from __future__ import annotations

import numpy as np
import pytest

from nnjit import ops
from nnjit.compiler import stored_plan
from nnjit.compiler.pipeline import compile_graph, source
from nnjit.compiler.plan_key import Unkeyed, graph_text
from nnjit.graph import Graph, Node, Op, constant, input_node, parameter_node
from nnjit.runtime import plan_cache
from nnjit.runtime.executable import build
from nnjit.spec import Spec
from tests.compiler.drive import compare_steps
from tests.compiler.networks import Net


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty cache, Plans kept."""
    monkeypatch.setenv("NNJIT_CACHE", str(tmp_path))
    monkeypatch.setenv("NNJIT_PLANS", "1")
    monkeypatch.setattr(plan_cache, "_started", 1 << 63)  # whoever edits nnjit while this runs
    return tmp_path


@pytest.fixture
def compiled(monkeypatch):
    """The names of the graphs that were compiled."""
    names = []

    def note(graph, layout):
        names.append(graph.name)
        return compile_graph(graph, layout)

    monkeypatch.setattr(plan_cache, "compile_graph", note)
    return names


def network() -> Net:
    """Convolution, dense layers, constants, merged updates, an output that is a leaf."""
    net = Net()
    x = input_node("x", Spec(("batch", 6, 6, 2)))
    y = net.conv("conv", x, 3, 4, ops.relu)
    y = net.dense("one", ops.reshape(y, (-1, 144)), 8, ops.tanh)
    y = y * constant(np.linspace(0, 1, 8, dtype=np.float32))
    loss = net.classify(net.dense("two", y, 3))
    net.sgd(loss)
    net.outputs["same"] = ops.reshape(x, (-1, 72))
    net.outputs["fixed"] = constant(np.arange(3.0))
    return net


def described(plan):
    """All that a Plan says, with names for its buffers."""

    def launch(x):
        return (
            x.template, [b.name for b in x.buffers], x.writes, x.scopes, x.ops, x.flops, x.flat,
            [launch(m) for m in x.members], x.trip,
        )  # fmt: skip

    buffers = {b for x in plan.launches for b in x.touched} | set(plan.lives)
    return {
        "name": plan.name,
        "symbols": plan.symbols,
        "launches": [launch(x) for x in plan.launches],
        "buffers": sorted((b.name, b.kind, str(b.spec), b.elements) for b in buffers),
        "lives": [(b.name, *life) for b, life in plan.lives.items()],
        "strips": [([(b.name, at) for b, at in s.offsets.items()], s.span) for s in plan.strips],
        "outputs": {name: b.name for name, b in plan.outputs.items()},
        "leaves": {name: (n.op.name, str(n.spec)) for name, n in plan.leaves.items()},
        "arranged": {
            batch: sorted((b.name, at) for b, at in a.offsets.items())
            for batch in (1, 32)
            for a in [plan.arrange({"batch": batch})]
        },
        "source": source(plan),
    }


def test_a_loaded_plan_is_the_compiled_one(folder, compiled):
    net = network()
    first = build(net.graph(), net.store(), "python")
    assert compiled == ["train"]
    again = build(net.graph(), net.store(), "python")
    assert compiled == ["train"]
    assert [p.suffix for p in folder.glob("train-*.plan")] == [".plan"]
    assert described(again.plan()) == described(first.plan())
    assert again.source() == first.source()
    assert again.listing(batch=5) == first.listing(batch=5)
    rng = np.random.default_rng(0)
    given = {
        "x": rng.standard_normal((5, 6, 6, 2), dtype=np.float32),
        "y": np.array([0, 1, 2, 1, 0], np.int32),
    }
    for _ in range(2):
        one, two = first.run(given), again.run(given)
        for name, value in one.items():
            assert value.tobytes() == two[name].tobytes(), name
    for name, value in first.store.arrays.items():
        assert value.tobytes() == again.store.arrays[name].tobytes(), name


def test_a_loaded_plan_compiles_for_its_graph_when_asked(folder, compiled):
    net = network()
    fresh = build(net.graph(), net.store(), "python").plan()
    plan = build(net.graph(), net.store(), "python").plan()
    assert len(compiled) == 1
    assert [n.op.name for n in plan.graph.nodes()] == [n.op.name for n in fresh.graph.nodes()]
    assert len(compiled) == 2
    own = {b for x in plan.launches for b in x.touched}
    names = [b.name for b in plan.buffers.values() if b in own]
    theirs = {b for x in fresh.launches for b in x.touched}
    assert names == [b.name for b in fresh.buffers.values() if b in theirs]
    assert len(compiled) == 2


def test_steps_from_loaded_plans_are_right(folder):
    net = network()
    for _ in range(2):
        compare_steps(net.graph(), net.variables + net.state, "python", (2, 5), 1e-4, 1e-5)


# --------------------------------------------------------------------------------------------- keys
def small(
    shape=("batch", 4), value=0.5, axis=1, keep=True, weight="w", scope="", epsilon=1e-3, name="g",
    dtype="float32", output="y", where=(0, 0),
):  # fmt: skip
    """A graph's text, by everything that may differ."""
    x, w = input_node("x", Spec(shape, dtype)), parameter_node(weight, Spec((4,), dtype))
    y = x * w + constant(value, dtype)
    y = ops.sum(y, axis=axis, keepdims=keep) + epsilon
    y = Node(y.op, y.inputs, y.attrs, y.spec, scope)
    return graph_text(Graph(name, {output: y}, {w: w * 2}), {weight: where})


CHANGES = [
    {"shape": ("n", 4)}, {"shape": (3, 4)}, {"value": 0.25}, {"value": -0.5}, {"axis": 0},
    {"keep": False}, {"weight": "v"}, {"scope": "dense"}, {"epsilon": 1e-4}, {"name": "h"},
    {"dtype": "float64"}, {"output": "z"}, {"where": (0, 64)}, {"where": (1, 0)}, {"value": 0},
    {"value": np.float32(0.5).item() + 1e-7}, {"value": np.full(4, 0.5)},
]  # fmt: skip


def test_a_key_stands_for_all_of_a_graph():
    assert small() == small()
    texts = [small(), *(small(**change) for change in CHANGES)]
    assert len(set(texts)) == len(texts)


def test_zeros_of_both_signs_and_large_constants_have_keys_of_their_own():
    signs = [small(value=v) for v in (0.0, -0.0, float("nan"))]
    large = np.zeros(1000, np.float32)
    other = large.copy()
    other[999] = 1e-30
    both = [graph_text(Graph("g", {"y": constant(a) * 2.0}), {}) for a in (large, other)]
    assert len({*signs, *both}) == 5


def test_the_steps_of_scans_are_part_of_the_key():
    def text(factor):
        sequence = input_node("x", Spec(("time", "batch", 2)))
        start = constant(np.zeros((1, 2), np.float32))
        start = ops.broadcast_to(start, sequence.shape[1:])
        step = lambda c, x, _: ([ops.tanh(c[0] * factor + x[0])], [])  # noqa: E731
        last, _ = ops.scan(step, [start], [sequence])
        return graph_text(Graph("g", {"y": last[0]}), {})

    assert text(0.5) == text(0.5)
    assert text(0.5) != text(0.25)


def test_settings_and_sources_change_the_key(folder, monkeypatch, compiled):
    net = network()
    make = lambda: build(net.graph(), net.store(), "python")  # noqa: E731
    make()
    monkeypatch.setenv("NNJIT_WINOGRAD", "0")
    make()
    monkeypatch.delenv("NNJIT_WINOGRAD")
    monkeypatch.setenv("NNJIT_SEED", "7")  # says nothing about code
    make()
    assert len(compiled) == 2
    monkeypatch.setattr(plan_cache, "sources", lambda: "edited")
    make()
    assert len(compiled) == 3


def test_an_op_of_somebody_elses_has_no_key(folder, compiled):
    mine = Op("mine", "elementwise", rule=lambda x: x, expr="{0}")
    x = input_node("x", Spec(("batch", 2)))
    with pytest.raises(Unkeyed, match=r"mine is declared in .*test_plan_cache"):
        graph_text(Graph("g", {"y": mine(x)}), {})
    odd = Node(ops.relu(x).op, (x,), {"odd": object()}, x.spec)
    with pytest.raises(Unkeyed, match="object"):
        graph_text(Graph("g", {"y": odd}), {})
    plan_cache.plan_of(Graph("g", {"y": mine(x)}), {})
    assert compiled == ["g"]
    assert not list(folder.glob("*.plan"))


# -------------------------------------------------------------------------------------------- files
def test_a_damaged_file_is_compiled_again_with_a_warning(folder, compiled, caplog):
    graph = Graph("g", {"y": input_node("x", Spec(("batch", 2))) * 2.0})
    plan_cache.plan_of(graph, {})
    (path,) = folder.glob("g-*.plan")
    whole = path.read_bytes()
    for number, damaged in enumerate(
        (b"", whole[:40], whole[:-1], whole[:99] + b"x" + whole[100:])
    ):
        path.write_bytes(damaged)
        caplog.clear()
        plan_cache.plan_of(graph, {})
        assert len(compiled) == number + 2
        assert "is compiled anew" in caplog.text
        assert path.read_bytes() == whole


def test_a_plan_of_another_version_is_refused():
    graph = Graph("g", {"y": input_node("x", Spec(("batch", 2))) * 2.0})
    meta, data = stored_plan.encode(compile_graph(graph, {}))
    with pytest.raises(ValueError, match="version 0"):
        stored_plan.decode({**meta, "version": 0}, data, tuple, "")


@pytest.mark.parametrize("how", ["NNJIT_PLANS=0", "NNJIT_CHECK=1", "NNJIT_DEBUG=3", "edited", "no"])
def test_plans_that_are_not_kept(folder, compiled, how, monkeypatch, capsys):
    if "=" in how:
        monkeypatch.setenv(*how.split("="))
    elif how == "edited":
        monkeypatch.setattr(plan_cache, "_started", 0)
    else:
        (folder / "file").write_text("no folder")
        monkeypatch.setenv("NNJIT_CACHE", str(folder / "file" / "below"))
    graph = Graph("g", {"y": input_node("x", Spec(("batch", 2))) * 2.0})
    for _ in range(2):
        plan_cache.plan_of(graph, {})
    assert compiled == ["g", "g"]
    assert not list(folder.glob("*.plan"))


def test_why_a_step_has_no_slices_is_found_once(folder, monkeypatch):
    graph = Graph("g", {"y": input_node("x", Spec(("batch", 2))) * 2.0})
    other = Graph("g", {"y": input_node("x", Spec(("batch", 3))) * 2.0})
    asked = []

    def find(answer):
        return lambda: asked.append(answer) or answer

    assert plan_cache.reason_whole(graph, find("a reason")) == "a reason"
    assert plan_cache.reason_whole(graph, find("never")) == "a reason"
    assert plan_cache.reason_whole(other, find("")) == ""
    assert plan_cache.reason_whole(other, find("")) == ""
    monkeypatch.setenv("NNJIT_PLANS", "0")
    assert plan_cache.reason_whole(graph, find("anew")) == "anew"
    assert asked == ["a reason", "", "", "anew"]
