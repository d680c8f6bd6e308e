"""Attention kernels against the ops' NumPy meaning in float64: ragged times, depths, masks, NaN."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from nnjit.kernels.attention import attention_forward
from nnjit.kernels.attention_grad import attention_gradient
from nnjit.kernels.attention_text import Attention
from nnjit.kernels.recipe import Recipe, Step
from nnjit.kernels.template import render
from nnjit.ops.attention import _grad_numpy, _numpy
from tests.kernels.harness import run_recipe
from tests.kernels.test_math import evaluate

NUMPY = {"f4": np.float32, "f8": np.float64}
CLOSE = {"f4": 3e-5, "f8": 1e-12}


@dataclass(frozen=True)
class Case:
    """Shapes that a kernel is made for, and the batch and times it then runs with.

    mask: for each of batch, heads, queries, keys whether the mask varies along it.
    """

    d: int
    dv: int = 0
    heads: int = 2
    kv: int = 2
    causal: bool = False
    mask: tuple[int, int, int, int] | None = None
    dtype: str = "f4"
    fixed: tuple[int, int] | None = None
    times: tuple[tuple[int, int], ...] = ((1, 1), (5, 17), (65, 63), (40, 200))

    def attention(self) -> Attention:
        queries, keys = self.fixed or ("n_t", "n_s")
        whole = ("batch", self.heads, queries, keys)
        mask = self.mask and tuple(w if m else 1 for m, w in zip(self.mask, whole, strict=True))
        return Attention("batch", queries, keys, self.heads, self.kv, self.d, self.dv or self.d,
                         0.3, self.causal, mask, self.dtype)  # fmt: skip


CASES = {
    "plain": Case(32),
    "causal": Case(64, causal=True, times=((1, 1), (17, 17), (65, 65), (200, 200), (33, 70))),
    "causal, fixed": Case(8, causal=True, fixed=(64, 64)),
    "few queries, fixed": Case(16, fixed=(5, 63)),
    "grouped, causal": Case(17, 5, 6, 2, True, times=((63, 63), (70, 33))),
    "depth 1": Case(1, 1, times=((5, 17), (40, 130))),
    "wide": Case(80, 128, 1, 1, times=((17, 65),)),
    "key mask": Case(16, mask=(1, 0, 0, 1)),
    "query mask, causal": Case(16, causal=True, mask=(1, 0, 1, 0), times=((63, 65), (5, 5))),
    "time mask": Case(16, mask=(0, 0, 1, 1), times=((33, 130),)),
    "whole mask, grouped": Case(9, 20, 4, 1, mask=(1, 1, 1, 1), times=((33, 130), (1, 9))),
    "double": Case(10, 6, causal=True, dtype="f8", times=((17, 17), (65, 65), (20, 200))),
    "double, mask": Case(33, mask=(1, 0, 0, 1), dtype="f8", times=((17, 63),)),
}
cases = pytest.mark.parametrize("name", CASES)
COMPILED = ["plain", "causal", "causal, fixed", "whole mask, grouped", "double"]


def operands(case: Case, batch: int, queries: int, keys: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng([queries, keys, case.d])
    dv, dtype = case.dv or case.d, NUMPY[case.dtype]
    shapes = {
        "q": (batch, queries, case.heads, case.d), "k": (batch, keys, case.kv, case.d),
        "v": (batch, keys, case.kv, dv), "dout": (batch, queries, case.heads, dv),
    }  # fmt: skip
    given = {n: rng.standard_normal(s).astype(dtype) for n, s in shapes.items()}
    if case.mask:
        whole = (batch, case.heads, queries, keys)
        shape = [w if m else 1 for m, w in zip(case.mask, whole, strict=True)]
        given["mask"] = (rng.random(shape) < 0.5).astype(np.uint8)
    return given


def meaning(case: Case, given: dict[str, np.ndarray], dtype: type = np.float64):
    """out, lse, dq, dk, dv by the ops' NumPy meaning."""
    a = [given[n].astype(dtype) for n in "qkv"]
    a += [given["mask"] != 0] if "mask" in given else []
    options = {"scale": 0.3, "causal": case.causal}
    with np.errstate(all="ignore"):
        found = {r: _numpy(None, *a, **options, result=r) for r in ("out", "lse")}
        a += [found["out"], found["lse"], given["dout"].astype(dtype)]
        grads = ("dq", "dk", "dv")
        found |= {r: _grad_numpy(None, *a, **options, result=r) for r in grads}
    return found


def run(template, given, outputs, batch, queries, keys, rng=None, jit=True):
    roles = tuple(name for name, _ in template.params)
    dtype = given["q"].dtype
    held = given | {n: np.full(s, np.nan, dtype) for n, s in outputs.items()}
    symbols = {"batch": batch, "n_t": queries, "n_s": keys}
    recipe = Recipe((Step(template, roles),))
    return run_recipe(recipe, {r: held[r] for r in roles if r != "scratch"}, tuple(outputs),
                      symbols, rng, jit)  # fmt: skip


def both(case: Case, batch: int, queries: int, keys: int, given, rng=None, jit=True):
    """All results of the two kernels; the gradient reads what the forward kernel gave."""
    a = case.attention()
    shapes = {n: given[n].shape for n in "qkv"}
    outputs = {"out": given["dout"].shape, "lse": given["dout"].shape[:3]}
    size = (batch, queries, keys, rng, jit)
    got = run(attention_forward(a), given, outputs, *size)
    grads = {f"d{n}": s for n, s in shapes.items()}
    return got | run(attention_gradient(a), given | got, grads, *size)


def close(got, want, case: Case, where: str = "") -> None:
    for name, w in want.items():
        scale = np.abs(w[np.isfinite(w)]).max(initial=1)
        np.testing.assert_allclose(
            got[name], w, CLOSE[case.dtype], CLOSE[case.dtype] * scale, err_msg=f"{name} {where}"
        )


def compare(case: Case, jit: bool, times) -> None:
    rng = np.random.default_rng(1)
    for queries, keys in times:
        given = operands(case, 2, queries, keys)
        got = both(case, 2, queries, keys, given, rng, jit)
        close(got, meaning(case, given), case, f"{queries} x {keys}")


@cases
def test_results_are_those_of_the_meaning_in_float64(name):
    """of the kernels as plain Python, whose text machine code is made from."""
    case = CASES[name]
    small = [t for t in case.times if max(t) <= 33] or [(9, 17)]
    compare(case, False, [case.fixed] if case.fixed else small[:2])


@pytest.mark.parametrize("name", COMPILED)
def test_machine_code_gives_the_same_for_all_times(name):
    case = CASES[name]
    compare(case, True, [case.fixed] if case.fixed else case.times)


def test_bits_do_not_depend_on_the_chunks():
    case = CASES["causal"]
    given = operands(case, 3, 65, 65)
    whole = both(case, 3, 65, 65, given)
    for seed in range(3):
        cut = both(case, 3, 65, 65, given, np.random.default_rng(seed))
        for name, value in whole.items():
            np.testing.assert_array_equal(cut[name], value, err_msg=name)


def test_no_keys_and_no_queries_are_legal():
    case = CASES["plain"]
    got = both(case, 2, 3, 0, operands(case, 2, 3, 0))
    assert not got["out"].any()
    assert (got["lse"] == -np.inf).all()
    assert not got["dq"].any()
    got = both(case, 2, 0, 3, operands(case, 2, 0, 3))
    assert not got["dk"].any()
    assert not got["dv"].any()


def test_a_query_that_sees_no_key_gives_zero():
    case = CASES["whole mask, grouped"]
    given = operands(case, 2, 33, 17)
    given["mask"][1] = 0
    got = both(case, 2, 33, 17, given)
    for name in ("out", "dq", "dk", "dv"):
        assert not got[name][1].any(), name
        assert got[name][0].any(), name
    assert (got["lse"][1] == -np.inf).all()


@pytest.mark.parametrize("name", ["plain", "causal"])
def test_nan_and_infinity_spread_as_in_the_meaning(name):
    """in values that all queries see."""
    case = CASES[name]
    for what, at, value in (
        ("q", (0, 20, 0, 3), np.nan), ("k", (0, 0, 1, 2), np.nan), ("k", (0, 0, 1, 2), np.inf),
        ("v", (0, 0, 1, 2), np.nan), ("v", (0, 0, 0, 2), np.inf), ("q", (0, 39, 0, 3), -np.inf),
    ):  # fmt: skip
        given = operands(case, 1, 40, 40)
        given[what][at] = value
        got, want = both(case, 1, 40, 40, given), meaning(case, given)
        for result in ("out", "lse"):
            np.testing.assert_array_equal(np.isnan(got[result]), np.isnan(want[result]))
            np.testing.assert_array_equal(np.isinf(got[result]), np.isinf(want[result]))


def test_large_scores_do_not_overflow():
    case = CASES["plain"]
    given = operands(case, 1, 17, 65)
    given["q"] *= 40
    given["k"] *= 40
    got, want = both(case, 1, 17, 65, given), meaning(case, given, np.float64)
    assert np.isfinite(got["out"]).all()
    np.testing.assert_allclose(got["lse"], want["lse"], 1e-5)


@pytest.mark.parametrize("wanted", [("dq",), ("dv",), ("dk", "dv")])
def test_only_the_wanted_gradients_are_made(wanted):
    case = CASES["plain"]
    given = operands(case, 2, 5, 17)
    want = meaning(case, given)
    given |= {n: want[n].astype("f4") for n in ("out", "lse")}
    template = attention_gradient(case.attention(), wanted)
    got = run(template, given, {w: given[w[1]].shape for w in wanted}, 2, 5, 17, jit=False)
    close(got, {w: want[w] for w in wanted}, case)
    assert len(render(template)) < len(render(attention_gradient(case.attention())))


@pytest.mark.parametrize(("code", "lowest", "ulp"), [("f4", -126, 2), ("f8", -1022, 3)])
def test_exp2_below_is_exact_at_zero_and_close_elsewhere(code, lowest, ulp):
    dtype = NUMPY[code]
    x = np.linspace(lowest, 0, 20001).astype(dtype)
    got, want = evaluate("exp2_below", x), np.exp2(x.astype(np.longdouble))
    assert np.abs((got - want) / want).max() < ulp * np.finfo(dtype).eps
    edge = np.array([-np.inf, 1.01 * lowest, -1e30, 0, np.nan], dtype)
    for jit in (True, False):
        got = evaluate("exp2_below", edge, jit=jit)
        np.testing.assert_array_equal(got, np.array([0, 0, 0, 1, np.nan], dtype))
