"""Tiles in AMX's registers: machine code where this CPU has them, and what they mean in NumPy."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from nnjit.kernels import amx_tile, target
from nnjit.kernels.bf16 import expand, shorten
from nnjit.kernels.contraction import matmul_template
from nnjit.kernels.recipe import Epilogue, Recipe, Step
from nnjit.kernels.template import Template
from tests.kernels.harness import run_recipe, slot_update
from tests.kernels.test_contraction_pairs import check, value

JIT = [False, True] if target.host_multiplies_blocks() else [False]
ROW_A, ROW_C, STEP_B = 90, 40, 33  # rows are so far apart
CASES = [
    # rows, vectors, tail, init, final, out, dtype of m, step_a
    (32, 2, 0, "zero", "store", "f4", "f4", 1),
    (32, 2, 0, "load", "store", "f4", "f4", 2),
    (20, 2, 0, "bias", "store", "f4", "f4", 1),
    (17, 2, 5, "bias", "relu", "b2", "f4", 1),
    (16, 1, "run", "load", "mask", "f4", "b2", 1),
    (1, 2, 0, "zero", "mul", "b2", "b2", 1),
    (5, 1, 1, "bias", "add_relu", "b2", "f4", 2),
]


def tile_recipe(case) -> Recipe:
    rows, vectors, tail, init, final, out, m_dtype, step_a = case
    definition = (
        f"block = amx_tile(rows_a=range(0, {rows * ROW_A}, {ROW_A}), step_a={step_a}, "
        f"rows_c=range(0, {rows * ROW_C}, {ROW_C}), vectors={vectors}, lanes=16, "
        f'step_b={STEP_B}, tail={tail!r}, init="{init}", final="{final}", dtype="b2", out="{out}")'
    )
    extra = ["e, 0"] * (init == "bias") + ["m, 0"] * (final in ("mask", "mul", "add_relu"))
    call = ", ".join(["R, kc, a, 2, 4, b, 1, 3, c, 0", *extra, *["width"] * (tail == "run")])
    t = Template(
        "amx_case", "one tile", ("from nnjit.kernels.amx_tile import amx_tile", definition),
        ("R", "kc", "width"),
        (("a", "u4"), ("b", "u4"), ("e", "f4"), ("m", m_dtype), ("c", out)),
        (f"block({call})",), 1,
    )  # fmt: skip
    return Recipe((Step(t, ("a", "b", "e", "m", "out")),))


def expected(v, case, R, kc, width):
    """The formula in float64, and which pairs of A and B it reads."""
    rows, vectors, tail, init, final, out, m_dtype, step_a = case
    columns = 16 * vectors + ((width if tail == "run" else tail) - 16 if tail else 0)
    a, b = (expand(v[n].view(np.uint16)).astype(np.float64).reshape(-1, 2) for n in "ab")
    m = (expand(v["m"]) if m_dtype == "b2" else v["m"]).astype(np.float64)
    y = (expand(v["out"]) if out == "b2" else v["out"]).astype(np.float64)
    read = {n: np.zeros(len(v[n]), bool) for n in "ab"}
    for i, j in itertools.product(range(rows), range(columns)):
        at = i * ROW_C + j
        s = {"zero": 0.0, "load": y[at], "bias": float(v["e"][j])}[init]
        for r, k in itertools.product(range(R), range(kc)):
            at_a = 2 + 4 * r + i * ROW_A + k // 16 * 16 * step_a + k % 16
            at_b = 1 + 3 * r + k * STEP_B + j
            s += a[at_a] @ b[at_b]
            read["a"][at_a] = read["b"][at_b] = True
        s = s * m[at] if final == "mul" else s if m[at] > 0 or final != "mask" else 0.0
        s += m[at] * (final == "add_relu")
        y[at] = np.maximum(s, 0) if final.endswith("relu") else s
    return y, read


@pytest.mark.parametrize("jit", JIT)
@pytest.mark.parametrize("case", CASES)
def test_tile(case, jit):
    """Also that what lies beside the operands, here NaN, does not enter the sums."""
    rng = np.random.default_rng(0)
    recipe = tile_recipe(case)
    for R, kc in ((1, 16), (2, 3), (1, 37), (0, 2), (1, 0), (1, 32)):
        v = {n: rng.standard_normal(1400).astype(np.float32) for n in ("e", "m", "out")}
        v |= {n: shorten(rng.standard_normal(2 * 3200)).view(np.uint32) for n in "ab"}
        v |= {n: shorten(v[n]) for n, code in (("out", case[5]), ("m", case[6])) if code == "b2"}
        want, read = expected(v, case, R, kc, 7)
        for n in "ab":
            v[n][~read[n]] = 0x7FC07FC0
        got = run_recipe(recipe, v, symbols={"R": R, "kc": kc, "width": 7}, jit=jit)["out"]
        got = expand(got) if case[5] == "b2" else got
        np.testing.assert_allclose(got, want, rtol=0.005 if case[5] == "b2" else 1e-4, atol=1e-4)


@pytest.mark.parametrize("jit", JIT)
@pytest.mark.parametrize(
    "case",
    [
        (True, False, (70, 40, 150), ("b2", "b2", "f4")),
        (True, False, (33, 31, 15), ("f4", "b2", "b2")),
        (False, True, (50, 65, 34), ("b2", "f4", "b2")),
        (False, False, (3, 600, 260), ("b2", "f4", "f4")),  # in pieces of rows and columns
    ],
)
def test_products(case, jit, monkeypatch):
    """Whole and ragged blocks, whatever this CPU has."""
    ta, tb, sizes, stored = case
    monkeypatch.setattr(target, "multiplies_blocks", lambda: True)
    monkeypatch.setenv("NNJIT_VECTOR_BITS", "512")
    recipe = matmul_template("product", *sizes, transpose_a=ta, transpose_b=tb, dtype="b2")
    assert any("amx_tile" in line for line in recipe.steps[-1].template.imports)
    check(sizes, {"n": sizes[2]} if ta else {"n": sizes[0]}, ta, tb, stored=stored, jit=jit)


@pytest.mark.parametrize("jit", JIT)
@pytest.mark.parametrize("fixed", [0, 8300])
def test_updates_where_the_gradient_is_computed(fixed, jit, monkeypatch):
    """y and a slot, which the tail reads and writes; ragged blocks, in any order; a reduction that
    is not cut, however long.
    """
    monkeypatch.setattr(target, "multiplies_blocks", lambda: True)
    monkeypatch.setenv("NNJIT_VECTOR_BITS", "512")

    extra = (("m", "f4"), ("scale", "f4"))
    recipe = matmul_template(
        "update", 69, 40, fixed or "batch", transpose_a=True, dtype="b2",
        epilogue=Epilogue(tail=slot_update, extra_params=extra, apart=True),
    )  # fmt: skip
    for K in (fixed,) if fixed else (0, 1, 33, 64):
        rng = np.random.default_rng(K)
        v = {n: shorten(rng.standard_normal((K, w))) for n, w in (("a", 69), ("b", 40))}
        v |= {n: rng.standard_normal((69, 40)).astype(np.float32) for n in ("m", "out")}
        v["scale"] = rng.standard_normal(40).astype(np.float32)
        m = v["m"] * v["scale"] + value(v["a"]).T @ value(v["b"])
        for cut in (None, rng):
            got = run_recipe(recipe, v, ("out", "m"), symbols={"batch": K}, jit=jit, rng=cut)
            np.testing.assert_allclose(got["m"], m, rtol=1e-5, atol=1e-3 if fixed else 1e-4)
            np.testing.assert_allclose(got["out"], v["out"] - got["m"], rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("jit", JIT)
def test_sums_of_slices_go_on_where_they_lie(jit, monkeypatch):
    """y is both what is added to and the result."""
    monkeypatch.setattr(target, "multiplies_blocks", lambda: True)
    monkeypatch.setenv("NNJIT_VECTOR_BITS", "512")
    for K in (40, 8300):
        recipe = matmul_template(
            "add", 37, 40, K, transpose_a=True, dtype="b2",
            epilogue=Epilogue(final="add", apart=True),
        )  # fmt: skip
        (*before, last) = recipe.steps
        args = tuple("out" if role == "residual" else role for role in last.args)
        recipe = Recipe((*before, Step(last.template, args)), recipe.temps)
        rng = np.random.default_rng(K)
        v = {n: shorten(rng.standard_normal((K, w))) for n, w in (("a", 37), ("b", 40))}
        v["out"] = rng.standard_normal((37, 40)).astype(np.float32)
        got = run_recipe(recipe, v, jit=jit)["out"]
        want = v["out"] + value(v["a"]).T @ value(v["b"])
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-3)


def test_errors_name_the_option():
    for options in ({"vectors": 3}, {"lanes": 8}, {"dtype": "f4"}, {"rows_a": range(33)}):
        given = {"rows_a": (0,), "vectors": 1, "lanes": 16, "dtype": "b2", **options}
        with pytest.raises(ValueError, match="amx_tile"):
            amx_tile.amx_tile(rows_c=given["rows_a"], **given)
    with pytest.raises(ValueError, match="equally far apart"):
        amx_tile.amx_tile(rows_a=(0, 3, 4), rows_c=(0, 1, 2), vectors=1, lanes=16, dtype="b2")
