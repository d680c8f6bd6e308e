"""The functions of kernel text against NumPy in the next wider dtype, over the whole range of float
bits.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

import nnjit.kernels.math as kernel_math
from nnjit.kernels.template import Template
from tests.kernels.harness import native, python_function

WIDER = {"f4": np.float64, "f8": np.longdouble}
DTYPE = {"f4": np.float32, "f8": np.float64}


def loop(name: str, code: str, arity: int = 1) -> Template:
    """y[i] = name(x[i]) or name(x[i], z[i])."""
    arguments = "x[i]" if arity == 1 else "x[i], z[i]"
    return Template(
        name=f"loop_{name}_{code}",
        doc=f"y = {name}({arguments})",
        imports=(f"from nnjit.kernels.math import {name}_{code}",),
        symbols=(),
        params=(("x", code), *((("z", code),) if arity == 2 else ()), ("y", code)),
        body=("for i in range(lo, hi):", f"    y[i] = {name}_{code}({arguments})"),
        trip=0,
    )


def evaluate(name: str, *arrays: np.ndarray, jit: bool = True) -> np.ndarray:
    code = "f4" if arrays[0].dtype == np.float32 else "f8"
    y = np.empty_like(arrays[0])
    t = loop(name, code, len(arrays))
    (native(t) if jit else python_function(t))(0, y.size, 0, *arrays, y)
    return y


def sigmoid(x):
    e = np.exp(-abs(x))
    return np.where(x < 0, e, 1) / (1 + e)


def softplus(x):
    return np.maximum(x, 0) + np.log1p(np.exp(-abs(x)))


def erf(x):
    return np.array([math.erf(v) for v in x])


REFERENCE = {
    "exp": np.exp, "expm1": np.expm1, "log": np.log, "log1p": np.log1p, "tanh": np.tanh,
    "sigmoid": sigmoid, "softplus": softplus, "erf": erf, "pow": np.power,
    "sin": np.sin, "cos": np.cos,
}  # fmt: skip

#: the stated error in ulp
ULP = {
    "exp_f4": 1.1, "expm1_f4": 2, "log_f4": 1, "log1p_f4": 2, "tanh_f4": 2, "sigmoid_f4": 3,
    "softplus_f4": 2, "erf_f4": 2, "pow_f4": 1,
    "exp_f8": 1.5, "expm1_f8": 2, "log_f8": 1.5, "log1p_f8": 2, "tanh_f8": 3, "sigmoid_f8": 3,
    "softplus_f8": 3, "erf_f8": 3, "pow_f8": 2,
    "sin_f4": 2, "cos_f4": 2, "sin_f8": 2, "cos_f8": 2,
}  # fmt: skip
PAIRED = ("pow",)


def samples(name: str) -> list[np.ndarray]:
    """The arguments of a function such as 'pow_f4'."""
    base, code = name.split("_")
    x = samples_f4() if code == "f4" else samples_f8()
    if base == "erf":
        x = x[::4].copy()  # its reference is slow
    return list(samples_of_pairs(x)) if base in PAIRED else [x]


def reference(name: str, arguments: list[np.ndarray]) -> np.ndarray:
    base, code = name.split("_")
    wider = np.float64 if base == "erf" else WIDER[code]
    with np.errstate(all="ignore"):
        return REFERENCE[base](*(a.astype(wider) for a in arguments))


def samples_of_pairs(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bases and exponents whose power is mostly finite, all bits, and special values with each
    other.
    """
    rng = np.random.default_rng(11)
    n, t = 2**17, x.dtype.type
    base = np.exp(rng.normal(size=n) * np.exp(rng.uniform(-12, 4, n)))
    with np.errstate(all="ignore"):
        top = 90 if t is np.float32 else 720
        exponent = np.clip(rng.uniform(-top, top, n) / np.log(base), -1e30, 1e30)
        base, exponent = base.astype(t), exponent.astype(t)
    edge = np.array(
        [0, -0.0, 1, -1, 2, -2, 0.5, -0.5, 3, -3, 1e30, -1e30, np.inf, -np.inf, np.nan], t
    )
    whole = rng.integers(-20, 20, n).astype(t)
    a, b = (v.ravel() for v in np.meshgrid(edge, edge))
    bits = x[rng.integers(0, x.size, (2, n))]
    return (
        np.concatenate([base, rng.normal(size=n).astype(t), bits[0], a]),
        np.concatenate([exponent, whole, bits[1], b]),
    )


def samples_f4() -> np.ndarray:
    """Bits of all exponents and signs, edges, and the places where formulas change."""
    rng = np.random.default_rng(7)
    return np.concatenate([
        np.arange(0, 2**32, 4099, dtype=np.uint64).astype(np.uint32).view(np.float32),
        np.float32([0, -0.0, np.inf, -np.inf, np.nan, 1, -1]),
        np.float32([1e-45, -1e-45, 1.17549435e-38, 3.4028235e38]),
        np.linspace(-110, 110, 2**18, dtype=np.float32),
        np.linspace(-5, 5, 2**18, dtype=np.float32),
        (1 + rng.normal(size=2**16) * 1e-3).astype(np.float32),
        (-1 + abs(rng.normal(size=2**16)) * 1e-3).astype(np.float32),
    ])  # fmt: skip


def samples_f8() -> np.ndarray:
    """Random bits, edges, and the places where formulas change."""
    rng = np.random.default_rng(8)
    n = 2**15
    return np.concatenate([
        rng.integers(0, 2**64, 2**18, dtype=np.uint64).view(np.float64),
        [0, -0.0, np.inf, -np.inf, np.nan, 1, -1],
        [5e-324, -5e-324, 2.2250738585072014e-308, 1.7976931348623157e308],
        np.linspace(-750, 750, 2**16),
        np.linspace(-5, 5, 2**16),
        np.exp(rng.uniform(-50, 5, n)) * rng.choice([-1, 1], n),
        1 + rng.normal(size=n) * 1e-3,
        -1 + abs(rng.normal(size=n)) * 1e-3,
    ])  # fmt: skip


def ulp_error(y: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """|y - exact| in units in the last place of y's dtype at `exact`; infinite where one is NaN or
    wrongly infinite.
    """
    info = np.finfo(y.dtype)
    with np.errstate(all="ignore"):
        rounded = exact.astype(y.dtype)
        unit = np.frexp(abs(exact))[1] - info.nmant - 1
        one = np.ldexp(np.ones_like(exact), np.maximum(unit, info.minexp - info.nmant))
        error = abs(y.astype(exact.dtype) - exact) / one
    same = (y == rounded) | (np.isnan(y) & np.isnan(rounded))
    return np.where(np.isfinite(error), error, np.where(same, 0, np.inf))


@pytest.mark.parametrize("name", list(ULP))
def test_error_over_the_whole_range(name):
    given = samples(name)
    error = ulp_error(evaluate(name.split("_")[0], *given), reference(name, given))
    worst = int(np.argmax(error))
    assert error[worst] <= ULP[name], f"{error[worst]:.2f} ulp at {[a[worst] for a in given]}"


@pytest.mark.parametrize(("code", "most"), [("f4", 1e-7), ("f8", 2.5e-16)])
def test_normal_distribution(code, most):
    """float32 keeps the digits of small shares as well: gelu(-6) is no difference of ones."""
    x = np.linspace(-15, 15, 30_001).astype(DTYPE[code])
    share = np.array([0.5 * math.erfc(-v * math.sqrt(0.5)) for v in x.astype("f8")])
    density = np.exp(-0.5 * x.astype("f8") ** 2) / math.sqrt(2 * math.pi)
    for name, exact in (("normal_cdf", share), ("normal_pdf", density)):
        error = abs(evaluate(name, x) - exact)
        assert error.max() <= most, name
        if code == "f4":
            assert (error / exact)[abs(x) < 5.5].max() <= 1e-3, name


CASES = {
    "exp": [(-np.inf, 0), (np.inf, np.inf), (np.nan, np.nan), (0, 1), (-1e30, 0), (1e30, np.inf)],
    "log": [
        (0, -np.inf),
        (-1, np.nan),
        (np.inf, np.inf),
        (-np.inf, np.nan),
        (np.nan, np.nan),
        (1, 0),
    ],
    "log1p": [(-1, -np.inf), (-2, np.nan), (np.inf, np.inf), (np.nan, np.nan), (0, 0)],
    "expm1": [(-np.inf, -1), (np.inf, np.inf), (np.nan, np.nan), (0, 0)],
    "tanh": [(-np.inf, -1), (np.inf, 1), (np.nan, np.nan), (0, 0), (40, 1)],
    "sigmoid": [(-np.inf, 0), (np.inf, 1), (np.nan, np.nan), (0, 0.5)],
    "softplus": [(-np.inf, 0), (np.inf, np.inf), (np.nan, np.nan)],
    "erf": [(-np.inf, -1), (np.inf, 1), (np.nan, np.nan), (0, 0)],
    "normal_cdf": [(-np.inf, 0), (np.inf, 1), (np.nan, np.nan), (0, 0.5), (-40, 0), (40, 1)],
    "normal_pdf": [(-np.inf, 0), (np.inf, 0), (np.nan, np.nan), (40, 0)],
    "sin": [(0, 0), (np.inf, np.nan), (-np.inf, np.nan), (np.nan, np.nan)],
    "cos": [(0, 1), (np.inf, np.nan), (-np.inf, np.nan), (np.nan, np.nan)],
    "sqrt": [(-1, np.nan), (np.inf, np.inf), (4, 2), (0, 0)],
    "rsqrt": [(0, np.inf), (4, 0.5), (np.inf, 0), (-1, np.nan)],
    "floor": [(-0.5, -1), (2.5, 2), (np.nan, np.nan)],
    "round": [(-0.6, -1), (2.5, 2), (3.5, 4), (1e30, 1e30)],
}


@pytest.mark.parametrize("code", ["f4", "f8"])
@pytest.mark.parametrize("jit", [True, False])
@pytest.mark.parametrize("name", list(CASES))
def test_special_values(name, code, jit):
    x, expected = (np.array(v, DTYPE[code]) for v in zip(*CASES[name], strict=True))
    np.testing.assert_array_equal(evaluate(name, x, jit=jit), expected)


@pytest.mark.parametrize("code", ["f4", "f8"])
@pytest.mark.parametrize("name", ["maximum", "minimum"])
def test_maximum_keeps_nan(name, code):
    v = np.array([-1, 0, 2, np.inf, -np.inf, np.nan], DTYPE[code])
    x, z = (a.ravel().copy() for a in np.meshgrid(v, v))
    expected = getattr(np, name)(x, z)
    np.testing.assert_array_equal(evaluate(name, x, z), expected)
    np.testing.assert_array_equal(evaluate(name, x, z, jit=False), expected)


@pytest.mark.parametrize("name", list(ULP))
def test_python_meaning_is_as_near(name):
    given = [a[:: a.size // 500].copy() for a in samples(name)]
    y = evaluate(name.split("_")[0], *given, jit=False)
    assert type(getattr(kernel_math, name)(*(a[0] for a in given))) is y.dtype.type
    assert ulp_error(y, reference(name, given)).max() <= ULP[name]


@pytest.mark.parametrize("name", ["sqrt", "rsqrt"])
def test_roots_are_exact(name):
    for x in (samples_f4(), samples_f8()):
        with np.errstate(all="ignore"):
            expected = np.sqrt(x) if name == "sqrt" else x.dtype.type(1) / np.sqrt(x)
        np.testing.assert_array_equal(evaluate(name, x), expected)


@pytest.mark.parametrize("name", list(ULP))
def test_chunk_limits_do_not_matter(name):
    """Vector bodies and scalar tails give the same bits."""
    base, code = name.split("_")
    given = [a[::97][:4001].copy() for a in samples(name)]
    whole = evaluate(base, *given)
    parts = np.empty_like(whole)
    kernel = native(loop(base, code, len(given)))
    for lo in range(0, whole.size, 7):
        kernel(lo, min(lo + 7, whole.size), 0, *given, parts)
    bits = np.uint32 if code == "f4" else np.uint64
    number = ~np.isnan(whole)
    assert np.array_equal(np.isnan(parts), ~number)
    assert np.array_equal(whole[number].view(bits), parts[number].view(bits))


def test_numba_is_not_needed_un_jitted():
    import subprocess
    import sys

    code = (
        "import sys, nnjit.kernels.math as m; m.exp_f4(1.0); "
        "assert not {'numba', 'llvmlite'} & set(sys.modules), 'imported'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
