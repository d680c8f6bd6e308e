"""Formulas that are the same in float32 and float64: limits, scaling, special cases, exact
functions.
"""

from __future__ import annotations

from nnjit.kernels.scalar import Value, absolute, call, power_of_two, select, to_bits

INF, NAN = float("inf"), float("nan")


def clamp(x: Value, low: float, high: float) -> Value:
    """x between two limits; a NaN stays."""
    x = select(x < low, low, x)
    return select(x > high, high, x)


def scaled(x: Value, n: Value) -> Value:
    """x * 2**n in two steps, so that the result may be subnormal or infinite."""
    half = n >> 1
    return (x * power_of_two(half)) * power_of_two(n - half)


def log_limits(x: Value, y: Value, zero: float) -> Value:
    """The logarithm y where x > zero: -inf at zero, NaN below and for NaN, inf at inf."""
    y = select(x > zero, y, select(x == zero, y.like(-INF), NAN))
    return select(x == INF, x, y)


def sigmoid_of(x: Value, e: Value) -> Value:
    """1 / (1 + e ** -x) from e = exp(-|x|), which cannot overflow."""
    return select(x < 0.0, e, 1.0) / (e + 1.0)


def power_limits(x: Value, y: Value, r: Value) -> Value:
    """x ** y with the limits and signs of C, from r = |x| ** y, which holds for finite x other than
    0 and 1.
    """
    size = absolute(x)
    zero, up = size == 0.0, y > 0.0
    r = select(zero, select(up, r.like(0.0), INF), r)
    r = select(size == INF, select(up, r.like(INF), 0.0), r)
    r = select((size == 1.0) & (absolute(y) == INF), 1.0, r)
    half = y * 0.5
    whole, odd = call("floor", y) == y, call("floor", half) != half
    r = select((to_bits(x) < 0) & whole & odd, -r, r)
    r = select((x < 0.0) & ~whole & (x != -INF) & (y == y), NAN, r)
    r = select(x != x, x, r)
    r = select(y != y, y, r)
    return select((y == 0.0) | (x == 1.0), 1.0, r)


def maximum(x: Value, y: Value) -> Value:
    """The larger; NaN if either is."""
    return call("maximum", x, y)


def minimum(x: Value, y: Value) -> Value:
    """The smaller; NaN if either is."""
    return call("minimum", x, y)


def overtakes(v: Value, best: Value) -> Value:
    """Whether a running maximum becomes v: v > best, or v is NaN."""
    return (v > best) | (v != v)


def sqrt(x: Value) -> Value:
    """Square root, exact."""
    return call("sqrt", x)


def rsqrt(x: Value) -> Value:
    """1 / sqrt(x), both steps exact (no estimate)."""
    return 1.0 / call("sqrt", x)


def floor(x: Value) -> Value:
    """The largest whole number not above x."""
    return call("floor", x)


def round(x: Value) -> Value:
    """The nearest whole number, halves to even."""
    return call("rint", x)
