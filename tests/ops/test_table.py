"""Every row of the table: values, gradients and second derivatives against references."""

from __future__ import annotations

import numpy as np
import pytest

from nnjit.autodiff import gradients
from nnjit.graph import Graph, input_node, interpret, verify
from nnjit.ops import reduce
from nnjit.spec import evaluate
from tests.ops.rows_elementwise import NO_DIFFERENCES
from tests.ops.table import ROWS, Row, torch

needs_torch = pytest.mark.skipif(torch is None, reason="torch is not installed")
rows = pytest.mark.parametrize("row", ROWS, ids=lambda r: r.name)
with_grad = pytest.mark.parametrize("row", [r for r in ROWS if r.grad], ids=lambda r: r.name)


def values(row: Row, batch: int, floats: str = "float64") -> dict[str, np.ndarray]:
    arrays = row.sample({"batch": batch}, floats)
    return {f"x{i}": a for i, a in enumerate(arrays)}


def cotangent(row: Row, graph: Graph, batch: int) -> np.ndarray:
    shape = tuple(evaluate(d, {"batch": batch}) for d in graph.outputs["y"].shape)
    return np.random.default_rng(1).standard_normal(shape)


@needs_torch
@rows
@pytest.mark.parametrize("floats", ["float32", "float64"])
def test_forward_is_what_torch_computes_in_float64(row, floats):
    graph = row.graph(floats)
    verify(graph)
    for batch in (3, 1):
        given = values(row, batch, floats)
        got = interpret(graph, given)[0]["y"]
        wide = values(row, batch)
        want = row.torch(*(torch.tensor(a) for a in wide.values())).numpy()
        assert got.dtype == graph.outputs["y"].dtype
        assert got.shape == want.shape
        tolerance = (row.rtol, row.atol) if "float32" in (floats, got.dtype) else (1e-12, 1e-12)
        np.testing.assert_allclose(got, want, *tolerance)


@rows
def test_no_rows_are_legal(row):
    graph = row.graph("float32", backward=row.grad)
    if not row.empty:
        return
    given = values(row, 0, "float32")
    dy = cotangent(row, graph, 0).astype(np.float32)
    got, _ = interpret(graph, {**given, "dy": dy})
    for name, node in graph.outputs.items():
        assert got[name].shape == tuple(evaluate(d, {"batch": 0}) for d in node.shape)
        assert got[name].dtype == node.dtype


@needs_torch
@with_grad
def test_gradient_is_that_of_torch(row):
    graph = row.graph("float64", backward=True)
    verify(graph)
    given = values(row, 3)
    dy = cotangent(row, graph, 3)
    got, _ = interpret(graph, {**given, "dy": dy})
    tensors = {k: torch.tensor(a, requires_grad=a.dtype == np.float64) for k, a in given.items()}
    y = row.torch(*tensors.values())
    if y.requires_grad:
        y.backward(torch.tensor(dy))
    for name, x in tensors.items():
        if x.requires_grad:
            want = np.zeros(x.shape) if x.grad is None else x.grad.numpy()
            np.testing.assert_allclose(got[f"d{name}"], want, 1e-9, 1e-11, err_msg=name)


def slope(graph: Graph, given: dict, name: str, direction: np.ndarray, output: str) -> np.ndarray:
    """Central difference of an output along a direction of one input, with two widths combined."""

    def at(step: float) -> np.ndarray:
        moved = {**given, name: given[name] + step * direction}
        return interpret(graph, moved)[0][output]

    h = 1e-4
    near, far = at(h) - at(-h), at(2 * h) - at(-2 * h)
    return (8 * near - far) / (12 * h)


@with_grad
def test_gradient_is_the_slope(row):
    if row.name in NO_DIFFERENCES:
        return
    graph = row.graph("float64", backward=True)
    given = {**values(row, 2), "dy": cotangent(row, graph, 2)}
    got, _ = interpret(graph, given)
    rng = np.random.default_rng(2)
    for name in [k for k in got if k != "y"]:
        direction = rng.uniform(-1, 1, got[name].shape)
        want = (slope(graph, given, name[1:], direction, "y") * given["dy"]).sum()
        np.testing.assert_allclose((got[name] * direction).sum(), want, 1e-6, 1e-8, err_msg=name)


@pytest.mark.parametrize("row", [r for r in ROWS if r.grad and r.second], ids=lambda r: r.name)
def test_second_derivative_is_the_slope_of_the_gradient(row):
    """of sum(gradient * weights), where the gradient depends on the input at all."""
    first = row.graph("float64", backward=True)
    leaves = {n.name: n for n in first.leaves("input")}
    wrt = [n for n in leaves.values() if n.dtype == "float64"]
    weights = {f"w{k}": input_node(f"w{k}", n.spec) for k, n in first.outputs.items() if k != "y"}
    total = sum(reduce.sum(first.outputs[k[1:]] * w) for k, w in weights.items())
    graph = Graph("second", {"s": total} | {
        f"d{n.name}": g for n, g in zip(wrt, gradients(total, wrt), strict=True)})  # fmt: skip
    verify(graph)
    rng = np.random.default_rng(3)
    given = {**values(row, 2), "dy": cotangent(row, first, 2)}
    for k, w in weights.items():
        given[k] = rng.standard_normal([evaluate(d, {"batch": 2}) for d in w.shape])
    got, _ = interpret(graph, given)
    for n in wrt:
        direction = rng.uniform(-1, 1, got[f"d{n.name}"].shape)
        want = slope(graph, given, n.name, direction, "s")
        np.testing.assert_allclose(
            (got[f"d{n.name}"] * direction).sum(), want, 1e-5, 1e-7, err_msg=n.name
        )
