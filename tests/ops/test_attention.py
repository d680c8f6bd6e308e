"""Attention: values, gradients and second derivatives against PyTorch and finite differences."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from nnjit import ops
from nnjit.autodiff import gradients
from nnjit.errors import ArgumentError, DTypeError, ShapeError
from nnjit.graph import Graph, input_node, interpret, verify
from nnjit.ops.attention import _attention
from nnjit.ops.attention_plain import combined, plain_weights
from nnjit.spec import Spec

try:
    import torch
except ImportError:
    torch = None  # type: ignore[assignment]

needs_torch = pytest.mark.skipif(torch is None, reason="torch is not installed")


@dataclass(frozen=True)
class Case:
    """q (batch, queries, heads, d), k (batch, keys, kv, d), v (batch, keys, kv, dv)."""

    name: str
    queries: int = 5
    keys: int = 5
    heads: int = 2
    kv: int = 2
    d: int = 4
    dv: int = 4
    causal: bool = False
    mask: tuple | None = None
    scale: float | None = None

    def arrays(self, batch: int = 2, dtype: str = "float64") -> dict[str, np.ndarray]:
        rng = np.random.default_rng(len(self.name))
        q = rng.standard_normal((batch, self.queries, self.heads, self.d))
        k = rng.standard_normal((batch, self.keys, self.kv, self.d))
        v = rng.standard_normal((batch, self.keys, self.kv, self.dv))
        given = {"q": q.astype(dtype), "k": k.astype(dtype), "v": v.astype(dtype)}
        if self.mask is not None:
            whole = (batch, self.heads, self.queries, self.keys)
            shape = [w if m else 1 for m, w in zip(self.mask, whole, strict=True)]
            given["mask"] = rng.random(shape) < 0.6
            given["mask"][..., 0] = True
        return given

    def cotangent(self, batch: int = 2) -> np.ndarray:
        return np.random.default_rng(9).standard_normal((batch, self.queries, self.heads, self.dv))


CASES = [
    Case("self"),
    Case("causal", causal=True),
    Case("cross", queries=3, keys=7, dv=6, scale=0.3),
    Case("more queries than keys, causal", queries=7, keys=4, causal=True),
    Case("more keys than queries, causal", queries=4, keys=7, causal=True),
    Case("grouped", heads=6, kv=2),
    Case("one key head, causal", heads=3, kv=1, causal=True),
    Case("key mask", mask=(1, 0, 0, 1)),
    Case("query and key mask, causal", mask=(0, 0, 1, 1), causal=True),
    Case("whole mask, grouped", mask=(1, 1, 1, 1), heads=4, kv=2),
    Case("one query", queries=1),
]
cases = pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)


def symbolic(given: dict[str, np.ndarray]):
    """Input Nodes with open batch and times."""
    names = {"q": ("batch", "t"), "k": ("batch", "s"), "v": ("batch", "s")}
    nodes = {}
    for name, a in given.items():
        shape = list(a.shape)
        for axis, symbol in enumerate(names.get(name, ("batch", "", "t", "s"))):
            if symbol and shape[axis] != 1:
                shape[axis] = symbol
        nodes[name] = input_node(name, Spec(tuple(shape), a.dtype.name))
    return nodes


def build(case: Case, given: dict[str, np.ndarray], plain: bool = False) -> Graph:
    nodes = symbolic(given)
    mask = nodes.get("mask")
    if plain:
        scale = case.d**-0.5 if case.scale is None else case.scale
        weights, _ = plain_weights(nodes["q"], nodes["k"], mask, scale, case.causal)
        y = combined(weights, nodes["v"])
    else:
        y = ops.dot_product_attention(
            nodes["q"], nodes["k"], nodes["v"], mask, scale=case.scale, is_causal=case.causal
        )
    wrt = [nodes[n] for n in "qkv"]
    dy = input_node("dy", y.spec)
    found = gradients(y, wrt, dy)
    graph = Graph(
        "attention", {"y": y} | {f"d{n.name}": g for n, g in zip(wrt, found, strict=True)}
    )
    verify(graph)
    return graph


def by_torch(case: Case, given: dict[str, np.ndarray], dy: np.ndarray) -> dict[str, np.ndarray]:
    leaves = {n: torch.tensor(given[n], requires_grad=True) for n in "qkv"}
    q, k, v = (x.transpose(1, 2) for x in leaves.values())
    mask = torch.tensor(given["mask"]) if "mask" in given else None
    if case.causal:
        below = torch.ones(case.queries, case.keys, dtype=torch.bool).tril()
        mask = below if mask is None else mask & below
    y = torch.nn.functional.scaled_dot_product_attention(
        q, k, v, mask, scale=case.scale, enable_gqa=case.heads != case.kv
    ).transpose(1, 2)
    y.backward(torch.tensor(dy))
    return {"y": y.detach().numpy()} | {f"d{n}": x.grad.numpy() for n, x in leaves.items()}


@needs_torch
@cases
@pytest.mark.parametrize("plain", [False, True], ids=["op", "plain"])
def test_values_and_gradients_are_those_of_torch(case, plain):
    given, dy = case.arrays(), case.cotangent()
    got, _ = interpret(build(case, given, plain), {**given, "dy": dy})
    for name, want in by_torch(case, given, dy).items():
        np.testing.assert_allclose(got[name], want, 1e-9, 1e-11, err_msg=name)


@needs_torch
def test_float32_is_close_to_float64():
    case = CASES[1]
    given, dy = case.arrays(), case.cotangent()
    want = by_torch(case, given, dy)
    low = case.arrays(dtype="float32")
    got, _ = interpret(build(case, low), {**low, "dy": dy.astype("f4")})
    for name in want:
        assert got[name].dtype == np.float32
        np.testing.assert_allclose(got[name], want[name], 1e-5, 1e-5)


@pytest.mark.parametrize("case", [CASES[1], CASES[2], CASES[5], CASES[8]], ids=lambda c: c.name)
def test_second_derivatives_are_the_slopes_of_the_gradients(case):
    """also those of the log-sum-exp, which the gradient's gradient asks for."""
    given, dy = case.arrays(), case.cotangent()
    nodes = symbolic(given)
    leaves = [nodes[n] for n in "qkv"]
    mask = [nodes["mask"]] if "mask" in nodes else []
    attrs = {"scale": case.scale or case.d**-0.5, "causal": case.causal}
    y = _attention(*leaves, *mask, **attrs, result="out")
    lse = _attention(*leaves, *mask, **attrs, result="lse")
    cot = input_node("dy", y.spec)
    first = gradients(ops.sum(y * cot) + ops.sum(lse * lse), leaves)
    weights = {n: input_node(f"w{n}", nodes[n].spec) for n in "qkv"}
    total = sum(ops.sum(g * w) for g, w in zip(first, weights.values(), strict=True))
    wrt = [*leaves, cot]
    outputs = {"total": total}
    outputs |= {n.name: g for n, g in zip(wrt, gradients(total, wrt), strict=True)}
    graph = Graph("second", outputs)
    rng = np.random.default_rng(4)
    values = {**given, "dy": dy} | {f"w{n}": rng.standard_normal(given[n].shape) for n in "qkv"}
    got, _ = interpret(graph, values)

    def at(name: str, direction: np.ndarray, step: float) -> np.ndarray:
        return interpret(graph, {**values, name: values[name] + step * direction})[0]["total"]

    for n in wrt:
        x = rng.uniform(-1, 1, values[n.name].shape)
        h = 1e-4
        want = (8 * (at(n.name, x, h) - at(n.name, x, -h))
                - at(n.name, x, 2 * h) + at(n.name, x, -2 * h)) / (12 * h)  # fmt: skip
        np.testing.assert_allclose((got[n.name] * x).sum(), want, 1e-6, 1e-8, err_msg=n.name)


@pytest.mark.parametrize("plain", [False, True], ids=["op", "plain"])
def test_a_query_that_sees_no_key_gives_zero_and_gets_no_gradient(plain):
    case = Case("masked", mask=(1, 0, 1, 1))
    given, dy = case.arrays(), case.cotangent()
    given["mask"][0, :, 2] = False
    given["mask"][1] = False
    got, _ = interpret(build(case, given, plain), {**given, "dy": dy})
    assert not got["y"][0, 2].any()
    assert not got["y"][1].any()
    assert not got["dq"][0, 2].any()
    assert not got["dk"][1].any()
    assert np.isfinite(got["dk"]).all()
    assert np.abs(got["y"][0, 0]).min() > 0


def test_nan_and_infinite_scores_spread_as_in_softmax():
    case = Case("nan")
    given, dy = case.arrays(), case.cotangent()
    given["q"][0, 1, 0, 2] = np.nan
    given["k"][1, 3, 1, 0] = np.inf
    op, _ = interpret(build(case, given), {**given, "dy": dy})
    assert np.isnan(op["y"][0, 1, 0]).all()
    assert np.isfinite(op["y"][0, 1, 1]).all()
    assert np.isnan(op["y"][1, :, 1]).any()
    assert np.isfinite(op["y"][1, :, 0]).all()


@pytest.mark.parametrize(
    ("shapes", "options", "error", "words"),
    [
        ([(2, 3, 4), (2, 3, 4), (2, 3, 4)], {}, ShapeError, "heads, depth"),
        ([(2, 3, 4, 5), (2, 3, 4, 6), (2, 3, 4, 5)], {}, ShapeError, "one depth"),
        ([(2, 3, 4, 5), (2, 3, 3, 5), (2, 3, 3, 5)], {}, ShapeError, "4 query heads"),
        ([(2, 3, 4, 5)] * 3, {"mask": np.ones((2, 3, 3), bool)}, ShapeError, "broadcasts"),
        ([(2, 3, 4, 5)] * 3, {"scale": "big"}, ArgumentError, "scale='big'"),
        ([(2, 3, 4, "d")] * 3, {}, ShapeError, "the depth"),
    ],
)
def test_errors_say_what_was_given_and_what_fits(shapes, options, error, words):
    nodes = [input_node(f"x{i}", Spec(s)) for i, s in enumerate(shapes)]
    with pytest.raises(error, match=words):
        ops.dot_product_attention(*nodes, **options)


def test_a_mask_of_numbers_is_what_is_not_zero():
    case = Case("key mask", mask=(1, 0, 0, 1))
    given = case.arrays()
    nodes = symbolic(given)
    qkv = [nodes[n] for n in "qkv"]
    number = input_node("number", Spec(("batch", 1, 1, "s"), "int32"))
    y = ops.dot_product_attention(*qkv, mask=number)
    want = ops.dot_product_attention(*qkv, mask=nodes["mask"])
    values = {**given, "number": given["mask"].astype("i4")}
    got, _ = interpret(Graph("mask", {"y": y, "want": want}), values)
    np.testing.assert_array_equal(got["y"], got["want"])
    with pytest.raises(DTypeError, match="bool mask"):
        _attention(*qkv, number, scale=1.0, causal=False, result="out")
