"""Single batches like the last one: the quick way gives and refuses what the long one does."""

import numpy as np
import pytest

import nnjit
from nnjit import Sequential, layers
from nnjit.errors import DataError

ROWS = np.random.default_rng(0).normal(size=(6, 4)).astype("f4")
LABELS = (np.arange(6) % 3).astype("i4")
BAD = LABELS.copy()
BAD[4] = 3
NAN = ROWS.copy()
NAN[2, 1] = np.nan


def trainee(loss="sparse_categorical_crossentropy", units=3):
    nnjit.set_seed(0)
    model = Sequential([layers.Dense(units, input_shape=(4,))])
    model.compile("sgd", loss, ["mae"] if loss == "mse" else ["accuracy"], device="interpret")
    return model


def test_the_quick_way_trains_as_the_long_one():
    quick, long = trainee(), trainee()
    for _ in range(3):
        given = long.train_on_batch(ROWS.tolist(), LABELS.tolist())
        assert quick.train_on_batch(ROWS, LABELS) == given
    assert quick.compiled.last_labels is not None
    assert long.compiled.last_labels is None
    assert quick.test_on_batch(ROWS, LABELS) == long.test_on_batch(ROWS, LABELS)


@pytest.mark.parametrize(
    ("x", "y", "words"),
    [
        (ROWS, BAD, "row 4 has label 3"),
        (ROWS, LABELS[:5], "different numbers of rows"),
        (ROWS[:0], LABELS[:0], "no rows"),
        (ROWS[:, :3], LABELS, "expected shape"),
        (ROWS, np.eye(3, dtype="f4")[LABELS], "one-hot"),
        (ROWS, None, "y is missing"),
    ],
)
def test_the_quick_way_refuses_what_the_long_one_does(x, y, words):
    model = trainee()
    model.train_on_batch(ROWS, LABELS)
    with pytest.raises(DataError, match=words):
        model.train_on_batch(x, y)
    assert np.isfinite(model.train_on_batch(ROWS[:2], LABELS[:2])).all()


def test_the_quick_way_looks_for_nan():
    model = trainee("mse", 1)
    y = ROWS[:, :1].copy()
    model.train_on_batch(ROWS, y)
    with pytest.raises(DataError, match="y: row 2 holds NaN"):
        model.train_on_batch(ROWS, NAN[:, 1:2].copy())
    with pytest.warns(UserWarning, match="x: NaN or infinity in row 2"):
        model.train_on_batch(NAN, y)


def test_a_new_loss_takes_other_labels():
    model = trainee()
    model.train_on_batch(ROWS, LABELS)
    model.compile("sgd", "mse", device="interpret")
    targets = np.eye(3, dtype="f4")[LABELS]
    assert model.train_on_batch(ROWS, targets) > model.train_on_batch(ROWS, targets)


def test_what_is_input_and_label_is_looked_at_once():
    model = trainee("mse", 4)
    assert model.train_on_batch(ROWS, ROWS[:]) > model.train_on_batch(ROWS, ROWS[:])
    with pytest.raises(DataError, match="y: row 2 holds NaN"):
        model.train_on_batch(NAN, NAN[:])
