"""Splits and scaling: disjoint, covering, seeded."""

import numpy as np
import pytest

from nnjit.data import Dataset
from nnjit.data.order import permutation
from nnjit.data.prepare import Scaling, fit_scaling, split
from nnjit.errors import ArgumentError, DataError


def rows(n=100, classes=4):
    return Dataset(np.arange(n, dtype=np.float32)[:, None], np.arange(n) % classes)


@pytest.mark.parametrize("method", ["random", "stratified", "fixed"])
@pytest.mark.parametrize("sizes", [(0.2, 0.1), (20, 10)])
def test_parts_are_disjoint_and_cover(method, sizes):
    parts = split(rows(), method, *sizes, seed=3)
    got = [p[:, 0] for p in (parts.x_train, parts.x_validation, parts.x_test)]
    assert [len(g) for g in got] == [70, 20, 10]
    assert sorted(np.concatenate(got)) == list(range(100))
    for x, y in ((parts.x_train, parts.y_train), (parts.x_test, parts.y_test)):
        np.testing.assert_array_equal(x[:, 0] % 4, y)


def test_the_seed_decides():
    a, b, c = (split(rows(), seed=s).x_test for s in (0, 0, 1))
    np.testing.assert_array_equal(a, b)
    assert not np.array_equal(a, c)


def test_stratified_keeps_shares():
    y = np.repeat([0, 1, 2], [60, 30, 10])
    parts = split(Dataset(np.zeros((100, 1)), y), "stratified", 10, 20)
    assert np.bincount(parts.y_validation).tolist() == [6, 3, 1]
    assert np.bincount(parts.y_test).tolist() == [12, 6, 2]
    assert np.any(np.diff(parts.y_train) < 0), "rows of all classes are mixed"
    with pytest.raises(DataError, match="class 1 has 1 row"):
        split(Dataset(np.zeros((9, 1)), np.array([0] * 8 + [1])), "stratified", 2, 2)


def test_fixed_keeps_order_and_published_test_set_is_used():
    parts = split(rows(10), "fixed", 2, 3)
    assert parts.x_train[:, 0].tolist() == [0, 1, 2, 3, 4]
    assert parts.x_test[:, 0].tolist() == [7, 8, 9]
    published = Dataset(np.zeros((8, 1)), np.zeros(8), np.ones((2, 1)), np.ones(2))
    parts = split(published, "random", 0.25)
    assert parts.x_test is published.x_test
    assert len(parts.x_validation) == 2
    with pytest.raises(ArgumentError, match="published test set"):
        split(published, test=0.1)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"method": "randm"}, ArgumentError, "did you mean 'random'"),
        ({"validation": 1.5}, ArgumentError, "validation=1.5"),
        ({"validation": 90, "test": 10}, DataError, "100 rows cannot give 90"),
    ],
)
def test_wrong_splits(options, error, message):
    with pytest.raises(error, match=message):
        split(rows(), **options)


def test_no_part_is_empty_by_surprise():
    parts = split(rows(), validation=0, test=0)
    assert parts.x_validation is None
    assert parts.x_test is None
    assert len(parts.x_train) == 100


def test_scaling():
    x = np.random.default_rng(0).normal(5, 3, (50, 4)).astype(np.float32)
    x[:, 2] = 7  # a constant feature
    out = fit_scaling("standard", x).apply(x)
    assert out.dtype == np.float32
    np.testing.assert_allclose(out.mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(out.std(0), [1, 1, 0, 1], atol=1e-6)
    assert fit_scaling("unit", x).apply(x).max() == pytest.approx(1)
    images = np.array([[0, 128, 51]], np.uint8)
    np.testing.assert_allclose(
        fit_scaling("unit", images, 255).apply(images), images / 255, rtol=1e-6
    )
    assert fit_scaling("none", x).apply(x) is x
    with pytest.raises(ArgumentError, match="did you mean 'standard'"):
        fit_scaling("standart", x)


def test_scaling_survives_its_config():
    x = np.random.default_rng(0).normal(size=(9, 3))
    fitted = fit_scaling("standard", x)
    again = Scaling.from_config(fitted.get_config())
    np.testing.assert_array_equal(again.apply(x), fitted.apply(x))


def test_permutation_is_pinned():
    """The order is part of what a resumed run relies on: it must not change between versions."""
    assert permutation(8, 0, 0).tolist() == PINNED
    assert sorted(permutation(1000, 5, 2)) == list(range(1000))
    assert not np.array_equal(permutation(100, 0, 1), permutation(100, 1, 0))


PINNED = [0, 2, 1, 5, 4, 3, 6, 7]
