"""sin and cos for kernels, of any angle: exact reduction by a table of 2 / pi, as Payne and Hanek.

x = M 2**(e - p) with an integer M of p + 1 bits. x in quarter turns, modulo 4, is M times the
table's entry for e, which holds 2**(e - p) * 2 / pi modulo 4 in parts whose products with M are
exact or small. No branches: all angles take the same path, with a few gathers each.
"""

from __future__ import annotations

import functools

from nnjit.kernels import math_any, math_f4, math_f8
from nnjit.kernels.math_any import INF, NAN
from nnjit.kernels.scalar import (
    Value,
    absolute,
    convert,
    lookup,
    power_of_two,
    rounded,
    select,
    to_bits,
)

#: the first 1280 binary places of 2 / pi
TWO_OVER_PI = int(
    "A2F9836E4E441529FC2757D1F534DDC0DB6295993C439041FE5163ABDEBBC561B7246E3A424DD2E0"
    "06492EEA09D1921CFE1DEB1CB129A73EE88235F52EBB4484E99C7026B45F7E413991D639835339F4"
    "9C845F8BBDF9283B1FF897FFDE05980FEF2F118B5A0A6D1F6D367ECF27CB09B74F463F669E5FEA2D"
    "7527BAC7EBE5F17B3D0739F78A5292EA6BFB5FB11F8D5D0856033046FC7B6BABF0CFBC209AF4361D",
    16,
)
PLACES = 1280
HALF_PI, HALF_PI_LOW = 1.5707963267948966, 6.123233995736766e-17


@functools.lru_cache(maxsize=4)
def parts(p: int, exponents: int, *places: int) -> list[list[float]]:
    """2**(e - p) * 2 / pi modulo 4 for e = 0.. as sums: parts cut after these binary places, and
    the rest.
    """
    scale = PLACES + p
    columns: list[list[float]] = [[] for _ in (*places, 0)]
    for e in range(exponents):
        rest = (TWO_OVER_PI << e) % (4 << scale)
        for column, place in zip(columns, places, strict=False):
            head = rest >> (scale - place)
            column.append(head / 2**place)
            rest -= head << (scale - place)
        columns[-1].append(rest / 2**scale)
    return columns


def whole(x: Value, p: int, top: int) -> tuple[Value, Value]:
    """M (float64) and e (at least 0, at most top) of x = M * 2**(e - p)."""
    mantissa, bias = (23, 127) if x.code == "f4" else (52, 1023)
    e = convert((to_bits(absolute(x)) >> mantissa) - bias, "i8")
    e = select(e < 0, 0, e)
    e = select(e > top, top, e)
    return convert(x, "f8") * power_of_two(p - e), e


def wave(x: Value, quarter: Value, sine: Value, cosine: Value) -> Value:
    """The sine after `quarter` quarter turns more than the angle of sine and cosine; NaN where x is
    not finite.
    """
    y = select((quarter & 1) == 1, cosine, sine)
    y = select((quarter & 2) == 2, -y, y)
    return select(absolute(x) < INF, y, NAN)


def sine_f4(x: Value, ahead: int) -> Value:
    """sin(x + ahead * pi / 2)."""
    first, rest = parts(23, 128, 27)
    m, e = whole(x, 23, 127)
    p, low = m * lookup("pi_f4_0", first, e), m * lookup("pi_f4_1", rest, e)
    n, quarter = rounded(p + low)
    angle = convert(((p - n) + low) * HALF_PI, "f4")
    z = angle * angle
    return wave(x, quarter + ahead, math_f4.sin_near(angle, z), math_f4.cos_near(z))


def two_sum(a: Value, b: Value) -> tuple[Value, Value]:
    """a + b as a sum of two numbers, exactly."""
    s = a + b
    t = s - a
    return s, (a - (s - t)) + (b - t)


def sine_f8(x: Value, ahead: int) -> Value:
    """sin(x + ahead * pi / 2)."""
    first, second, rest = parts(52, 1024, 51, 104)
    m, e = whole(x, 52, 1023)
    a, a_low = math_f8.product(m, lookup("pi_f8_0", first, e))
    b, b_low = math_f8.product(m, lookup("pi_f8_1", second, e))
    a = a - 4.0 * math_any.floor(a * 0.25)
    s, s_low = two_sum(a, a_low)
    s, t_low = two_sum(s, b)
    n, quarter = rounded(s)
    f, f_low = two_sum(s - n, s_low)
    f, g_low = two_sum(f, t_low)
    f, h_low = two_sum(f, (f_low + g_low) + (b_low + m * lookup("pi_f8_2", rest, e)))
    angle, low = math_f8.product(f, f.like(HALF_PI))
    low = low + (f * HALF_PI_LOW + h_low * HALF_PI)
    z = angle * angle
    sine = math_f8.sin_near(angle, z, low)
    return wave(x, quarter + ahead, sine, math_f8.cos_near(z) - angle * low)


def sin_f4(x: Value) -> Value:
    """Sine of any angle; 2 ulp."""
    return sine_f4(x, 0)


def cos_f4(x: Value) -> Value:
    """Cosine of any angle; 2 ulp."""
    return sine_f4(x, 1)


def sin_f8(x: Value) -> Value:
    """Sine of any angle; 2 ulp."""
    # small angles are their own sine; the reduction would round subnormal ones twice
    return select(absolute(x) < 2.0**-27, x, sine_f8(x, 0))


def cos_f8(x: Value) -> Value:
    """Cosine of any angle; 2 ulp."""
    return sine_f8(x, 1)
