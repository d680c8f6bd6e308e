"""`sandwich` as a Numba intrinsic. Compile workers only; the arithmetic carries no fast-math
flags.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from nnjit.kernels.halves_llvm import Halves
from nnjit.kernels.sandwich import Sandwich
from nnjit.kernels.tile_llvm import I1, POINTERS, Vectors, constant


def sandwich_intrinsic(s: Sandwich) -> Any:
    """The transform as an intrinsic; same arguments and results as `sandwich.numpy_sandwich`."""
    names = s.arguments()

    def codegen(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        Writer(s, builder, dict(zip(names, values, strict=True))).write()
        return context.get_dummy_value()

    def signature(*given: Any) -> Any:
        kinds = (g if n in POINTERS else types.int64 for n, g in zip(names, given, strict=True))
        return types.void(*kinds), codegen

    # Numba reads the number of arguments off the Python function
    space = {"signature": signature}
    text = ", ".join(names)
    exec(f"def sandwich_block(tc, {text}):\n    return signature({text})", space)
    return intrinsic(space["sandwich_block"])


class Writer:
    """Writes one call: loads, two passes of the matrix, stores."""

    def __init__(self, shape: Sandwich, builder: Any, args: dict[str, Any]):
        self.s, self.b, self.args = shape, builder, args
        self.v = Vectors(builder, shape.lanes, shape.dtype)
        self.halves = Halves(builder, shape.lanes, shape.quick)
        self.mask = self.v.mask(shape.tail) if shape.tail else None
        self.kinds = {"src": shape.source, "dst": shape.to, "m": shape.operand, "e": shape.dtype}
        if shape.to == "pairs":
            self.shift = self.halves.spread(self.b.mul(args["odd"], constant(16)))
            self.keep = self.halves.spread(self.b.mul(args["odd"], constant(0xFFFF)))

    def at(self, name: str, offset: Any) -> Any:
        """The place so many elements behind where the argument begins."""
        kind = self.kinds[name]
        element = {"b2": ir.IntType(16), "pairs": ir.IntType(32)}.get(kind, self.v.element)
        base = self.b.bitcast(self.args[name], element.as_pointer())
        base = self.b.gep(base, [self.args[name[0] + "off"]])
        places = offset if isinstance(offset, ir.Value) else constant(offset)
        if self.s.stepped:
            places = self.b.mul(places, self.args["step"])
        return self.b.gep(base, [places])

    def load(self, name: str, offset: Any, mask: Any = None) -> Any:
        place = self.at(name, offset)
        load = self.halves.load if self.kinds[name] == "b2" else self.v.load
        return load(place, self.mask if mask is None else mask)

    def store(self, value: Any, offset: int) -> None:
        place = self.at("dst", offset)
        if self.s.to == "b2":
            self.halves.store(value, place, self.mask)
        elif self.s.to == "pairs":
            self.halves.store_half(value, place, self.shift, self.keep, self.mask)
        else:
            self.v.store(value, place, self.mask)

    def write(self) -> None:
        s = self.s
        size = len(s.matrix[0])
        d = self.edge(size) if s.edge else self.block(size)
        columns = [self.times([row[j] for row in d]) for j in range(size)]
        bias = self.load("e", 0) if s.bias else None
        for i in range(s.stored[0]):
            row = self.times([column[i] for column in columns])
            for j in range(s.stored[1]):
                at = i * s.writes[0] + j * s.writes[1]
                self.store(self.finish(row[j], bias, at), at)

    def block(self, size: int) -> list[list[Any]]:
        """d where all of it exists."""
        down, along = self.s.reads
        return [[self.load("src", i * down + j * along) for j in range(size)] for i in range(size)]

    def edge(self, size: int) -> list[list[Any]]:
        """d with zeros for what does not exist: masked loads of the nearest element that does."""
        rows = self.axis("r0", "r1", size, self.s.reads[0])
        columns = self.axis("c0", "c1", size, self.s.reads[1])
        return [
            [
                self.load("src", self.b.add(down, along), self.both(here, there))
                for along, there in columns
            ]
            for down, here in rows
        ]

    def axis(self, low: str, high: str, size: int, step: int) -> list[tuple[Any, Any]]:
        """For each place of an axis: the nearest offset that exists, and a mask: all or nothing."""
        b, first, end = self.b, self.args[low], self.args[high]
        last, out = b.sub(end, constant(1)), []
        for i in range(size):
            above = b.icmp_signed(">=", constant(i), first)
            below = b.icmp_signed("<", constant(i), end)
            near = b.select(above, b.select(below, constant(i), last), first)
            out.append((b.mul(near, constant(step)), self.v.spread(b.and_(above, below), I1)))
        return out

    def both(self, here: Any, there: Any) -> Any:
        mask = self.b.and_(here, there)
        return mask if self.mask is None else self.b.and_(mask, self.mask)

    def times(self, d: Sequence[Any]) -> list[Any]:
        """The matrix times a column of vectors, in order."""
        out = []
        for row in self.s.matrix:
            value = None
            for c, x in zip(row, d, strict=True):
                if c:
                    value = self.add(value, c, x)
            out.append(value)
        return out

    def add(self, value: Any, c: float, x: Any) -> Any:
        """value + c * x."""
        if abs(c) != 1:
            factor = ir.Constant(self.v.vector, [abs(c)] * self.s.lanes)
            x = self.b.fmul(x, factor)
        if value is None:
            return x if c > 0 else self.b.fsub(self.v.zero, x)
        return self.b.fadd(value, x) if c > 0 else self.b.fsub(value, x)

    def finish(self, x: Any, bias: Any, at: int) -> Any:
        if bias is not None:
            x = self.b.fadd(x, bias)
        if self.s.reads_m:
            y = self.load("m", at)
            if self.s.final == "mask":
                x = self.b.select(self.b.fcmp_ordered(">", y, self.v.zero), x, self.v.zero)
            else:
                x = self.b.fadd(x, y)
        if self.s.final.endswith("relu"):
            # x < 0 is false for NaN, so NaN stays
            x = self.b.select(self.b.fcmp_ordered("<", x, self.v.zero), self.v.zero, x)
        return x
