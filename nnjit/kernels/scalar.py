"""Scalar formulas as LLVM instructions: a formula such as `x * 2.0 + y` over `Value`s writes the
code of a kernel call.

A formula is plain arithmetic without branches, so LLVM vectorises the loop that it is inlined in,
and Numba never types its inside (a call costs a millisecond or so to compile). `function.Function`
gives a formula a name in kernel text.

Only `contract` is allowed inside a formula: products and sums may fuse, nothing is reordered. So
`(x + 1.0) - 1.0` means what it says, whatever the kernel's own flags are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nnjit.kernels import target

#: dtype code -> (bits, explicit mantissa bits, exponent bias)
FORMATS = {"f4": (32, 23, 127), "f8": (64, 52, 1023)}
#: the integers that hold the bits of a float
INTEGER_OF = {"f4": "i4", "f8": "i8"}


class Value:
    """A number while a formula is traced: the builder, the LLVM value and its dtype code ('b' for a
    comparison).

    Integers are signed for `>>` and comparisons unless their code is u4 or u8. Python numbers take
    the other side's dtype.
    """

    __slots__ = ("bd", "code", "v")
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, bd: Any, v: Any, code: str) -> None:
        self.bd, self.v, self.code = bd, v, code

    def like(self, x: Any, code: str | None = None) -> Value:
        """A Python number as a constant of this value's dtype (or `code`); a Value stays."""
        if isinstance(x, Value):
            return x
        code = code or self.code
        return Value(self.bd, constant(x, code), code)

    def made(self, v: Any, code: str | None = None) -> Value:
        return Value(self.bd, v, code or self.code)

    @property
    def is_float(self) -> bool:
        return self.code in FORMATS

    def binary(self, floats: str, ints: str, a: Any, b: Any) -> Value:
        a, b = self.like(a), self.like(b)
        if self.is_float:
            return self.made(getattr(self.bd, floats)(a.v, b.v, flags=("contract",)))
        return self.made(getattr(self.bd, ints)(a.v, b.v))

    def __add__(self, o: Any) -> Value:
        return self.binary("fadd", "add", self, o)

    def __radd__(self, o: Any) -> Value:
        return self.binary("fadd", "add", o, self)

    def __sub__(self, o: Any) -> Value:
        return self.binary("fsub", "sub", self, o)

    def __rsub__(self, o: Any) -> Value:
        return self.binary("fsub", "sub", o, self)

    def __mul__(self, o: Any) -> Value:
        return self.binary("fmul", "mul", self, o)

    def __rmul__(self, o: Any) -> Value:
        return self.binary("fmul", "mul", o, self)

    def __truediv__(self, o: Any) -> Value:
        return self.binary("fdiv", "sdiv", self, o)

    def __rtruediv__(self, o: Any) -> Value:
        return self.binary("fdiv", "sdiv", o, self)

    def __neg__(self) -> Value:
        return self.made(self.bd.fneg(self.v) if self.is_float else self.bd.neg(self.v))

    def __and__(self, o: Any) -> Value:
        return self.made(self.bd.and_(self.v, self.like(o).v))

    def __or__(self, o: Any) -> Value:
        return self.made(self.bd.or_(self.v, self.like(o).v))

    def __xor__(self, o: Any) -> Value:
        return self.made(self.bd.xor(self.v, self.like(o).v))

    def __invert__(self) -> Value:
        return self.made(self.bd.not_(self.v))

    def __lshift__(self, o: Any) -> Value:
        return self.made(self.bd.shl(self.v, self.like(o).v))

    def __rshift__(self, o: Any) -> Value:
        shift = self.bd.lshr if self.code.startswith("u") else self.bd.ashr
        return self.made(shift(self.v, self.like(o).v))

    def compare(self, how: str, o: Any) -> Value:
        b = self.like(o).v
        if self.is_float:
            ordered = self.bd.fcmp_unordered if how == "!=" else self.bd.fcmp_ordered
            return self.made(ordered(how, self.v, b, flags=("contract",)), "b")
        unsigned = self.code.startswith("u")
        return self.made(
            (self.bd.icmp_unsigned if unsigned else self.bd.icmp_signed)(how, self.v, b), "b"
        )

    def __lt__(self, o: Any) -> Value:
        return self.compare("<", o)

    def __le__(self, o: Any) -> Value:
        return self.compare("<=", o)

    def __gt__(self, o: Any) -> Value:
        return self.compare(">", o)

    def __ge__(self, o: Any) -> Value:
        return self.compare(">=", o)

    def __eq__(self, o: Any) -> Value:  # type: ignore[override]
        return self.compare("==", o)

    def __ne__(self, o: Any) -> Value:  # type: ignore[override]
        return self.compare("!=", o)


def llvm_type(code: str) -> Any:
    """The LLVM type of a dtype code, or of 'b'."""
    from llvmlite import ir

    if code in FORMATS:
        return ir.FloatType() if code == "f4" else ir.DoubleType()
    return ir.IntType(1 if code == "b" else 8 * target.itemsize(code))


def constant(x: Any, code: str) -> Any:
    """A Python number as an LLVM constant of a dtype code; floats are rounded to it first."""
    from llvmlite import ir

    if code == "f4":
        with np.errstate(over="ignore"):
            return ir.Constant(ir.FloatType(), float(np.float32(x)))
    return ir.Constant(llvm_type(code), float(x) if code == "f8" else int(x))


def select(condition: Value, yes: Any, no: Any) -> Value:
    """`yes` where the condition holds, else `no`; one of them is a Value."""
    kind = yes if isinstance(yes, Value) else no
    return kind.made(kind.bd.select(condition.v, kind.like(yes).v, kind.like(no).v))


def convert(x: Value, code: str) -> Value:
    """x in another dtype: floats between f4 and f8, integers between widths, integer to float."""
    bd, t, bits = x.bd, llvm_type(code), llvm_type(x.code)
    if x.is_float:
        wider = code == "f8"
        return x.made((bd.fpext if wider else bd.fptrunc)(x.v, t), code) if code != x.code else x
    unsigned = x.code.startswith("u") or x.code == "b"
    if code in FORMATS:
        return x.made((bd.uitofp if unsigned else bd.sitofp)(x.v, t), code)
    if t.width > bits.width:
        return x.made((bd.zext if unsigned else bd.sext)(x.v, t), code)
    return x.made(bd.trunc(x.v, t) if t.width < bits.width else x.v, code)


def to_bits(x: Value) -> Value:
    """The bits of a float as a signed integer of its width."""
    code = INTEGER_OF[x.code]
    return x.made(x.bd.bitcast(x.v, llvm_type(code)), code)


def from_bits(i: Value) -> Value:
    """The float with these bits."""
    code = "f4" if i.code in ("i4", "u4") else "f8"
    return i.made(i.bd.bitcast(i.v, llvm_type(code)), code)


def call(name: str, *args: Value) -> Value:
    """An LLVM intrinsic of floats of one dtype, such as 'sqrt', that vectorises."""
    from llvmlite import ir

    x = args[0]
    t = llvm_type(x.code)
    width = FORMATS[x.code][0]
    full = f"llvm.{name}.f{width}"
    f = x.bd.module.globals.get(full)
    if f is None:
        f = ir.Function(x.bd.module, ir.FunctionType(t, [t] * len(args)), full)
    made = x.bd.call(f, [x.like(a).v for a in args])
    made.fastmath = Settled({"nsz"})
    return x.made(made)


class Settled(frozenset):
    """Fast-math flags of a call that stay as they are; Numba adds its own to every float call."""

    def add(self, flag: str) -> None:
        """Leave the call without the flag."""

    def _to_list(self, _: Any) -> list[str]:
        return sorted(self)


def fma(x: Value, y: Any, z: Any) -> Value:
    """x * y + z with one rounding."""
    return call("fma", x, x.like(y), x.like(z))


def times(x: Value, y: Value) -> Value:
    """x * y, rounded: a later sum does not take the product in unrounded."""
    return x.made(x.bd.fmul(x.v, y.v, flags=("nsz",)))


def absolute(x: Value) -> Value:
    """|x|, by its bits."""
    return from_bits(to_bits(x) & (2 ** (FORMATS[x.code][0] - 1) - 1))


def with_sign(x: Value, sign: Value) -> Value:
    """x >= 0 with the sign bit of `sign`."""
    top = -(2 ** (FORMATS[x.code][0] - 1))
    return from_bits(to_bits(x) | (to_bits(sign) & top))


def power_of_two(n: Value) -> Value:
    """2.0 ** n of the float as wide as the integer n, whose result must be a normal number."""
    _, mantissa, bias = FORMATS["f4" if n.code == "i4" else "f8"]
    return from_bits((n + bias) << mantissa)


def polynomial(x: Value, *coefficients: float) -> Value:
    """Horner's rule, highest coefficient first."""
    p = x.like(coefficients[0])
    for c in coefficients[1:]:
        p = p * x + c
    return p


def rounded(x: Value) -> tuple[Value, Value]:
    """x to the nearest integer, as (float, integer), for |x| < 2**21 (f4) or 2**50 (f8); of a NaN
    the integer is junk.
    """
    magic = 1.5 * 2.0 ** FORMATS[x.code][1]
    t = x + magic
    return t - magic, to_bits(t) - to_bits(t.like(magic))


def lookup(name: str, table: Sequence[float], index: Value) -> Value:
    """table[index] in float64; the index must be in range. The table becomes a constant of the
    module.
    """
    from llvmlite import ir

    bd, module = index.bd, index.bd.module
    data = module.globals.get(name)
    if data is None:
        double = ir.DoubleType()
        kind = ir.ArrayType(double, len(table))
        data = ir.GlobalVariable(module, kind, name)
        data.initializer = ir.Constant(kind, [ir.Constant(double, v) for v in table])
        data.global_constant, data.linkage = True, "internal"
    place = bd.gep(data, [ir.Constant(ir.IntType(64), 0), index.v], inbounds=True)
    return index.made(bd.load(place), "f8")
