"""Functions of arrays: values and gradients against NumPy, open axes, composition."""

import subprocess
import sys

import numpy as np
import pytest

import nnjit
from nnjit import ops
from nnjit.errors import ArgumentError, DataError, GraphError, ShapeError
from nnjit.layers import Dense, Input
from nnjit.models import Sequential
from nnjit.spec import Spec

RNG = np.random.default_rng(0)
A, B = RNG.normal(size=(3, 4)), RNG.normal(size=(4, 2))


def loss(x, w):
    return ops.sum(ops.square(ops.tanh(x @ w)))


def test_values_and_gradients(device):
    f = nnjit.function(loss, device=device)
    t = np.tanh(A @ B)
    assert f(A, B) == pytest.approx((t * t).sum())
    d = 2 * t * (1 - t * t)
    np.testing.assert_allclose(nnjit.grad(f, 1)(A, B), A.T @ d, rtol=1e-10)
    value, (dx, dw) = nnjit.value_and_grad(f, (0, 1))(A, B)
    assert value == pytest.approx((t * t).sum())
    np.testing.assert_allclose(dx, d @ B.T, rtol=1e-10)
    np.testing.assert_allclose(dw, A.T @ d, rtol=1e-10)
    assert f(A.astype(np.float32), B.astype(np.float32)).dtype == np.float32


def test_second_derivative(device):
    f = nnjit.function(lambda x: ops.sum(x * x * x), device=device)
    slope = nnjit.grad(f)
    curve = nnjit.grad(nnjit.function(lambda x: ops.sum(slope(x)), device=device))
    x = np.array([1.0, -2.0, 0.5])
    np.testing.assert_allclose(slope(x), 3 * x * x)
    np.testing.assert_allclose(curve(x), 6 * x)


def test_structures_numbers_and_constants(device):
    f = nnjit.function(lambda x, s: {"a": x * s, "b": [ops.sum(x), 2.0]}, device=device)
    got = f(np.ones(3, np.float32), 2.5)
    np.testing.assert_array_equal(got["a"], [2.5, 2.5, 2.5])
    assert got["b"][0] == 3
    assert got["b"][1] == 2.0


def test_results_are_the_callers_own(device):
    f = nnjit.function(lambda x: x + 1, device=device)
    first = f(np.zeros(3))
    f(np.ones(3))
    np.testing.assert_array_equal(first, [1, 1, 1])


def test_open_axes_are_traced_once(device):
    traced = []

    def mean(x, w):
        traced.append(1)
        return ops.mean(x @ w, axis=0)

    f = nnjit.function(mean, [Spec((None, 4), "float64"), Spec((4, 2), "float64")], device)
    for n in (1, 3, 7):
        x = RNG.normal(size=(n, 4))
        np.testing.assert_allclose(f(x, B), (x @ B).mean(0), rtol=1e-10)
    assert len(traced) == 1
    with pytest.raises(ShapeError, match="input 'x0': expected shape"):
        f(RNG.normal(size=(2, 5)), B)


def test_layers_in_functions(device):
    layer = Dense(2, "tanh", name="mine")
    model = Sequential([Input((4,)), Dense(3)])
    f = nnjit.function(lambda x: (layer(x), ops.sum(model(x))), device=device)
    x = A.astype(np.float32)
    y, _total = f(x)
    kernel, bias = layer.get_weights()
    np.testing.assert_allclose(y, np.tanh(x @ kernel + bias), rtol=1e-5)
    layer.set_weights([2 * kernel, bias])
    np.testing.assert_allclose(f(x)[0], np.tanh(x @ (2 * kernel) + bias), rtol=1e-5)
    gradient = nnjit.grad(nnjit.function(lambda x: ops.sum(model(x)), device=device))(x)
    np.testing.assert_allclose(gradient, np.tile(model.get_weights()[0].sum(1), (3, 1)), rtol=1e-5)


@pytest.mark.parametrize(
    ("act", "error", "message"),
    [
        (lambda: nnjit.grad(lambda x: x * 2)(A), ShapeError, r"scalar, got shape \(3, 4\)"),
        (lambda: nnjit.grad(loss, 2)(A, B), ArgumentError, "argnums=2: loss was given 2"),
        (lambda: nnjit.function(lambda x: None)(A), ArgumentError, "expected symbolic values"),
        (lambda: nnjit.function(lambda x: x)([[1], [2, 3]]), DataError, "argument 0: rows of diff"),
        (lambda: nnjit.function(loss, [Spec((4,))])(A, B), ArgumentError, "2 arguments given, 1"),
        (lambda: nnjit.function(loss, [(3, 4)]), ArgumentError, r"\[0\]=\(3, 4\): expected a Spec"),
        (lambda: nnjit.function(loss, device="tpu"), ArgumentError, "device='tpu'"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(act, error, message, monkeypatch):
    monkeypatch.setenv("NNJIT_DEVICE", "interpret")
    with pytest.raises(error, match=message):
        act()


def test_layers_of_one_name_are_refused():
    one, two = Dense(2), Dense(2)
    f = nnjit.function(lambda x: one(x) + two(x), device="interpret")
    with pytest.raises(
        ArgumentError, match=r"two layers hold a variable 'dense/kernel'; give them"
    ):
        f(A)


def test_a_bare_variable_is_refused():
    layer = Dense(2)
    layer.build((None, 4))
    f = nnjit.function(lambda x: x @ layer.kernel, device="interpret")
    with pytest.raises(GraphError, match="uses the variable 'dense/kernel' itself"):
        f(A.astype(np.float32))


def test_public_names_resolve():
    names = [n for n in nnjit.__all__ if n != "__version__"]
    code = f"import nnjit\nfor n in {names}: getattr(nnjit, n)\nprint(callable(nnjit.grad))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "True", done.stderr
    with pytest.raises(AttributeError, match="no attribute 'modles'"):
        _ = nnjit.modles
