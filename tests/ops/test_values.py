"""Special values, kinks, dtypes and operators: what the table's random samples do not meet."""

from __future__ import annotations

import math

import numpy as np
import pytest

from nnjit import ops
from nnjit.autodiff import gradients
from nnjit.bfloat16 import rounded
from nnjit.graph import Graph, Node, input_node, interpret, verify
from nnjit.runtime.executable import build
from nnjit.runtime.store import Store
from nnjit.spec import Spec, symbol
from tests.ops.rows_elementwise import ACTIVATIONS, UNARY, _reference
from tests.ops.table import torch

inf, nan = math.inf, math.nan
SPECIAL = [nan, inf, -inf, 0.0, 1e-30, -1e-30, 50.0, -50.0, 1e4, -1e4]


def run(build, *arrays, grad: bool = False):
    """build on inputs like these arrays (a run-time first axis); with grad, of the sum."""
    nodes = [input_node(f"x{i}", Spec(np.shape(a), np.asarray(a).dtype.name))
             for i, a in enumerate(arrays)]  # fmt: skip
    y = build(*nodes)
    outputs: dict[str, Node] = {"y": y}
    if grad:
        outputs |= {f"d{i}": g for i, g in enumerate(gradients(y, nodes))}
    graph = Graph("g", outputs)
    verify(graph)
    out = interpret(graph, {f"x{i}": np.asarray(a) for i, a in enumerate(arrays)})[0]
    return tuple(out.values()) if grad else out["y"]


# glu halves an axis; torch has sign(NaN) = 0, where NumPy and nnjit have NaN, and gelu(inf) = NaN.
NOT_THERE = {"glu", "sign", "gelu"}


@pytest.mark.skipif(torch is None, reason="torch is not installed")
@pytest.mark.parametrize(
    ("name", "op", "ref"),
    [(n, op, _reference(ref, where)) for table, where in ((UNARY, "torch"), (ACTIVATIONS, "F"))
     for n, op, ref, *_ in table if n not in NOT_THERE],
    ids=[r[0] for r in (*UNARY, *ACTIVATIONS) if r[0] not in NOT_THERE],
)  # fmt: skip
def test_special_values_are_those_of_torch(name, op, ref):
    for floats in (np.float32, np.float64):
        x = np.array(SPECIAL, floats)
        want = ref(torch.tensor(x)).numpy()
        np.testing.assert_allclose(run(op, x), want, 1e-5, 1e-7)


BINARY_SPECIAL = [
    ("maximum", ops.maximum, np.maximum),
    ("minimum", ops.minimum, np.minimum),
    ("less", ops.less, np.less),
    ("equal", ops.equal, np.equal),
    ("divide", ops.divide, np.divide),
    ("power", ops.power, np.power),
]


@pytest.mark.parametrize("case", BINARY_SPECIAL, ids=lambda c: c[0])
def test_binary_special_values_are_those_of_numpy(case):
    _, op, ref = case
    a = np.array([nan, inf, -inf, 0.0, -0.0, 2.0, -3.0])
    with np.errstate(all="ignore"):
        want = ref(a[:, None], a)
    np.testing.assert_array_equal(run(op, a[:, None], a), want)


def test_expressions_for_the_emitter_mean_what_numpy_means():
    """The text of each op, evaluated by Python on scalars, is the NumPy meaning."""
    functions = {
        name: op.numpy for name, op in ops.OPS.items() if op.kind == "elementwise" and op.expr
    }
    names = {f"{k}_f8": lambda *a, f=f: f(None, *map(np.float64, a)) for k, f in functions.items()}
    values = [nan, inf, -inf, 0.0, 0.5, -1.5, 3.0]
    for name, op in ops.OPS.items():
        if op.kind != "elementwise" or op.expr is None:
            continue
        arity = 3 if "{2}" in op.expr else 2 if "{1}" in op.expr else 1
        for i, a in enumerate(values):
            args = [a, values[(i + 2) % 7], values[(i + 3) % 7]][:arity]
            if name in ("logical_and", "logical_or", "logical_not"):
                args = [bool(v) for v in args]
            if name == "where":
                args[0] = bool(a > 0)
            scalars = [np.float64(v) if isinstance(v, float) else v for v in args]
            with np.errstate(all="ignore"):
                text = op.expr.format(*(f"x[{k}]" for k in range(arity)), t="f8")
                got = eval(text, {"f8": np.float64, "x": scalars, **names})
                want = op.numpy(None, *(np.asarray(v) for v in args))
            np.testing.assert_equal(np.float64(got), np.float64(want), err_msg=f"{name} {args}")


# --------------------------------------------------------------------------------- kinks and ties
KINKS = [
    ("relu", ops.relu, [0.0], [0.0]),
    ("abs", ops.abs, [0.0], [0.0]),
    ("relu6", ops.relu6, [0.0, 6.0], [0.0, 0.0]),
    ("leaky_relu", lambda x: ops.leaky_relu(x, 0.1), [0.0], [0.1]),
    ("elu", lambda x: ops.elu(x, 0.5), [0.0], [0.5]),
    ("clip passes at its limits", lambda x: ops.clip(x, -1, 1), [-1.0, 1.0, 1.1], [1.0, 1.0, 0.0]),
    ("maximum halves ties", lambda x: ops.maximum(x, 1), [0.0, 1.0, 2.0], [0.0, 0.5, 1.0]),
    ("minimum halves ties", lambda x: ops.minimum(x, 1), [0.0, 1.0, 2.0], [1.0, 0.5, 0.0]),
    ("max shares among ties", ops.max, [1.0, 3.0, 3.0], [0.0, 0.5, 0.5]),
    ("prod with a zero", ops.prod, [2.0, 0.0, 3.0], [0.0, 6.0, 0.0]),
    ("prod with two zeros", ops.prod, [2.0, 0.0, 0.0], [0.0, 0.0, 0.0]),
    ("floor is flat", ops.floor, [0.5, 1.0], [0.0, 0.0]),
    ("elu does not overflow", ops.elu, [800.0, -800.0], [1.0, 0.0]),
    ("softplus does not overflow", ops.softplus, [800.0, -800.0], [1.0, 0.0]),
    ("power 0", lambda x: x**0, [0.0, 2.0], [0.0, 0.0]),
    ("power 1", lambda x: x**1.0, [0.0, -2.0], [1.0, 1.0]),
    ("power by a value 0", lambda x: ops.power(x, ops.full((1,), 0.0, "float64")), [0.0], [0.0]),
    ("logsumexp of nothing", lambda x: ops.logsumexp(x), [-inf, -inf], [0.0, 0.0]),
    ("logsumexp with -inf", lambda x: ops.logsumexp(x), [-inf, 1.0], [0.0, 1.0]),
    ("max_pool: first winner", lambda x: ops.max_pool(x.reshape(1, 4, 1), 4),
     [1.0, 2.0, 2.0, 0.0], [0.0, 1.0, 0.0, 0.0]),
]  # fmt: skip


@pytest.mark.parametrize("case", KINKS, ids=lambda c: c[0])
def test_gradient_at_kinks(case):
    _, build, at, want = case
    _, got = run(build, np.array(at), grad=True)
    np.testing.assert_array_equal(got, want)


def test_reductions_keep_nan_and_infinity():
    x = np.array([[1.0, nan, 3.0], [-inf, -inf, -inf], [inf, 1.0, 2.0]])
    np.testing.assert_array_equal(run(lambda x: ops.max(x, 1), x), [nan, -inf, inf])
    np.testing.assert_array_equal(run(lambda x: ops.min(x, 1), x), [nan, -inf, 1])
    np.testing.assert_array_equal(run(lambda x: ops.sum(x, 1), x), [nan, -inf, inf])
    np.testing.assert_array_equal(run(lambda x: ops.argmax(x, 1), x), [1, 0, 0])
    np.testing.assert_array_equal(run(lambda x: ops.argmin(x, 1), x), [1, 0, 1])
    np.testing.assert_array_equal(run(lambda x: ops.logsumexp(x, 1), x), [nan, -inf, inf])


def test_max_pool_of_minus_infinity_and_nan_never_chooses_padding():
    x = np.full((1, 2, 2, 1), -inf)
    y, dx = run(lambda x: ops.max_pool(x, 2, 1, padding=1), x, grad=True)
    assert (y == -inf).all()
    assert dx.sum() == 9
    x[0, 1, 1, 0] = nan
    assert np.isnan(run(lambda x: ops.max_pool(x, 2), x)).all()


def test_large_logits_do_not_overflow():
    x = np.array([[1e4, -1e4, 0.0]], np.float32)
    np.testing.assert_array_equal(run(ops.softmax, x), [[1, 0, 0]])
    np.testing.assert_array_equal(run(ops.log_softmax, x), [[0, -2e4, -1e4]])
    loss, dx = run(lambda x: ops.sparse_softmax_cross_entropy(x, np.array([1])), x, grad=True)
    np.testing.assert_array_equal(loss, [2e4])
    np.testing.assert_array_equal(dx, [[1, -1, 0]])


def test_labels_and_indices_out_of_range_give_nan():
    x = np.zeros((3, 4), np.float32)
    loss = run(lambda x: ops.sparse_softmax_cross_entropy(x, np.array([0, 4, -1])), x)
    np.testing.assert_array_equal(np.isnan(loss), [False, True, True])
    rows = run(lambda x: ops.take(x, np.array([2, 3, -1])), x)
    np.testing.assert_array_equal(np.isnan(rows).all(1), [False, True, True])
    assert run(lambda x: ops.take(ops.cast(x, "int32"), np.array([5])), x).tolist() == [[0] * 4]
    assert run(lambda x: ops.scatter(np.array([0, 9, -1]), x + 1, 2), x).sum() == 4


# ------------------------------------------------------------------------------------------ dtypes
x4, x8 = (input_node(k, Spec((2,), k)) for k in ("float32", "float64"))
i4, u1, flag = (input_node(k, Spec((2,), k)) for k in ("int32", "uint8", "bool"))

half = ops.cast(x4, "bfloat16")

PROMOTION = [
    (x4 + 1, "float32"), (x4 + np.float64(1), "float32"), (x4 * True, "float32"),
    (x4 + x8, "float64"), (x4 + np.ones(2), "float64"), (x4 + i4, "float32"),
    (i4 + 1, "int32"), (i4 + 0.5, "float32"), (u1 + 1, "uint8"), (u1 + i4, "int32"),
    (flag + flag, "int32"), (flag * 2, "int32"), (i4 / 2, "float32"), (x8 / 2, "float64"),
    (ops.exp(i4), "float32"), (ops.sum(flag), "int32"), (ops.sum(u1), "int32"),
    (ops.mean(i4), "float32"), (ops.mean(x8), "float64"), (ops.argmax(x8, 0), "int32"),
    (x4 > 0, "bool"), (ops.where(flag, 1, x4), "float32"), (ops.where(flag, 1, 2), "int32"),
    (ops.where(flag, 1.0, 2), "float32"), (ops.concatenate([x4, x8], 0), "float64"),
    (half * half, "float32"), (half + x8, "float64"), (ops.sum(half), "float32"),
    (i4**2, "int32"), (i4**-1, "float32"), (x4 % 2, "float32"), (~flag, "bool"),
]  # fmt: skip


@pytest.mark.parametrize(("node", "dtype"), PROMOTION, ids=[repr(c[0]) for c in PROMOTION])
def test_promotion(node, dtype):
    assert node.dtype == dtype


def test_operators_and_methods():
    a, b = np.array([[5.0, -2.0], [3.0, 0.5]]), np.array([[2.0, 3.0], [-1.0, 4.0]])
    for f in (
        lambda a, b: a + b, lambda a, b: a - b, lambda a, b: a * b, lambda a, b: a / b,
        lambda a, b: a // b, lambda a, b: a % b, lambda a, b: a @ b, lambda a, b: abs(a) ** b,
        lambda a, b: -a, lambda a, b: 2 - a, lambda a, b: 2 / a, lambda a, b: 2 // a,
        lambda a, b: (a > b) & (a >= 1) | ~(b <= 2) ^ (a < 0), lambda a, b: a.sum(0) + b.mean(1),
        lambda a, b: a.T + b.reshape(4)[:2], lambda a, b: a.max(0) - b.min(1),
        lambda a, b: np.ones((2, 2)) @ a - np.ones(2) * b, lambda a, b: a.astype("int32"),
    ):  # fmt: skip
        np.testing.assert_allclose(run(f, a, b), f(a, b), 1e-12)


INDICES = [
    0, -1, slice(1, None), slice(None, None, -1), slice(3, 0, -2), (slice(None), 1),
    (..., None, 0), (None, 1, ..., slice(0, 2)), (slice(-3, -1), slice(None), slice(4, 1, -1)),
    (1, 2, 3), slice(2, 1), (slice(None, None, 3), -1, None),
]  # fmt: skip


@pytest.mark.parametrize("key", INDICES, ids=str)
def test_indexing_is_that_of_numpy(key):
    x = np.arange(60.0).reshape(4, 3, 5)
    y, dx = run(lambda n: n[key] * 1, x, grad=True)
    want = np.zeros_like(x)
    want[key] = 1
    np.testing.assert_array_equal(y, x[key])
    np.testing.assert_array_equal(dx, want)


def test_run_time_extents_pass_through_shapes():
    batch, steps = symbol("batch"), symbol("steps")
    x = input_node("x", Spec((batch, steps, 6)))
    rows = x.reshape(-1, 6)
    assert rows.shape == (batch * steps, 6)
    assert ops.reshape(rows, (batch, -1, 2, 3)).shape == (batch, steps, 2, 3)
    assert ops.concatenate([x, x, x[:, :, :]], 0).shape == (3 * batch, steps, 6)
    assert (x @ ops.full((6, 2), 1.0)).shape == (batch, steps, 2)
    assert ops.mean(x, (0, 1)).shape == (6,)
    assert x[:, -1].shape == (batch, 6)
    assert x[:, :1].shape == (batch, 1, 6)
    assert x[None, ..., ::2].shape == (1, batch, steps, 3)


def test_an_extent_is_a_number():
    x = np.ones((4, 3), np.float32)
    y = run(lambda x: ops.sum(x, 0) / x.shape[0], x)
    assert y.tolist() == [1, 1, 1]  # the extent of `run` is fixed
    node = input_node("x", Spec(("batch", 3)))
    graph = Graph("g", {"y": ops.sum(node) / node.shape[0] + node.shape[0] * 2})
    assert interpret(graph, {"x": x})[0]["y"] == 3 + 8


FLOPS = [
    (ops.full((8, 3), 1.0) @ ops.full((3, 5), 1.0), 2 * 8 * 3 * 5),
    (ops.OPS["conv2d"](ops.full((2, 8, 8, 4), 1.0), ops.full((3, 3, 2, 6), 1.0), strides=(1, 1),
                       padding=((0, 0), (0, 0)), dilation=(1, 1), groups=2),
     2 * 2 * 6 * 6 * 6 * 3 * 3 * 2),
    (ops.sum(ops.full((8, 3), 1.0), 0), 24),
    (ops.reshape(ops.full((8, 3), 1.0), (3, 8)), 0),
    (ops.full((8, 3), 1.0) + 1, 24),
]  # fmt: skip


@pytest.mark.parametrize(("node", "count"), FLOPS, ids=[c[0].op.name for c in FLOPS])
def test_flops(node, count):
    assert ops.flops_of(node) == count


BFLOAT16 = [  # (float32, what it is as bfloat16)
    (1.0, 1.0), (-0.0, -0.0), (inf, inf), (-inf, -inf), (nan, nan), (3.4e38, inf), (1e-45, 0.0),
    (1 + 2**-8, 1.0), (1 + 3 * 2**-8, 1 + 2**-6), (1 + 2**-8 + 2**-20, 1 + 2**-7),
    (-1 - 2**-8 - 2**-20, -1 - 2**-7), (1.5 * 2.0**-133, 2.0**-132), (2.0**-133, 2.0**-133),
]  # fmt: skip


@pytest.mark.parametrize("device", ["interpret", "cpu", "python"])
def test_bfloat16_is_the_nearest_ties_to_even(device):
    x = np.tile(np.array([a for a, _ in BFLOAT16], np.float32), 9)  # vectors, and a tail
    node = input_node("x", Spec(("batch",)))
    graph = Graph("g", {"y": ops.cast(ops.cast(node, "bfloat16"), "float32")})
    got = build(graph, Store(), device).run({"x": x})["y"]
    want = np.tile(np.array([b for _, b in BFLOAT16], np.float32), 9)
    np.testing.assert_array_equal(got, want)
    np.testing.assert_array_equal(np.signbit(got), np.signbit(want))


def test_a_gradient_passes_through_bfloat16_in_float32():
    x = np.array([0.3, -2.0], np.float32)
    _, dx = run(lambda x: ops.square(ops.cast(x, "bfloat16").T), x, grad=True)
    assert dx.dtype == np.float32
    np.testing.assert_array_equal(dx, 2 * rounded(x))
