"""Random ops: pure functions of seed, step and stream; dropout."""

from __future__ import annotations

import numpy as np
import pytest

from nnjit import ops
from nnjit.autodiff import gradients
from nnjit.errors import DTypeError, ShapeError
from nnjit.graph import Graph, Scope, enter, input_node, interpret, state_node
from nnjit.spec import Spec

rng = state_node("rng", Spec((2,), "int64"))


def draw(node, seed=1, step=0, **values):
    return interpret(Graph("g", {"y": node}), {"rng": np.array([seed, step]), **values})[0]["y"]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_moments(dtype):
    u = draw(ops.random_uniform((100, 200), dtype=dtype, rng=rng, stream=0))
    z = draw(ops.random_normal((100, 200), dtype=dtype, rng=rng, stream=0))
    assert u.dtype == z.dtype == dtype
    assert 0 <= u.min() < u.max() < 1
    assert abs(u.mean() - 0.5) < 0.01
    assert abs(u.var() - 1 / 12) < 0.003
    assert abs(z.mean()) < 0.03
    assert abs(z.std() - 1) < 0.02


def test_numbers_depend_on_seed_step_and_stream_alone():
    one, two = (ops.random_uniform((8,), rng=rng, stream=s) for s in (1, 2))
    base = draw(one)
    np.testing.assert_array_equal(draw(one), base)
    for other in (draw(one, seed=2), draw(one, step=1), draw(two)):
        assert (other != base).all()


def test_a_float64_run_draws_the_float32_numbers():
    graph = Graph("g", {"y": ops.random_uniform((8,), rng=rng, stream=0)})
    values = {"rng": np.array([1, 2])}
    narrow, wide = interpret(graph, values)[0]["y"], interpret(graph, values, "float64")[0]["y"]
    assert wide.dtype == np.float64
    np.testing.assert_array_equal(narrow, wide)


def test_limits_and_scale():
    u = draw(ops.random_uniform((1000,), low=-2, high=3, rng=rng, stream=0))
    assert -2 <= u.min() < -1.9 < 2.9 < u.max() < 3
    z = draw(ops.random_normal((1000,), mean=5, stddev=0.1, rng=rng, stream=0))
    assert abs(z.mean() - 5) < 0.02


def test_streams_come_from_the_scope():
    with enter(Scope("model", training=True, random=rng)):
        a, b = ops.random_uniform((4,)), ops.random_uniform((4,))
    assert (draw(a) != draw(b)).all()


def test_dropout_keeps_the_mean_and_uses_one_choice_in_both_directions():
    x = input_node("x", Spec(("batch", 100)))
    y = ops.dropout(x, 0.25, rng=rng, stream=0)
    graph = Graph("g", {"y": y, "dx": gradients(y, [x])[0]})
    values = {"x": np.full((50, 100), 3.0, np.float32), "rng": np.array([1, 0])}
    out, _ = interpret(graph, values)
    assert set(np.unique(out["y"])) == {0, 4}
    assert abs(out["y"].mean() - 3) < 0.1
    np.testing.assert_allclose(out["dx"], out["y"] / 3, 1e-6)


def test_dropout_of_whole_channels():
    x = input_node("x", Spec(("batch", 5, 8)))
    y = ops.dropout(x, 0.5, noise_shape=(None, 1, None), rng=rng, stream=0)
    out = draw(y, x=np.ones((4, 5, 8), np.float32))
    assert (out == out[:, :1]).all()
    assert 0 < (out == 0).mean() < 1


def test_rate_0_is_nothing():
    x = input_node("x", Spec((3,)))
    assert ops.dropout(x, 0) is x


def test_wrong_state_or_dtype():
    with pytest.raises(ShapeError, match="state int64"):
        ops.random_uniform((3,), rng=input_node("r", Spec((2,))), stream=0)
    with pytest.raises(DTypeError, match="int32 is not floating point"):
        ops.random_uniform((3,), dtype="int32", rng=rng, stream=0)
