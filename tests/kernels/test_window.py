"""Pooling kernels against NumPy loops in float64, and against torch."""

from __future__ import annotations

import numpy as np
import pytest

from nnjit.kernels.bf16 import expand, shorten
from nnjit.kernels.window import (
    avg_pool,
    avg_pool_grad,
    max_pool,
    max_pool_grad,
)
from nnjit.kernels.window_text import Window, window_of
from tests.kernels.launch import launch

NONE = ((0, 0), (0, 0))
#: h, w, c, window, strides, padding
GEOMETRIES = {
    "halves": (6, 8, 16, (2, 2), (2, 2), NONE),
    "remainder": (7, 9, 5, (2, 2), (2, 2), NONE),
    "overlap, same padding": (8, 8, 16, (3, 3), (2, 2), ((0, 1), (0, 1))),
    "overlap, torch padding": (7, 9, 3, (3, 3), (2, 2), ((1, 1), (1, 1))),
    "stride one": (5, 6, 4, (3, 2), (1, 1), ((1, 1), (0, 1))),
    "gaps": (11, 10, 4, (2, 2), (3, 4), NONE),
    "gaps and padding": (10, 9, 4, (2, 3), (4, 4), ((1, 0), (2, 1))),
    "one row": (1, 9, 20, (1, 3), (1, 2), NONE),
    "large window": (7, 7, 8, (7, 7), (7, 7), NONE),
    "large window, padded": (6, 6, 8, (5, 5), (1, 1), ((2, 2), (2, 2))),
    "window above 256": (17, 18, 2, (17, 16), (1, 1), NONE),
    "smaller than the window": (2, 3, 4, (4, 4), (2, 2), ((2, 2), (1, 3))),
}
N = 3


def windows(g: Window):
    """(i, j, slices of the image, first valid row and column of the window) in order."""
    for i in range(g.ho):
        for j in range(g.wo):
            top, left = i * g.sh - g.top, j * g.sw - g.left
            p0, q0 = max(0, -top), max(0, -left)
            rows = slice(top + p0, min(g.h, top + g.kh))
            columns = slice(left + q0, min(g.w, left + g.kw))
            yield i, j, rows, columns, p0, q0


def numpy_max(x, g: Window):
    n, _, _, c = x.shape
    y, index = np.empty((n, g.ho, g.wo, c), x.dtype), np.empty((n, g.ho, g.wo, c), np.int64)
    for i, j, rows, columns, p0, q0 in windows(g):
        part = x[:, rows, columns]
        flat = part.reshape(n, -1, c)
        k = flat.argmax(1)  # the first maximum
        y[:, i, j] = np.take_along_axis(flat, k[:, None], 1)[:, 0]
        index[:, i, j] = (p0 + k // part.shape[2]) * g.kw + q0 + k % part.shape[2]
    return y, index


def numpy_max_grad(dy, index, g: Window):
    dx = np.zeros((dy.shape[0], g.h, g.w, g.c))
    for i, j, *_ in windows(g):
        for n, c in np.ndindex(dy.shape[0], g.c):
            p, q = divmod(int(index[n, i, j, c]), g.kw)
            dx[n, i * g.sh - g.top + p, j * g.sw - g.left + q, c] += dy[n, i, j, c]
    return dx


def numpy_avg(x, g: Window, include: bool, dy=None):
    """y, or dx if dy is given."""
    y, dx = np.empty((x.shape[0], g.ho, g.wo, g.c)), np.zeros(x.shape)
    for i, j, rows, columns, *_ in windows(g):
        part = x[:, rows, columns]
        count = g.kh * g.kw if include else part.shape[1] * part.shape[2]
        y[:, i, j] = part.sum((1, 2)) / count
        if dy is not None:
            dx[:, rows, columns] += dy[:, i, j][:, None, None] / count
    return y if dy is None else dx


def make(name: str, dtype: str, seed: int = 0):
    """Geometry arguments, the geometry, and an image with ties."""
    args = GEOMETRIES[name]
    g = window_of(*args)
    rng = np.random.default_rng(seed)
    x = np.round(rng.normal(size=(N, g.h, g.w, g.c)) * 2).astype(
        {"f4": "float32", "f8": "float64"}[dtype]
    )
    return args, g, x, rng


@pytest.mark.parametrize(
    ("name", "dtype"),
    # float64 needs one geometry of each form
    [*((name, "f4") for name in GEOMETRIES), ("remainder", "f8"), ("overlap, same padding", "f8")],
)
def test_max_pool_and_its_gradient(name, dtype):
    args, g, x, rng = make(name, dtype)
    t = max_pool("batch", *args, dtype)
    shape = (N, g.ho, g.wo, g.c)
    y, index = launch(t, {"x": x}, {"y": shape, "index": shape}, rng, batch=N)
    expected, where = numpy_max(x, g)
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(index, where)
    (plain,) = launch(max_pool(N, *args, dtype, with_index=False), {"x": x}, {"y": shape}, rng)
    np.testing.assert_array_equal(plain, expected)

    dy = rng.normal(size=shape).astype(x.dtype)
    inputs = {"dy": dy, "index": index, "y": y}
    for mask in (False, True):
        t = max_pool_grad("batch", *args, dtype, relu_mask=mask)
        (dx,) = launch(t, inputs, {"dx": x.shape}, rng, batch=N)
        exact = numpy_max_grad(np.where(y > 0, dy, 0) if mask else dy.astype("f8"), where, g)
        np.testing.assert_allclose(dx, exact, rtol=1e-5 if dtype == "f4" else 1e-14, atol=1e-6)
        (whole,) = launch(t, inputs, {"dx": x.shape}, batch=N)
        assert np.array_equal(dx, whole), "the chunks changed the result"


@pytest.mark.parametrize("name", ["remainder", "overlap, same padding"])
def test_max_pool_of_bfloat16(name):
    args, g, x, rng = make(name, "f4")
    x = expand(shorten(x * 1.01))
    shape = (N, g.ho, g.wo, g.c)
    t = max_pool("batch", *args, "b2")
    y, index = launch(t, {"x": shorten(x)}, {"y": shape, "index": shape}, rng, batch=N)
    expected, where = numpy_max(x, g)
    np.testing.assert_array_equal(expand(y), expected)
    np.testing.assert_array_equal(index, where)
    if g.tiles:
        dy = shorten(rng.normal(size=shape))
        t = max_pool_grad("batch", *args, "b2")
        (dx,) = launch(t, {"dy": dy, "index": index}, {"dx": x.shape}, rng, batch=N)
        np.testing.assert_array_equal(expand(dx), numpy_max_grad(expand(dy), where, g))


CLIPPED = [name for name, args in GEOMETRIES.items() if window_of(*args).clipped]


@pytest.mark.parametrize(
    ("name", "include"),
    # without padding both counts are the same
    [*((name, False) for name in GEOMETRIES), *((name, True) for name in CLIPPED)],
)
def test_avg_pool_and_its_gradient(name, include):
    args, g, x, rng = make(name, "f4")
    shape = (N, g.ho, g.wo, g.c)
    t = avg_pool("batch", *args, count_include_pad=include)
    (y,) = launch(t, {"x": x}, {"y": shape}, rng, batch=N)
    np.testing.assert_allclose(y, numpy_avg(x.astype("f8"), g, include), rtol=1e-5, atol=1e-6)
    dy = rng.normal(size=shape).astype("f4")
    t = avg_pool_grad("batch", *args, count_include_pad=include)
    (dx,) = launch(t, {"dy": dy}, {"dx": x.shape}, rng, batch=N)
    exact = numpy_avg(x.astype("f8"), g, include, dy.astype("f8"))
    np.testing.assert_allclose(dx, exact, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["remainder", "overlap, torch padding", "gaps and padding"])
def test_un_jitted_is_the_same(name):
    args, g, x, rng = make(name, "f4")
    x, shape = x[:1], (1, g.ho, g.wo, g.c)
    dy = rng.normal(size=shape).astype("f4")
    y, index = launch(max_pool(1, *args), {"x": x}, {"y": shape, "index": shape})
    inputs = {"x": x, "dy": dy, "y": y, "index": index}
    for t, outputs in [
        (max_pool(1, *args), {"y": shape, "index": shape}),
        (max_pool_grad(1, *args, relu_mask=True), {"dx": x.shape}),
        (avg_pool(1, *args), {"y": shape}),
        (avg_pool_grad(1, *args), {"dx": x.shape}),
    ]:
        given = {name: a for name, a in inputs.items() if name not in outputs}
        jitted = launch(t, given, outputs)
        for a, b in zip(jitted, launch(t, given, outputs, jit=False), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("pad", [0, 1])
def test_nan_and_infinity_as_torch(pad):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    rng = np.random.default_rng(3)
    x = rng.normal(size=(2, 7, 8, 19)).astype("f4")
    x[rng.random(x.shape) < 0.1] = np.nan
    x[rng.random(x.shape) < 0.1] = np.inf
    x[rng.random(x.shape) < 0.3] = -np.inf
    args = (7, 8, 19, (3, 3), (2, 2), ((pad, pad), (pad, pad)))
    g = window_of(*args)
    shape = (2, g.ho, g.wo, 19)
    y, index = launch(max_pool(2, *args), {"x": x}, {"y": shape, "index": shape})
    as_torch = torch.tensor(x.transpose(0, 3, 1, 2).copy())
    ty, flat = torch.nn.functional.max_pool2d(as_torch, 3, 2, pad, return_indices=True)
    np.testing.assert_array_equal(y, ty.numpy().transpose(0, 2, 3, 1))
    i, j = np.arange(g.ho)[:, None, None], np.arange(g.wo)[None, :, None]
    rows, columns = i * 2 - pad + index // 3, j * 2 - pad + index % 3
    np.testing.assert_array_equal(rows * 8 + columns, flat.numpy().transpose(0, 2, 3, 1))
    (plain,) = launch(max_pool(2, *args, with_index=False), {"x": x}, {"y": shape})
    np.testing.assert_array_equal(plain, y)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((4, 4, 1, (2, 2), (2, 2), ((2, 0), (0, 0))), "less than the window"),
        ((2, 4, 1, (3, 3), (1, 1), NONE), "larger than the padded image"),
        ((4, 4, 1, (2, 2), (0, 1), NONE), "at least 1"),
    ],
)
def test_impossible_windows_say_why(args, message):
    with pytest.raises(ValueError, match=message):
        max_pool("batch", *args)
