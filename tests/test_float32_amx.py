"""NNJIT_FLOAT32=amx: training steps with large products, whatever the number of threads."""

from __future__ import annotations

import numpy as np
import pytest

from nnjit import config
from nnjit.errors import ConfigError
from nnjit.kernels import target
from nnjit.layers import Dense, Input, LayerNormalization
from nnjit.models import Sequential

TIME, WIDTH = 64, 256


def trained(slices: int = 1, threads: int = 2) -> tuple[list[np.ndarray], list[float]]:
    """Variables after some steps, and losses."""
    with config.seeded(3):
        model = Sequential([
            Input((TIME, WIDTH)), Dense(300, "gelu"), LayerNormalization(), Dense(WIDTH),
        ])  # fmt: skip
    rng = np.random.default_rng(0)
    x = rng.standard_normal((20, TIME, WIDTH)).astype(np.float32)
    y = np.roll(x, 1, -1) * 0.5
    model.compile("adam", "mse", device="cpu", batch_slices=slices)
    before = config.threads()
    config.set_threads(threads)
    try:
        loss = model.fit(x, y, batch_size=10, epochs=3, shuffle=False, verbose=0).history["loss"]
        return [v.numpy() for v in model.step_variables()], loss
    finally:
        config.set_threads(before)


@pytest.mark.slow
@pytest.mark.skipif(not target.host_multiplies_blocks(), reason="this CPU has no AMX")
def test_training(monkeypatch):
    weights, plain = trained()
    monkeypatch.setenv("NNJIT_FLOAT32", "amx")
    found = [trained(threads=n) for n in (1, 2, 3)]
    for variables, loss in found[1:]:
        assert loss == found[0][1]
        assert all(map(np.array_equal, variables, found[0][0]))
    # other roundings: AMX was used
    assert not all(map(np.array_equal, weights, found[0][0]))
    np.testing.assert_allclose(found[0][1], plain, rtol=1e-5)
    assert plain[-1] < 0.85 * plain[0]
    _, sliced = trained(slices=2)
    np.testing.assert_allclose(sliced, plain, rtol=1e-5)


def test_a_cpu_without_amx_says_so(monkeypatch):
    monkeypatch.setenv("NNJIT_FLOAT32", "amx")
    monkeypatch.setenv("NNJIT_VECTOR_BITS", "256")
    with pytest.raises(ConfigError, match="NNJIT_FLOAT32=amx: this CPU"):
        trained()
