"""The same seed gives the same bits: for any number of threads, in every process, and after new
batch sizes, for which nothing is compiled.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from nnjit import config
from nnjit.layers import (
    BatchNormalization,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    Input,
    MaxPooling2D,
)
from nnjit.models import Sequential
from nnjit.runtime import cpu

ROOT = Path(__file__).parent.parent
ROWS, BATCH = 640, 64


def network() -> Sequential:
    """Convolutions large enough for several chunks, batch norm, max-pooling, dropout."""
    with config.seeded(7):
        model = Sequential([
            Input((20, 20, 1)),
            Conv2D(16, 3, padding="same", use_bias=False),
            BatchNormalization(),
            MaxPooling2D(),
            Conv2D(32, 3, activation="relu"),
            MaxPooling2D(),
            Dropout(0.25),
            Flatten(),
            Dense(48, "relu"),
            Dropout(0.5),
            Dense(10, "softmax"),
        ])  # fmt: skip
    model.compile("adam", "sparse_categorical_crossentropy", ["accuracy"], device="cpu")
    return model


def images() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 10, ROWS)
    return rng.normal(y[:, None, None, None] / 5, 1, (ROWS, 20, 20, 1)).astype(np.float32), y


def digest(arrays) -> str:
    return hashlib.sha256(b"".join(np.ascontiguousarray(a).tobytes() for a in arrays)).hexdigest()


def report() -> dict:
    """50 steps, then a prediction."""
    model, (x, y) = network(), images()
    history = model.fit(x, y, batch_size=BATCH, epochs=5, verbose=0)
    state = [v.numpy() for v in model.step_variables()]
    return {
        "loss": [v.hex() for v in history.history["loss"]],
        "state": digest(state),
        "prediction": digest([model.predict(x[:100])]),
        "several chunks": any(row.chunks > 1 for row in model.executable("train").rows(
            {"batch": BATCH})),
        "compiled": cpu.compiled_count(),
    }  # fmt: skip


def in_a_process(**settings: str) -> dict:
    code = "import json; from tests.test_same_bits import report; print(json.dumps(report()))"
    env = {**os.environ, "PYTHONPATH": str(ROOT), **settings}
    ran = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
    )
    return json.loads(ran.stdout)


@pytest.fixture(scope="module")
def first() -> dict:
    return in_a_process(NNJIT_THREADS="1")


@pytest.mark.parametrize("threads", ["1", "2", "7"])
def test_any_number_of_threads_in_another_process(first, threads):
    found = in_a_process(NNJIT_THREADS=threads)
    assert first["several chunks"], "the test needs launches that threads share"
    assert {**found, "compiled": 0} == {**first, "compiled": 0}
    assert found["compiled"] == 0, "a warm start compiles nothing"


def test_numbas_own_cache_gives_the_same_bits(first):
    found = in_a_process(NNJIT_LOADER="numba")
    assert {**found, "compiled": 0} == {**first, "compiled": 0}


def test_counting_time_gives_the_same_bits(first):
    assert {**in_a_process(NNJIT_DEBUG="2"), "compiled": 0} == {**first, "compiled": 0}


def test_new_sizes_compile_nothing(first):
    model, (x, y) = network(), images()
    model.fit(x[:64], y[:64], batch_size=32, verbose=0)
    model.evaluate(x[:64], y[:64], verbose=0)
    model.predict(x[:8])
    before = cpu.compiled_count()
    model.fit(x[:150], y[:150], batch_size=47, epochs=2, verbose=0, validation_split=0.3)
    model.optimizer.learning_rate = 1e-4
    model.fit(x[:33], y[:33], batch_size=33, verbose=0)
    model.train_on_batch(x[:1], y[:1])
    model.evaluate(x[:77], y[:77], batch_size=19, verbose=0)
    assert model.predict(x, batch_size=97).shape == (ROWS, 10)
    assert cpu.compiled_count() == before
    again = network()
    again.fit(x[:40], y[:40], verbose=0)
    assert cpu.compiled_count() == before, "an equal model has the kernels already"


def test_a_result_does_not_depend_on_the_other_rows_of_its_batch():
    model, (x, _) = network(), images()
    whole = model.predict(x[:96], batch_size=96)
    for size in (1, 5, 32):
        np.testing.assert_array_equal(model.predict(x[:96], batch_size=size), whole)
