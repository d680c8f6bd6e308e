"""Options of fit, evaluate and predict that cannot be, and what History and metrics are called."""

import numpy as np
import pytest

from nnjit.errors import ArgumentError, DataError
from nnjit.layers import Dense, Input
from nnjit.models import Sequential

X = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
LABELS = np.arange(20) % 3
ONE_HOT = np.eye(3, dtype=np.float32)[LABELS]


def model(device, loss="sparse_categorical_crossentropy", units=3, **options):
    made = Sequential([Input((4,)), Dense(units, "sigmoid" if units == 1 else "softmax")])
    made.compile("sgd", loss, device=device, **options)
    return made


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"validation_freq": 0}, "validation_freq=0: expected a whole number from 1"),
        ({"validation_freq": 1.5}, r"validation_freq=1.5: expected a whole number or a list"),
        ({"validation_batch_size": 0}, "validation_batch_size=0: expected a whole number from 1"),
        ({"epochs": True}, "epochs=True: expected a whole number from 0"),
        ({"class_weight": [1, 2, 3]}, "expected a dict from class to weight"),
        ({"class_weight": {"a": 1}}, "expected class numbers and weights"),
        ({"class_weight": {0: -1.0}}, "expected finite weights"),
        ({"class_weight": {3: 1.0}}, "no class 3; there are 0 to 2"),
    ],
)
def test_fit_names_the_option(device, options, message):
    with pytest.raises(ArgumentError, match=message):
        model(device).fit(X, LABELS, verbose=0, validation_split=0.5, **options)


@pytest.mark.parametrize("steps", [0, -1, 1.5])
def test_steps_of_evaluate_and_predict(device, steps):
    made = model(device)
    with pytest.raises(ArgumentError, match=f"steps={steps}: expected a whole number from 1"):
        made.evaluate(X, LABELS, steps=steps, verbose=0)
    with pytest.raises(ArgumentError, match=f"steps={steps}: expected a whole number from 1"):
        made.predict(X, steps=steps)


def test_class_weights_of_one_hot_labels_and_of_batches_without_the_class(device):
    table = {1: 3.0}
    one_hot = model(device, "categorical_crossentropy")
    sparse = model(device)
    one_hot.set_weights(sparse.get_weights())
    a = one_hot.train_on_batch(X[:6], ONE_HOT[:6], class_weight=table)
    assert a == pytest.approx(sparse.train_on_batch(X[:6], LABELS[:6], class_weight=table))
    plain = sparse.test_on_batch(X[:1], LABELS[:1])
    assert sparse.train_on_batch(X[:1], LABELS[:1], class_weight=table) == pytest.approx(plain)


def test_binary_labels_lie_between_0_and_1(device):
    made = model(device, "binary_crossentropy", units=1)
    with pytest.raises(DataError, match="y: row 2 has label 2; binary cross-entropy takes"):
        made.fit(X, LABELS, verbose=0)
    made.fit(X, LABELS / 2, verbose=0)


def test_a_learning_rate_is_a_number(device):
    made = model(device)
    with pytest.raises(ArgumentError, match="sgd: learning_rate='fast': expected a number"):
        made.optimizer.learning_rate = "fast"
    made.optimizer.learning_rate = np.float32(0.25)
    assert made.optimizer.learning_rate == 0.25


def test_validation_in_the_listed_epochs_and_metrics_by_the_names_they_were_asked_for(device):
    made = model(device, "categorical_crossentropy", metrics=["acc", "mae"])
    options = {"validation_split": 0.25, "validation_freq": [1, 3], "verbose": 0}
    history = made.fit(X, ONE_HOT, epochs=4, **options)
    assert list(history.history) == ["loss", "acc", "mae", "val_loss", "val_acc", "val_mae"]
    assert [len(v) for v in history.history.values()] == [4, 4, 4, 2, 2, 2]
    assert history.epoch == [0, 1, 2, 3]


def test_a_loss_that_returns_nothing_is_named(device):
    def forgot(y_true, y_pred):
        _ = y_true - y_pred

    with pytest.raises(ArgumentError, match="loss 'forgot': it returned None"):
        model(device, forgot).fit(X, ONE_HOT, verbose=0)
