"""Each pass keeps what a graph computes, and does what it is for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnjit import ops
from nnjit.autodiff import gradients
from nnjit.compiler.passes import PASSES, expand, prune, share, simplify
from nnjit.errors import NnjitError
from nnjit.graph import (
    Graph,
    Node,
    Scope,
    constant,
    enter,
    input_node,
    interpret,
    scoped,
    state_node,
    verify,
)
from nnjit.spec import Spec, evaluate
from tests.ops.table import ROWS


def same(before: Graph, after: Graph, values: dict, rtol: float = 2e-6) -> None:
    """Both graphs give these values the same outputs and updates."""
    verify(after)
    wants, gots = interpret(before, values), interpret(after, values)
    for want, got in zip(wants, gots, strict=True):
        for name in got:
            assert want[name].dtype == got[name].dtype
            np.testing.assert_allclose(got[name], want[name], rtol, 1e-6, err_msg=name)


def names(graph: Graph) -> list[str]:
    return [n.op.name for n in graph.nodes() if not n.is_leaf]


# ------------------------------------------------------------------------------------ every op
@pytest.mark.parametrize("row", ROWS, ids=lambda r: r.name)
def test_passes_keep_every_op_and_its_gradient(row):
    graph = row.graph("float32", backward=row.grad)
    values = {f"x{i}": a for i, a in enumerate(row.sample({"batch": 3}))}
    shape = [evaluate(d, {"batch": 3}) for d in graph.outputs["y"].shape]
    values["dy"] = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    for step in PASSES:
        after = step(graph)
        same(graph, after, values)
        graph = after


# ------------------------------------------------------------------------------- random graphs
SHAPES = [("batch", 4), ("batch", 1), (4,), (1, 4), (), ("batch", 3, 4)]


class Choice:
    """Choices of a seed: as varied for a small graph as for a large one."""

    def __init__(self, seed: int):
        self.rng = np.random.default_rng(seed)

    def of(self, *options):
        return options[self.rng.integers(len(options))]

    def axes(self, a: Node) -> list[int]:
        return [i for i in range(a.rank) if self.rng.random() < 0.5]

    def order(self, a: Node) -> list[int]:
        return [int(i) for i in self.rng.permutation(a.rank)]


def _apply(choose: Choice, nodes: list[Node]) -> Node:
    """One more op on values that are there."""
    a, b = choose.of(*nodes), choose.of(*nodes)
    try:
        return choose.of(*BUILDERS)(choose, a, b)
    except NnjitError:  # shapes that do not go together: leave the value as it is
        return a


BUILDERS = [
    lambda c, a, b: a + b,
    lambda c, a, b: a - b,
    lambda c, a, b: a * b,
    lambda c, a, b: ops.maximum(a, b),
    lambda c, a, b: ops.where(a > b, a, b),
    lambda c, a, b: ops.where(a > 0, a, a),
    lambda c, a, b: a + c.of(0, 1.0, -1, 0.5),
    lambda c, a, b: a * c.of(0, 1, -1, 2),
    lambda c, a, b: c.of(0, 1) - a,
    lambda c, a, b: a / c.of(1, 2, 0.5),
    lambda c, a, b: -a,
    lambda c, a, b: ops.tanh(a),
    lambda c, a, b: ops.softmax(a) if a.rank else a,
    lambda c, a, b: ops.gelu(a),
    lambda c, a, b: ops.elu(a) * ops.stop_gradient(b),
    lambda c, a, b: ops.cast(ops.cast(a > 0, "int32"), "float32"),
    lambda c, a, b: ops.cast(a, "float32") + constant(np.ones((1, 4), np.float32)),
    lambda c, a, b: ops.transpose(a, c.order(a)),
    lambda c, a, b: ops.flip(a, c.axes(a)),
    lambda c, a, b: ops.sum(a, c.axes(a), c.of(True, False)),
    lambda c, a, b: ops.max(a, c.axes(a), c.of(True, False)),
    lambda c, a, b: ops.mean(a, c.axes(a)),
    lambda c, a, b: ops.reshape(a, (*a.shape, 1)) if a.rank < 4 else ops.reshape(a, (-1,)),
    lambda c, a, b: ops.expand_dims(a, 0) if a.rank < 4 else ops.squeeze(a),
    lambda c, a, b: ops.flatten(a) if a.rank else a,
    lambda c, a, b: ops.broadcast_to(a, b.shape),
    lambda c, a, b: ops.broadcast_to(a, (2, *a.shape)) if a.rank < 4 else a,
    lambda c, a, b: ops.concatenate([a, b], -1) if a.rank else a,
    lambda c, a, b: ops.pad(a, [(0, c.of(0, 1))] * a.rank),
    lambda c, a, b: a[..., : c.of(1, 2, 4)] if a.rank else a,
    lambda c, a, b: a[..., ::-1] if a.rank else a,
    lambda c, a, b: ops.full_like(a, 2) * b,
    lambda c, a, b: ops.matmul(a, b, transpose_b=True) if min(a.rank, b.rank) > 1 else a,
]


@settings(max_examples=150, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32), size=st.integers(1, 14), backward=st.booleans())
def test_random_graphs_keep_their_values(seed, size, backward):
    leaves = [input_node(f"x{i}", Spec(s)) for i, s in enumerate(SHAPES)]
    nodes = list(leaves)
    choose = Choice(seed)
    for _ in range(size):
        nodes.append(_apply(choose, nodes))
    outputs = {f"y{i}": n for i, n in enumerate(nodes)}
    if backward:
        found = gradients(nodes[-1], leaves[:3])
        outputs |= {f"d{i}": g for i, g in enumerate(found)}
    graph = Graph("random", outputs)
    rng = np.random.default_rng(seed)
    values = {n.name: rng.uniform(-1, 1, [evaluate(d, {"batch": 2}) for d in n.shape])
              .astype(np.float32) for n in leaves}  # fmt: skip
    if any(abs(v).max(initial=0) > 1e4 for v in interpret(graph, values)[0].values()):
        return  # rounding errors grow with the values
    for step in PASSES:
        after = step(graph)
        same(graph, after, values, rtol=1e-4)
        graph = after


# ------------------------------------------------------------------------------ what each is for
x = input_node("x", Spec(("batch", 4)))
row = input_node("row", Spec((4,)))
flag = input_node("flag", Spec(("batch", 4), "bool"))

PLACES = np.array([[0, 1, 1], [1, 0, 2]], np.int32)
ROW_BLOCK = ops.broadcast_to(row, (3, 2, 4))
SIMPLER = [
    ("times one", x * 1, []),
    ("plus zero", 0 + x, []),
    ("minus zero", x - 0, []),
    ("zero minus", 0 - x, ["negative"]),
    ("over one", x / 1, []),
    ("times minus one", x * -1, ["negative"]),
    ("minus minus", ops.negative(-x), []),
    ("times zero stays, for NaN", x * 0, ["multiply"]),
    ("minus itself stays, for NaN", x - x, ["subtract"]),
    ("wider by a neutral operand", row * ops.full((3, 4), 1), ["broadcast_to"]),
    ("numbers", x + (constant(2.0) * 3 + 1), ["add"]),
    ("two reshapes", x.reshape(-1).reshape(x.shape), []),
    ("two transposes", x.T.T, []),
    ("transpose of a row", ops.transpose(x[:, None], (1, 0, 2)), ["reshape"]),
    ("rows of a table, transposed", ops.transpose(ops.take(x, PLACES), (1, 0, 2)), ["take_rows"]),
    ("transposed rows added up", ops.scatter(PLACES, ops.transpose(ROW_BLOCK, (1, 0, 2)), 3),
     ["broadcast_to", "scatter_rows"]),
    ("transposed parts", ops.concatenate([x.T, (-x).T], 0), ["negative", "concatenate",
                                                             "transpose"]),
    ("a sum of transposed", (x.T + ops.exp(x).T).T, ["exp", "add"]),
    ("a part of transposed", x.T[1:3].T, ["slice"]),
    ("two flips", ops.flip(ops.flip(x, 1), (0, 1)), ["flip"]),
    ("flip of one element", ops.flip(ops.reshape(x, (1, -1)), 0), ["reshape"]),
    ("whole slice", ops.OPS["slice"](x, starts=(0, 0), stops=x.shape, steps=(1, 1)), []),
    ("pad by nothing", ops.OPS["pad"](x, widths=((0, 0, 0),) * 2, value=0.0), []),
    ("cast there and back", ops.cast(ops.cast(flag, "int32"), "float32"), ["cast"]),
    ("cast through int stays", ops.cast(ops.cast(x, "int32"), "float32"), ["cast", "cast"]),
    ("sum over one element", ops.sum(x[:, None], 1), []),
    ("sum over no axes", ops.sum(x, ()), []),
    ("joined with nothing", ops.concatenate([x, x[:, 2:2]], 1), []),
    ("broadcast operand", x + ops.broadcast_to(row, x.shape), ["add"]),
    ("broadcast later", ops.exp(ops.broadcast_to(row, x.shape)), ["exp", "broadcast_to"]),
    ("broadcast by reshape", x + row.reshape(1, 4), ["add"]),
    ("same branches", ops.where(flag, x, x), []),
    ("known condition", ops.where(ops.full(x.shape, True, "bool"), x, 0), []),
    ("stopped gradient", ops.stop_gradient(x), []),
    ("gradient of a mean", gradients(ops.mean(x * row), [x])[0], ["divide", "multiply",
                                                                   "broadcast_to"]),
]  # fmt: skip


@pytest.mark.parametrize(("before", "left"), [c[1:] for c in SIMPLER], ids=[c[0] for c in SIMPLER])
def test_simplify(before, left):
    graph = Graph("g", {"y": before, "x": x})  # x says what batch is
    after = simplify(graph)
    assert sorted(names(after)) == sorted(left)
    values = {
        "x": np.array([[1, -2, np.nan, np.inf], [0, 0.5, 3, -1]], np.float32),
        "row": np.arange(4, dtype=np.float32),
        "flag": np.array([[True, False, True, False]] * 2),
    }
    same(graph, after, {n.name: values[n.name] for n in graph.leaves("input")})


def test_expand_leaves_no_composite_and_keeps_the_scope():
    with enter(Scope("model")), scoped("head"):
        y = ops.softmax(ops.gelu(x))
    after = expand(Graph("g", {"y": y}))
    assert all(n.op.kind != "composite" for n in after.nodes())
    assert {n.scope for n in after.nodes() if not n.is_leaf} == {"model/head"}


def test_share_keeps_one_of_equal_subexpressions():
    y = ops.exp(x + row) * ops.exp(row + x) + ops.exp(x - row)
    after = share(Graph("g", {"y": y}))
    assert names(after).count("exp") == 2
    assert names(after).count("add") == 2


def test_share_keeps_the_order_of_operands_that_matters():
    graph = Graph("g", {"y0": x - row, "y1": row - x, "y2": x / row, "y3": row / x})
    assert len(set(share(graph).outputs.values())) == 4


def test_share_keeps_apart_what_differs_in_dtype_attrs_or_stream():
    rng = state_node("rng", Spec((2,), "int64"))
    draws = [ops.random_uniform((4,), rng=rng, stream=s) for s in (1, 2, 1)]
    halves = [x * constant(v) for v in (np.float32(0.0), np.float32(-0.0))]
    casts = [ops.cast(flag, d) for d in ("int32", "int64")]
    graph = Graph("g", {f"y{i}": n for i, n in enumerate([*draws, *halves, *casts])})
    out = share(graph).outputs
    assert out["y0"] is out["y2"]
    assert len(set(out.values())) == 6


def test_a_loss_and_its_gradient_share_the_softmax():
    labels = input_node("labels", Spec(("batch",), "int32"))
    loss = ops.mean(ops.sparse_softmax_cross_entropy(x, labels))
    graph = Graph("g", {"loss": loss, "dx": gradients(loss, [x])[0]})
    for step in PASSES:
        graph = step(graph)
    assert names(graph).count("exp") == 1
    assert names(graph).count("max") == 1


def test_prune_drops_updates_that_change_nothing():
    kept, idle = state_node("kept", Spec(())), state_node("idle", Spec(()))
    graph = Graph("g", {"y": kept + 1}, {kept: kept + 1, idle: idle * 1})
    after = prune(simplify(graph))
    assert list(after.updates) == [kept]
    assert idle not in after.leaves()
