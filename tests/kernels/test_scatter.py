"""Gather and scatter-add of table rows against NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from nnjit.kernels.scatter import gather_rows, scatter_add_rows
from nnjit.kernels.target import DTYPES
from tests.kernels.launch import launch

#: rows of the table, width, number of indices
SHAPES = [(1, 1, 5), (7, 3, 40), (50, 64, 33), (1000, 8, 1), (300, 17, 0)]


def make(rows, width, n, dtype, index_dtype, outside=True):
    rng = np.random.default_rng(rows)
    table = (rng.normal(size=(rows, width)) * 10).astype(DTYPES[dtype][0])
    signed = index_dtype.startswith("i")
    low, high = (-2 if signed and outside else 0), rows + (2 if outside else 0)
    index = rng.integers(low, min(high, 256), n).astype(DTYPES[index_dtype][0])
    if outside and n > 20 and index_dtype != "u1":
        index[[3, 11]] = [np.iinfo(index.dtype).min, np.iinfo(index.dtype).max]
    return table, index, (index >= 0) & (index < rows), rng


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("dtype", "index_dtype"), [("f4", "i4"), ("f8", "i8"), ("i4", "u1"), ("f4", "u4")]
)
def test_gather(shape, dtype, index_dtype):
    table, index, inside, rng = make(*shape, dtype, index_dtype)
    rows, width, n = shape
    expected = np.full((n, width), 0 if dtype == "i4" else np.nan, table.dtype)
    expected[inside] = table[index[inside]]
    for count in ("n", n):
        t = gather_rows(count, rows, width, dtype, index_dtype)
        (y,) = launch(t, {"table": table, "index": index}, {"y": expected.shape}, rng, n=n)
        np.testing.assert_array_equal(y, expected)
    (y,) = launch(t, {"table": table, "index": index}, {"y": expected.shape}, jit=False)
    np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("dtype", "index_dtype"), [("f4", "i4"), ("f8", "i8"), ("i4", "u1")])
def test_scatter_add(shape, dtype, index_dtype):
    table, index, inside, rng = make(*shape, dtype, index_dtype)
    rows, width, n = shape
    dy = (rng.normal(size=(n, width)) * 10).astype(table.dtype)
    exact = np.zeros(table.shape)
    np.add.at(exact, index[inside], dy[inside].astype("f8"))
    inputs, outputs = {"index": index, "dy": dy}, {"dtable": table.shape}
    t = scatter_add_rows("n", rows, width, dtype, index_dtype)
    (whole,) = launch(t, inputs, outputs, n=n)
    np.testing.assert_allclose(whole, exact, rtol=1e-5, atol=1e-4)
    for _ in range(3):
        (parts,) = launch(t, inputs, outputs, rng, n=n)
        assert np.array_equal(parts, whole), "the chunks changed the result"
    (fixed,) = launch(scatter_add_rows(n, rows, width, dtype, index_dtype), inputs, outputs)
    assert np.array_equal(fixed, whole)
    (plain,) = launch(t, inputs, outputs, jit=False, n=n)
    assert np.array_equal(plain, whole)


def test_count_may_be_an_expression():
    table, index, _, rng = make(7, 3, 40, "f4", "i4", outside=False)
    t = gather_rows("batch * 20", 7, 3)
    (y,) = launch(t, {"table": table, "index": index}, {"y": (40, 3)}, rng, batch=2)
    np.testing.assert_array_equal(y, table[index])
    dy = np.ones((40, 3), "f4")
    t = scatter_add_rows("batch * 20", 7, 3)
    (d,) = launch(t, {"index": index, "dy": dy}, {"dtable": (7, 3)}, rng, batch=2)
    np.testing.assert_array_equal(d[:, 0], np.bincount(index, minlength=7))
    with pytest.raises(ValueError, match="'index' is a variable of the kernel"):
        gather_rows("index", 7, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((10, 5, 3, "f4", "f4"), "index dtype must be one of i4, i8, u1, u4, got 'f4'"),
        ((10, 0, 3, "f4", "i4"), "table of 0 rows of 3"),
    ],
)
def test_impossible_tables_say_why(arguments, message):
    for template in (gather_rows, scatter_add_rows):
        with pytest.raises(ValueError, match=message):
            template(*arguments)
