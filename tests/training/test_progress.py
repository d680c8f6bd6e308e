"""What fit prints."""

import io
import re
import sys

import numpy as np
import pytest

from nnjit.layers import Dense, Input
from nnjit.models import Sequential
from nnjit.training.progress import level, metrics_text, rate_text, seconds_text

X = np.ones((8, 3), np.float32)


def model(device):
    m = Sequential([Input((3,)), Dense(1)])
    m.compile("sgd", "mse", metrics=["mae"], device=device)
    return m


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("verbose", "terminal", "expected"),
    [
        ("auto", False, 2),
        ("auto", True, 1),
        (1, True, 1),
        (1, False, 2),
        (2, True, 2),
        (0, True, 0),
    ],
)
def test_level(verbose, terminal, expected, monkeypatch):
    monkeypatch.setattr(sys, "stdout", Terminal() if terminal else io.StringIO())
    monkeypatch.setenv("TERM", "xterm")
    assert level(verbose) == expected


def test_a_line_per_epoch(device, capsys):
    model(device).fit(X, X[:, :1], epochs=2, validation_data=(X, X[:, :1]))
    lines = capsys.readouterr().out.splitlines()
    number = r"\d\.\d+(e-\d+)?"
    pattern = (
        rf"Epoch \d/2 - \S+s - \S+/step - [\d,]+ samples/s - loss: {number} - "
        rf"mae: {number} - val_loss: {number} - val_mae: {number}"
    )
    assert len(lines) == 2
    assert all(re.fullmatch(pattern, line) for line in lines), lines


def test_silence(device, capsys):
    m = model(device)
    m.fit(X, X[:, :1], verbose=0)
    m.evaluate(X, X[:, :1], verbose=0)
    m.predict(X)
    assert capsys.readouterr().out == ""


def test_a_bar_on_a_terminal(device, monkeypatch):
    screen = Terminal()
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("nnjit.training.progress.REDRAW", 0.0)
    model(device).fit(X, X[:, :1], batch_size=2, verbose=1)
    text = screen.getvalue()
    assert "Epoch 1/1" in text
    assert "samples/s" in text.splitlines()[-1]


def test_the_bar_goes_away_when_training_fails(device, monkeypatch):
    from nnjit.callbacks import LambdaCallback

    screen = Terminal()
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setenv("TERM", "xterm")
    fail = LambdaCallback(on_train_batch_end=lambda batch, logs: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        model(device).fit(X, X[:, :1], verbose=1, callbacks=[fail])
    assert "\x1b[?25h" in screen.getvalue()  # the cursor is shown again


def test_texts():
    assert metrics_text({"accuracy": 0.5, "loss": 1e-5}) == "loss: 1.0000e-05 - accuracy: 0.5000"
    assert [seconds_text(s) for s in (0.0123, 3.21, 125)] == ["12ms", "3.2s", "2m05s"]
    assert rate_text(2.0, 1000, 50000) == "2.0s - 2ms/step - 25,000 samples/s"
    assert rate_text(0.02, 100, 100) == "20ms - 200us/step - 5,000 samples/s"
