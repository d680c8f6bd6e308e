"""Vectors of bfloat16 as float32 in registers: loads, rounding and stores. Compile workers only."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils

I1, I16, I32, I64 = ir.IntType(1), ir.IntType(16), ir.IntType(32), ir.IntType(64)


class BFloats(ir.Type):
    """<16 x bfloat>, which llvmlite has no type for."""

    def __str__(self) -> str:
        return "<16 x bfloat>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BFloats)

    def __hash__(self) -> int:
        return hash(BFloats)


class Halves:
    """bfloat16 in memory, float32 in registers: `lanes` of them at a builder's position.

    quick: rounds by vcvtneps2bf16, for which denormals are zero.
    """

    def __init__(self, builder: Any, lanes: int, quick: bool):
        self.b, self.lanes, self.quick = builder, lanes, quick
        self.floats = ir.VectorType(ir.FloatType(), lanes)
        self.words, self.halves = ir.VectorType(I32, lanes), ir.VectorType(I16, lanes)

    def all(self, number: int) -> Any:
        """The 32-bit number in all lanes."""
        return ir.Constant(self.words, [number] * self.lanes)

    def spread(self, number: Any) -> Any:
        """A run-time number (int64) in all lanes, as 32 bits."""
        b = self.b
        undef = ir.Constant(self.words, ir.Undefined)
        zeros = ir.Constant(self.words, [0] * self.lanes)
        one = b.insert_element(undef, b.trunc(number, I32), ir.Constant(I32, 0))
        return b.shuffle_vector(one, undef, zeros)

    def load(self, place: Any, mask: Any = None) -> Any:
        """float32 of bfloat16; zero where the mask is off."""
        bits = self.memory(place, self.halves, 2, mask)
        return self.b.bitcast(self.b.shl(self.b.zext(bits, self.words), self.all(16)), self.floats)

    def converted(self, value: Any) -> Any:
        """float32 -> bfloat16 bits by the instruction."""
        kind = ir.FunctionType(BFloats(), [self.floats])
        name = "llvm.x86.avx512bf16.cvtneps2bf16.512"
        f = cgutils.get_or_insert_function(self.b.module, kind, name)
        return self.b.bitcast(self.b.call(f, [value]), self.halves)

    def rounded(self, value: Any) -> Any:
        """float32 -> words with the bfloat16 in the lower half: to nearest even, NaN stays NaN."""
        b = self.b
        if self.quick:
            return b.zext(self.converted(value), self.words)
        bits = b.bitcast(value, self.words)
        upper = b.lshr(bits, self.all(16))
        step = b.add(b.and_(upper, self.all(1)), self.all(0x7FFF))
        nearest = b.lshr(b.add(bits, step), self.all(16))
        quiet = b.or_(upper, self.all(0x40))
        return b.select(b.fcmp_unordered("uno", value, value), quiet, nearest)

    def store(self, value: Any, place: Any, mask: Any = None) -> None:
        """Rounds float32 and stores it."""
        bits = (
            self.converted(value) if self.quick else self.b.trunc(self.rounded(value), self.halves)
        )
        self.write(bits, place, 2, mask)

    def store_half(self, value: Any, place: Any, shift: Any, keep: Any, mask: Any = None) -> None:
        """The rounded value, moved up by `shift` bits, beside those bits of the word that are to be
        kept.
        """
        old = self.b.and_(self.memory(place, self.words, 4, mask), keep)
        new = self.b.or_(self.b.shl(self.rounded(value), shift), old)
        self.write(new, place, 4, mask)

    def memory(self, place: Any, kind: Any, align: int, mask: Any) -> Any:
        p = self.b.bitcast(place, kind.as_pointer())
        if mask is None:
            value = self.b.load(p)
            value.align = align
            return value
        name = f"llvm.masked.load.v{self.lanes}i{8 * align}.p0"
        takes = [p.type, I32, ir.VectorType(I1, self.lanes), kind]
        f = cgutils.get_or_insert_function(self.b.module, ir.FunctionType(kind, takes), name)
        zeros = ir.Constant(kind, [0] * self.lanes)
        return self.b.call(f, [p, ir.Constant(I32, align), mask, zeros])

    def write(self, value: Any, place: Any, align: int, mask: Any) -> None:
        p = self.b.bitcast(place, value.type.as_pointer())
        if mask is None:
            self.b.store(value, p).align = align
            return
        name = f"llvm.masked.store.v{self.lanes}i{8 * align}.p0"
        takes = [value.type, p.type, I32, ir.VectorType(I1, self.lanes)]
        kind = ir.FunctionType(ir.VoidType(), takes)
        f = cgutils.get_or_insert_function(self.b.module, kind, name)
        self.b.call(f, [value, p, ir.Constant(I32, align), mask])
