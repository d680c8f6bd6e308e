"""Convolution kernels, forward and both gradients, against sums written out in float64 and against
torch.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from nnjit.kernels import target
from nnjit.kernels.convolution import conv2d, conv2d_dx
from nnjit.kernels.convolution_grad import conv2d_dw, plan
from nnjit.kernels.geometry import Conv
from nnjit.kernels.recipe import Epilogue
from tests.kernels.harness import run_recipe

NUMPY = {"f4": np.float32, "f8": np.float64}
WIDTHS = [bits for bits in (128, 256) if bits < target.host_vector_bits()]


def taps(c: Conv, x, dy):
    """For each kernel position: (kh, kw, the x that it meets, where they are in padded x)."""
    (_top, _bottom), (_left, _right) = c.padding
    for kh in range(c.KH):
        for kw in range(c.KW):
            h, w = kh * c.dilation[0], kw * c.dilation[1]
            yield (
                kh,
                kw,
                (
                    slice(None),
                    slice(h, h + (c.HO - 1) * c.stride[0] + 1, c.stride[0]),
                    slice(w, w + (c.WO - 1) * c.stride[1] + 1, c.stride[1]),
                ),
            )


def padded(c: Conv, x):
    around = [(low, max(high, 0)) for low, high in c.padding]  # what is left out is never read
    return np.pad(x, ((0, 0), *around, (0, 0)))


def reference(c: Conv, x, w, dy):
    """(y, dx, dw) in float64."""
    xp = padded(c, x.astype(np.float64))
    y, dxp, dw = np.zeros(dy.shape), np.zeros(xp.shape), np.zeros(w.shape)
    for kh, kw, at in taps(c, x, dy):
        for g in range(c.groups):
            i, o = slice(g * c.CG, (g + 1) * c.CG), slice(g * c.OG, (g + 1) * c.OG)
            seen = xp[at][..., i]
            y[..., o] += seen @ w[kh, kw, :, o].astype(np.float64)
            dxp[(*at, i)] += dy[..., o] @ w[kh, kw, :, o].astype(np.float64).T
            dw[kh, kw, :, o] = np.einsum("nhwi,nhwo->io", seen, dy[..., o].astype(np.float64))
    (top, _bottom), (left, _right) = c.padding
    return y, dxp[:, top : top + c.H, left : left + c.W], dw


def operands(c: Conv, batch: int, dtype: str = "f4", seed: int = 0):
    rng = np.random.default_rng(seed)

    def make(*shape):
        return rng.standard_normal(shape).astype(NUMPY[dtype])

    return make(batch, c.H, c.W, c.C), make(c.KH, c.KW, c.CG, c.O), make(batch, c.HO, c.WO, c.O)


def check(c: Conv, batches=(2, 0), dtype: str = "f4", jit: bool = True, parts=("y", "dx", "dw")):
    """Forward, input gradient and weight gradient, whole and in random chunks."""
    tolerance = 3e-5 if dtype == "f4" else 1e-11
    recipes = {"y": conv2d, "dx": conv2d_dx, "dw": conv2d_dw}
    recipes = {part: recipes[part](f"conv_{part}", c, dtype=dtype) for part in parts}
    for batch in batches:
        x, w, dy = operands(c, batch, dtype)
        want = dict(zip(("y", "dx", "dw"), reference(c, x, w, dy), strict=True))
        given = {"y": (x, w), "dx": (dy, w), "dw": (x, dy)}
        for part, recipe in recipes.items():
            a, b = given[part]
            v = {"a": a, "b": b, "out": np.full(want[part].shape, np.nan, NUMPY[dtype])}
            got = run_recipe(recipe, v, symbols={"batch": batch}, jit=jit)["out"]
            scale = max(1.0, np.abs(want[part]).max(initial=0))
            np.testing.assert_allclose(
                got, want[part], rtol=0, atol=tolerance * scale, err_msg=f"{part} of {c}"
            )
            if jit:
                again = run_recipe(
                    recipe, v, symbols={"batch": batch}, rng=np.random.default_rng(1)
                )["out"]
                np.testing.assert_array_equal(got.view(np.uint8), again.view(np.uint8))


def conv(H, W, C, O, KH, KW, **options):  # noqa: E741
    return Conv("batch", H, W, C, O, KH, KW, **options)


SAME = ((1, 1), (1, 1))
CASES = {
    "3x3": conv(7, 9, 5, 20, 3, 3),
    "one channel in": conv(8, 30, 1, 8, 3, 3),
    "three channels, padded": conv(9, 10, 3, 16, 3, 3, padding=SAME),
    "3x3 same": conv(6, 17, 16, 33, 3, 3, padding=SAME),
    "kernel row": conv(5, 12, 18, 4, 1, 5, padding=((0, 0), (2, 2))),
    "kernel column, one-sided padding": conv(9, 5, 4, 17, 4, 1, padding=((3, 0), (0, 0))),
    "stride 2": conv(9, 12, 16, 10, 3, 3, stride=(2, 2), padding=SAME),
    "stride 2, remainder": conv(10, 11, 6, 5, 3, 2, stride=(2, 3)),
    "stride over kernel": conv(11, 13, 4, 6, 2, 1, stride=(3, 4)),
    "1x1 stride 2": conv(6, 7, 17, 9, 1, 1, stride=(2, 2)),
    "1x1": conv(4, 5, 20, 17, 1, 1),
    "1x1 padded": conv(3, 4, 4, 5, 1, 1, padding=((1, 0), (2, 1))),
    "dilated": conv(11, 10, 5, 7, 3, 3, dilation=(2, 3)),
    "dilated, padded": conv(7, 9, 16, 6, 3, 2, dilation=(3, 2), padding=((3, 2), (1, 4))),
    "stride 2 and dilation 2": conv(
        10, 13, 4, 5, 3, 3, stride=(2, 2), dilation=(2, 2), padding=SAME
    ),
    "stride 2, dilation 3": conv(
        12, 12, 3, 4, 3, 3, stride=(2, 2), dilation=(3, 3), padding=((2, 3), (3, 1))
    ),
    "stride 4, dilation 6": conv(
        17, 19, 2, 3, 3, 3, stride=(4, 4), dilation=(6, 6), padding=((2, 1), (1, 2))
    ),
    "padding over kernel": conv(3, 4, 5, 6, 2, 3, padding=((4, 3), (5, 4))),
    "padding over kernel, strided": conv(
        3, 4, 16, 6, 2, 2, stride=(2, 3), padding=((4, 3), (5, 4))
    ),
    "large kernel": conv(8, 8, 2, 3, 7, 7, padding=((3, 3), (3, 3))),
    "image of one pixel": conv(1, 1, 20, 18, 3, 3, padding=SAME),
    "two groups": conv(6, 7, 8, 12, 3, 3, groups=2, padding=SAME),
    "many groups, strided": conv(
        7, 8, 12, 18, 3, 2, groups=6, stride=(2, 1), padding=((1, 0), (1, 1))
    ),
    "wide groups, dilated": conv(8, 8, 34, 40, 2, 2, groups=2, dilation=(2, 1)),
    "depthwise": conv(7, 8, 20, 20, 3, 3, groups=20, padding=SAME),
    "depthwise, stride 2": conv(
        9, 8, 5, 5, 3, 3, groups=5, stride=(2, 2), padding=((1, 0), (0, 1))
    ),
    "depthwise, multiplier 3": conv(6, 9, 4, 12, 3, 2, groups=4, padding=SAME),
    "depthwise, dilated, multiplier 2": conv(
        9, 9, 17, 34, 2, 3, groups=17, dilation=(3, 2), stride=(2, 1)
    ),
    "depthwise, large kernel": conv(9, 13, 3, 3, 7, 5, groups=3, padding=((3, 3), (2, 2))),
    "depthwise, padding over kernel": conv(
        2, 3, 3, 3, 2, 2, groups=3, padding=((3, 4), (5, 3)), stride=(2, 1)
    ),
    "last pixels not read": conv(9, 10, 5, 20, 3, 3, padding=((0, -2), (0, -1))),
    "last pixels not read, few channels": conv(9, 10, 1, 8, 3, 3, padding=((1, -2), (0, -1))),
    "last pixels not read, padded before": conv(
        9, 8, 16, 17, 3, 2, padding=((2, -3), (1, -2)), stride=(2, 1)
    ),
    "last pixels not read, 1x1": conv(4, 5, 20, 17, 1, 1, padding=((0, -1), (0, 0))),
    "last pixels not read, depthwise": conv(7, 9, 6, 6, 3, 3, groups=6, padding=((0, -2), (1, -3))),
    "depthwise, wide multiplier": conv(5, 6, 2, 36, 3, 3, groups=2, padding=SAME),
}


@pytest.mark.parametrize("name", CASES)
def test_every_combination(name):
    check(CASES[name])


SMALL = (
    "stride 2 and dilation 2",
    "three channels, padded",
    "two groups",
    "depthwise, multiplier 3",
    "1x1",
)


@pytest.mark.parametrize("name", [*SMALL, "padding over kernel"])
def test_as_plain_python(name):
    """The same files, un-jitted, with NumPy arrays."""
    c = dataclasses.replace(CASES[name], H=5, W=6)
    check(c, batches=(1,), jit=False)


@pytest.mark.parametrize("name", ["stride 2 and dilation 2", "depthwise, multiplier 3", "1x1"])
def test_double_precision(name):
    check(CASES[name], dtype="f8")


@pytest.mark.parametrize("bits", WIDTHS)
@pytest.mark.parametrize("name", ["3x3 same", "stride 2, remainder", "depthwise"])
def test_vector_widths(name, bits, monkeypatch):
    monkeypatch.setenv("NNJIT_VECTOR_BITS", str(bits))
    check(CASES[name], batches=(2,))


def test_large_weights_are_packed_and_their_gradient_is_cut_into_panels():
    c = conv(3, 5, 72, 264, 3, 3, padding=SAME)
    assert [s.template.name.split("_")[0] for s in conv2d("conv", c).steps] == ["pack", "conv"]
    assert not conv2d_dw("dw", c).temps
    check(c, batches=(2,), parts=("y", "dw"))
    grouped = conv(3, 3, 256, 264, 3, 3, padding=SAME, groups=2)
    assert not conv2d_dw("dw", grouped).temps
    check(grouped, batches=(1,), parts=("dw",))


def test_weight_gradient_in_several_passes():
    """Images too large for a pass over all rows."""
    for c in (conv(70, 65, 33, 9, 3, 3, padding=SAME), conv(150, 120, 1, 8, 3, 3, padding=SAME)):
        check(c, batches=(1,), parts=("dw",))


def test_few_channels_take_the_whole_kernel_as_rows():
    assert plan(CASES["three channels, padded"], "f4").kernel == (
        "all" if target.vector_bits() == 512 else "columns"
    )
    assert plan(CASES["3x3 same"], "f4").kernel == "none"


FINALS = ("store", "relu", "mask", "add", "add_relu")
# every final of the tile and of depthwise sums; Winograd's ("3x3 same") are in test_winograd, the
# others walk over pixels differently, and their tiles are those of the first
FINISHED = [(name, final) for name in ("two groups", "depthwise, multiplier 3") for final in FINALS]
FINISHED += [
    ("3x3 same", "mask"), ("stride 2, remainder", "add_relu"), ("1x1", "mask"), ("1x1", "add"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "final"), FINISHED)
def test_epilogues(name, final):
    """Bias, finals and a tail, forward and for the input gradient."""
    c = CASES[name]

    def tail(index, column):
        return [f"y[{index}] = y[{index}] * scale[{column}]", f"copy[{index}] = y[{index}]"]

    extra = (("scale", "f4"), ("copy", "f4"))
    x, w, dy = operands(c, 2)
    y, dx, _ = reference(c, x, w, dy)
    rng = np.random.default_rng(5)
    for make, a, want in ((conv2d, x, y), (conv2d_dx, dy, dx)):
        channels = want.shape[-1]
        v = {
            "a": a,
            "b": w,
            "bias": rng.standard_normal(channels).astype("f4"),
            "mask": rng.standard_normal(want.shape).astype("f4"),
            "residual": rng.standard_normal(want.shape).astype("f4"),
            "scale": rng.standard_normal(channels).astype("f4"),
            "copy": np.full(want.shape, np.nan, "f4"),
            "out": np.full(want.shape, np.nan, "f4"),
        }
        epilogue = Epilogue(bias=True, final=final, tail=tail, extra_params=extra)
        want = want + v["bias"]
        want = np.where(v["mask"] > 0, want, 0) if final == "mask" else want
        want = want + v["residual"] if final.startswith("add") else want
        want = np.maximum(want, 0) if final.endswith("relu") else want
        want = want * v["scale"]
        got = run_recipe(
            make("conv", c, epilogue=epilogue), v, ("out", "copy"), symbols={"batch": 2}
        )
        np.testing.assert_allclose(got["out"], want, rtol=0, atol=5e-5 * np.abs(want).max())
        np.testing.assert_array_equal(got["copy"], got["out"])


@pytest.mark.parametrize(
    "name", ["dilated, padded", "stride 2", "many groups, strided", "depthwise, stride 2"]
)
def test_against_torch(name):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    c = CASES[name]
    x, w, dy = operands(c, 2, "f8")
    y, dx, dw = reference(c, x, w, dy)
    xt = torch.from_numpy(padded(c, x).transpose(0, 3, 1, 2).copy()).requires_grad_()
    wt = torch.from_numpy(w.transpose(3, 2, 0, 1).copy()).requires_grad_()
    yt = torch.nn.functional.conv2d(xt, wt, None, c.stride, 0, c.dilation, c.groups)
    yt.backward(torch.from_numpy(dy.transpose(0, 3, 1, 2).copy()))
    np.testing.assert_allclose(y, yt.detach().numpy().transpose(0, 2, 3, 1), atol=1e-10)
    (top, _), (left, _) = c.padding
    dxt = xt.grad.numpy().transpose(0, 2, 3, 1)[:, top : top + c.H, left : left + c.W]
    np.testing.assert_allclose(dx, dxt, atol=1e-10)
    np.testing.assert_allclose(dw, wt.grad.numpy().transpose(2, 3, 1, 0), atol=1e-10)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"groups": 3}, "groups=3"),
        ({"stride": (0, 1)}, "stride"),
        ({"dilation": (9, 9)}, "does not fit"),
    ],
)
def test_errors_name_the_option(options, message):
    with pytest.raises(ValueError, match=message):
        conv(8, 8, 4, 4, 3, 3, **options)
