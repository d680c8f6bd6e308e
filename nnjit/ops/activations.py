"""Activation functions: a few ops of their own, the others made of ops.

Where the derivative that follows from the parts would overflow or cost more, a composite states its
own. At kinks: relu'(0) = relu6'(0) = relu6'(6) = 0, elu and selu take the left branch, as PyTorch.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from nnjit.errors import ArgumentError
from nnjit.graph import Node
from nnjit.ops.base import OPS, Function, composite, elementwise, promote
from nnjit.ops.elementwise import (
    absolute,
    clip,
    expm1,
    logical_and,
    sqrt,
    square,
    tanh,
    where,
)
from nnjit.ops.join import split

SELU_ALPHA = 1.6732632423543772
SELU_SCALE = 1.0507009873554805

relu = elementwise(
    "relu", "({t}(0) if {0} < {t}(0) else {0})", lambda x: np.maximum(x, 0),
    lambda dy, y, x: where(y > 0, dy, 0), takes="float", doc="x, or 0 where x < 0; NaN stays",
)  # fmt: skip
sigmoid = elementwise(
    "sigmoid", "sigmoid_{t}({0})", lambda x: np.exp(-np.logaddexp(0, -x)),
    lambda dy, y, x: dy * (y * (1 - y)), takes="float", doc="1 / (1 + exp(-x))",
)  # fmt: skip
softplus = elementwise(
    "softplus", "softplus_{t}({0})", lambda x: np.logaddexp(0, x),
    lambda dy, y, x: dy * sigmoid(x), takes="float", doc="log(1 + exp(x)) without overflow",
)  # fmt: skip


def _floats(x: Any) -> Node:
    return promote(x, takes="float")[0]


def leaky_relu(x: Any, negative_slope: float = 0.2) -> Node:
    """x, or negative_slope * x where x <= 0."""
    x = _floats(x)
    return where(x > 0, x, negative_slope * x)


composite(
    "relu6", lambda x: clip(x, 0, 6),
    lambda dy, y, x: where(logical_and(x > 0, x < 6), dy, 0), doc="x limited to 0..6",
)  # fmt: skip
composite(
    "elu", lambda x, alpha: where(x > 0, x, alpha * expm1(x)),
    lambda dy, y, x: where(x > 0, dy, dy * (y + y.attrs["alpha"])),
    doc="x, or alpha * (exp(x) - 1) where x <= 0",
)  # fmt: skip
composite(
    "silu", lambda x: x * sigmoid(x),
    lambda dy, y, x: dy * (sigmoid(x) * (1 + x * (1 - sigmoid(x)))), doc="x * sigmoid(x)",
)  # fmt: skip


_vector_erfc = np.frompyfunc(math.erfc, 1, 1)

_normal_pdf: Function = elementwise(
    "normal_pdf", "normal_pdf_{t}({0})", lambda x: np.exp(-0.5 * x * x) / math.sqrt(2 * math.pi),
    lambda dy, y, x: -(dy * (x * y)), takes="float", doc="the density of a standard normal at x",
)  # fmt: skip
_normal_cdf = elementwise(
    "normal_cdf", "normal_cdf_{t}({0})",
    lambda x: 0.5 * np.asarray(_vector_erfc(-math.sqrt(0.5) * x.astype("f8")), "f8"),
    lambda dy, y, x: dy * _normal_pdf(x), takes="float",
    doc="the share of a standard normal below x",
)  # fmt: skip
composite(
    "gelu", lambda x: x * _normal_cdf(x),
    lambda dy, y, x: dy * (_normal_cdf(x) + x * _normal_pdf(x)),
    doc="x * P(normal < x)",
)  # fmt: skip


def relu6(x: Any) -> Node:
    """x limited to 0..6."""
    return OPS["relu6"](_floats(x))


def elu(x: Any, alpha: float = 1.0) -> Node:
    """x, or alpha * (exp(x) - 1) where x <= 0."""
    return OPS["elu"](_floats(x), alpha=float(alpha))


def selu(x: Any) -> Node:
    """elu scaled so that mean 0 and variance 1 keep themselves (Klambauer et al., 2017)."""
    return SELU_SCALE * elu(x, SELU_ALPHA)


def celu(x: Any, alpha: float = 1.0) -> Node:
    """x, or alpha * (exp(x / alpha) - 1) where x <= 0: elu with slope 1 at 0."""
    return alpha * elu(_floats(x) / alpha)


def silu(x: Any) -> Node:
    """x * sigmoid(x), also called swish."""
    return OPS["silu"](_floats(x))


swish = silu


def gelu(x: Any, approximate: bool = False) -> Node:
    """x * P(normal < x); approximate: by tanh (Hendrycks and Gimpel, 2016)."""
    x = _floats(x)
    if not approximate:
        return OPS["gelu"](x)
    inner = math.sqrt(2 / math.pi) * (x + 0.044715 * (square(x) * x))
    return 0.5 * x * (1 + tanh(inner))


def mish(x: Any) -> Node:
    """x * tanh(softplus(x))."""
    x = _floats(x)
    return x * tanh(softplus(x))


def log_sigmoid(x: Any) -> Node:
    """log(sigmoid(x)) without overflow."""
    return -softplus(-_floats(x))


def hard_sigmoid(x: Any) -> Node:
    """relu6(x + 3) / 6."""
    return relu6(_floats(x) + 3) * (1 / 6)


def hard_silu(x: Any) -> Node:
    """x * hard_sigmoid(x), also called hard_swish."""
    x = _floats(x)
    return x * hard_sigmoid(x)


hard_swish = hard_silu


def hard_tanh(x: Any) -> Node:
    """x limited to -1..1."""
    return clip(_floats(x), -1, 1)


def softsign(x: Any) -> Node:
    """x / (1 + |x|)."""
    x = _floats(x)
    return x / (1 + absolute(x))


def squareplus(x: Any, b: float = 4) -> Node:
    """(x + sqrt(x * x + b)) / 2."""
    x = _floats(x)
    return 0.5 * (x + sqrt(square(x) + b))


def tanh_shrink(x: Any) -> Node:
    """x - tanh(x)."""
    x = _floats(x)
    return x - tanh(x)


def soft_shrink(x: Any, threshold: float = 0.5) -> Node:
    """x moved towards 0 by `threshold`, at most to 0."""
    x = _floats(x)
    if threshold < 0:
        raise ArgumentError(f"soft_shrink: threshold={threshold}: expected 0 or more")
    return where(absolute(x) <= threshold, 0, where(x > 0, x - threshold, x + threshold))


def hard_shrink(x: Any, threshold: float = 0.5) -> Node:
    """x, or 0 where |x| <= threshold."""
    x = _floats(x)
    return where(absolute(x) <= threshold, 0, x)


def threshold(x: Any, limit: float, default: float) -> Node:
    """x, or `default` where x <= limit."""
    x = _floats(x)
    return where(x <= limit, default, x)


def glu(x: Any, axis: int = -1) -> Node:
    """a * sigmoid(b) of the two halves a, b along an axis."""
    a, b = split(_floats(x), 2, axis)
    return a * sigmoid(b)


def sparse_plus(x: Any) -> Node:
    """0 up to -1, x from 1, and (x + 1)**2 / 4 between."""
    x = _floats(x)
    return where(x <= -1, 0, where(x < 1, 0.25 * square(x + 1), x))
