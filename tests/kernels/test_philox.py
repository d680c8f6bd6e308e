"""Philox against published answers, kernels against NumPy, and the shape of the distributions."""

from __future__ import annotations

import numpy as np
import pytest

from nnjit.kernels.philox import (
    philox2x32,
    philox4x32,
    philox_bits,
    philox_normal,
    philox_uniform,
)
from nnjit.kernels.template import Template
from tests.kernels.harness import native, python_function

DTYPE = {"f4": np.float32, "f8": np.float64, "u8": np.uint64}

#: from kat_vectors of Random123: counter, key, answer
KNOWN_2 = [
    ((0, 0), 0, (0xFF1DAE59, 0x6CD10DF2)),
    ((0xFFFFFFFF, 0xFFFFFFFF), 0xFFFFFFFF, (0x2C3F628B, 0xAB4FD7AD)),
    ((0x243F6A88, 0x85A308D3), 0x13198A2E, (0xDD7CE038, 0xF62A4C12)),
]
KNOWN_4 = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN_2)
def test_known_answers_of_philox2x32(counter, key, answer):
    assert philox2x32(*map(np.uint64, counter), np.uint64(key)) == answer


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN_4)
def test_known_answers_of_philox4x32(counter, key, answer):
    assert philox4x32(tuple(map(np.uint64, counter)), *map(np.uint64, key)) == answer


def draw(name: str, code: str) -> Template:
    """y[i] = the random number of element start + i."""
    f = f"philox_{name}_{code}"
    return Template(
        name=f"draw_{name}_{code}",
        doc=f"y = {f}",
        imports=(f"from nnjit.kernels.philox import {f}",),
        symbols=("seed", "stream", "step", "start"),
        params=(("y", code),),
        body=("for i in range(lo, hi):", f"    y[i] = {f}(seed, stream, step, start + i)"),
        trip=0,
    )


def kernel_numbers(name, code, seed, stream, step, start, n, jit=True):
    y = np.empty(n, DTYPE[code])
    t = draw(name, code)
    (native(t) if jit else python_function(t))(0, n, 0, seed, stream, step, start, y)
    return y


PLACES = [
    (0, 0, 0, 0),
    (-3, 1, 2, 5),
    (12345678901234, 7, 3, 5),
    (2**62 + 1, 2**40, 2**33, 2**32 - 50),
]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(("name", "code"), [("bits", "u8"), ("uniform", "f4"), ("uniform", "f8")])
def test_kernels_have_numpys_bits(name, code, place):
    *where, start = place
    jitted = kernel_numbers(name, code, *place, 333)
    np.testing.assert_array_equal(jitted, kernel_numbers(name, code, *place, 333, jit=False))
    if start <= 5:
        shape = (start + 333,)
        whole = (
            philox_bits(*where, shape)
            if name == "bits"
            else philox_uniform(*where, shape, DTYPE[code])
        )
        np.testing.assert_array_equal(jitted, whole[start:])
        assert whole.dtype == DTYPE[code]


@pytest.mark.parametrize("code", ["f4", "f8"])
def test_normal_kernels_are_near_numpys(code):
    n = 200_000
    expected = philox_normal(5, 1, 2, (n,), DTYPE[code])
    y = kernel_numbers("normal", code, 5, 1, 2, 0, n)
    assert (abs(y - expected) <= 4 * np.spacing(abs(expected))).all()
    few = kernel_numbers("normal", code, 5, 1, 2, 0, 40, jit=False)
    np.testing.assert_array_equal(few, expected[:40])


def kolmogorov(x: np.ndarray, cdf: np.ndarray) -> float:
    """sqrt(n) times the largest distance of the empirical distribution; above 1.95 for one sample
    in 1000.
    """
    n = x.size
    steps = np.arange(n + 1) / n
    return float(np.sqrt(n) * np.maximum(abs(cdf - steps[1:]), abs(cdf - steps[:-1])).max())


def normal_cdf(x: np.ndarray) -> np.ndarray:
    import math

    return np.array([0.5 * math.erfc(-v / math.sqrt(2)) for v in x])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("where", [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (99, 3, 1000)])
def test_distributions(where, dtype):
    n = 100_000
    u = np.sort(philox_uniform(*where, (n,), dtype).astype("f8"))
    assert u[0] >= 0
    assert u[-1] < 1
    assert abs(u.mean() - 0.5) < 4 / np.sqrt(12 * n)
    assert abs(u.var() - 1 / 12) < 4 * np.sqrt(1 / 180 / n)
    assert kolmogorov(u, u) < 1.95
    z = np.sort(philox_normal(*where, (n,), dtype).astype("f8"))
    assert abs(z.mean()) < 4 / np.sqrt(n)
    assert abs(z.var() - 1) < 4 * np.sqrt(2 / n)
    assert abs((z**4).mean() - 3) < 4 * np.sqrt(96 / n)
    assert kolmogorov(z[::10], normal_cdf(z[::10])) < 1.95


def test_neighbours_are_independent():
    """Elements, steps, streams and seeds side by side do not correlate; no bit is stuck."""
    n = 100_000
    base = philox_uniform(0, 0, 0, (n,), "float64") - 0.5
    others = [np.roll(base, 1), np.roll(base, 2)]
    others += [philox_uniform(*w, (n,), "float64") - 0.5 for w in ((1, 0, 0), (0, 1, 0), (0, 0, 1))]
    for other in others:
        assert abs((base * other).mean()) * 12 < 4 / np.sqrt(n)
    bits = philox_bits(0, 0, 0, (n,))
    for i in range(64):
        assert abs(((bits >> i) & 1).astype("f8").mean() - 0.5) < 4.5 * 0.5 / np.sqrt(n)


def test_shape_is_only_a_view():
    a = philox_uniform(3, 2, 1, (6, 35), "float32")
    np.testing.assert_array_equal(a.ravel(), philox_uniform(3, 2, 1, (210,), "float32"))
    assert philox_uniform(3, 2, 1, (), "float64").shape == ()
    assert philox_normal(3, 2, 1, (0, 4), "float32").shape == (0, 4)


def test_other_dtypes_are_refused():
    with pytest.raises(ValueError, match="float32 or float64, got int32"):
        philox_uniform(0, 0, 0, (2,), "int32")
