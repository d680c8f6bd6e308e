"""Products of bfloat16 against NumPy in float64: every transposition, odd and open extents, stored
dtypes, epilogues, chunks.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from nnjit.kernels import target
from nnjit.kernels.bf16 import expand, shorten
from nnjit.kernels.contraction import matmul_template
from nnjit.kernels.recipe import PLAIN, Epilogue
from tests.kernels.harness import run_recipe

pytestmark = pytest.mark.usefixtures("bf16")


def value(x):
    """What an operand stands for: bits as they are, float32 rounded."""
    return expand(x if x.dtype == np.uint16 else shorten(x)).astype(np.float64)


def operands(rng, M, N, K, ta, tb, stored, beside, batch=None):
    lead = () if batch is None else (batch,)

    def make(shape, code):
        x = rng.standard_normal((*lead, *shape)).astype(np.float32)
        return shorten(x) if code == "b2" else x

    return {
        "a": make((K, M) if ta else (M, K), stored[0]),
        "b": make((N, K) if tb else (K, N), stored[1]),
        "bias": rng.standard_normal(N).astype(np.float32),
        "mask": make((M, N), beside),
        "residual": make((M, N), beside),
        "out": make((M, N), stored[2]),
    }


def reference(v, ta, tb, epilogue):
    a, b = value(v["a"]), value(v["b"])
    y = (np.swapaxes(a, -1, -2) if ta else a) @ (np.swapaxes(b, -1, -2) if tb else b)
    m = expand(v["mask"]) if v["mask"].dtype == np.uint16 else v["mask"]
    r = expand(v["residual"]) if v["residual"].dtype == np.uint16 else v["residual"]
    y = y + v["bias"] if epilogue.bias else y
    y = np.where(m > 0, y, 0) if epilogue.final == "mask" else y
    y = y + r if epilogue.final.startswith("add") else y
    return np.maximum(y, 0) if epilogue.final.endswith("relu") else y


def check(sizes, symbols, ta=False, tb=False, *, dims=None, stored=("b2", "b2", "f4"), beside="f4",
          epilogue=None, jit=True, batch=None):  # fmt: skip
    """One product, whole and in random chunks: right, and equal bit for bit."""
    epilogue = replace(epilogue or PLAIN, beside=beside)
    names = {v: k for k, v in reversed(symbols.items())}
    M, N, K = dims or (names.get(d, d) for d in sizes)
    lead = None if batch is None else names.get(batch, batch)
    recipe = matmul_template(
        "product", M, N, K, transpose_a=ta, transpose_b=tb, dtype="b2", stored=stored,
        epilogue=epilogue, batch=lead,
    )  # fmt: skip
    rng = np.random.default_rng(sum(sizes))
    v = operands(rng, *sizes, ta, tb, stored, beside, batch)
    out = run_recipe(recipe, v, symbols=symbols, jit=jit)["out"]
    again = run_recipe(recipe, v, symbols=symbols, jit=jit, rng=rng)["out"]
    np.testing.assert_array_equal(out, again)
    y = expand(out) if stored[2] == "b2" else out
    narrow = 0.005 if stored[2] == "b2" else 2e-5
    np.testing.assert_allclose(y, reference(v, ta, tb, epilogue), rtol=narrow, atol=2e-4)


B2, F4 = "b2", "f4"
CASES = [
    # ta, tb, N, K, stored, beside, epilogue; rows at run time
    (False, False, 10, 38, (B2, F4, F4), F4, Epilogue(bias=True)),
    (False, False, 53, 7, (F4, B2, B2), B2, Epilogue(final="mask")),
    (False, True, 33, 70, (B2, F4, B2), F4, Epilogue(bias=True, final="relu")),
    (False, True, 16, 33, (B2, B2, F4), B2, Epilogue(final="add")),
    (False, True, 21, 64, (F4, F4, B2), B2, Epilogue(final="add_relu")),
    (True, False, 40, 9, (B2, B2, F4), F4, Epilogue()),
    (True, True, 18, 5, (F4, B2, B2), F4, Epilogue(bias=True)),
]


@pytest.mark.parametrize("case", CASES)
def test_run_time_rows(case):
    ta, tb, N, K, stored, beside, epilogue = case
    for M in (0, 1, 17, 40):
        check((M, N, K), {"batch": M}, ta, tb, stored=stored, beside=beside, epilogue=epilogue,
              dims=("batch", N, K))  # fmt: skip


@pytest.mark.parametrize(
    ("ta", "tb", "dims"),
    [
        (True, False, (7, 10, "n")),
        (False, False, ("rows", "n", "n")),
        (False, True, ("rows", "n", "n")),
        (False, False, (0, 5, 3)),
        (False, True, (4, 0, 6)),
        (False, False, (4, 5, 0)),
    ],
)
def test_open_and_empty_extents(ta, tb, dims):
    for n in (0, 1, 16, 37) if "n" in dims else (1,):
        symbols = {"rows": 19, "n": n}
        sizes = tuple(symbols.get(d, d) for d in dims)
        check(sizes, symbols, ta, tb, dims=dims)


@pytest.mark.parametrize("stored", [(B2, B2, F4), (F4, B2, F4)])
def test_weight_gradients(stored):
    """Sums over rows go through pairs in scratch; y holds them between the blocks."""

    def tail(index: str, column: str) -> list[str]:
        return [f"y[{index}] = y[{index}] * bias[{column}]"]

    epilogue = Epilogue(tail=tail, extra_params=(("bias", "f4"),)) if "f4" in stored[:2] else PLAIN
    recipe = matmul_template(
        "gradient", 37, 130, "batch", transpose_a=True, dtype="b2", stored=stored, epilogue=epilogue
    )
    copied = [s.args[-1] for s in recipe.steps] == ["scratch"]
    assert copied == (not target.multiplies_blocks())
    for K in (0, 1, 511, 600, 1025):
        rng = np.random.default_rng(K)
        v = operands(rng, 37, 130, K, True, False, stored, F4)
        want = reference(v, True, False, epilogue) * (v["bias"] if epilogue.tail else 1)
        got = [run_recipe(recipe, v, symbols={"batch": K}, rng=r)["out"] for r in (None, rng)]
        np.testing.assert_allclose(got[0], want, rtol=0, atol=2e-3)
        np.testing.assert_array_equal(*got)


def test_batches():
    for ta, tb, stored in ((False, False, (B2, B2, B2)), (True, False, (B2, F4, F4)),
                           (False, True, (F4, B2, F4))):  # fmt: skip
        for batch in (0, 3):
            check((13, 20, 17), {"n": batch}, ta, tb, stored=stored, batch=batch,
                  dims=(13, 20, 17))  # fmt: skip


def test_tail_reads_sums():
    """A tail of a bfloat16 result finds float32 sums, and writes outputs of any dtype."""

    def tail(index: str, column: str) -> list[str]:
        return [
            f"v = scratch[at_sums + j] * scale[{column}] + bf16_load(noise[{index}])",
            f"y[{index}] = bf16_round(v)",
            f"whole[{index}] = v",
        ]

    epilogue = Epilogue(
        bias=True, tail=tail, imports=("from nnjit.kernels.bf16 import bf16_load, bf16_round",),
        extra_params=(("scale", "f4"), ("noise", "b2"), ("whole", "f4")),
    )  # fmt: skip
    stored = (B2, F4, B2)
    for M, N, jit in ((1, 10, True), (150, 100, True), (9, 37, False)):
        recipe = matmul_template(
            "with_tail", "batch", N, 12, dtype="b2", stored=stored, epilogue=epilogue
        )
        rng = np.random.default_rng(0)
        v = operands(rng, M, N, 12, False, False, stored, F4)
        v |= {
            "scale": rng.standard_normal(N).astype(np.float32),
            "noise": shorten(rng.standard_normal((M, N))),
            "whole": np.full((M, N), np.nan, np.float32),
        }
        want = reference(v, False, False, epilogue) * v["scale"] + expand(v["noise"])
        for cut in (None, rng):
            got = run_recipe(recipe, v, ("out", "whole"), symbols={"batch": M}, jit=jit, rng=cut)
            np.testing.assert_allclose(got["whole"], want, rtol=2e-5, atol=1e-4)
            np.testing.assert_array_equal(got["out"], shorten(got["whole"]))
    with pytest.raises(ValueError, match="the tail has to do both"):
        matmul_template(
            "both", 4, 5, 6, dtype="b2", stored=stored,
            epilogue=Epilogue(final="add", tail=tail),
        )  # fmt: skip


@pytest.mark.parametrize("bits", [256, 512])
def test_emulated_and_as_plain_python(bits, monkeypatch):
    """The same products without the instruction, and the same files un-jitted."""
    from nnjit.kernels import target

    if bits > target.host_vector_bits():
        pytest.skip(f"{bits} bits are more than this CPU's vectors")
    monkeypatch.setenv("NNJIT_VECTOR_BITS", str(bits))
    monkeypatch.setenv("NNJIT_BF16", "emulate")
    epilogue = Epilogue(bias=True, final="relu")
    for ta, tb, N, K in ((False, False, 21, 13), (False, True, 35, 66), (True, False, 10, 40)):
        for jit in (True, False):
            check((17, N, K), {"batch": 17}, ta, tb, epilogue=epilogue, stored=(B2, F4, B2),
                  dims=("batch", N, K), jit=jit)  # fmt: skip
    check((33, 34, 140), {"batch": 140}, True, False, dims=(33, 34, "batch"), jit=False)
