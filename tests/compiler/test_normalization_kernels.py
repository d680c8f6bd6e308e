"""Normalisations and sums over rows as kernels: few columns, ragged rows, large means, threads."""

from __future__ import annotations

import random

import numpy as np
import pytest

from nnjit import ops
from nnjit.autodiff import gradients
from nnjit.compiler import recompute
from nnjit.compiler.cpu import wide
from nnjit.compiler.fuse import fuse
from nnjit.compiler.pipeline import compile_graph, optimise
from nnjit.graph import Graph, Node, input_node
from nnjit.runtime import cpu
from nnjit.runtime.executable import build
from nnjit.runtime.store import Store
from nnjit.spec import Spec
from tests.compiler.drive import compare_steps
from tests.compiler.random_graphs import random_graph


def values(*shape, dtype="float32") -> Node:
    return input_node(f"v{len(shape)}_{shape[0]}", Spec(shape, dtype))


def short_rows(columns: int, dtype: str = "float32") -> Graph:
    """Sums over two axes and over one, of values that are stored too, and a map of channels."""
    x, g = values("batch", 256, columns, dtype=dtype), values(columns, dtype=dtype)
    middle, variance = ops.moments(x, (0, 1))
    y = ops.relu((x - middle) * ops.rsqrt(variance + 1e-3) * g)
    outputs = {"y": y, "variance": variance, "pooled": ops.sum(x * g, 1)}
    outputs |= {"off": x - ops.mean(x, 1, keepdims=True) * g, "sums": ops.sum(x * x[:, :1], 1)}
    outputs |= {"highest": ops.max(x, 0), "total": ops.sum(ops.square(y), (0, 1))}
    return Graph("short", outputs)


CASES = [
    ("cpu", 3, "float32"), ("cpu", 17, "float64"), ("python", 1, "float64"),
    ("python", 5, "float64"),
]  # fmt: skip


@pytest.mark.parametrize(("device", "columns", "dtype"), CASES)
def test_few_columns_are_summed_and_mapped(device, columns, dtype):
    tol = 1e-10 if dtype == "float64" else 2e-5
    batches = (1, 2) if device == "python" else (1, 7, 130)
    graph = short_rows(columns, dtype)
    ex = compare_steps(graph, [], device, batches[:1], tol, tol)
    before = cpu.compiled_count()
    compare_steps(graph, [], device, batches[1:], tol, tol, executable=ex)
    assert cpu.compiled_count() == before


def test_wide_rows_are_used_and_say_so():
    text = build(short_rows(16), Store([]), "python").source()
    assert "+ z] = x1[z % 16]" in text
    assert "for j in range(64):" in text
    assert "own = " not in build(short_rows(65), Store([]), "python").source()


@pytest.mark.parametrize("seed", range(40))
def test_wide_rows_keep_the_values_of_random_graphs(seed, monkeypatch):
    for name, value in {"WORK": 0, "FEWEST": 0, "VECTOR": 2}.items():
        monkeypatch.setattr(wide, name, value)
    for name in ("SUMS", "MAPS", "COPIES"):
        monkeypatch.setattr(wide, name, (8, 16))
    graph, variables = random_graph(random.Random(seed), nodes=40)
    compare_steps(graph, variables, "python", (2, 5))


def test_nan_and_infinity_stay_in_their_channel():
    graph = short_rows(16)
    ex = build(graph, Store([]), "cpu")
    x = np.random.default_rng(0).standard_normal((40, 256, 16)).astype("f4")
    x[3, 5, 2], x[0, 0, 4], x[39, 255, 7] = np.nan, np.inf, -np.inf
    got = ex.run({n.name: x if n.spec.rank == 3 else np.ones(16, "f4") for n in graph.leaves()
                  if n.op.name == "input"})  # fmt: skip
    bad = np.zeros(16, bool)
    bad[[2, 4, 7]] = True
    np.testing.assert_array_equal(np.isfinite(got["variance"]), ~bad)
    np.testing.assert_array_equal(np.isfinite(got["total"]), ~bad)
    np.testing.assert_array_equal(np.isfinite(got["y"]).all((0, 1)), ~bad)


# --------------------------------------------------------------------------------- normalisations
def norms(dtype: str = "float32") -> Graph:
    """Batch and layer normalisation with gradients."""
    x, dy = values("batch", 64, 16, dtype=dtype), input_node("dy", Spec(("batch", 64, 16), dtype))
    g, b = input_node("g", Spec((16,), dtype)), input_node("b", Spec((16,), dtype))
    middle, variance = ops.moments(x, (0, 1))
    y = ops.batch_normalization(x, middle, variance, b, g, own=True)
    z = ops.layer_normalization(x, g, b)
    outputs = {"y": y, "z": z, "variance": variance}
    for name, out in (("y", y), ("z", z)):
        found = gradients(out, [x, g, b], dy)
        outputs |= {f"{name}/{n}": d for n, d in zip("xgb", found, strict=True)}
    return Graph("norms", outputs)


@pytest.mark.parametrize("device", ["python", "cpu"])
def test_normalisations_and_their_gradients(device):
    batches = (1, 2) if device == "python" else (1, 3, 64)
    compare_steps(norms("float64"), [], device, batches, 1e-9, 1e-9)


def test_threads_do_not_change_a_bit():
    graph = norms()
    ex = build(graph, Store([]), "cpu")
    rng = np.random.default_rng(0)
    given = {
        n.name: rng.standard_normal(
            [37 if d == "batch" else d for d in map(_size, n.shape)]
        ).astype("f4")
        for n in graph.leaves("input")
    }
    import nnjit

    results = []
    for threads in (1, 2, 3):
        nnjit.set_threads(threads)
        results.append({k: np.array(v) for k, v in ex.run(given).items()})
    for other in results[1:]:
        for k, v in results[0].items():
            assert v.tobytes() == other[k].tobytes(), k


def _size(d):
    return d if isinstance(d, int) else "batch"


@pytest.mark.parametrize(("first", "tol"), [(0, 3e-6), (60, 1e-4)])
def test_a_large_mean_costs_no_digits(first, tol):
    """Mean 1000, deviation 1: as good as PyTorch, also where the first sample is far from it."""
    x = np.random.default_rng(1).standard_normal((64, 256, 16)).astype("f4") + np.float32(1e3)
    x[0] += np.float32(first)
    v = values("batch", 256, 16)
    ex = build(
        Graph("m", dict(zip(("m", "v"), ops.moments(v, (0, 1)), strict=True))), Store([]), "cpu"
    )
    got = ex.run({v.name: x})
    exact = x.astype("f8")
    np.testing.assert_allclose(got["m"], exact.mean((0, 1)), rtol=2e-7)
    np.testing.assert_allclose(got["v"], exact.var((0, 1)), rtol=tol)


# ------------------------------------------------------------------------ what is computed again
def test_normalised_values_are_not_kept():
    x, dy = values("batch", 64, 128), input_node("dy", Spec(("batch", 64, 128)))
    g, b = input_node("g", Spec((128,))), input_node("b", Spec((128,)))
    y = ops.layer_normalization(x, g, b)
    dx, dg, db = gradients(y, [x, g, b], dy)
    plan = compile_graph(Graph("ln", {"y": y, "dx": dx, "dg": dg, "db": db}), {})
    rows = [launch for launch in plan.launches if "join" not in launch.ops]
    written = [b for launch in rows for b in launch.written if b.spec.rank == 3]
    whole = [b for b in written if b.spec.dims[-1] == 128]
    assert len(whole) == 2, "only y and dx are written"


@pytest.mark.parametrize("seed", range(25))
def test_computing_again_keeps_values(seed, monkeypatch):
    monkeypatch.setattr(recompute, "LARGE", 1)
    graph, variables = random_graph(random.Random(seed), nodes=40)
    compare_steps(graph, variables, "python", (1, 3))


def test_random_graphs_do_compute_again(monkeypatch):
    """so that the test above means something."""
    monkeypatch.setattr(recompute, "LARGE", 1)
    changed = 0
    for seed in range(25):
        fusion = fuse(optimise(random_graph(random.Random(seed), nodes=40)[0]))
        better = recompute.recompute(fusion)
        assert recompute.traffic(better) <= recompute.traffic(fusion)
        changed += better is not fusion
    assert changed > 2
