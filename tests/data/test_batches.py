"""Batches: every row once per epoch, cast, in the order of (seed, epoch), from any step on."""

import threading

import numpy as np
import pytest

from nnjit.data import batches as module
from nnjit.data.batches import Batches
from nnjit.data.order import permutation
from nnjit.errors import ArgumentError


def arrays(rows=23):
    x = np.arange(rows * 3, dtype=np.float64).reshape(rows, 3)
    return {"x": x, "y": np.arange(rows, dtype=np.int64)}


DTYPES = {"x": "float32", "y": "int32"}


@pytest.fixture(params=["in place", "loader thread"])
def threaded(request, monkeypatch):
    monkeypatch.setattr(module, "THREAD_BYTES", 0 if "thread" in request.param else 1 << 30)


@pytest.mark.usefixtures("threaded")
@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("batch_size", [1, 5, 23, 100])
def test_every_row_once(shuffle, batch_size):
    data = Batches(arrays(), DTYPES, batch_size, shuffle, seed=4)
    rows, sizes = [], []
    for step, count, batch in data.epoch(2):
        assert len(batch["x"]) == len(batch["y"]) == count
        assert batch["x"].dtype == np.float32
        assert batch["y"].dtype == np.int32
        assert batch["x"].flags.c_contiguous
        np.testing.assert_array_equal(batch["x"][:, 0], 3 * batch["y"])
        assert step == len(sizes)
        sizes.append(count)
        rows += batch["y"].tolist()
    order = permutation(23, 4, 2) if shuffle else range(23)
    assert rows == list(order)
    assert len(sizes) == data.steps
    assert sum(sizes) == 23


@pytest.mark.usefixtures("threaded")
def test_an_epoch_may_begin_at_any_step():
    data = Batches(arrays(), DTYPES, 5, shuffle=True)
    whole = [batch["y"].copy() for _, _, batch in data.epoch(1)]
    for start in range(6):
        rest = [batch["y"].copy() for _, _, batch in data.epoch(1, start)]
        assert len(rest) == 5 - start
        for a, b in zip(whole[start:], rest, strict=True):
            np.testing.assert_array_equal(a, b)


def test_slices_are_not_copied_and_odd_arrays_are(monkeypatch):
    x = np.ones((10, 2), np.float32)
    _, _, batch = next(Batches({"x": x}, {"x": "float32"}, 4).epoch())
    assert np.shares_memory(batch["x"], x)
    turned = np.arange(20, dtype=np.float32).reshape(2, 10).T
    for shuffle in (True, False):
        data = Batches({"x": turned}, {"x": "float32"}, 4, shuffle)
        got = np.concatenate([b["x"].copy() for _, _, b in data.epoch()])
        assert sorted(map(tuple, got)) == sorted(map(tuple, turned))


def test_a_batch_is_whole_while_the_next_one_is_loaded(monkeypatch):
    monkeypatch.setattr(module, "THREAD_BYTES", 0)
    data = Batches(arrays(200), DTYPES, 10, shuffle=True)
    fill, loaders = data._fill, set()

    def slow(order, step):
        loaders.add(threading.current_thread().name)
        return fill(order, step)

    data._fill = slow
    order = permutation(200, 0, 0)
    for step, _, batch in data.epoch():
        for _ in range(3):
            np.testing.assert_array_equal(batch["y"], order[step * 10 : step * 10 + 10])
    assert all(name.startswith("nnjit-loader") for name in loaders)
    assert data.waiting > 0


def test_an_error_of_the_loader_reaches_the_caller(monkeypatch):
    monkeypatch.setattr(module, "THREAD_BYTES", 0)
    data = Batches(arrays(), DTYPES, 5, shuffle=True)
    data._fill = lambda order, step: 1 / 0
    with pytest.raises(ZeroDivisionError):
        list(data.epoch())


def test_leaving_an_epoch_early_ends_its_thread(monkeypatch):
    monkeypatch.setattr(module, "THREAD_BYTES", 0)
    for _ in Batches(arrays(), DTYPES, 5, shuffle=True).epoch():
        break
    assert not [t for t in threading.enumerate() if t.name.startswith("nnjit-loader")]


@pytest.mark.parametrize("batch_size", [0, -1, 2.5, "8"])
def test_wrong_batch_sizes(batch_size):
    with pytest.raises(ArgumentError, match="expected a whole number from 1"):
        Batches(arrays(), DTYPES, batch_size)
