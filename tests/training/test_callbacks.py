"""Callbacks: when their hooks run, and what each of them decides."""

import csv
import json

import numpy as np
import pytest

from nnjit.callbacks import (
    Callback,
    CSVLogger,
    EarlyStopping,
    JSONLogger,
    LambdaCallback,
    LearningRateScheduler,
    ModelCheckpoint,
    ReduceLROnPlateau,
    TerminateOnNaN,
)
from nnjit.errors import ArgumentError, CacheError, NumericError
from nnjit.layers import Dense, Input
from nnjit.models import Sequential
from nnjit.saving import load_model
from nnjit.training.callbacks import HOOKS

X = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
Y = X.sum(-1, keepdims=True)


def model(device, optimizer="sgd"):
    m = Sequential([Input((3,)), Dense(1)])
    m.compile(optimizer, "mse", device=device)
    return m


class Script(Callback):
    """Puts given values into the logs, so that what others decide does not depend on training."""

    def __init__(self, **values):
        super().__init__()
        self.values = values

    def on_epoch_end(self, epoch, logs=None):
        logs.update({k: v[epoch] for k, v in self.values.items()})


def run(device, *callbacks, epochs=6, **options):
    m = model(device, options.pop("optimizer", "sgd"))
    return m, m.fit(X, Y, epochs=epochs, verbose=0, callbacks=list(callbacks), **options)


def test_order_of_hooks(device):
    seen = []

    def record(name):
        return lambda *args: seen.append((name, args[0] if len(args) == 2 else None))

    spy = LambdaCallback(**{name: record(name) for name in HOOKS})
    run(device, spy, epochs=2, batch_size=10, validation_data=(X[:5], Y[:5]))

    def epoch(i):
        return [
            ("on_epoch_begin", i),
            *[(f"on_train_batch_{when}", b) for b in (0, 1) for when in ("begin", "end")],
            ("on_test_begin", None), ("on_test_batch_begin", 0), ("on_test_batch_end", 0),
            ("on_test_end", None), ("on_epoch_end", i),
        ]  # fmt: skip

    assert seen == [("on_train_begin", None), *epoch(0), *epoch(1), ("on_train_end", None)]
    with pytest.raises(ArgumentError, match="did you mean 'on_epoch_end'"):
        LambdaCallback(on_epoch_ends=print)


def test_batch_logs_are_the_running_means(device):
    seen = []
    spy = LambdaCallback(on_train_batch_end=lambda batch, logs: seen.append(logs["loss"]))
    _m, history = run(device, spy, epochs=1, batch_size=7)
    assert len(seen) == 3
    assert seen[-1] == history.history["loss"][0]


@pytest.mark.parametrize(
    ("options", "values", "epochs_run"),
    [
        ({"patience": 0}, [3, 2, 2, 1, 1, 1], 3),
        ({"patience": 2}, [3, 4, 2, 5, 5, 1], 5),
        ({"patience": 2, "min_delta": 1.5}, [3, 2, 2, 2, 2, 2], 3),
        ({"patience": 1, "mode": "max"}, [3, 4, 4, 5, 6, 7], 3),
        ({"patience": 1, "start_from_epoch": 3}, [1, 2, 3, 4, 5, 6], 5),
        ({"patience": 2, "baseline": 1}, [3, 2.5, 2, 1.5, 1.2, 1.1], 6),
        ({"patience": 9}, [1, 2, 3, 4, 5, 6], 6),
    ],
)
def test_early_stopping(device, options, values, epochs_run):
    stop = EarlyStopping("score", **options)
    _, history = run(device, Script(score=values), stop)
    assert len(history.epoch) == epochs_run
    assert history.epoch == list(range(epochs_run))


def test_early_stopping_restores_the_best_weights(device):
    kept = []
    keep = LambdaCallback(on_epoch_end=lambda epoch, logs: kept.append(m.get_weights()))
    m = model(device)
    stop = EarlyStopping("score", patience=2, restore_best_weights=True)
    m.fit(X, Y, epochs=6, verbose=0, callbacks=[Script(score=[3, 1, 2, 2, 2, 2]), keep, stop])
    assert len(kept) == 4
    np.testing.assert_array_equal(m.get_weights()[0], kept[1][0])


def test_a_monitored_metric_must_exist(device):
    with pytest.raises(ArgumentError, match=r"no metric 'val_loss'.*no validation data"):
        run(device, EarlyStopping())
    with pytest.raises(ArgumentError, match="did you mean 'loss'"):
        run(device, EarlyStopping("los"))
    with pytest.raises(ArgumentError, match="mode='up'"):
        EarlyStopping(mode="up")


def test_reduce_learning_rate_on_plateau(device):
    rates = []
    spy = LambdaCallback(on_epoch_end=lambda e, logs: rates.append(logs["learning_rate"]))
    reduce = ReduceLROnPlateau("score", factor=0.5, patience=2, min_lr=0.003, cooldown=1)
    m, _ = run(device, Script(score=[1, 1, 1, 1, 1, 1]), reduce, spy)
    np.testing.assert_allclose(rates, [0.01, 0.01, 0.01, 0.005, 0.005, 0.003], rtol=1e-6)
    assert m.optimizer.learning_rate == pytest.approx(0.003)
    with pytest.raises(ArgumentError, match="factor=2"):
        ReduceLROnPlateau(factor=2)


def test_learning_rate_scheduler_changes_the_very_step(device):
    schedule = LearningRateScheduler(lambda epoch, rate: 0.0 if epoch == 0 else 0.1)
    weights = []
    spy = LambdaCallback(on_epoch_end=lambda e, logs: weights.append(m.get_weights()[0]))
    m = model(device)
    start = m.get_weights()[0]
    m.fit(X, Y, epochs=2, verbose=0, callbacks=[schedule, spy])
    np.testing.assert_array_equal(weights[0], start)
    assert not np.array_equal(weights[1], start)
    with pytest.raises(ArgumentError, match="schedule gave None"):
        run(device, LearningRateScheduler(lambda epoch, rate: None))


def test_csv_and_json_logs(device, tmp_path):
    csv_file, json_file = tmp_path / "logs" / "a.csv", tmp_path / "a.jsonl"
    json_file.write_text("from an earlier run\n")
    _, history = run(device, CSVLogger(csv_file), JSONLogger(json_file), epochs=2)
    with open(csv_file) as file:
        rows = list(csv.DictReader(file))
    assert [int(r["epoch"]) for r in rows] == [0, 1]
    assert [float(r["loss"]) for r in rows] == history.history["loss"]
    lines = [json.loads(line) for line in json_file.read_text().splitlines()]
    assert lines == [{"epoch": i, "loss": v} for i, v in enumerate(history.history["loss"])]
    run(device, CSVLogger(csv_file, append=True), epochs=1)
    assert len(csv_file.read_text().splitlines()) == 4
    (tmp_path / "f").write_text("")
    with pytest.raises(CacheError, match="cannot be written"):
        run(device, CSVLogger(tmp_path / "f" / "a.csv"))


def test_model_checkpoint(device, tmp_path):
    script = Script(score=[3.0, 1.0, 2.0, 0.5, 0.6, 0.7])
    each = ModelCheckpoint(tmp_path / "m-{epoch:02d}-{score:.1f}.nnjit")
    best = ModelCheckpoint(tmp_path / "best.nnjit", "score", save_best_only=True)
    weights = ModelCheckpoint(tmp_path / "w.nnjit", save_weights_only=True, save_freq=4)
    kept = []
    spy = LambdaCallback(on_epoch_end=lambda e, logs: kept.append(spy.model.get_weights()))
    m, _ = run(device, script, spy, each, best, weights, batch_size=10)
    names = sorted(p.name for p in tmp_path.iterdir())
    assert names == [
        "best.nnjit", "m-01-3.0.nnjit", "m-02-1.0.nnjit", "m-03-2.0.nnjit", "m-04-0.5.nnjit",
        "m-05-0.6.nnjit", "m-06-0.7.nnjit", "w.nnjit",
    ]  # fmt: skip
    np.testing.assert_array_equal(load_model(tmp_path / "best.nnjit").get_weights()[0], kept[3][0])
    m.load_weights(tmp_path / "w.nnjit")
    with pytest.raises(ArgumentError, match="asks for 'accuracy'; there are epoch, loss"):
        run(device, ModelCheckpoint(tmp_path / "{accuracy}.nnjit"))


@pytest.mark.filterwarnings("ignore:overflow|invalid")
def test_a_loss_that_is_no_longer_finite_ends_training(device, capsys):
    with pytest.raises(NumericError, match=r"the loss became (NaN|infinite) in step \d+ of epoch"):
        run(device, epochs=100, optimizer=_wild())
    _m, history = run(device, TerminateOnNaN(), epochs=100, optimizer=_wild())
    assert len(history.epoch) < 100
    assert "training ends" in capsys.readouterr().out


def _wild():
    from nnjit.optimizers import SGD

    return SGD(1e6)


def test_stop_training_in_the_middle_of_an_epoch(device):
    def stop(batch, logs):
        m.stop_training = batch == 1

    m = model(device)
    history = m.fit(X, Y, batch_size=4, epochs=5, verbose=0,
                    callbacks=[LambdaCallback(on_train_batch_end=stop)])  # fmt: skip
    assert len(history.epoch) == 1
    assert int(m.optimizer.iterations.numpy()) == 2


def test_steps_per_epoch_and_initial_epoch(device):
    m, history = run(device, epochs=3, batch_size=4, steps_per_epoch=2, initial_epoch=1)
    assert history.epoch == [1, 2]
    assert int(m.optimizer.iterations.numpy()) == 4
    assert len(history.seconds) == len(history.waiting) == 2
