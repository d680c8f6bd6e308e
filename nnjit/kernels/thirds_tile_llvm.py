"""`thirds.product_tile` as a Numba intrinsic. Compile workers only.

Registers 0 to 3 hold sums (2 of rows x 2 of columns), 4 and 5 rows of A, 6 and 7 rows of B.
"""

from __future__ import annotations

import re
from typing import Any

from llvmlite import ir
from numba.core import cgutils

from nnjit.kernels.amx_llvm import BYTE, I8, LINE, A, B, instruction
from nnjit.kernels.amx_tile import SIDE
from nnjit.kernels.pairs_llvm import I16, UPPER
from nnjit.kernels.thirds import DEEP, PRODUCTS, ROWS, block_size
from nnjit.kernels.thirds_llvm import Writer, define
from nnjit.kernels.tile_llvm import constant, finished


def configure_intrinsic() -> Any:
    """See `thirds.whole_registers` (Intel's manual, LDTILECFG): 16 rows of 64 bytes each."""

    def write(b: Any, _args: dict[str, Any]) -> None:
        shape = [1, *[0] * 15, *[LINE, 0] * 8, *[0] * 16, *[SIDE] * 8, *[0] * 8]
        value = ir.Constant(ir.VectorType(I8, LINE), shape)
        with b.goto_entry_block():
            place = b.alloca(value.type)
        place.align = LINE
        b.store(value, place).align = LINE
        instruction(b, "ldtilecfg", b.bitcast(place, BYTE))

    return define([], write)


class ProductWriter(Writer):
    """Writes one call of `product_tile`: registers to the stack, and from there what follows."""

    def __init__(
        self, builder: Any, args: dict[str, Any], vectors: int, tail: int, init: str, final: str
    ):
        super().__init__(builder, args)
        self.vectors, self.tail, self.init, self.final = vectors, tail, init, final
        self.sums = self.space(2 * ROWS)
        own = {n: (f"at_{n}", "ld") for n in ("y", "m") if n in args}
        self.asked = own | {n: ("at_p", "ld_p") for n in args if re.fullmatch(r"p\d", n)}
        self.groups = range(ROWS // SIDE)

    def do(self, name: str, *operands: Any) -> None:
        instruction(self.b, name, *operands)

    def write(self) -> None:
        for register in range(4):
            self.do("tilezero", register)
        self.ask()
        with self.loop(self.blocks()) as block:
            self.multiply(block.index)
        for g in self.groups:
            for j in range(self.vectors):
                at = self.b.gep(self.sums, [constant((g * SIDE * 2 + j) * SIDE)])
                self.do("tilestored64", 2 * g + j, self.b.bitcast(at, BYTE), constant(2 * LINE))
        with self.b.if_then(self.b.not_(self.finite()), likely=False):
            self.again()
        with self.loop(self.args["rows"]) as row:
            self.finish(row.index)

    def ask(self) -> None:
        """Prefetch what `finish` reads and writes: memory answers while the products are added."""
        b = self.b
        with self.loop(self.args["rows"]) as row:
            for name, (start, ld) in self.asked.items():
                at = b.add(self.args[start], b.mul(row.index, self.args[ld]))
                for j in range(self.vectors):
                    place = self.v.at(self.args[name], b.add(at, constant(SIDE * j)))
                    self.v.ask_for(place, write=name != "m")

    def at(self, side: str, block: Any, third: int, part: int) -> Any:
        """Where the first row of a register lies."""
        lines, step = (ROWS, SIDE * SIDE) if side == "a" else (SIDE * self.vectors, SIDE)
        offset = self.b.mul(block, constant(block_size(lines)))
        offset = self.b.add(offset, constant(third * SIDE * lines + part * step))
        return self.pairs.at(self.args[side], self.b.add(self.args[f"at_{side}"], offset))

    def multiply(self, block: Any) -> None:
        """The products of 32 numbers along k; a third is loaded where the last one was another."""
        held: dict[str, int] = {}
        for thirds in PRODUCTS:
            for side, third in zip("ab", thirds, strict=True):
                if held.get(side) == third:
                    continue
                held[side] = third
                first, parts = (A, len(self.groups)) if side == "a" else (B, self.vectors)
                row = LINE if side == "a" else LINE * self.vectors
                for n in range(parts):
                    place = self.b.bitcast(self.at(side, block, third, n), BYTE)
                    self.do("tileloadd64", first + n, place, constant(row))
            for g in self.groups:
                for j in range(self.vectors):
                    self.do("tdpbf16ps", 2 * g + j, A + g, B + j)

    def place(self, row: Any, j: int) -> Any:
        """Where a vector of sums lies on the stack."""
        return self.b.gep(self.sums, [self.b.add(self.b.mul(row, constant(DEEP)),
                                                 constant(SIDE * j))])  # fmt: skip

    def finite(self) -> Any:
        """Whether all sums of rows that exist are: what is not, times 0, is NaN."""
        b = self.b
        place = cgutils.alloca_once_value(b, self.v.zero)
        with self.loop(self.args["rows"]) as row:
            for j in range(self.vectors):
                x = self.v.load(self.place(row.index, j))
                b.store(self.v.elementwise("fma", x, self.v.zero, b.load(place)), place)
        x = b.load(place)
        lost = b.fcmp_unordered("uno", x, x)
        return b.icmp_unsigned("==", b.bitcast(lost, I16), ir.Constant(I16, 0))

    def again(self) -> None:
        """The sums in float32: inf times a second third that is 0 was NaN."""
        b = self.b
        acc = [cgutils.alloca_once_value(b, self.v.zero) for _ in range(self.vectors)]
        with self.loop(self.args["rows"]) as row, b.if_then(b.not_(self.lost(row.index))):
            for place in acc:
                b.store(self.v.zero, place)
            with self.loop(self.blocks()) as block, self.loop(constant(SIDE)) as pair:
                at = b.add(b.mul(row.index, constant(SIDE)), pair.index)
                of_a = [b.load(b.gep(self.at("a", block.index, n, 0), [at])) for n in range(3)]
                line = b.mul(pair.index, constant(SIDE * self.vectors))
                for j in range(self.vectors):
                    of_b = [
                        self.pairs.load(b.gep(self.at("b", block.index, n, j), [line]))
                        for n in range(3)
                    ]
                    total = b.load(acc[j])
                    for second in (False, True):
                        x = self.number([self.pairs.spread(bits) for bits in of_a], second)
                        total = self.v.elementwise("fma", x, self.number(of_b, second), total)
                    b.store(total, acc[j])
            for j, place in enumerate(acc):
                self.v.store(b.load(place), self.place(row.index, j))

    def lost(self, row: Any) -> Any:
        """Whether a row of A has a NaN: then its sums are NaN, as they are."""
        b = self.b
        place = cgutils.alloca_once_value(b, ir.Constant(I16, 0))
        with self.loop(self.blocks()) as block:
            at = b.gep(self.at("a", block.index, 0, 0), [b.mul(row, constant(SIDE))])
            pairs = self.pairs.load(at)
            for x in (self.half(pairs, False), self.half(pairs, True)):
                some = b.bitcast(b.fcmp_unordered("uno", x, x), I16)
                b.store(b.or_(b.load(place), some), place)
        return b.icmp_unsigned("!=", b.load(place), ir.Constant(I16, 0))

    def half(self, pairs: Any, second: bool) -> Any:
        """The first or second of pairs of bfloat16."""
        b = self.b
        bits = b.and_(pairs, self.every(UPPER)) if second else b.shl(pairs, self.every(SIDE))
        return self.floats(bits)

    def number(self, pairs: list[Any], second: bool) -> Any:
        """The first or second of pairs, as the sum of its thirds."""
        first, *rest = (self.half(x, second) for x in pairs)
        return self.b.fadd(first, self.b.fadd(*rest))

    def finish(self, row: Any) -> None:
        """A row of sums: what it is added to, the final, y."""
        b = self.b
        y = self.v.at(self.args["y"], b.add(self.args["at_y"], b.mul(row, self.args["ld"])))
        for j in range(self.vectors):
            mask = self.v.mask(self.tail) if self.tail and j == self.vectors - 1 else None
            column = constant(SIDE * j)
            x, at = self.v.load(self.place(row, j)), b.gep(y, [column])
            if self.init == "load":
                x = b.fadd(self.v.load(at, mask), x)
            elif self.init == "bias":
                e = self.v.at(self.args["e"], b.add(self.args["at_e"], column))
                x = b.fadd(self.v.load(e, mask), x)
            m = None
            if "m" in self.args:
                offset = b.add(self.args["at_m"], b.add(b.mul(row, self.args["ld"]), column))
                m = self.v.load(self.v.at(self.args["m"], offset), mask)
            x = finished(b, self.v, self.final, x, m)
            self.v.store(x, at, mask)


def product_intrinsic(names: list[str], vectors: int, tail: int, init: str, final: str) -> Any:
    """See `thirds.product_tile`."""
    return define(names, lambda b, args: ProductWriter(b, args, vectors, tail, init, final).write())
