"""float32 formulas for kernels: what each computes, with its largest error in units in the last
place (ulp).

The polynomials are weighted least-squares fits whose coefficients were rounded to float32 one after
the other, lowest first. Selects instead of branches; NaN, infinities and subnormal numbers are
handled.
"""

from __future__ import annotations

from nnjit.kernels import math_f8
from nnjit.kernels.math_any import clamp, log_limits, power_limits, scaled, sigmoid_of
from nnjit.kernels.scalar import (
    Value,
    absolute,
    convert,
    from_bits,
    polynomial,
    power_of_two,
    rounded,
    select,
    to_bits,
    with_sign,
)

LOG2E = 1.4426950408889634
LN2_HI, LN2_LO = 0.693359375, -2.12194440e-4
ROOT_HALF = 0x3F3504F3  # the bits of sqrt(1/2)


def reduced(x: Value) -> tuple[Value, Value, Value]:
    """x = n ln 2 + r: the integer n, r and exp(r) - 1."""
    n, i = rounded(x * LOG2E)
    r = (x - n * LN2_HI) - n * LN2_LO
    g = polynomial(r, 0.0013935775, 0.008369106, 0.041666456, 0.16666517, 0.5)
    return i, r, (g * r) * r + r


def exp(x: Value) -> Value:
    """e ** x; 1 ulp."""
    n, _, p = reduced(clamp(x, -105.0, 89.0))
    return scaled(p + 1.0, n)


def exp2_below(x: Value) -> Value:
    """2 ** x for x <= 0, exactly 0 below -126, so with no subnormal result; 1.5 ulp."""
    n, i = rounded(x)
    f = x - n
    g = polynomial(f, 0.0013218672, 0.009671698, 0.05550893, 0.24022238, 0.6931469)
    return select(x < -126.0, 0.0, (g * f + 1.0) * power_of_two(i))


def expm1(x: Value) -> Value:
    """e ** x - 1, also where x is near 0; 2 ulp."""
    n, _, p = reduced(clamp(x, -20.0, 89.0))
    half = power_of_two(n - 1)
    return (half * p + (half - 0.5)) * 2.0


def tanh(x: Value) -> Value:
    """Hyperbolic tangent: an odd polynomial below 0.6, 1 - 2 / (exp(2 |x|) + 1) above; 2 ulp."""
    t, z = absolute(x), x * x
    near = polynomial(z, -0.005899897, 0.020800143, -0.053785097, 0.1333194, -0.333333)
    n, _, p = reduced(select(t > 10.0, 10.0, t) * 2.0)
    far = 1.0 - 2.0 / ((p + 1.0) * power_of_two(n) + 1.0)
    return select(t < 0.6, near * z * x + x, with_sign(far, x))


def sigmoid(x: Value) -> Value:
    """1 / (1 + e ** -x); 3 ulp."""
    return sigmoid_of(x, exp(-absolute(x)))


def log_of(f: Value, k: Value) -> Value:
    """log((1 + f) * 2**k) for 1 + f in sqrt(1/2)..sqrt(2)."""
    g = polynomial(
        f, -0.07377405, 0.1262785, -0.13199551, 0.14225616, -0.16621512, 0.19999921, -0.2500085,
        0.33333352,
    )  # fmt: skip
    n = convert(k, "f4")
    z = f * f
    low = (g * f) * z + n * LN2_LO
    return ((low - 0.5 * z) + f) + n * LN2_HI


def split(x: Value) -> tuple[Value, Value]:
    """f and k of x = (1 + f) * 2**k with 1 + f in sqrt(1/2)..sqrt(2), for x > 0."""
    small = x < 1.17549435e-38
    i = to_bits(select(small, x * 8388608.0, x)) - ROOT_HALF
    f = from_bits((i & 0x7FFFFF) + ROOT_HALF) - 1.0
    k = i >> 23
    return f, k - select(small, k.like(23), 0)


def log(x: Value) -> Value:
    """Natural logarithm: -inf at 0, NaN below; 1 ulp."""
    return log_limits(x, log_of(*split(x)), 0.0)


def log1p(x: Value) -> Value:
    """log(1 + x), also where x is near 0; 2 ulp."""
    k = (to_bits(x + 1.0) - ROOT_HALF) >> 23
    half = k >> 1
    a, b = power_of_two(-half), power_of_two(half - k)
    y = log_of((x * a) * b + (a * b - 1.0), k)
    return log_limits(x, y, -1.0)


def softplus(x: Value) -> Value:
    """log(1 + e ** x) as max(x, 0) + log1p(e ** -|x|); 3 ulp."""
    e = exp(-absolute(x))
    k = (to_bits(e + 1.0) - ROOT_HALF) >> 23
    a = power_of_two(-k)
    return select(x > 0.0, x, 0.0) + log_of(e * a + (a - 1.0), k)


def erf(x: Value) -> Value:
    """The error function: x P(x**2) below 0.93, 1 - exp(Q(|x|)) above; 2 ulp."""
    t, z = absolute(x), x * x
    near = polynomial(
        z, 8.3012026e-05, -0.0008125135, 0.005199314, -0.026858592, 0.11283677, -0.37612632,
        0.12837917,
    )  # fmt: skip
    far = polynomial(
        select(t > 4.0, 4.0, t), -2.136336e-05, 0.00043744498, -0.004184956, 0.025154598,
        -0.108332366, -0.63330126, -1.1295366, 0.0001790192,
    )  # fmt: skip
    n, _, p = reduced(far)
    scale = power_of_two(n)
    tail = (1.0 - scale) - scale * p
    return select(t < 0.93, near * x + x, with_sign(tail, x))


def bell(x: Value) -> Value:
    """exp(-x * x / 2)."""
    return exp2_below((x * x) * (-0.5 * LOG2E))


def normal_cdf(x: Value) -> Value:
    """The share of a standard normal below x: exp(-x * x / 2) P(|x|) on the left, the rest of 1 on
    the right; error 1e-7, and 1e-3 of the value above -5.5.
    """
    t = absolute(x)
    p = polynomial(
        select(t > 5.5, 5.5, t), 2.650014e-08, -8.576016e-07, 1.2440527e-05, -0.00010792491,
        0.000633867, -0.0027279723, 0.009182069, -0.025623243, 0.062007137, -0.13283433,
        0.24997826, -0.39894116, 0.5,
    )  # fmt: skip
    below = bell(x) * p
    return select(x < 0.0, below, 1.0 - below)


def normal_pdf(x: Value) -> Value:
    """The density of a standard normal at x; error 1e-7. It shares bell(x) with normal_cdf."""
    return bell(x) * 0.3989423


def sin_near(x: Value, z: Value) -> Value:
    """sin(x) for |x| <= pi / 4, z = x * x."""
    return polynomial(z, -0.00019508562, 0.00833211, -0.16666654) * (z * x) + x


def cos_near(z: Value) -> Value:
    """cos(x) for z = x * x, |x| <= pi / 4."""
    return polynomial(z, 2.4430881e-05, -0.0013887302, 0.041666646) * (z * z) + (1.0 - 0.5 * z)


def pow(x: Value, y: Value) -> Value:
    """x ** y with the special cases of C, computed in float64; 1 ulp."""
    size = convert(absolute(x), "f8")
    p = math_f8.log_of(*math_f8.split(size)) * convert(y, "f8")
    r = math_f8.exp(clamp(p, -200.0, 200.0))
    return power_limits(x, y, convert(r, "f4"))
