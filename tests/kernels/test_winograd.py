"""Winograd's convolutions: 3 x 3 kernels with stride 1, against sums written out in float64."""

from __future__ import annotations

import numpy as np
import pytest

from nnjit.kernels import target, winograd
from nnjit.kernels.convolution import conv2d, conv2d_dx
from nnjit.kernels.geometry import Conv
from nnjit.kernels.recipe import Epilogue
from nnjit.kernels.winograd_grad import fits_dw
from tests.kernels.harness import run_recipe
from tests.kernels.test_convolution import FINALS, check, operands, reference

WIDTHS = [bits for bits in (128, 256) if bits < target.host_vector_bits()]


def conv(H, W, C, O, padding=((0, 0), (0, 0)), batch="batch"):  # noqa: E741
    return Conv(batch, H, W, C, O, 3, 3, padding=padding)


SAME = ((1, 1), (1, 1))
CASES = {
    "odd sizes, ragged channels": conv(7, 9, 17, 33, SAME),
    "unpadded, even": conv(10, 8, 16, 32),
    "unpadded, odd": conv(9, 7, 65, 16),
    "one-sided padding": conv(6, 5, 19, 20, ((0, 2), (1, 0))),
    "full padding": conv(4, 3, 16, 17, ((2, 2), (2, 2))),
    "wide image, cut into columns": conv(3, 96, 16, 16, SAME),
    "wide image with an odd end": conv(3, 63, 33, 16, SAME),
    "several rows of blocks a pass": conv(12, 6, 18, 16, ((1, 1), (2, 0))),
    "last pixels not read": conv(10, 9, 16, 20, ((0, -3), (1, -2))),
    "large weights": conv(5, 6, 96, 96, SAME),
}


def fitting(c: Conv) -> bool:
    return winograd.fits(c, "f4")


@pytest.mark.parametrize("name", CASES)
def test_every_shape(name):
    c = CASES[name]
    assert fitting(c)
    steps = [s.template.name for s in conv2d("conv", c).steps]
    own = f"_{c.C * c.O}" if c.C * c.O % target.lanes("f4") else ""  # of all vectors: one kernel
    assert steps == [f"pack_points{own}_f4", "conv"]
    check(c, batches=(3, 0))


def test_weight_gradients_that_are_large_are_sums():
    assert fits_dw(CASES["unpadded, even"], "f4")
    assert fitting(conv(8, 8, 96, 96))
    assert not fits_dw(conv(8, 8, 96, 96), "f4")
    some = conv(64, 10, 16, 16, SAME)  # several passes an image, more parts than images
    check(some, batches=(1, 33), parts=("dw",))


def test_other_convolutions_are_sums(monkeypatch):
    one = CASES["unpadded, even"]
    for other in (
        Conv("batch", 10, 8, 16, 32, 3, 3, stride=(2, 1)),
        Conv("batch", 10, 8, 16, 32, 3, 3, dilation=(1, 2)),
        Conv("batch", 10, 8, 16, 32, 3, 3, groups=2),
        Conv("batch", 10, 8, 16, 32, 3, 5),
        conv(10, 8, 1, 32),
        conv(3, 3, 16, 32),
        conv(10, 8, 16, 32, ((3, 0), (0, 0))),
    ):
        assert not fitting(other)
    monkeypatch.setenv("NNJIT_WINOGRAD", "0")
    assert not fitting(one)
    check(one, batches=(2,))


@pytest.mark.parametrize("final", FINALS)
def test_epilogues(final):
    """Bias, finals and a tail, forward and for the input gradient."""
    c = CASES["wide image with an odd end" if final == "mask" else "odd sizes, ragged channels"]
    extra = (("scale", "f4"), ("copy", "f4"))

    def tail(index, column):
        # `v` as the emitter writes it: large values, so that a clash of names does not pass
        return [f"v = y[{index}] * scale[{column}]", f"y[{index}] = v", f"copy[{index}] = v"]

    x, w, dy = operands(c, 2)
    y, dx, _ = reference(c, x, w, dy)
    rng = np.random.default_rng(5)
    for make, a, want in ((conv2d, x, y), (conv2d_dx, dy, dx)):
        shape, channels = want.shape, want.shape[-1]
        v = {
            "a": a,
            "b": w,
            "bias": rng.standard_normal(channels).astype("f4"),
            "mask": rng.standard_normal(shape).astype("f4"),
            "residual": rng.standard_normal(shape).astype("f4"),
            "scale": rng.standard_normal(channels).astype("f4") * np.float32(1e3),
            "copy": np.full(shape, np.nan, "f4"),
            "out": np.full(shape, np.nan, "f4"),
        }
        epilogue = Epilogue(bias=True, final=final, tail=tail, extra_params=extra)
        want = want + v["bias"]
        want = np.where(v["mask"] > 0, want, 0) if final == "mask" else want
        want = want + v["residual"] if final.startswith("add") else want
        want = np.maximum(want, 0) if final.endswith("relu") else want
        want = want * v["scale"]
        recipe = make("conv", c, epilogue=epilogue)
        got = run_recipe(recipe, v, ("out", "copy"), symbols={"batch": 2})
        np.testing.assert_allclose(got["out"], want, rtol=0, atol=5e-5 * np.abs(want).max())
        np.testing.assert_array_equal(got["copy"], got["out"])


@pytest.mark.parametrize("name", ["wide image, cut into columns", "strided"])
def test_a_tail_that_reads_no_column_is_one_loop_a_row(name):
    """The residual and the mask of a block of a ResNet, for the input gradient."""
    strided = Conv("batch", 7, 9, 17, 16, 3, 3, stride=(2, 2), padding=SAME)
    c = strided if name == "strided" else CASES[name]
    extra = (("more", "f4"), ("m", "f4"))

    def tail(index, column):
        return [f"y[{index}] = y[{index}] + more[{index}] if m[{index}] > f4(0) else f4(0)"]

    x, w, dy = operands(c, 2)
    _, dx, _ = reference(c, x, w, dy)
    rng = np.random.default_rng(5)
    v = {k: rng.standard_normal(dx.shape).astype("f4") for k in ("more", "m")}
    want = np.where(v["m"] > 0, dx + v["more"], 0)
    v |= {"a": dy, "b": w, "out": np.full(dx.shape, np.nan, "f4")}
    recipe = conv2d_dx("conv", c, epilogue=Epilogue(tail=tail, extra_params=extra))
    for jit in (True, False):
        got = run_recipe(recipe, v, symbols={"batch": 2}, jit=jit)["out"]
        np.testing.assert_allclose(got, want, rtol=0, atol=3e-5 * np.abs(want).max())


def test_what_is_not_finite_reaches_the_same_results():
    """NaN exactly where the sum has it; an infinity may turn into NaN, but stays where it is."""
    c = CASES["odd sizes, ragged channels"]
    x, w, dy = operands(c, 3)
    x[0, 3, 4, 5], x[1, 0, 8, 2], x[2, 6, 0, 1] = np.nan, np.inf, -np.inf
    with np.errstate(invalid="ignore"):
        want, _, _ = reference(c, x, w, dy)
    v = {"a": x, "b": w, "out": np.full(want.shape, np.nan, "f4")}
    got = run_recipe(conv2d("conv", c), v, symbols={"batch": 3})["out"]
    np.testing.assert_array_equal(np.isnan(got[0]), np.isnan(want[0]))
    np.testing.assert_array_equal(np.isfinite(got), np.isfinite(want))
    finite = np.isfinite(want)
    np.testing.assert_allclose(got[finite], want[finite], rtol=0, atol=1e-3)


def test_as_plain_python():
    check(conv(5, 6, 16, 17, SAME), batches=(1,), jit=False)


def test_double_precision():
    check(CASES["one-sided padding"], batches=(2,), dtype="f8")


@pytest.mark.parametrize("bits", WIDTHS)
def test_vector_widths(bits, monkeypatch):
    monkeypatch.setenv("NNJIT_VECTOR_BITS", str(bits))
    check(CASES["unpadded, odd"], batches=(2,))
