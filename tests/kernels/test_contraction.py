"""Matrix product kernels against NumPy in float64: every transposition, static and run-time
extents, edges, chunks.
"""

from __future__ import annotations

import numpy as np
import pytest

from nnjit.kernels import target
from nnjit.kernels.contraction import Epilogue, matmul_template
from nnjit.kernels.contraction_sums import sums_apply
from nnjit.kernels.recipe import PLAIN
from tests.kernels.harness import run_recipe, slot_update

NUMPY = {"f4": np.float32, "f8": np.float64}
WIDTHS = [bits for bits in (128, 256, 512) if bits <= target.host_vector_bits()]
ROWS = (0, 1, 2, 3, 4, 5, 7, 8, 9, 13, 14, 15, 16, 23, 28, 33, 40)
DEPTHS = (0, 1, 2, 3, 9, 15, 16, 17, 31, 33, 40)


def operands(rng, M, N, K, ta, tb, dtype="f4", batch=None, batch_a=True, batch_b=True):
    def make(rows, columns, transposed, batched):
        shape = (columns, rows) if transposed else (rows, columns)
        return rng.standard_normal(
            (batch, *shape) if batch is not None and batched else shape
        ).astype(NUMPY[dtype])

    shape = (M, N) if batch is None else (batch, M, N)
    return {
        "a": make(M, K, ta, batch_a),
        "b": make(K, N, tb, batch_b),
        "bias": rng.standard_normal(N).astype(NUMPY[dtype]),
        "mask": rng.standard_normal(shape).astype(NUMPY[dtype]),
        "residual": rng.standard_normal(shape).astype(NUMPY[dtype]),
        "out": np.full(shape, np.nan, NUMPY[dtype]),
    }


def reference(v, ta, tb, epilogue=PLAIN):
    a, b = (v[n].astype(np.float64) for n in "ab")
    y = (np.swapaxes(a, -1, -2) if ta else a) @ (np.swapaxes(b, -1, -2) if tb else b)
    if epilogue.bias:
        y = y + v["bias"]
    if epilogue.final == "mask":
        y = np.where(v["mask"] > 0, y, 0)
    if epilogue.final.startswith("add"):
        y = y + v["residual"]
    return np.maximum(y, 0) if epilogue.final.endswith("relu") else y


def check(recipe, sizes, ta, tb, *, symbols, epilogue=PLAIN, dtype="f4", jit=True, seed=0, **batch):
    """One product, whole and in random chunks: right, and equal bit for bit."""
    rng = np.random.default_rng(seed)
    v = operands(rng, *sizes, ta, tb, dtype, **batch)
    y = run_recipe(recipe, v, symbols=symbols, jit=jit)["out"]
    tolerance = 2e-5 if dtype == "f4" else 1e-12
    np.testing.assert_allclose(
        y, reference(v, ta, tb, epilogue), rtol=tolerance, atol=tolerance * 4
    )
    if jit:
        again = run_recipe(recipe, v, symbols=symbols, rng=rng)["out"]
        np.testing.assert_array_equal(y.view(np.uint8), again.view(np.uint8))


# (N, K, epilogue): the dense layer's forward pass, rows at run time
FORWARD = [
    (10, 37, Epilogue(bias=True)),
    (1, 40, Epilogue()),
    (16, 3, Epilogue(bias=True, final="relu")),
    (17, 16, Epilogue(final="mask")),
    (33, 17, Epilogue(final="add")),
    (50, 1, Epilogue(bias=True, final="add_relu")),
    (64, 0, Epilogue(bias=True)),
    (100, 24, Epilogue()),
    (0, 5, Epilogue()),
]


@pytest.mark.parametrize(("N", "K", "epilogue"), FORWARD)
def test_run_time_rows(N, K, epilogue):
    for tb in (False, True):
        recipe = matmul_template("dense", "batch", N, K, transpose_b=tb, epilogue=epilogue)
        for M in ROWS:
            check(recipe, (M, N, K), False, tb, symbols={"batch": M}, epilogue=epilogue, seed=M)


@pytest.mark.parametrize(
    ("M", "N"), [(1, 1), (7, 10), (16, 33), (37, 16), (40, 48), (29, 100), (0, 4), (5, 0)]
)
def test_run_time_depth(M, N):
    """The weight gradient x.T @ dy: what is summed over is known when running only."""
    recipe = matmul_template("weight_gradient", M, N, "batch", transpose_a=True)
    for K in DEPTHS:
        check(recipe, (M, N, K), True, False, symbols={"batch": K}, seed=K)


@pytest.mark.parametrize("steady", [False, True])
@pytest.mark.parametrize("epilogue", [Epilogue(), Epilogue(bias=True, final="add_relu")])
def test_a_large_b_is_taken_in_pieces(epilogue, steady):
    """A trip counts pieces of columns for each block of rows; b may have been packed beforehand."""
    recipe = matmul_template("dense", "batch", 266, 300, epilogue=epilogue, steady_b=steady)
    main = recipe.steps[-1].template
    assert len(recipe.steps) == 1 + steady
    assert isinstance(main.trip, str)
    pieces = eval(main.trip, {"batch": 1})
    assert pieces >= 2 * main.grain
    assert eval(main.trip, {"batch": 1000}) >= 2 * pieces
    for M in (0, 1, 2, 7, 8, 9, 17, 32, 33, 100):
        check(recipe, (M, 266, 300), False, False, symbols={"batch": M}, epilogue=epilogue, seed=M)
    fixed = matmul_template("fixed", 2, 266, 300, epilogue=epilogue, steady_b=steady)
    assert 2 < fixed.steps[-1].template.trip <= pieces
    check(fixed, (2, 266, 300), False, False, symbols={}, epilogue=epilogue)
    deep = matmul_template("deep", 41, 33, 2100, dtype="f8", epilogue=epilogue, steady_b=steady)
    check(deep, (41, 33, 2100), False, False, symbols={}, dtype="f8", epilogue=epilogue)


@pytest.mark.parametrize(("M", "N"), [(37, 1030), (1029, 33), (200, 1024)])
def test_sums_over_long_rows(M, N):
    """Rows of a and b are copied, block by block, where they are far apart."""
    recipe = matmul_template("weight_gradient", M, N, "5 * batch", transpose_a=True)
    (step,) = recipe.steps
    assert step.args[-1] == "scratch"
    for batch in (0, 1, 51, 52, 120):
        symbols = {"batch": batch}
        check(recipe, (M, N, 5 * batch), True, False, symbols=symbols, seed=batch)


@pytest.mark.parametrize(
    ("K", "M", "N", "copied"),
    [("batch", 1600, 128, False), ("batch", 1024, 64, True), ("batch * 64", 1600, 128, True),
     ("batch * 64", 512, 128, True), ("batch * 64", 128, 128, False),
     ("batch * 64", 512, 16, False), (512, 1024, 512, False), (768, 128, 512, True),
     (2048, 512, 1024, True)],
)  # fmt: skip
def test_where_long_rows_are_copied(K, M, N, copied):
    """Sums over many long rows, or over rows that a power of two lies between."""
    assert sums_apply(M, N, K, "f4", PLAIN) == copied


@pytest.mark.parametrize("ta", [False, True])
@pytest.mark.parametrize("tb", [False, True])
def test_all_at_run_time(ta, tb):
    epilogue = Epilogue(bias=True, final="relu")
    recipe = matmul_template(
        "free", "rows", "columns", "depth", transpose_a=ta, transpose_b=tb, epilogue=epilogue
    )
    rng = np.random.default_rng(3)
    for _ in range(60):
        M, N, K = (
            int(rng.choice([0, 1, 2, 8, 15, 16, 17, 40, *rng.integers(1, 100, 4)]))
            for _ in range(3)
        )
        check(
            recipe,
            (M, N, K),
            ta,
            tb,
            symbols={"rows": M, "columns": N, "depth": K},
            epilogue=epilogue,
        )


SHARED = [(False, False, "a"), (True, True, "a"), (False, True, "b"), (True, False, "b")]


@pytest.mark.parametrize(
    ("ta", "tb", "shared"),
    [*((ta, tb, "") for ta in (False, True) for tb in (False, True)), *SHARED],
)
def test_batches(ta, tb, shared):
    flags = {"batch_a": shared != "a", "batch_b": shared != "b"}
    fixed = matmul_template(
        "heads", 13, 20, 18, transpose_a=ta, transpose_b=tb, batch="batch * 2", **flags
    )
    for batch in (0, 1, 3):
        check(fixed, (13, 20, 18), ta, tb, symbols={"batch": batch}, batch=2 * batch, **flags)
    if shared:
        return
    free = matmul_template(
        "heads", "length", "length", 18, transpose_a=ta, transpose_b=tb, batch="batch * 2", **flags
    )
    for batch in (0, 3):
        for length in (0, 1, 5, 21):
            symbols = {"batch": batch, "length": length}
            check(free, (length, length, 18), ta, tb, symbols=symbols, batch=2 * batch, **flags)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("bits", WIDTHS)
def test_vector_widths_and_dtypes(bits, dtype, monkeypatch):
    monkeypatch.setenv("NNJIT_VECTOR_BITS", str(bits))
    epilogue = Epilogue(bias=True, final="relu")
    for ta, tb, N, K in ((False, False, 21, 13), (False, True, 35, 19), (True, False, 10, 40)):
        recipe = matmul_template(
            "wide", "batch", N, K, transpose_a=ta, transpose_b=tb, dtype=dtype, epilogue=epilogue
        )
        for M in (1, 6, 17, 30):
            check(recipe, (M, N, K), ta, tb, symbols={"batch": M}, epilogue=epilogue, dtype=dtype)


def test_packed_operand_is_used_and_right():
    recipe = matmul_template("large", 520, 528, 20)
    assert [s.template.name.split("_")[0] for s in recipe.steps] == ["pack", "large"]
    check(recipe, (520, 528, 20), False, False, symbols={})


@pytest.mark.parametrize("final", ["store", "mask"])
def test_tail(final):
    """A general epilogue: reads per-column and per-element params, writes a second output."""

    def tail(index: str, column: str) -> list[str]:
        return [
            f"v = y[{index}] * scale[{column}] + noise[{index}]",
            f"y[{index}] = v",
            f"twice[{index}] = v + v",
        ]

    extra = (("scale", "f4"), ("noise", "f4"), ("twice", "f4"))
    epilogue = Epilogue(bias=True, final=final, tail=tail, extra_params=extra)
    for M, N, jit in ((1, 10, True), (9, 37, True), (31, 100, True), (9, 37, False)):
        recipe = matmul_template("with_tail", "batch", N, 12, epilogue=epilogue)
        rng = np.random.default_rng(0)
        v = operands(rng, M, N, 12, False, False)
        v |= {
            "scale": rng.standard_normal(N).astype("f4"),
            "noise": rng.standard_normal((M, N)).astype("f4"),
        }
        v["twice"] = np.full_like(v["out"], np.nan)
        want = reference(v, False, False, epilogue) * v["scale"] + v["noise"]
        results = []
        for cut in (None, rng):
            got = run_recipe(recipe, v, ("out", "twice"), symbols={"batch": M}, jit=jit, rng=cut)
            np.testing.assert_allclose(got["out"], want, rtol=2e-5, atol=1e-4)
            np.testing.assert_array_equal(got["twice"], got["out"] * np.float32(2))
            results.append(got["out"])
        np.testing.assert_array_equal(*results)


@pytest.mark.parametrize("ta", [False, True])
@pytest.mark.parametrize("tb", [False, True])
def test_as_plain_python(ta, tb):
    """The same files, un-jitted, with NumPy arrays."""
    epilogue = Epilogue(bias=True, final="add_relu")
    recipe = matmul_template(
        "plain", "batch", 21, 19, transpose_a=ta, transpose_b=tb, epilogue=epilogue
    )
    for M in (0, 1, 19):
        check(recipe, (M, 21, 19), ta, tb, symbols={"batch": M}, epilogue=epilogue, jit=False)
    recipe = matmul_template(
        "plain", 9, "n", "depth", transpose_a=ta, transpose_b=tb, batch="batch"
    )
    check(recipe, (9, 20, 3), ta, tb, symbols={"batch": 2, "n": 20, "depth": 3}, batch=2, jit=False)


def test_errors_name_the_option():
    with pytest.raises(ValueError, match=r"final='tanh'"):
        Epilogue(final="tanh")
    with pytest.raises(ValueError, match="symbol 'i'"):
        matmul_template("clash", "i", 4, 4)


def test_long_reductions_go_through_memory():
    """Sums over thousands of terms are cut; the epilogue comes once, after the last piece."""

    def tail(index: str, column: str) -> list[str]:
        return [f"y[{index}] = y[{index}] * scale[{column}]"]

    rng = np.random.default_rng(0)
    for final in ("store", "add_relu"):
        epilogue = Epilogue(bias=True, final=final, tail=tail, extra_params=(("scale", "f4"),))
        recipe = matmul_template("long", "batch", 37, 5003, epilogue=epilogue)
        assert "k0" in "".join(recipe.steps[0].template.body)
        for M in (1, 7, 21):
            v = operands(rng, M, 37, 5003, False, False) | {
                "scale": rng.standard_normal(37).astype("f4")
            }
            want = reference(v, False, False, epilogue) * v["scale"]
            got = run_recipe(recipe, v, symbols={"batch": M})["out"]
            np.testing.assert_allclose(got, want, rtol=0, atol=2e-3)
            again = run_recipe(recipe, v, symbols={"batch": M}, rng=rng)["out"]
            np.testing.assert_array_equal(got, again)
    recipe = matmul_template("tokens", 21, 37, "batch * 24", transpose_a=True)
    for batch in (0, 1, 42, 43, 90):
        v = operands(rng, 21, 37, batch * 24, True, False)
        got = run_recipe(recipe, v, symbols={"batch": batch})["out"]
        np.testing.assert_allclose(got, reference(v, True, False), rtol=0, atol=2e-3)


@pytest.mark.parametrize("K", ["batch", 300])
@pytest.mark.parametrize(("M", "N"), [(37, 70), (130, 33)])
def test_updates_where_the_gradient_is_computed(M, N, K):
    """y and a slot, which the tail reads and writes; reductions of one part and of several; rows in
    any pieces and order.
    """

    extra = (("m", "f4"), ("scale", "f4"))
    recipe = matmul_template(
        "update", M, N, K, transpose_a=True,
        epilogue=Epilogue(tail=slot_update, extra_params=extra, apart=True),
    )  # fmt: skip
    assert "k0" in "".join(recipe.steps[-1].template.body)
    for depth in (0, 1, 255, 256, 257, 600) if K == "batch" else (K,):
        rng = np.random.default_rng(depth)
        v = {n: rng.standard_normal((depth, w)).astype(np.float32) for n, w in (("a", M), ("b", N))}
        v |= {n: rng.standard_normal((M, N)).astype(np.float32) for n in ("m", "out")}
        v["scale"] = rng.standard_normal(N).astype(np.float32)
        m = v["m"] * v["scale"] + v["a"].astype(np.float64).T @ v["b"]
        for cut in (None, rng):
            got = run_recipe(recipe, v, ("out", "m"), symbols={"batch": depth}, rng=cut)
            np.testing.assert_allclose(got["m"], m, rtol=1e-5, atol=1e-4)
            np.testing.assert_allclose(got["out"], v["out"] - got["m"], rtol=1e-5, atol=1e-4)
