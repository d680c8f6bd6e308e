"""A batch that looks like one before is predicted in a hurry, as long as nothing has changed."""

import numpy as np
import pytest

from nnjit import Input, Model, Sequential, config, layers
from nnjit.training import testing

ROWS = np.random.default_rng(0).standard_normal((6, 4), np.float32)


@pytest.fixture
def slow(monkeypatch):
    """How often a batch was looked at in full."""
    seen, whole = [], testing.one_batch

    def one_batch(model, x):
        seen.append(x)
        return whole(model, x)

    monkeypatch.setattr(testing, "one_batch", one_batch)
    return seen


def dense() -> Sequential:
    model = Sequential([Input((4,)), layers.Dense(3)])
    model.compile("sgd", "mse", device="cpu")
    return model


def check(model, rows):
    w, b = (v.numpy() for v in model.weights)
    found = model.predict_on_batch(rows)
    np.testing.assert_allclose(found, rows @ w + b, rtol=1e-5, atol=1e-6)
    return found


def test_shapes_that_were_seen_are_predicted_at_once(slow):
    model = dense()
    check(model, ROWS), check(model, ROWS[:2])
    assert len(slow) == 2
    first = check(model, ROWS)
    kept = first.copy()
    for part in (ROWS + 1, [ROWS[:2]], (ROWS[2:4],), ROWS[1:3], -ROWS):
        np.testing.assert_array_equal(
            model.predict_on_batch(part), model.predict(part, verbose=0), str(part)
        )
    assert len(slow) == 2
    np.testing.assert_array_equal(first, kept, "results are the caller's")


def test_what_only_looks_alike_is_looked_at_again(slow):
    model = dense()
    check(model, ROWS)
    odd = [
        ROWS.astype("f8"), np.asfortranarray(ROWS), np.repeat(ROWS, 2, axis=0)[::2],
        ROWS.view(np.matrix), ROWS.astype(">f4"), ROWS[:5],
    ]  # fmt: skip
    for rows in odd:
        same = np.ascontiguousarray(rows, "f4")
        np.testing.assert_allclose(check(model, rows), check(model, same))
    assert len(slow) == 1 + len(odd)


def test_changes_are_noticed(slow):
    model = dense()
    check(model, ROWS)
    kernel, bias = model.weights
    kernel.assign(kernel.numpy() + 1)
    check(model, ROWS)
    model.train_on_batch(ROWS, np.zeros((6, 3), np.float32))
    check(model, ROWS)
    bias._array = bias.numpy() - 2
    check(model, ROWS)
    check(model, np.zeros((5000, 4), np.float32))  # memory grows
    check(model, ROWS)
    count = len(slow)
    before = config.threads()
    try:
        config.set_threads(3 if before != 3 else 2)
        check(model, ROWS)
        assert len(slow) == count + 1
    finally:
        config.set_threads(before)
    model.add(layers.Dense(2))
    assert model.predict_on_batch(ROWS).shape == (6, 2)


def test_packed_weights_are_made_anew():
    x = Input((200,))
    model = Model(x, layers.Dense(300, use_bias=False)(x))
    rows = np.ones((1, 200), np.float32)
    for value in (1.0, 2.0, 3.0):
        model.set_weights([np.full((200, 300), value, np.float32)])
        for _ in range(2):
            np.testing.assert_array_equal(
                model.predict_on_batch(rows), np.full((1, 300), 200 * value, np.float32)
            )


def test_several_inputs_in_any_order_and_outputs_in_their_structure(slow):
    a, b = Input((2,), name="a"), Input((2,), name="b")
    model = Model([b, a], {"difference": layers.Subtract()([a, b]), "sum": layers.Add()([a, b])})
    x, y = ROWS[:, :2].copy(), ROWS[:, 2:].copy()
    for _ in range(2):
        for given in ([y, x], (y, x), {"b": y, "a": x}):
            found = model.predict_on_batch(given)
            np.testing.assert_array_equal(found["difference"], x - y)
            np.testing.assert_array_equal(found["sum"], x + y)
    assert len(slow) == 3, "dicts are always looked at"


def test_a_prediction_that_keeps_a_state_keeps_it():
    models = []
    for _ in range(2):
        x = Input(batch_shape=(2, 4, 2))
        models.append(Model(x, layers.SimpleRNN(3, stateful=True)(x)))
    models[1].set_weights(models[0].get_weights())
    rows, found = ROWS.reshape(3, 4, 2)[:2].copy(), []
    for _ in range(3):
        found.append(models[0].predict_on_batch(rows))
        np.testing.assert_allclose(found[-1], models[1].predict_on_batch(rows.tolist()), rtol=1e-6)
    assert not np.array_equal(found[1], found[2])
