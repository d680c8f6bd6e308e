"""Arithmetic, comparison, logic, selection and mathematical functions, one scalar at a time.

`{t}` in an expression is the float type of the operands (f4, f8); the functions with that suffix
are in nnjit.kernels.math. Operands broadcast; gradients need not undo that. At kinks gradients are
those of PyTorch: abs'(0) = 0, ties of maximum halve, clip passes at its limits.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from nnjit.errors import ArgumentError, DTypeError
from nnjit.graph import Node, Op, constant
from nnjit.ops.base import (
    OPS,
    Function,
    as_node,
    by_operands,
    cast_to,
    elementwise,
    is_weak,
    no_gradient,
    promote,
    register,
    same_dtype,
)
from nnjit.spec import FLOATS, Spec, broadcast, check_dtype

_vector_erf = np.frompyfunc(math.erf, 1, 1)


def _erf(x: np.ndarray) -> np.ndarray:
    return np.asarray(_vector_erf(x.astype(np.float64)), np.float64)


# -------------------------------------------------------------------------------------- arithmetic
add = elementwise("add", "{0} + {1}", np.add, lambda dy, y, a, b: (dy, dy), doc="a + b")
subtract = elementwise(
    "subtract", "{0} - {1}", np.subtract, lambda dy, y, a, b: (dy, -dy), doc="a - b"
)
multiply = elementwise(
    "multiply", "{0} * {1}", np.multiply, lambda dy, y, a, b: (dy * b, dy * a), doc="a * b"
)
divide = elementwise(
    "divide", "{0} / {1}", np.divide,
    lambda dy, y, a, b: (dy / b, -(dy * y / b)),
    takes="float", doc="a / b; integers are divided as float32",
)  # fmt: skip
negative = elementwise("negative", "-{0}", np.negative, lambda dy, y, x: -dy, doc="-x")
absolute = elementwise(
    "abs", "abs({0})", np.abs, lambda dy, y, x: dy * sign(x), doc="|x|; gradient 0 at 0"
)
square = elementwise("square", "{0} * {0}", np.square, lambda dy, y, x: dy * (2 * x), doc="x * x")
reciprocal = elementwise(
    "reciprocal", "{t}(1) / {0}", lambda x: 1 / x,
    lambda dy, y, x: -(dy * square(y)), takes="float", doc="1 / x",
)  # fmt: skip
_floor_divide = elementwise(
    "floor_divide", "{0} // {1}", np.floor_divide, doc="a // b of integers; 0 where b is 0"
)
_remainder = elementwise(
    "remainder", "{0} % {1}", np.remainder, doc="a % b of integers; 0 where b is 0"
)
maximum = elementwise(
    "maximum", "({0} if {0} != {0} else ({0} if {0} >= {1} else {1}))", np.maximum,
    lambda dy, y, a, b: (_winner(dy, a < b, a, b), _winner(dy, b < a, a, b)),
    doc="the larger of a and b; NaN wins; the gradient of a tie is halved",
)  # fmt: skip
minimum = elementwise(
    "minimum", "({0} if {0} != {0} else ({0} if {0} <= {1} else {1}))", np.minimum,
    lambda dy, y, a, b: (_winner(dy, a > b, a, b), _winner(dy, b > a, a, b)),
    doc="the smaller of a and b; NaN wins; the gradient of a tie is halved",
)  # fmt: skip


def _winner(dy: Node, lost: Node, a: Node, b: Node) -> Node:
    return where(lost, 0, where(equal(a, b), 0.5 * dy, dy))


def clip(x: Any, low: Any = None, high: Any = None) -> Node:
    """x limited to low..high, either of which may be missing; NaN stays; gradient 1 at a limit."""
    if isinstance(low, int | float) and isinstance(high, int | float) and low > high:
        raise ArgumentError(f"clip: low={low} is above high={high}")
    if low is None and high is None:
        raise ArgumentError("clip: expected low, high or both")
    x = as_node(x)
    out = x if low is None else where(x < low, low, x)
    return out if high is None else where(x > high, high, out)


def floor_divide(a: Any, b: Any) -> Node:
    """a // b; floats: floor(a / b)."""
    a, b = promote(a, b, takes="number")
    return floor(a / b) if a.dtype in FLOATS else _floor_divide(a, b)


def mod(a: Any, b: Any) -> Node:
    """a % b with the sign of b; floats: a - b * floor(a / b)."""
    a, b = promote(a, b, takes="number")
    return a - b * floor(a / b) if a.dtype in FLOATS else _remainder(a, b)


# ------------------------------------------------------------------------------------- comparisons
def _compare(name: str, sign: str, numpy: Any) -> Any:
    return elementwise(
        name, f"({{0}} {sign} {{1}})", numpy, takes="any", result="bool", doc=f"a {sign} b, bool"
    )


equal = _compare("equal", "==", np.equal)
not_equal = _compare("not_equal", "!=", np.not_equal)
less = _compare("less", "<", np.less)
less_equal = _compare("less_equal", "<=", np.less_equal)
greater = _compare("greater", ">", np.greater)
greater_equal = _compare("greater_equal", ">=", np.greater_equal)


def as_bool(x: Any) -> Node:
    """x as it is if bool, else x != 0."""
    node = as_node(x)
    return node if node.dtype == "bool" else not_equal(node, 0)


_and = elementwise(
    "logical_and", "({0} & {1})", np.logical_and, takes="any", doc="a and b, of bools"
)
_or = elementwise("logical_or", "({0} | {1})", np.logical_or, takes="any", doc="a or b, of bools")
_not = elementwise("logical_not", "(not {0})", np.logical_not, takes="any", doc="not x, of bools")


def logical_and(a: Any, b: Any) -> Node:
    """True where a and b are not 0."""
    return _and(as_bool(a), as_bool(b))


def logical_or(a: Any, b: Any) -> Node:
    """True where a or b is not 0."""
    return _or(as_bool(a), as_bool(b))


def logical_xor(a: Any, b: Any) -> Node:
    """True where exactly one of a and b is not 0."""
    return not_equal(as_bool(a), as_bool(b))


def logical_not(x: Any) -> Node:
    """True where x is 0."""
    return _not(as_bool(x))


def isnan(x: Any) -> Node:
    """True where x is NaN."""
    node = as_node(x)
    return not_equal(node, node)


def isfinite(x: Any) -> Node:
    """True where x is neither NaN nor infinite."""
    return absolute(x) < math.inf


def isinf(x: Any) -> Node:
    """True where x is infinite."""
    return equal(absolute(x), math.inf)


# --------------------------------------------------------------------------------------- selection
def _where_rule(c: Spec, a: Spec, b: Spec) -> Spec:
    if c.dtype != "bool":
        raise DTypeError(f"where: the condition must be bool, got {c.dtype}")
    return Spec(broadcast([c.dims, a.dims, b.dims], "where"), same_dtype("where", (a, b)))


register(
    Op(
        "where", "elementwise", _where_rule,
        numpy=lambda m, c, a, b: np.where(c, a, b),
        grad=by_operands(lambda dy, y, c, a, b: (None, where(c, dy, 0), where(c, 0, dy))),
        expr="({1} if {0} else {2})",
        doc="a where the condition holds, else b",
    )
)  # fmt: skip


def where(condition: Any, a: Any, b: Any) -> Node:
    """a where the condition is not 0, else b; the three broadcast."""
    return OPS["where"](as_bool(condition), *promote(a, b))


def cast(x: Any, dtype: str) -> Node:
    """x in another dtype; to bool: x != 0; floats to integers truncate."""
    return cast_to(as_node(x), check_dtype(dtype))


stop_gradient = elementwise(
    "stop_gradient", "{0}", lambda x: x, no_gradient, takes="any",
    doc="x, through which no gradient passes",
)  # fmt: skip


# --------------------------------------------------------------------------- mathematical functions
def _math(name: str, numpy: Any, grad: Any, doc: str) -> Any:
    return elementwise(name, name + "_{t}({0})", numpy, grad, takes="float", doc=doc)


exp = _math("exp", np.exp, lambda dy, y, x: dy * y, "e ** x")
expm1 = _math("expm1", np.expm1, lambda dy, y, x: dy * (y + 1), "e ** x - 1, exact near 0")
log = _math("log", np.log, lambda dy, y, x: dy / x, "natural logarithm")
log1p = _math("log1p", np.log1p, lambda dy, y, x: dy / (1 + x), "log(1 + x), exact near 0")
tanh = _math("tanh", np.tanh, lambda dy, y, x: dy * (1 - square(y)), "hyperbolic tangent")
sqrt = _math("sqrt", np.sqrt, lambda dy, y, x: dy / (2 * y), "square root")
rsqrt = _math(
    "rsqrt", lambda x: 1 / np.sqrt(x), lambda dy, y, x: -0.5 * dy * (square(y) * y), "1 / sqrt(x)"
)
erf = _math(
    "erf", _erf, lambda dy, y, x: dy * ((2 / math.sqrt(math.pi)) * exp(-square(x))),
    "the error function",
)  # fmt: skip
sin = _math("sin", np.sin, lambda dy, y, x: dy * cos(x), "sine of radians")
cos: Function = _math("cos", np.cos, lambda dy, y, x: -(dy * sin(x)), "cosine of radians")
floor = _math("floor", np.floor, no_gradient, "the largest whole number not above x")
rint = _math("round", np.rint, no_gradient, "the nearest whole number, halves to even")
sign: Function = elementwise(
    "sign", "({t}(1) if {0} > {t}(0) else ({t}(-1) if {0} < {t}(0) else {0}))", np.sign,
    takes="float", doc="-1, 0 or 1; NaN stays",
)  # fmt: skip
_pow: Function = elementwise(
    "pow", "pow_{t}({0}, {1})", np.power,
    lambda dy, y, x, p: (
        dy * where(equal(p, 0), 0, p * _pow(x, p - 1)),
        dy * where(logical_and(equal(x, 0), p >= 0), 0, y * log(x)),
    ),
    takes="float", doc="x ** p of floats",
)  # fmt: skip


def ceil(x: Any) -> Node:
    """The smallest whole number not below x."""
    return -floor(-as_node(x))


def log2(x: Any) -> Node:
    """Logarithm to base 2."""
    return log(x) * (1 / math.log(2))


def log10(x: Any) -> Node:
    """Logarithm to base 10."""
    return log(x) * (1 / math.log(10))


def power(x: Any, p: Any) -> Node:
    """x ** p. Whole and half Python numbers become products and roots, exact for x < 0 too."""
    if not isinstance(p, int | float) or is_weak(x):
        return _pow(x, p)
    x, _ = promote(x, p, takes="number")
    if abs(p) <= 16 and p == int(p):
        out = _whole_power(x, abs(int(p)))
        return out if p >= 0 else reciprocal(out)
    if abs(p) == 0.5:
        return sqrt(x) if p > 0 else rsqrt(x)
    return _pow(x, p)


def _whole_power(x: Node, p: int) -> Node:
    """x ** p by repeated squaring."""
    if p == 0:
        return OPS["broadcast_to"](constant(1, x.dtype), shape=x.shape)
    if p == 1:
        return x
    half = square(_whole_power(x, p // 2))
    return half * x if p % 2 else half
