"""Rows of the elementwise ops and activations."""

from __future__ import annotations

from nnjit import ops
from tests.ops.table import Row, b, f, i, torch

# name, op, name of the reference in torch (or a function of it), low, high, kinks
UNARY = [
    ("negative", ops.negative, "neg", -2, 2, ()),
    ("abs", ops.abs, "abs", -2, 2, (0,)),
    ("square", ops.square, "square", -2, 2, ()),
    ("reciprocal", ops.reciprocal, "reciprocal", 0.5, 3, ()),
    ("sqrt", ops.sqrt, "sqrt", 0.1, 4, ()),
    ("rsqrt", ops.rsqrt, "rsqrt", 0.1, 4, ()),
    ("exp", ops.exp, "exp", -5, 5, ()),
    ("expm1", ops.expm1, "expm1", -3, 3, ()),
    ("log", ops.log, "log", 0.1, 5, ()),
    ("log1p", ops.log1p, "log1p", -0.5, 5, ()),
    ("log2", ops.log2, "log2", 0.1, 5, ()),
    ("log10", ops.log10, "log10", 0.1, 5, ()),
    ("tanh", ops.tanh, "tanh", -3, 3, ()),
    ("sigmoid", ops.sigmoid, "sigmoid", -6, 6, ()),
    ("erf", ops.erf, "erf", -3, 3, ()),
    ("sin", ops.sin, "sin", -9, 9, ()),
    ("cos", ops.cos, "cos", -9, 9, ()),
    ("sign", ops.sign, "sign", -2, 2, (0,)),
    ("floor", ops.floor, "floor", -3, 3, (-2, -1, 0, 1, 2)),
    ("ceil", ops.ceil, "ceil", -3, 3, (-2, -1, 0, 1, 2)),
    ("round", ops.round, "round", -3, 3, (-2.5, -1.5, -0.5, 0.5, 1.5, 2.5)),
]
ACTIVATIONS = [
    ("relu", ops.relu, "relu", -2, 2, (0,)),
    ("relu6", ops.relu6, "relu6", -3, 9, (0, 6)),
    ("leaky_relu", lambda x: ops.leaky_relu(x, 0.1), lambda x: F().leaky_relu(x, 0.1), -2, 2, (0,)),
    ("elu", ops.elu, "elu", -3, 3, ()),
    ("elu_alpha", lambda x: ops.elu(x, 0.5), lambda x: F().elu(x, 0.5), -3, 3, (0,)),
    ("selu", ops.selu, "selu", -3, 3, (0,)),
    ("celu", lambda x: ops.celu(x, 2.0), lambda x: F().celu(x, 2.0), -3, 3, ()),
    ("softplus", ops.softplus, lambda x: F().softplus(x, threshold=50), -30, 30, ()),
    ("silu", ops.silu, "silu", -6, 6, ()),
    ("gelu", ops.gelu, "gelu", -4, 4, ()),
    ("gelu_tanh", lambda x: ops.gelu(x, approximate=True),
     lambda x: F().gelu(x, approximate="tanh"), -4, 4, ()),
    ("mish", ops.mish, "mish", -5, 5, ()),
    ("log_sigmoid", ops.log_sigmoid, "logsigmoid", -9, 9, ()),
    ("hard_sigmoid", ops.hard_sigmoid, lambda x: F().relu6(x + 3) / 6, -5, 5, (-3, 3)),
    ("hard_silu", ops.hard_silu, "hardswish", -5, 5, (-3, 3)),
    ("hard_tanh", ops.hard_tanh, "hardtanh", -3, 3, (-1, 1)),
    ("softsign", ops.softsign, "softsign", -3, 3, (0,)),
    ("squareplus", ops.squareplus, lambda x: (x + torch.sqrt(x * x + 4)) / 2, -3, 3, ()),
    ("tanh_shrink", ops.tanh_shrink, "tanhshrink", -3, 3, ()),
    ("soft_shrink", ops.soft_shrink, "softshrink", -2, 2, (-0.5, 0.5)),
    ("hard_shrink", ops.hard_shrink, "hardshrink", -2, 2, (-0.5, 0.5)),
    ("threshold", lambda x: ops.threshold(x, 0.5, -1.0),
     lambda x: F().threshold(x, 0.5, -1.0), -2, 2, (0.5,)),
    ("glu", ops.glu, "glu", -3, 3, ()),
]  # fmt: skip


def F():
    return torch.nn.functional


def _reference(name, where):
    if callable(name):
        return name
    return lambda *x: getattr(torch if where == "torch" else F(), name)(*x)


def _unary(table, where):
    return [
        Row(name, op, _reference(ref, where), (f("batch", 6, low=lo, high=hi, away=kinks),))
        for name, op, ref, lo, hi, kinks in table
    ]


positive = {"low": 0.3, "high": 3.0}
BINARY = [
    Row("add", ops.add, lambda a, c: a + c, (f("batch", 5), f("batch", 5))),
    Row("add_row", ops.add, lambda a, c: a + c, (f("batch", 3, 5), f(5))),
    Row("add_both_ways", ops.add, lambda a, c: a + c, (f("batch", 1, 5), f(3, 1))),
    Row("add_ints", ops.add, lambda a, c: a + c,
        (i("batch", below=9), i("batch", below=9)), grad=False),
    Row("subtract", ops.subtract, lambda a, c: a - c, (f(), f("batch", 2))),
    Row("multiply", ops.multiply, lambda a, c: a * c, (f("batch", 4), f("batch", 1))),
    Row("multiply_itself", lambda x: x * x * x, lambda x: x**3, (f("batch", 3),)),
    Row("divide", ops.divide, lambda a, c: a / c, (f("batch", 4), f(4, **positive))),
    Row("divide_ints", ops.divide, lambda a, c: a / c,
        (i("batch", below=9), i("batch", below=9, low=1)), grad=False),
    Row("floor_divide", ops.floor_divide, lambda a, c: torch.floor(a / c),
        (f("batch", 4, low=2.1, high=2.9), f(4, low=0.71, high=0.99)), grad=False),
    Row("floor_divide_ints", ops.floor_divide, lambda a, c: a // c,
        (i("batch", 3, below=9, low=-9), i(3, below=5, low=1)), grad=False),
    Row("mod_ints", ops.mod, lambda a, c: a % c,
        (i("batch", 3, below=9, low=-9), i(3, below=5, low=1)), grad=False),
    Row("mod", ops.mod, lambda a, c: a % c, (f("batch", low=2.1, high=2.9), f(low=1.0, high=1.01)),
        grad=False),
    Row("power", ops.power, lambda a, c: a**c, (f("batch", 4, **positive), f("batch", 1))),
    Row("power_2", lambda x: x**2, lambda x: x**2, (f("batch", 4),)),
    Row("power_5", lambda x: x**5, lambda x: x**5, (f("batch", 4),), rtol=5e-6),
    Row("power_minus_2", lambda x: x**-2, lambda x: x**-2.0, (f("batch", 4, **positive),)),
    Row("power_half", lambda x: x**0.5, lambda x: x**0.5, (f("batch", 4, **positive),)),
    Row("power_of_number", lambda x: 2**x, lambda x: 2**x, (f("batch", 4),)),
    Row("power_odd", lambda x: x**1.7, lambda x: x**1.7, (f("batch", 4, **positive),)),
    Row("maximum", ops.maximum, lambda a, c: torch.maximum(a, c), (f("batch", 9), f("batch", 9))),
    Row("minimum", ops.minimum, lambda a, c: torch.minimum(a, c), (f("batch", 9), f(9))),
    Row("maximum_ints", ops.maximum, lambda a, c: torch.maximum(a, c),
        (i("batch", below=9), i("batch", below=9)), grad=False),
    Row("clip", lambda x: ops.clip(x, -1, 0.5), lambda x: torch.clip(x, -1, 0.5),
        (f("batch", 9, away=(-1, 0.5)),)),
    Row("clip_low", lambda x: ops.clip(x, -1), lambda x: torch.clip(x, -1),
        (f("batch", 9, away=(-1,)),)),
    Row("where", ops.where, lambda c, x, y: torch.where(c, x, y),
        (b("batch", 5), f("batch", 5), f(5))),
    Row("where_number", lambda c, x: ops.where(c, x, 0), lambda c, x: torch.where(c, x, 0 * x),
        (b("batch", 1), f("batch", 5))),
    Row("less", ops.less, lambda a, c: a < c, (f("batch", 5), f(5)), grad=False),
    Row("greater_equal", lambda a, c: a >= c, lambda a, c: a >= c,
        (i("batch", below=4), i("batch", below=4)), grad=False),
    Row("equal", ops.equal, lambda a, c: a == c,
        (i("batch", below=3), i("batch", below=3)), grad=False),
    Row("not_equal", ops.not_equal, lambda a, c: a != c,
        (i("batch", below=3), i("batch", below=3)), grad=False),
    Row("logic", lambda p, q: (p & q) | ~(p ^ q), lambda p, q: (p & q) | ~(p ^ q),
        (b("batch", 7), b("batch", 7)), grad=False),
    Row("cast_to_int", lambda x: ops.cast(x, "int32"), lambda x: torch.trunc(x),
        (f("batch", 7, away=(-1, 0, 1)),), grad=False),
    Row("cast_to_bool", lambda x: ops.cast(x, "bool"), lambda x: x != 0,
        (i("batch", below=2, dtype="uint8"),), grad=False),
    Row("cast_from_bool", lambda x: x * ops.cast(x > 0, x.dtype), lambda x: torch.relu(x),
        (f("batch", 7, away=(0,)),)),
    Row("cast_to_bfloat16", lambda x: ops.cast(ops.cast(x, "bfloat16"), x.dtype) + 1,
        lambda x: x.bfloat16().double() + 1, (f("batch", 37),), grad=False),
    Row("cast_meets_bfloat16", lambda x: ops.cast(x, "bfloat16") * ops.cast(x * 2, "bfloat16"),
        lambda x: x.bfloat16().double() * (2 * x).bfloat16().double(),
        (f("batch", 5),), grad=False),
    Row("stop_gradient", lambda x: x * ops.stop_gradient(ops.exp(x)),
        lambda x: x * torch.exp(x).detach(), (f("batch", 3),), second=False),
    Row("number_first", lambda x: 1 - 2 / (3 + x), lambda x: 1 - 2 / (3 + x), (f("batch", 3),)),
    Row("rank_0", lambda x: ops.exp(x) * x, lambda x: torch.exp(x) * x, (f(),)),
    Row("isfinite", ops.isfinite, lambda x: torch.isfinite(x), (f("batch", 3),), grad=False),
]  # fmt: skip

# Finite differences cannot see that a gradient was stopped on purpose.
NO_DIFFERENCES = {"stop_gradient"}

ROWS = [*_unary(UNARY, "torch"), *_unary(ACTIVATIONS, "functional"), *BINARY]
