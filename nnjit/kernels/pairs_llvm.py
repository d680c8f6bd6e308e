"""The tile over pairs of bfloat16, as LLVM vectors: vdpbf16ps, or two fused multiply-adds. Compile
workers only.

A pair is one lane of 32 bits, so everything but the products is the tile of float32.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types

from nnjit.kernels.tile import TileShape
from nnjit.kernels.tile_llvm import (
    I32,
    POINTERS,
    TileWriter,
    Vectors,
    constant,
    named,
    transpose_vectors,
)

I16 = ir.IntType(16)
UPPER = 0xFFFF0000


class BFloat(ir.Type):
    """LLVM's bfloat, which llvmlite can parse but has no class for."""

    def _to_string(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BFloat)

    def __hash__(self) -> int:
        return hash(BFloat)


def pair_intrinsic(s: TileShape) -> Any:
    """The tile of this shape; its pointers have the dtypes of the call."""
    return define_any(
        s.arguments(),
        lambda builder, args, short: PairWriter(s, builder, args, short).write(),
    )


def define_any(names: list[str], write: Callable[..., None]) -> Any:
    """An intrinsic whose pointers have any dtype; `write` gets builder, LLVM values, and the names
    of the pointers to 16 bits.
    """

    def typed(*given: Any) -> Any:
        kinds = dict(zip(names, given, strict=True))
        for name, kind in kinds.items():
            if (name in POINTERS) != isinstance(kind, types.CPointer):
                raise TypeError(f"pairs of bfloat16: {name} is {kind}")
        sig = types.void(*[k if isinstance(k, types.CPointer) else types.int64 for k in given])
        short = frozenset(n for n in POINTERS & {*names} if kinds[n].dtype == types.uint16)

        def codegen(cx: Any, builder: Any, _sig: Any, args: Any) -> Any:
            write(builder, dict(zip(names, args, strict=True)), short)
            return cx.get_dummy_value()

        return sig, codegen

    return named(names, typed)


class Halves(Vectors):
    """Vectors of 16 bits; first_only: the masks have the first lane alone.

    LLVM merges a masked access to one lane with the widening or narrowing beside it, and then
    touches 32 bits; so that lane is loaded and stored as a scalar.
    """

    first_only = False

    def load(self, pointer: Any, mask: Any = None) -> Any:
        if mask is None or not self.first_only:
            return super().load(pointer, mask)
        value = self.builder.load(pointer)
        value.align = self.align
        return self.builder.insert_element(self.zero, value, ir.Constant(I32, 0))

    def store(self, value: Any, pointer: Any, mask: Any = None) -> None:
        if mask is None or not self.first_only:
            super().store(value, pointer, mask)
            return
        first = self.builder.extract_element(value, ir.Constant(I32, 0))
        self.builder.store(first, pointer).align = self.align


class PairWriter(TileWriter):
    """A tile whose A and B are lanes of two bfloat16; `short` names the pointers to 16 bits."""

    def __init__(self, s: TileShape, builder: Any, args: dict[str, Any], short: frozenset[str]):
        super().__init__(s, builder, args)
        self.short = short
        self.pairs = Vectors(builder, s.lanes, "u4", align=2)
        self.halves = Halves(builder, s.lanes, "u2")
        self.halves.first_only = s.tail == 1

    def base(self, name: str) -> Any:
        v = self.pairs if name in "ab" else self.halves if name in self.short else self.v
        return v.at(self.args[name], self.args[name + "off"])

    def out_base(self) -> Any:
        if (self.s.out == "b2") != ("c" in self.short):
            raise TypeError(f"tile(out={self.s.out!r}): c points at another dtype")
        return self.base("c")

    def load_as(self, v: Vectors, pointer: Any, j: int) -> Any:
        mask = self.last_mask if j == self.s.vectors - 1 else None
        return v.load(self.b.gep(pointer, [constant(j * self.s.lanes)]), mask)

    def beside(self, i: int, j: int) -> Any:
        if "m" not in self.short:
            return super().beside(i, j)
        at = self.b.gep(self.base("m"), [self.rows_c[i]])
        return widen(self.b, self.v, self.load_as(self.halves, at, j))

    def store(self, value: Any, pointer: Any, mask: Any) -> None:
        if self.s.out == "b2":
            self.halves.store(shortened(self.b, self.v, value), pointer, mask)
        else:
            super().store(value, pointer, mask)

    def multiply_add(self, acc: Any, pa: Any, pb: Any, lo: int, hi: int) -> Any:
        row, out = [self.load_as(self.pairs, pb, j) for j in range(self.s.vectors)], list(acc)
        multiply = self.twice if self.s.emulate else self.dot
        row = [self.operand(y) for y in row]
        for i in range(lo, hi):
            pair = self.b.load(self.b.gep(pa, [self.rows_a[i]]))
            pair.align = 2
            x = self.operand(self.pairs.spread(pair, I32))
            out[i] = [multiply(x, y, z) for y, z in zip(row, acc[i], strict=True)]
        return out

    def operand(self, pairs: Any) -> Any:
        """Pairs as the product takes them: as bfloat, or as float32 of the second and the first."""
        b, v = self.b, self.v
        if not self.s.emulate:
            return b.bitcast(pairs, ir.VectorType(BFloat(), 2 * self.s.lanes))
        second = b.and_(pairs, ir.Constant(self.pairs.vector, [UPPER] * self.s.lanes))
        first = b.shl(pairs, ir.Constant(self.pairs.vector, [16] * self.s.lanes))
        return b.bitcast(second, v.vector), b.bitcast(first, v.vector)

    def dot(self, x: Any, y: Any, z: Any) -> Any:
        name = "llvm.x86.avx512bf16.dpbf16ps.512"
        f = self.v.function(name, self.v.vector, [self.v.vector, x.type, x.type])
        return self.b.call(f, [z, x, y])

    def twice(self, x: Any, y: Any, z: Any) -> Any:
        for p, q in zip(x, y, strict=True):
            z = self.v.elementwise("fma", p, q, z)
        return z


def widen(b: Any, v: Vectors, bits: Any) -> Any:
    """Vectors of bfloat16 bits as float32; v: the vectors of float32."""
    ints = ir.VectorType(I32, v.lanes)
    return b.bitcast(b.shl(b.zext(bits, ints), ir.Constant(ints, [16] * v.lanes)), v.vector)


def shortened(b: Any, v: Vectors, x: Any) -> Any:
    """Vectors of float32 as bfloat16 bits, rounded to nearest even like `bf16.bf16_round`."""
    ints = ir.VectorType(I32, v.lanes)

    def every(number: int) -> Any:
        return ir.Constant(ints, [number] * v.lanes)

    bits = b.bitcast(x, ints)
    upper = b.lshr(bits, every(16))
    odd = b.and_(upper, every(1))
    nearest = b.lshr(b.add(bits, b.add(odd, every(0x7FFF))), every(16))
    quiet = b.or_(upper, every(0x40))
    return b.trunc(
        b.select(b.fcmp_ordered("ord", x, x), nearest, quiet), ir.VectorType(I16, v.lanes)
    )


def transpose_pairs_intrinsic(lanes: int, source: str) -> Any:
    """See `pairs.transpose_pairs`."""

    def write(b: Any, args: dict[str, Any], _short: frozenset[str]) -> None:
        pairs = Vectors(b, lanes, "u4", align=2)
        floats = Vectors(b, lanes, "f4")
        block = []
        for r in range(lanes):
            offset = b.add(args["soff"], b.mul(args["ld_src"], constant(r)))
            if source == "b2":
                short = Vectors(b, lanes, "u2").at(args["src"], offset)
                block.append(pairs.load(short))
                continue
            at = floats.at(args["src"], offset)
            halves = [
                shortened(b, floats, floats.load(b.gep(at, [constant(j * lanes)]))) for j in (0, 1)
            ]
            order = ir.Constant(ir.VectorType(I32, 2 * lanes), list(range(2 * lanes)))
            block.append(b.bitcast(b.shuffle_vector(*halves, order), pairs.vector))
        transpose_vectors(b, block)
        for c in range(lanes):
            offset = b.add(args["doff"], b.mul(args["ld_dst"], constant(c)))
            pairs.store(block[c], pairs.at(args["dst"], offset))

    return define_any(["src", "soff", "ld_src", "dst", "doff", "ld_dst"], write)


def pair_block_intrinsic(lanes: int, source: str) -> Any:
    """See `pairs.pair_block`."""

    def write(b: Any, args: dict[str, Any], _short: frozenset[str]) -> None:
        pairs, floats = Vectors(b, lanes, "u4", align=2), Vectors(b, lanes, "f4")

        def halves(row: int) -> Any:
            """A row's bits of 16, in 32."""
            offset = b.add(args["soff"], b.mul(args["ld_src"], constant(row)))
            if source == "b2":
                short = Vectors(b, lanes, "u2")
                bits = short.load(short.at(args["src"], offset))
            else:
                bits = shortened(b, floats, floats.load(floats.at(args["src"], offset)))
            return b.zext(bits, pairs.vector)

        upper = ir.Constant(pairs.vector, [16] * lanes)
        block = [b.or_(halves(2 * r), b.shl(halves(2 * r + 1), upper)) for r in range(lanes)]
        transpose_vectors(b, block)
        for c in range(lanes):
            offset = b.add(args["doff"], b.mul(args["ld_dst"], constant(c)))
            pairs.store(block[c], pairs.at(args["dst"], offset))

    return define_any(["src", "soff", "ld_src", "dst", "doff", "ld_dst"], write)
