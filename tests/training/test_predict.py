"""Answers on one batch: what fits as it is takes the quick way, and says the same as the other."""

import numpy as np
import pytest

import nnjit
from nnjit import Input, Model, Sequential, layers
from nnjit.errors import DataError
from nnjit.training.entrance import Entrance

ROWS = np.random.default_rng(0).standard_normal((6, 4), np.float32)


def dense(device: str = "interpret") -> Sequential:
    model = Sequential([Input((4,)), layers.Dense(3)])
    model.compile("sgd", "mse", device=device)
    return model


def read_only(a: np.ndarray) -> np.ndarray:
    a = a.copy()
    a.flags.writeable = False
    return a


FORMS = {
    "array": lambda a: a,
    "list with one": lambda a: [a],
    "read-only": read_only,
    "float64": lambda a: a.astype("f8"),
    "other order": np.asfortranarray,
    "every other": lambda a: np.repeat(a, 2, axis=0)[::2],
    "nested lists": lambda a: a.tolist(),
    "subclass": lambda a: a.view(np.matrix),
}


@pytest.mark.parametrize("device", ["interpret", "cpu"])
def test_every_form_of_rows_gives_the_same(device):
    model = dense(device)
    w, b = (v.numpy() for v in model.weights)
    for name, form in FORMS.items():
        found = model.predict_on_batch(form(ROWS))
        np.testing.assert_allclose(found, ROWS @ w + b, rtol=1e-5, atol=1e-6, err_msg=name)
        np.testing.assert_array_equal(model(form(ROWS)), found, err_msg=name)


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (ROWS[:0], "no rows"),
        (ROWS[0], "one sample give x"),
        (ROWS[:, :3], "expected shape"),
        (ROWS.astype(object), "Python objects"),
    ],
)
def test_what_does_not_fit_is_told_as_before(x, words):
    model = dense()
    model.predict_on_batch(ROWS)
    with pytest.raises(DataError, match=words):
        model.predict_on_batch(x)


def test_several_inputs_have_as_many_rows():
    a, b = Input((2,), name="a"), Input((2,), name="b")
    model = Model([a, b], layers.Add()([a, b]))
    x, y = ROWS[:, :2].copy(), ROWS[:, 2:].copy()
    for given in ([x, y], (x, y), {"b": y, "a": x}):
        np.testing.assert_array_equal(model.predict_on_batch(given), x + y)
    with pytest.raises(DataError, match="different numbers of rows"):
        model.predict_on_batch([x, y[:3]])


def test_an_open_axis_may_have_any_length():
    x = Input((None, 2))
    model = Model(x, layers.GlobalAveragePooling1D()(x))
    for time in (3, 5):
        rows = np.ones((2, time, 2), np.float32)
        assert Entrance.of(model).take(rows) is not None
        np.testing.assert_array_equal(model.predict_on_batch(rows), np.ones((2, 2), np.float32))
    assert Entrance.of(model).take(np.ones((2, 3, 4), np.float32)) is None


def test_a_model_that_grows_takes_what_it_then_needs():
    model = dense()
    assert model.predict_on_batch(ROWS).shape == (6, 3)
    model.add(layers.Dense(2))
    assert model.predict_on_batch(ROWS).shape == (6, 2)


def test_weights_that_moved_are_found():
    """A layer that a second model shares comes to lie elsewhere: the first model follows it."""
    shared = layers.Dense(3)
    models = []
    for _ in range(2):
        x = Input((4,))
        models.append(Model(x, shared(x)))
    first = models[0].predict_on_batch(ROWS)
    np.testing.assert_array_equal(models[1].predict_on_batch(ROWS), first)
    shared.kernel._array = shared.kernel.numpy() + 1
    for model in models:
        np.testing.assert_allclose(
            model.predict_on_batch(ROWS), first + ROWS.sum(1, keepdims=True), rtol=1e-5, atol=1e-5
        )


def test_a_call_outside_of_a_step_is_a_prediction():
    nnjit.set_seed(0)
    model = dense()
    np.testing.assert_array_equal(model(ROWS), model.predict_on_batch(ROWS))
