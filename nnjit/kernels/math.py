"""The mathematical functions of kernel text: exp_f4, tanh_f8, maximum_f4 and so on.

Each takes and gives scalars of its dtype. Jitted, a loop over them becomes vector code (formulas
and errors in `math_f4` and `math_f8`); un-jitted they are NumPy's functions, which differ by the
stated ulp at most. Square roots, rounding, maximum and minimum are exact in both. Names are
`<function>_<dtype code>`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from nnjit.kernels import math_angle, math_any, math_f4, math_f8
from nnjit.kernels.function import Function


def wide(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function computed in float64, whose result is rounded to the dtype afterwards."""
    return lambda *x: function(*(np.float64(v) for v in x))


def stable_sigmoid(x: np.float64) -> np.float64:
    e = np.exp(-abs(x))
    return np.float64(np.where(x < 0, e, 1.0) / (1.0 + e))


def stable_softplus(x: np.float64) -> np.float64:
    return np.maximum(x, 0.0) + np.log1p(np.exp(-abs(x)))


def power_below(x: np.floating) -> np.floating:
    lowest = np.finfo(x.dtype).minexp
    return np.float64(0.0) if x < lowest else np.exp2(np.float64(x))


MEANINGS: dict[str, Callable[..., Any]] = {
    "exp": wide(np.exp),
    "exp2_below": power_below,
    "expm1": wide(np.expm1),
    "log": wide(np.log),
    "log1p": wide(np.log1p),
    "tanh": wide(np.tanh),
    "sigmoid": wide(stable_sigmoid),
    "softplus": wide(stable_softplus),
    "erf": wide(math.erf),
    "normal_cdf": wide(lambda x: 0.5 * math.erfc(-x * math.sqrt(0.5))),
    "normal_pdf": wide(lambda x: np.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)),
    "pow": wide(np.power),
    "sin": wide(np.sin),
    "cos": wide(np.cos),
    "sqrt": np.sqrt,
    "rsqrt": lambda x: x.dtype.type(1) / np.sqrt(x),
    "floor": np.floor,
    "round": np.rint,
    "maximum": np.maximum,
    "minimum": np.minimum,
    "overtakes": lambda v, best: (v > best) | (v != v),
}


def define(
    name: str, formulas: Any, code: str, arity: int = 1, result: str | None = None
) -> Function:
    """The function `name` for one dtype; its result has the same dtype unless given."""
    formula, meaning = getattr(formulas, name), MEANINGS[name]
    return Function(f"{name}_{code}", formula, meaning, (code,) * arity, result or code)


exp_f4 = define("exp", math_f4, "f4")
exp2_below_f4 = define("exp2_below", math_f4, "f4")
expm1_f4 = define("expm1", math_f4, "f4")
log_f4 = define("log", math_f4, "f4")
log1p_f4 = define("log1p", math_f4, "f4")
tanh_f4 = define("tanh", math_f4, "f4")
sigmoid_f4 = define("sigmoid", math_f4, "f4")
softplus_f4 = define("softplus", math_f4, "f4")
erf_f4 = define("erf", math_f4, "f4")
normal_cdf_f4 = define("normal_cdf", math_f4, "f4")
normal_pdf_f4 = define("normal_pdf", math_f4, "f4")
pow_f4 = define("pow", math_f4, "f4", 2)
sin_f4 = Function("sin_f4", math_angle.sin_f4, MEANINGS["sin"], ("f4",), "f4")
cos_f4 = Function("cos_f4", math_angle.cos_f4, MEANINGS["cos"], ("f4",), "f4")
sqrt_f4 = define("sqrt", math_any, "f4")
rsqrt_f4 = define("rsqrt", math_any, "f4")
floor_f4 = define("floor", math_any, "f4")
round_f4 = define("round", math_any, "f4")
maximum_f4 = define("maximum", math_any, "f4", 2)
minimum_f4 = define("minimum", math_any, "f4", 2)
overtakes_f4 = define("overtakes", math_any, "f4", 2, "b")

exp_f8 = define("exp", math_f8, "f8")
exp2_below_f8 = define("exp2_below", math_f8, "f8")
expm1_f8 = define("expm1", math_f8, "f8")
log_f8 = define("log", math_f8, "f8")
log1p_f8 = define("log1p", math_f8, "f8")
tanh_f8 = define("tanh", math_f8, "f8")
sigmoid_f8 = define("sigmoid", math_f8, "f8")
softplus_f8 = define("softplus", math_f8, "f8")
erf_f8 = define("erf", math_f8, "f8")
normal_cdf_f8 = define("normal_cdf", math_f8, "f8")
normal_pdf_f8 = define("normal_pdf", math_f8, "f8")
pow_f8 = define("pow", math_f8, "f8", 2)
sin_f8 = Function("sin_f8", math_angle.sin_f8, MEANINGS["sin"], ("f8",), "f8")
cos_f8 = Function("cos_f8", math_angle.cos_f8, MEANINGS["cos"], ("f8",), "f8")
sqrt_f8 = define("sqrt", math_any, "f8")
rsqrt_f8 = define("rsqrt", math_any, "f8")
floor_f8 = define("floor", math_any, "f8")
round_f8 = define("round", math_any, "f8")
maximum_f8 = define("maximum", math_any, "f8", 2)
minimum_f8 = define("minimum", math_any, "f8", 2)
overtakes_f8 = define("overtakes", math_any, "f8", 2, "b")
