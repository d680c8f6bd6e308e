"""Convolutions of bfloat16 against sums of the rounded operands in float64."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from nnjit.kernels import convolution_grad, convolution_pairs, winograd
from nnjit.kernels.bf16 import expand, shorten
from nnjit.kernels.convolution_plan import plan, rows_per_pass
from nnjit.kernels.geometry import Conv
from nnjit.kernels.recipe import Epilogue
from tests.kernels.harness import run_recipe
from tests.kernels.test_convolution import CASES, operands, reference

NAMES = ("one channel in", "3x3 same", "stride 2", "1x1 padded", "wide groups, dilated",
         "depthwise", "three channels, padded")  # fmt: skip
SMALL = Conv("batch", 10, 8, 16, 32, 3, 3)  # by Winograd
MORE = {
    "Winograd": SMALL,
    "Winograd of float32": Conv("batch", 6, 8, 17, 32, 3, 3),
    "wide 1x1": Conv("batch", 4, 5, 32, 34, 1, 1),
}


def rounded(c: Conv):
    return tuple(expand(shorten(v)) for v in operands(c, 2))


def run(part: str, c: Conv, a, b, want, stored, epilogue=None, more=None, **options):
    options_of = {} if epilogue is None else {"epilogue": epilogue}
    recipe = getattr(convolution_pairs, part)("conv", c, stored=stored, **options_of)
    empty = np.full(want.shape, *((0x7FC0, "u2") if stored[2] == "b2" else (np.nan, "f4")))
    kept = [shorten(v) if code == "b2" else v for v, code in zip((a, b), stored, strict=False)]
    v = {"a": kept[0], "b": kept[1], "out": empty, **(more or {})}
    got = run_recipe(recipe, v, symbols={"batch": 2}, **options)["out"]
    return expand(got) if stored[2] == "b2" else got


def test_without_amx(monkeypatch):
    """Winograd's products alone are done in other ways with it."""
    monkeypatch.setenv("NNJIT_BF16", "pairs")
    test_every_kind("Winograd")


@pytest.mark.parametrize("name", [*NAMES, *MORE])
def test_every_kind(name):
    """Weights of either dtype, results of either, and the same bits however a launch is cut."""
    c = {**CASES, **MORE}[name]
    assert winograd.fits(c, "b2") == (name == "Winograd")
    assert winograd.fits(c, "f4") or not name.startswith("Winograd")
    x, w, dy = rounded(c)
    y, dx, dw = reference(c, x, w, dy)
    for part, a, b, want, stored in (
        ("conv2d", x, w, y, ("b2", "f4", "b2")),
        ("conv2d_dx", dy, w, dx, ("b2", "b2", "f4")),
        ("conv2d_dw", x, dy, dw, ("b2", "b2", "f4")),
    ):
        got = run(part, c, a, b, want, stored)
        np.testing.assert_allclose(got, want, rtol=0, atol=0.01 * np.abs(want).max())
        again = run(part, c, a, b, want, stored, rng=np.random.default_rng(1))
        np.testing.assert_array_equal(got, again)


@pytest.mark.parametrize("name", ["one channel in", "3x3 same", "Winograd"])
def test_what_follows(name):
    """Bias, a mask of bfloat16 and a tail on a bfloat16 result."""
    c = SMALL if name == "Winograd" else CASES[name]
    x, w, dy = rounded(c)
    y = reference(c, x, w, dy)[0]
    rng = np.random.default_rng(2)
    mask, bias = rng.standard_normal(y.shape).astype("f4"), rng.standard_normal(c.O).astype("f4")

    def tail(index, column):
        return ["v = scratch[at_sums + j]", f"y[{index}] = bf16_round(v * f4(2))"]

    def by_channel(index, column):
        return [f"v = scratch[at_sums + j] * scale[{column}]", f"y[{index}] = bf16_round(v)"]

    imports = ("from numpy import float32 as f4", "from nnjit.kernels.bf16 import bf16_round")
    scale = np.linspace(1, 2, c.O, dtype="f4")
    more = {"bias": bias, "mask": shorten(mask), "scale": scale}
    want = np.where(expand(more["mask"]) > 0, y + bias, 0)
    for ep, factor in (
        (Epilogue(bias=True, final="mask", beside="b2"), 1),
        (Epilogue(bias=True, final="mask", beside="b2", tail=tail, imports=imports), 2),
        (
            Epilogue(
                bias=True,
                final="mask",
                beside="b2",
                tail=by_channel,
                imports=imports[1:],
                extra_params=(("scale", "f4"),),
            ),
            scale,
        ),
    ):
        got = run("conv2d", c, x, w, y, ("b2", "f4", "b2"), ep, more)
        np.testing.assert_allclose(got, factor * want, rtol=0, atol=0.02 * np.abs(want).max())


def test_as_plain_python_and_emulated(monkeypatch):
    c = SMALL
    x, w, dy = rounded(c)
    y = reference(c, x, w, dy)[0]
    got = [run("conv2d", c, x, w, y, ("b2", "f4", "f4"), jit=jit) for jit in (True, False)]
    monkeypatch.setenv("NNJIT_BF16", "emulate")
    got.append(run("conv2d", c, x, w, y, ("b2", "f4", "f4")))
    for result in got:
        np.testing.assert_allclose(result, y, rtol=0, atol=0.01 * np.abs(y).max())


def test_weight_gradient_in_several_passes():
    """Rows of dy become float32 pass by pass, where the kernel is clipped at borders too."""
    same = ((1, 1), (1, 1))
    for c in (
        Conv("batch", 40, 45, 33, 9, 3, 3, stride=(1, 2), padding=same),
        Conv("batch", 70, 60, 1, 16, 3, 3, padding=same),
    ):
        assert rows_per_pass(replace(plan(c, "f4"), wide=True)) < c.HO
        assert convolution_grad.widens(c)[1] == "b2"
        x, w, dy = rounded(c)
        dw = reference(c, x, w, dy)[2]
        got = run("conv2d_dw", c, x, dy, dw, ("b2", "b2", "f4"))
        np.testing.assert_allclose(got, dw, rtol=0, atol=1e-4 * np.abs(dw).max())
