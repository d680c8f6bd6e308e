"""The tile and the block transposition: machine code and NumPy meaning against sums written out in
float64.
"""

from __future__ import annotations

import numpy as np
import pytest

from nnjit.kernels import target
from nnjit.kernels.recipe import Recipe, Step
from nnjit.kernels.template import Template
from nnjit.kernels.tile import tile
from tests.kernels.harness import run_recipe

SIZES = {"f4": 4, "f8": 8}
NUMPY = {"f4": np.float32, "f8": np.float64}
WIDTHS = [bits for bits in (128, 256, 512) if bits <= target.host_vector_bits()]


def tile_template(definition: str, call: str, dtype: str) -> Recipe:
    params = tuple((name, dtype) for name in ("a", "b", "e", "m", "c"))
    imports = ("from nnjit.kernels.tile import tile", f"block = tile({definition})")
    t = Template(
        "tile_case", "one tile", imports, ("R", "kc", "width"), params, (f"block({call})",), 1
    )
    return Recipe((Step(t, ("a", "b", "e", "m", "out")),))


CASES = [
    # rows, vectors, tail, init, final, static_k, taps
    (1, 1, 0, "zero", "store", 0, None),
    (3, 2, 3, "bias", "relu", 0, None),
    (4, 1, 1, "load", "mask", 2, None),
    (2, 2, 0, "zero", "add", 0, ((0, 0, 0, 1), (5, 7, 0, 2))),
    (3, 1, 2, "bias", "add_relu", 0, ((0, 0, 1, 3), (3, 2, 0, 2))),
    (5, 1, 0, "load", "store", 3, ((0, 0, 0, 5), (1, 4, 2, 3))),
    (2, 2, "run", "bias", "store", 0, None),
    (3, 2, "run", "zero", "mul", 0, None),
]


def expected(a, b, e, m, c, case, lanes, R, kc, width):
    """The formula of `tile` in float64: rows 7 (A) and 40 (C) apart, steps 2 (A) and 33 (B)."""
    rows, vectors, tail, init, final, static_k, taps = case
    columns = vectors * lanes + ((width if tail == "run" else tail) - lanes if tail else 0)
    out = c.astype(np.float64)
    for i in range(rows):
        for j in range(columns):
            v = {"zero": 0.0, "load": c[i * 40 + j], "bias": e[j]}[init]
            for r in range(R):
                for ta, tb, lo, hi in taps or ((0, 0, 0, rows),):
                    if lo <= i < hi:
                        for k in range(static_k or kc):
                            v += a[r * 11 + ta + i * 7 + k * 2] * b[r * 3 + tb + k * 33 + j]
            y = m[i * 40 + j]
            v += y if final.startswith("add") else 0.0
            v = {"mask": v if y > 0 else 0.0, "mul": v * y}.get(final, v)
            out[i * 40 + j] = np.maximum(v, 0) if final.endswith("relu") else v
    return out


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("bits", WIDTHS)
def test_tile(case, dtype, bits):
    rows, vectors, tail, init, final, static_k, taps = case
    lanes = bits // 8 // SIZES[dtype]
    if isinstance(tail, int) and tail >= lanes:
        tail = lanes - 1
        case = (rows, vectors, tail, *case[3:])
    rng = np.random.default_rng(0)
    values = {n: rng.standard_normal(600).astype(NUMPY[dtype]) for n in ("a", "b", "e", "m")}
    values["out"] = rng.standard_normal(rows * 40).astype(NUMPY[dtype])
    definition = (
        f"rows_a=range(0, {rows * 7}, 7), rows_c=range(0, {rows * 40}, 40), vectors={vectors}, "
        f"lanes={lanes}, "
        f"taps={taps}, step_a=2, step_b=33, tail={tail!r}, init={init!r}, final={final!r}, "
        f"static_k={static_k}, dtype={dtype!r}"
    )
    extra = ["e, 0"] * (init == "bias") + ["m, 0"] * (final in ("mask", "mul", "add", "add_relu"))
    call = ", ".join(["R, kc, a, 0, 11, b, 0, 3, c, 0", *extra, *["width"] * (tail == "run")])
    recipe = tile_template(definition, call, dtype)
    for R, kc in ((2, 3), (0, 2), (1, 0), (-1, 4), (1, 1)):
        symbols = {"R": R, "kc": kc, "width": lanes - 1}
        want = expected(
            *(values[n].astype(np.float64) for n in "abem"),
            values["out"],
            case,
            lanes,
            R if static_k or kc > 0 else 0,
            kc,
            lanes - 1,
        )
        for jit in (True, False):
            got = run_recipe(recipe, values, symbols=symbols, jit=jit)["out"]
            np.testing.assert_allclose(got, want, rtol=1e-4 if dtype == "f4" else 1e-12, atol=1e-5)


def test_run_time_strides():
    """All four strides as arguments equal the same strides as literals."""
    rng = np.random.default_rng(1)
    values = {n: rng.standard_normal(300).astype(np.float32) for n in ("a", "b", "e", "m")}
    values["out"] = np.zeros(120, np.float32)
    shared = 'vectors=1, lanes=4, tail=3, dtype="f4"'
    literal = f"rows_a=(0, 7, 14), rows_c=(0, 40, 80), step_a=2, step_b=33, {shared}"
    names = ("row_a", "row_c", "step_a", "step_b")
    run_time = f"rows_a=(0, 1, 2), rows_c=(0, 1, 2), {shared}, runtime={names}"
    call = "R, kc, a, 0, 11, b, 0, 3, c, 0"
    symbols = {"R": 2, "kc": 3, "width": 0}
    want = run_recipe(tile_template(literal, call, "f4"), values, symbols=symbols)["out"]
    assert np.abs(want).sum() > 1
    recipe = tile_template(run_time, call + ", 7, 40, 2, 33", "f4")
    for jit in (True, False):
        got = run_recipe(recipe, values, symbols=symbols, jit=jit)["out"]
        np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("final", ["store", "relu", "mask"])
def test_nan_and_inf(final):
    """NaN and inf reach exactly the elements of the formula; relu keeps NaN."""
    a = np.array([1, np.nan, np.inf, -np.inf, 0, 2], np.float32)
    b = np.ones(8, np.float32)
    b[2], b[3] = 0, -1
    values = {"a": a, "b": b, "e": b, "m": np.ones(80, np.float32), "out": np.zeros(64, np.float32)}
    values["m"][3] = np.nan
    extra = ", m, 0" if final == "mask" else ""
    rows = "rows_a=range(0, 6, 1), rows_c=range(0, 60, 10)"
    definition = f'{rows}, vectors=1, lanes=4, final="{final}", dtype="f4"'
    recipe = tile_template(definition, "1, 1, a, 0, 0, b, 0, 0, c, 0" + extra, "f4")
    with np.errstate(all="ignore"):
        want = a[:, None] * b[:4]
        if final == "relu":
            want = np.maximum(want, 0)
        if final == "mask":
            want[0, 3] = 0
    for jit in (True, False):
        got = run_recipe(recipe, values, symbols={"R": 0, "kc": 0, "width": 0}, jit=jit)["out"]
        np.testing.assert_array_equal(got[:60].reshape(6, 10)[:, :4], want)


@pytest.mark.parametrize("kc", [0, 1, 37])
def test_asking_changes_nothing(kc):
    """Requests may name any place; the results are those of the tile that asks for none."""
    shape = (
        "rows_a=range(3), rows_c=range(0, 60, 20), vectors=2, lanes=4, step_a=5, step_b=8, "
        'tail=3, init="bias", final="add", dtype="f8"'
    )
    rng = np.random.default_rng(0)
    values = {n: rng.standard_normal(400) for n in ("a", "b", "e", "m")}
    given = "1, kc, a, 1, 0, b, 2, 0, c, 3, e, 4, m, 5"
    found = []
    for name, options, more in (
        ("tile", "", ""),
        ("asking_tile", "asks=2, ", ", a, 7, m, 1 << 20, kc << 16"),
        ("asking_tile", "asks=1, level=2, ", ", b, 9, 8 << 16"),
    ):
        imports = (f"from nnjit.kernels.{name} import {name}", f"block = {name}({options}{shape})")
        params = tuple((n, "f8") for n in ("a", "b", "e", "m", "c"))
        body = (f"block({given}{more})",)
        t = Template(f"{name}_case", "", imports, ("kc",), params, body, 1)
        recipe = Recipe((Step(t, ("a", "b", "e", "m", "out")),))
        for jit in (True, False):
            v = {**values, "out": np.zeros(100)}
            found.append(run_recipe(recipe, v, symbols={"kc": kc}, jit=jit)["out"])
    for jitted, plain in zip(found[2::2], found[3::2], strict=True):
        np.testing.assert_array_equal(jitted, found[0])
        np.testing.assert_array_equal(plain, found[1])
    np.testing.assert_allclose(found[1], found[0], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("lanes", [2, 4, 8, 16])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_transpose_block(lanes, dtype):
    rng = np.random.default_rng(0)
    src = rng.standard_normal((lanes, 19)).astype(NUMPY[dtype])
    params = (("src", dtype), ("dst", dtype))
    for rows, columns in ((lanes, lanes), (lanes - 1, lanes), (lanes, 1), (1, lanes - 1)):
        imports = (
            "from nnjit.kernels.tile import transpose_block",
            f"block = transpose_block(lanes={lanes}, rows={rows}, columns={columns}, "
            f"dtype={dtype!r})",
        )
        t = Template("block_case", "", imports, (), params, ("block(src, 2, 19, dst, 0, 20)",), 1)
        recipe = Recipe((Step(t, ("src", "out")),))
        want = np.zeros((columns, 20), src.dtype)
        want[:, :rows] = (
            src[:rows, 2 : 2 + columns].T
            if lanes < 16
            else src[:rows].reshape(-1)[2 + np.arange(columns)[:, None] + 19 * np.arange(rows)]
        )
        for jit in (True, False):
            out = run_recipe(recipe, {"src": src, "out": np.zeros_like(want)}, jit=jit)["out"]
            np.testing.assert_array_equal(out, want)


def test_errors_name_the_option():
    with pytest.raises(ValueError, match="init='none'"):
        tile(rows_a=(0,), rows_c=(0,), vectors=1, lanes=4, init="none")
    with pytest.raises(ValueError, match="runtime="):
        tile(rows_a=(0,), rows_c=(0,), vectors=1, lanes=4, runtime=("row_b",))
