"""Recurrent layers compiled: training steps are those of the interpreter at ragged sizes, and
another batch or length compiles nothing.
"""

from __future__ import annotations

import numpy as np

import nnjit
from nnjit.layers import GRU, LSTM, Bidirectional, Dense, Embedding, Input
from nnjit.models import Sequential
from nnjit.runtime import cpu


def model(device: str) -> Sequential:
    """Padded texts: both ways, masks, recurrent dropout."""
    nnjit.set_seed(0)
    made = Sequential([
        Input((None,), dtype="int32"),
        Embedding(20, 5, mask_zero=True),
        Bidirectional(LSTM(17, return_sequences=True)),
        GRU(5, reset_after=False, recurrent_dropout=0.3),
        Dense(2),
    ])  # fmt: skip
    made.compile("sgd", "mse", device=device)
    return made


def test_training_is_that_of_the_interpreter_and_compiles_once():
    both = {device: model(device) for device in ("interpret", "cpu")}
    both["cpu"].set_weights(both["interpret"].get_weights())
    rng = np.random.default_rng(1)
    compiled = None
    for batch, times in ((3, 7), (1, 1), (5, 2)):
        x = rng.integers(0, 20, (batch, times)).astype("int32")
        y = rng.standard_normal((batch, 2)).astype("float32")
        for one in both.values():
            one.train_on_batch(x, y)
        found = {
            k: [model.predict(x, verbose=0), *model.get_weights()] for k, model in both.items()
        }
        for got, want in zip(found["cpu"], found["interpret"], strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-4, atol=2e-6)
        compiled = compiled or cpu.compiled_count()
        assert cpu.compiled_count() == compiled
