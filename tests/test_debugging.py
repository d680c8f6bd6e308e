"""NNJIT_CHECK compares every launch and names what made the first NaN; NNJIT_DEBUG shows what was
compiled and how long it takes.
"""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from nnjit import ops
from nnjit.errors import GraphError, NumericError
from nnjit.layers import BatchNormalization, Dense, Dropout, Input, Layer
from nnjit.models import Sequential
from nnjit.runtime import checking, debug

X = np.random.default_rng(0).normal(size=(12, 4)).astype(np.float32)
LABELS = np.arange(12) % 3


class Logarithm(Layer):
    def call(self, x):
        return ops.log(x)


def trained(*middle):
    model = Sequential([Input((4,)), *middle, Dense(3, "softmax", name="last")])
    model.compile("adam", "sparse_categorical_crossentropy", ["accuracy"], device="cpu")
    model.fit(X, LABELS, batch_size=8, verbose=0)
    return model


def test_a_sound_step_passes_the_check_and_is_the_same_step(monkeypatch):
    layers = lambda: (Dense(5, "tanh"), BatchNormalization(), Dropout(0.3))  # noqa: E731
    plain = trained(*layers())
    monkeypatch.setenv("NNJIT_CHECK", "1")
    checked = trained(*layers())
    for a, b in zip(plain.get_weights(), checked.get_weights(), strict=True):
        assert (a == b).all()


def test_the_launch_that_makes_the_first_nan_is_named(monkeypatch):
    monkeypatch.setenv("NNJIT_CHECK", "1")
    with (
        np.errstate(invalid="ignore"),
        pytest.raises(NumericError, match=r"NaN first made by launch \d+ \w+ \(only_positive\)"),
    ):
        trained(Logarithm(name="only_positive"))


def test_a_wrong_launch_is_named(monkeypatch):
    monkeypatch.setenv("NNJIT_CHECK", "1")
    monkeypatch.setattr(checking, "TOLERANCE", {"float32": -1.0, "float64": -1.0})
    with pytest.raises(GraphError, match=r"launch \d+ \w+ \(.*\), <.*differs from the interpreter"):
        trained()


LEVELS = {
    1: ["step 'train': 15 parameters (60 bytes), ", "kernels: ", "batch 8: work arena "],
    3: ["-- after expand", "-- after prune", "work arena"],
    4: ["def matmul", "-- after expand"],
    5: ["-- LLVM of ", "define ", "-- assembly of ", "ret"],
}


@pytest.mark.parametrize("level", LEVELS)
def test_what_each_level_shows(level, monkeypatch, capsys):
    monkeypatch.setenv("NNJIT_DEBUG", str(level))
    monkeypatch.setattr(debug, "_times", {})
    monkeypatch.setattr(debug.atexit, "register", lambda _: None)
    trained()
    out, shown = capsys.readouterr()
    assert not out
    for text in LEVELS[level]:
        assert text in shown
    above = [text for lev in LEVELS if lev > level for text in LEVELS[lev][:1]]
    assert not any(text in shown for text in above)


def test_why_a_kernel_was_compiled(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("NNJIT_DEBUG", "1")
    monkeypatch.setenv("NNJIT_CACHE", str(tmp_path))
    model = Sequential([Input((3,)), Dense(2, "softplus", name="odd")])
    model.predict(np.ones((2, 3)))
    shown = capsys.readouterr().err
    assert "step 'predict': 8 parameters (32 bytes)" in shown
    assert " compiled in " in shown
    assert "softplus" in shown
    assert "_f4: new" in shown


def test_times_by_layer_when_the_process_ends():
    code = "from tests.test_debugging import trained; trained(); print('done')"
    options = {"capture_output": True, "text": True, "check": True}
    ran = subprocess.run([sys.executable, "-c", code], env=_environment(NNJIT_DEBUG="2"), **options)
    assert ran.stdout == "done\n"
    assert "nnjit: step 'train', batch 8: 1 runs, " in ran.stderr
    assert "nnjit: step 'train', batch 4: 1 runs, " in ran.stderr
    table = ran.stderr.split("batch 8: 1 runs")[1]
    assert "ms" in table.split("by layer:")[0]
    assert "optimizer" in table.split("by layer:")[1]


def _environment(**more):
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent), **more}
