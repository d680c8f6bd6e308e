"""float64 formulas for kernels: what each computes, with its largest error in units in the last
place (ulp).

As `math_f4`, with longer polynomials. pow needs the logarithm to twice the precision, as a sum of
two numbers.
"""

from __future__ import annotations

from nnjit.kernels.math_any import clamp, log_limits, power_limits, scaled, sigmoid_of
from nnjit.kernels.scalar import (
    Value,
    absolute,
    convert,
    fma,
    from_bits,
    polynomial,
    power_of_two,
    rounded,
    select,
    times,
    to_bits,
    with_sign,
)

LOG2E = 1.4426950408889634
LN2_HI, LN2_LO = 6.93147180369123816490e-01, 1.90821492927058770002e-10
ROOT_HALF = 0x3FE6A09E667F3BCD  # the bits of sqrt(1/2)


def expm1_near(r: Value) -> Value:
    """exp(r) - 1 for |r| <= ln(2) / 2."""
    g = polynomial(
        r, 2.51127192042916e-08, 2.763112470546374e-07, 2.755723271488243e-06,
        2.4801490489298132e-05, 0.0001984126989878363, 0.0013888888946348595,
        0.008333333333315924, 0.0416666666665187, 0.16666666666666685, 0.5000000000000012,
    )  # fmt: skip
    return (g * r) * r + r


def reduced(x: Value) -> tuple[Value, Value]:
    """x = n ln 2 + r: the integer n, and r."""
    n, i = rounded(x * LOG2E)
    return i, (x - n * LN2_HI) - n * LN2_LO


def exp(x: Value) -> Value:
    """e ** x; 1.5 ulp."""
    n, r = reduced(clamp(x, -746.0, 710.0))
    return scaled(expm1_near(r) + 1.0, n)


def exp2_below(x: Value) -> Value:
    """2 ** x for x <= 0, exactly 0 below -1022, so with no subnormal result; 1.5 ulp."""
    n, i = rounded(x)
    f = x - n
    g = polynomial(
        f, 4.460008317454277e-10, 7.07368741290006e-09, 1.0178043211097293e-07,
        1.3215436470051449e-06, 1.5252733839306903e-05, 0.00015403530454575183,
        0.001333355814647522, 0.009618129107595092, 0.05550410866482056, 0.24022650695910086,
        0.6931471805599452,
    )  # fmt: skip
    return select(x < -1022.0, 0.0, (g * f + 1.0) * power_of_two(i))


def expm1(x: Value) -> Value:
    """e ** x - 1, also where x is near 0; 2 ulp."""
    n, r = reduced(clamp(x, -40.0, 710.0))
    half = power_of_two(n - 1)
    return (half * expm1_near(r) + (half - 0.5)) * 2.0


def tanh(x: Value) -> Value:
    """Hyperbolic tangent as t / (t + 2) with t = expm1(2 x); 3 ulp."""
    n, r = reduced(clamp(x, -20.0, 20.0) * 2.0)
    scale = power_of_two(n)
    t = scale * expm1_near(r) + (scale - 1.0)
    return t / (t + 2.0)


def sigmoid(x: Value) -> Value:
    """1 / (1 + e ** -x); 3 ulp."""
    return sigmoid_of(x, exp(-absolute(x)))


def split(x: Value) -> tuple[Value, Value]:
    """f and k of x = (1 + f) * 2**k with 1 + f in sqrt(1/2)..sqrt(2), for x > 0."""
    small = x < 2.2250738585072014e-308
    i = to_bits(select(small, x * 4503599627370496.0, x)) - ROOT_HALF
    f = from_bits((i & 0xFFFFFFFFFFFFF) + ROOT_HALF) - 1.0
    k = i >> 52
    return f, k - select(small, k.like(52), 0)


def atanh_rest(z: Value) -> Value:
    """(log((1 + s) / (1 - s)) / s - 2) / z for z = s * s <= 0.0295."""
    return polynomial(
        z, 0.14617253152166632, 0.15331658165977147, 0.1818289093015897, 0.22222211113085,
        0.2857142862606493, 0.3999999999989958, 0.666666666666667,
    )  # fmt: skip


def log_of(f: Value, k: Value) -> Value:
    """log((1 + f) * 2**k) for 1 + f in sqrt(1/2)..sqrt(2)."""
    s = f / (f + 2.0)
    z = s * s
    half = (0.5 * f) * f
    n = convert(k, "f8")
    low = s * (half + z * atanh_rest(z)) + n * LN2_LO
    return ((low - half) + f) + n * LN2_HI


def log(x: Value) -> Value:
    """Natural logarithm: -inf at 0, NaN below; 1.5 ulp."""
    return log_limits(x, log_of(*split(x)), 0.0)


def log1p(x: Value) -> Value:
    """log(1 + x), also where x is near 0; 2 ulp."""
    k = (to_bits(x + 1.0) - ROOT_HALF) >> 52
    half = k >> 1
    a, b = power_of_two(-half), power_of_two(half - k)
    return log_limits(x, log_of((x * a) * b + (a * b - 1.0), k), -1.0)


def softplus(x: Value) -> Value:
    """log(1 + e ** x) as max(x, 0) + log1p(e ** -|x|); 3 ulp."""
    e = exp(-absolute(x))
    k = (to_bits(e + 1.0) - ROOT_HALF) >> 52
    a = power_of_two(-k)
    return select(x > 0.0, x, 0.0) + log_of(e * a + (a - 1.0), k)


def erf(x: Value) -> Value:
    """The error function: x P(x**2) below 0.93, 1 - exp(Q(|x|)) above; 3 ulp."""
    t, z = absolute(x), x * x
    near = polynomial(
        z, -8.412837862360297e-10, 1.402302111662923e-08, -1.6272797805575708e-07,
        1.645515089194323e-06, -1.4925314322359262e-05, 0.0001205532270223395,
        -0.0008548326838574892, 0.005223977623953842, -0.0268661706451815, 0.11283791670956878,
        -0.3761263890318385, 0.1283791670955126,
    )  # fmt: skip
    far = polynomial(
        select(t > 6.0, 6.0, t) - 1.5, 1.28359363770679e-12, -2.3031493210744778e-11,
        1.8480538464676798e-10, -8.625383125195014e-10, 2.3554137668213115e-09,
        -1.1770426525910735e-09, -2.775194148739241e-08, 1.9260590986956565e-07,
        -8.18829360884166e-07, 2.370856936998403e-06, -2.646815336807698e-06,
        -2.2473695241577562e-05, 0.00021596330173896412, -0.0012572166857761765,
        0.006006746386736407, -0.025824140633698082, -0.8926403306150472, -3.508800801779527,
        -3.3844920895515527,
    )  # fmt: skip
    n, r = reduced(far)
    scale = power_of_two(n)
    tail = (1.0 - scale) - scale * expm1_near(r)
    return select(t < 0.93, near * x + x, with_sign(tail, x))


def normal_cdf(x: Value) -> Value:
    """The share of a standard normal below x; absolute error 2e-16."""
    return erf(x * 0.7071067811865476) * 0.5 + 0.5


def normal_pdf(x: Value) -> Value:
    """The density of a standard normal at x; absolute error 2e-16."""
    return exp((x * x) * -0.5) * 0.3989422804014327


def sin_near(x: Value, z: Value, low: Value | float = 0.0) -> Value:
    """sin(x + low) for |x| <= pi / 4, z = x * x, low tiny against x."""
    p = polynomial(
        z, -7.489281914815784e-13, 1.6056322629980037e-10, -2.5052086415979905e-08,
        2.755731913041292e-06, -0.00019841269841058135, 0.0083333333333331, -0.16666666666666666,
    )  # fmt: skip
    return (p * (z * x) + low) + x


def cos_near(z: Value) -> Value:
    """cos(x) for z = x * x, |x| <= pi / 4."""
    p = polynomial(
        z, 4.636041247350697e-14, -1.1467785837715376e-11, 2.0876729640098205e-09,
        -2.7557319091017523e-07, 2.480158730123837e-05, -0.001388888888888843,
        0.041666666666666664,
    )  # fmt: skip
    return p * (z * z) + (1.0 - 0.5 * z)


def product(a: Value, b: Value) -> tuple[Value, Value]:
    """a * b as a sum of two numbers, exactly."""
    p = times(a, b)
    return p, fma(a, b, -p)


def fast_sum(a: Value, b: Value) -> tuple[Value, Value]:
    """a + b as a sum of two numbers, exactly, where a is the larger (or zero)."""
    s = a + b
    return s, b - (s - a)


def long_log(f: Value, k: Value) -> tuple[Value, Value]:
    """log((1 + f) * 2**k) as a sum of two numbers, to 2**-64 of it."""
    d, d_low = fast_sum(f.like(2.0), f)
    s = f / d
    s_low = (fma(-s, d, f) - s * d_low) / d
    z, z_low = product(s, s)
    z_low = z_low + 2.0 * s * s_low
    # atanh_rest(z) with 2/3 in two parts; fitted for that
    rest = z * polynomial(
        z, 0.11587248101101126, 0.11721257930844571, 0.13334140661878544, 0.1538460991170658,
        0.18181818155151308, 0.2222222222277149, 0.2857142857142632, 0.4,
    )  # fmt: skip
    g, g_low = fast_sum(z.like(2.0 / 3.0), rest)
    g_low = g_low + 3.700743415417189e-17
    c, c_low = product(z, g)
    c_low = c_low + (z * g_low + z_low * g)
    c, carry = fast_sum(c.like(2.0), c)
    c_low = c_low + carry
    t, t_low = product(s, c)
    t_low = t_low + (s * c_low + s_low * c)
    n = convert(k, "f8")
    high, low = fast_sum(n * LN2_HI, t)
    low = low + (t_low + n * LN2_LO)
    return fast_sum(high, low)


def pow(x: Value, y: Value) -> Value:
    """x ** y with the special cases of C; 2 ulp."""
    high, low = long_log(*split(absolute(x)))
    p, p_low = product(high, y)
    p_low = fma(low, y, p_low)
    p_low = select(absolute(p) < 800.0, p_low, 0.0)
    n, r = reduced(clamp(p, -800.0, 800.0))
    return power_limits(x, y, scaled(expm1_near(r + p_low) + 1.0, n))
