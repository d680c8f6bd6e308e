"""The tile over pairs of bfloat16: the instruction, its emulation and the NumPy meaning."""

from __future__ import annotations

import numpy as np
import pytest

from nnjit.kernels import target
from nnjit.kernels.bf16 import expand, shorten
from nnjit.kernels.recipe import Recipe, Step
from nnjit.kernels.template import Template
from nnjit.kernels.tile import tile
from tests.kernels.harness import run_recipe

INSTRUCTION = target.host_vector_bits() == 512 and target.host_multiplies_pairs()
CASES = [
    # rows, vectors, tail, init, final, taps, out, dtype of m
    (3, 2, 3, "bias", "relu", None, "b2", "f4"),
    (4, 1, 1, "load", "mask", None, "f4", "b2"),
    (2, 2, "run", "zero", "add", ((0, 0, 0, 1), (5, 7, 0, 2)), "b2", "b2"),
    (3, 1, 0, "bias", "add_relu", None, "f4", "f4"),
]


def expected(v, case, lanes, R, kc, width):
    """The formula in float64: rows 7 (A) and 40 (C) apart, steps 2 (A) and 33 (B), in pairs."""
    rows, vectors, tail, init, final, taps, out, m_dtype = case
    columns = vectors * lanes + ((width if tail == "run" else tail) - lanes if tail else 0)
    a, b = (expand(v[n]).astype(np.float64).reshape(-1, 2) for n in "ab")
    m = (expand(v["m"]) if m_dtype == "b2" else v["m"]).astype(np.float64)
    c = expand(v["out"]) if out == "b2" else v["out"]
    y = c.astype(np.float64)
    for i in range(rows):
        for j in range(columns):
            at = i * 40 + j
            s = {"zero": 0.0, "load": y[at], "bias": float(v["e"][j])}[init]
            for r in range(R):
                for ta, tb, lo, hi in taps or ((0, 0, 0, rows),):
                    for k in range(kc if lo <= i < hi else 0):
                        s += a[r * 11 + ta + i * 7 + k * 2] @ b[r * 3 + tb + k * 33 + j]
            s = {"mask": s if m[at] > 0 else 0.0, "store": s, "relu": s}.get(final, s + m[at])
            y[at] = np.maximum(s, 0) if final.endswith("relu") else s
    return y


def pair_recipe(case, lanes: int, emulate: bool) -> Recipe:
    rows, vectors, tail, init, final, taps, out, m_dtype = case
    definition = (
        f"block = tile(rows_a=range(0, {rows * 7}, 7), rows_c=range(0, {rows * 40}, 40), "
        f"vectors={vectors}, lanes={lanes}, taps={taps}, step_a=2, step_b=33, tail={tail!r}, "
        f'init="{init}", final="{final}", dtype="b2", out="{out}", emulate={emulate})'
    )
    extra = ["e, 0"] * (init == "bias") + ["m, 0"] * (final in ("mask", "add", "add_relu"))
    call = ", ".join(["R, kc, a, 0, 11, b, 0, 3, c, 0", *extra, *["width"] * (tail == "run")])
    t = Template(
        "pair_case", "one tile", ("from nnjit.kernels.tile import tile", definition),
        ("R", "kc", "width"),
        (("a", "b2"), ("b", "b2"), ("e", "f4"), ("m", m_dtype), ("c", out)),
        (f"block({call})",), 1,
    )  # fmt: skip
    return Recipe((Step(t, ("a", "b", "e", "m", "out")),))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("lanes", [4, 8, 16])
def test_pair_tile(case, lanes):
    """All ways against the formula; the instruction and its emulation bit by bit."""
    if lanes * 32 > target.host_vector_bits():
        pytest.skip(f"{lanes * 32} bits are more than this CPU's vectors")
    rng = np.random.default_rng(0)
    v = {n: rng.standard_normal(1200).astype(np.float32) for n in ("a", "b", "e", "m", "out")}
    short = ["a", "b", *["out"] * (case[6] == "b2"), *["m"] * (case[7] == "b2")]
    v |= {n: shorten(v[n]) for n in short}
    ways = [(True, True), (False, True), *[(True, False)] * (lanes == 16 and INSTRUCTION)]
    for R, kc in ((2, 3), (0, 2), (1, 0), (1, 1)):
        want = expected(v, case, lanes, R if kc > 0 else 0, kc, lanes - 1)
        found = []
        for jit, emulate in ways:
            recipe = pair_recipe(case, lanes, emulate)
            symbols = {"R": R, "kc": kc, "width": lanes - 1}
            got = run_recipe(recipe, v, symbols=symbols, jit=jit)["out"]
            found.append(got)
            bound = 0.005 if case[6] == "b2" else 1e-4
            value = expand(got) if case[6] == "b2" else got
            np.testing.assert_allclose(value, want, rtol=bound, atol=1e-5)
        np.testing.assert_array_equal(found[0], found[-1] if len(ways) == 3 else found[0])


@pytest.mark.skipif(not INSTRUCTION, reason="this CPU has no vdpbf16ps")
def test_emulation_has_the_bits_of_the_instruction():
    """Also where sums cancel, overflow, or meet infinities and NaN; not for denormals."""
    rng = np.random.default_rng(2)
    v = {n: rng.standard_normal(1200).astype(np.float32) for n in ("e", "m", "out")}
    a, b = rng.integers(0, 2**16, (2, 1200)).astype(np.uint16)
    a[::2], b[::2] = shorten(rng.standard_normal((2, 600)) * 1e15)
    for x in (a, b):  # exponents whose products stay normal, and a few that overflow
        x[(x & 0x7F80) < 0x2F80] = 0x3F80
    case = (4, 2, 0, "zero", "store", None, "f4", "f4")
    v |= {"a": a, "b": b}
    bits = []
    for emulate in (False, True):
        recipe = pair_recipe(case, 16, emulate)
        got = run_recipe(recipe, v, symbols={"R": 2, "kc": 5, "width": 0})["out"]
        bits.append(np.where(np.isnan(got), np.float32(np.nan), got).view(np.uint32))
        assert (~np.isfinite(got)).any()
        assert np.isfinite(got).any()
    np.testing.assert_array_equal(*bits)


def test_errors_name_the_option():
    shape = {"rows_a": (0,), "rows_c": (0,), "vectors": 1, "lanes": 4}
    for options in ({"out": "b2"}, {"dtype": "b2", "out": "f8"},
                    {"dtype": "b2", "out": "b2", "init": "load"}):  # fmt: skip
        with pytest.raises(ValueError, match="out="):
            tile(**shape, **options)
