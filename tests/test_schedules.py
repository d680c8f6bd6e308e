"""Learning-rate schedules against values worked out by hand from Keras' formulas."""

import json
import math

import numpy as np
import pytest

from nnjit import schedules
from nnjit.errors import ArgumentError

# schedule, {step: rate}
CASES = [
    (schedules.ExponentialDecay(0.1, 10, 0.5), {0: 0.1, 5: 0.1 * 0.5**0.5, 10: 0.05, 30: 0.0125}),
    (schedules.ExponentialDecay(0.1, 10, 0.5, staircase=True), {0: 0.1, 9: 0.1, 10: 0.05}),
    (schedules.InverseTimeDecay(0.1, 10, 0.5), {0: 0.1, 5: 0.08, 20: 0.05}),
    (schedules.InverseTimeDecay(0.1, 10, 0.5, staircase=True), {9: 0.1, 10: 0.1 / 1.5}),
    (schedules.PiecewiseConstantDecay([2, 4], [1.0, 0.5, 0.1]),
     {0: 1, 2: 1, 3: 0.5, 4: 0.5, 5: 0.1, 99: 0.1}),
    (schedules.PolynomialDecay(0.1, 10, 0.02), {0: 0.1, 5: 0.06, 10: 0.02, 50: 0.02}),
    (schedules.PolynomialDecay(0.1, 10, 0.0, power=2.0), {5: 0.025, 10: 0}),
    (schedules.PolynomialDecay(0.1, 10, 0.0, cycle=True), {0: 0.1, 5: 0.05, 15: 0.025, 10: 0}),
    (schedules.CosineDecay(0.1, 10), {0: 0.1, 5: 0.05, 10: 0, 20: 0}),
    (schedules.CosineDecay(0.1, 10, alpha=0.5), {0: 0.1, 5: 0.075, 10: 0.05}),
    (schedules.CosineDecay(0.0, 10, warmup_target=0.2, warmup_steps=4),
     {0: 0, 1: 0.05, 3: 0.15, 4: 0.2, 9: 0.1, 14: 0, 99: 0}),
    (schedules.CosineDecay(0.1, 10, warmup_target=0.2), {0: 0.2, 5: 0.1}),
    (schedules.CosineDecayRestarts(0.1, 10), {0: 0.1, 5: 0.05, 10: 0.1, 20: 0.05, 30: 0.1, 70: 0.1,
     11: 0.05 * (1 + math.cos(math.pi / 20)), 40: 0.1 * 0.5 * (1 + math.cos(math.pi / 4))}),
    (schedules.CosineDecayRestarts(0.1, 10, t_mul=1.0, m_mul=0.5),
     {5: 0.05, 15: 0.025, 25: 0.0125}),
]  # fmt: skip


@pytest.mark.parametrize(("schedule", "expected"), CASES, ids=lambda c: type(c).__name__)
def test_values(schedule, expected):
    for step, rate in expected.items():
        np.testing.assert_allclose(schedule.value(step), rate, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("schedule", [c[0] for c in CASES], ids=lambda c: type(c).__name__)
def test_config_round_trip(schedule):
    config = json.loads(json.dumps(schedule.get_config()))
    again = schedules.get({"class_name": type(schedule).__name__, "config": config})
    assert again.get_config() == schedule.get_config()
    assert again.value(7) == schedule.value(7)


def test_wrong_arguments_are_named():
    with pytest.raises(ArgumentError, match="decay_steps=0"):
        schedules.CosineDecay(0.1, 0)
    with pytest.raises(ArgumentError, match="2 boundaries need 3 values, got 2"):
        schedules.PiecewiseConstantDecay([1, 2], [1, 2])
    with pytest.raises(ArgumentError, match="must ascend"):
        schedules.PiecewiseConstantDecay([2, 1], [1, 2, 3])
