"""Checkpoints: a run that is killed and continued equals an undisturbed one, bit for bit."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from nnjit.callbacks import BackupAndRestore, EarlyStopping, LambdaCallback
from nnjit.errors import ArgumentError, ModelFileError, NumericError
from nnjit.layers import Dense, Input
from nnjit.models import Sequential
from nnjit.optimizers import SGD
from nnjit.training.checkpoint import Checkpoints, Cursor, Snapshot

TRAINEE = Path(__file__).with_name("trainee.py")
SIGKILL = -9
X = np.random.default_rng(0).normal(size=(24, 3)).astype(np.float32)


def train(device, folder, out, die_at=0):
    command = [sys.executable, str(TRAINEE), device, str(folder), str(out), str(die_at)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == (SIGKILL if die_at else 0), done.stderr
    return done


def results(out):
    with np.load(f"{out}.npz") as arrays:
        values = [arrays[k] for k in arrays.files]
    return values, json.loads(Path(f"{out}.json").read_text()), Path(f"{out}.csv").read_text()


# 1: before any checkpoint; 3: between two; 6: at an epoch's last step; then several deaths in a row
@pytest.mark.parametrize("deaths", [[1], [3], [6], [7, 5, 4]], ids=str)
def test_killed_and_continued_is_undisturbed(tmp_path, device, deaths):
    train(device, tmp_path / "whole", tmp_path / "a")
    for die_at in deaths:
        train(device, tmp_path / "run", tmp_path / "b", die_at)
        assert not (tmp_path / "b.npz").exists()
    train(device, tmp_path / "run", tmp_path / "b")
    arrays, history, log = results(tmp_path / "a")
    again, history_again, log_again = results(tmp_path / "b")
    assert len(arrays) == len(again) > 20
    for a, b in zip(arrays, again, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)
    assert history == history_again
    assert log == log_again


def model(device, optimizer="adam"):
    m = Sequential([Input((3,)), Dense(2, "tanh"), Dense(1)])
    m.compile(optimizer, "mse", device=device)
    return m


def fit(m, folder, epochs=3, stop_at=None, others=(), **options):
    """Train; raise KeyboardInterrupt after so many steps."""
    steps = []

    def interrupt(batch, logs):
        steps.append(batch)
        if len(steps) == stop_at:
            raise KeyboardInterrupt

    backup = BackupAndRestore(folder, **{"save_freq": 1, "delete_checkpoint": False, **options})
    callbacks = [*others, LambdaCallback(on_train_batch_end=interrupt), backup]
    try:
        m.fit(X, X[:, :1], epochs=epochs, batch_size=8, verbose=0, callbacks=callbacks)
    except KeyboardInterrupt:
        return None
    return m.get_weights()


def test_interrupted_at_every_step(tmp_path, device):
    want = fit(model(device), tmp_path / "whole")
    for stop_at in range(1, 10):
        folder = tmp_path / str(stop_at)
        assert fit(model(device), folder, stop_at=stop_at) is None
        for a, b in zip(want, fit(model(device), folder), strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_finished_run_can_be_trained_further(tmp_path, device):
    want = fit(model(device), tmp_path / "whole", epochs=4)
    fit(model(device), tmp_path / "run", epochs=2)
    for a, b in zip(want, fit(model(device), tmp_path / "run", epochs=4), strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(want, fit(model(device), tmp_path / "run", epochs=4), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_run_that_stopped_early_stays_stopped(tmp_path, device):
    def stop():
        return EarlyStopping("loss", min_delta=100.0, patience=1)

    first = fit(model(device), tmp_path / "run", epochs=9, others=[stop()])
    again = fit(model(device), tmp_path / "run", epochs=9, others=[stop()])
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("damage", ["flip", "cut", "empty"])
def test_a_damaged_checkpoint_is_passed_over_in_one_line(tmp_path, device, damage, capsys):
    want = fit(model(device), tmp_path / "whole")
    fit(model(device), tmp_path / "run", stop_at=5)
    newest, _before, *_ = Checkpoints(tmp_path / "run").files()
    content = bytearray(newest.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 4
    newest.write_bytes({"flip": content, "cut": content[:-30], "empty": b""}[damage])
    got = fit(model(device), tmp_path / "run")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert newest.name in lines[0]
    assert "taking the checkpoint before it" in lines[0]
    for a, b in zip(want, got, strict=True):
        np.testing.assert_array_equal(a, b)


def test_leftovers_are_swept_and_few_are_kept(tmp_path, device):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / ".checkpoint-0000000001.nnjit.77.0.partial").write_bytes(b"half")
    fit(model(device), folder, keep=2)
    assert [p.name for p in Checkpoints(folder).files()] == [
        "checkpoint-0000000009.nnjit", "checkpoint-0000000008.nnjit"
    ]  # fmt: skip
    assert len(list(folder.iterdir())) == 2


def test_checkpoints_go_when_training_has_ended(tmp_path, device):
    fit(model(device), tmp_path / "run", delete_checkpoint=True)
    assert not (tmp_path / "run").exists()


def test_another_run_is_refused(tmp_path, device):
    fit(model(device), tmp_path / "run", stop_at=4)
    other = Sequential([Input((3,)), Dense(4), Dense(1)])
    other.compile("adam", "mse", device=device)
    with pytest.raises(ModelFileError, match=r"has float32\(3, 2\), the model's"):
        fit(other, tmp_path / "run")
    with pytest.raises(ModelFileError, match=r"holds .* variables, the model has"):
        fit(model(device, "sgd"), tmp_path / "run")
    with pytest.raises(ArgumentError, match="started with the callbacks LambdaCallback; give"):
        fit(model(device), tmp_path / "run", others=[EarlyStopping("loss")])
    m = model(device)
    with pytest.raises(ArgumentError, match="started with batch_size=8, now it is 4"):
        m.fit(X, X[:, :1], batch_size=4, verbose=0,
              callbacks=[LambdaCallback(), BackupAndRestore(tmp_path / "run")])  # fmt: skip


@pytest.mark.filterwarnings("ignore:overflow|invalid")
def test_the_last_good_checkpoint_survives_a_diverging_loss(tmp_path, device):
    folder = tmp_path / "run"
    with pytest.raises(NumericError, match=r"the last good checkpoint is .*nnjit"):
        fit(model(device, SGD(1e18)), folder, epochs=50)
    _, snapshot = Checkpoints(folder).latest()
    assert snapshot.cursor.step >= 1


def test_a_checkpoint_holds_what_it_was_given(tmp_path):
    arrays = [np.arange(3, dtype=np.int64), np.ones((2, 2), np.float32), np.float64(2.5)]
    states = [{"class": "A", "best": 1.5, "weight_0": np.arange(4.0)}, {"class": "B"}]
    kept = Checkpoints(tmp_path, keep=1)
    kept.save(7, Snapshot(Cursor(1, 2, 3), ["a", "b", "c"], arrays, states))
    path, got = kept.latest()
    assert path.name == "checkpoint-0000000007.nnjit"
    assert got.cursor == Cursor(1, 2, 3)
    for a, b in zip(arrays, got.arrays, strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(got.callbacks[0].pop("weight_0"), np.arange(4.0))
    assert got.callbacks == [{"class": "A", "best": 1.5}, {"class": "B"}]
    shutil.rmtree(tmp_path)
    assert kept.latest() is None
