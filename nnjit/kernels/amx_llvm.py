"""The AMX tile as a Numba intrinsic. Compile workers only.

Registers 0 to 3 hold sums (2 of rows x 2 of columns), 4 and 5 rows of A, 6 and 7 rows of B.
"""

from __future__ import annotations

import itertools
from typing import Any

from llvmlite import ir
from numba.core import cgutils

from nnjit.kernels.amx_tile import SIDE
from nnjit.kernels.pairs_llvm import PairWriter, define_any
from nnjit.kernels.tile import TileShape
from nnjit.kernels.tile_llvm import I32, constant

I8 = ir.IntType(8)
BYTE = I8.as_pointer()
A, B = 4, 6  # the first registers of the operands
LINE = 4 * SIDE  # bytes of a row of a register


def amx_intrinsic(s: TileShape) -> Any:
    """See `amx_tile.amx_tile`."""
    return define_any(
        s.arguments(), lambda builder, args, short: AmxWriter(s, builder, args, short).write()
    )


def instruction(b: Any, name: str, *operands: Any) -> None:
    """An instruction of AMX; numbers of registers are constants of 8 bits."""
    values = [ir.Constant(I8, x) if isinstance(x, int) else x for x in operands]
    kind = ir.FunctionType(ir.VoidType(), [x.type for x in values])
    b.call(cgutils.get_or_insert_function(b.module, kind, f"llvm.x86.{name}"), values)


class AmxWriter(PairWriter):
    """Writes a tile: sums to registers, the loops over r and k, sums to the stack, what follows."""

    def __init__(self, s: TileShape, builder: Any, args: dict[str, Any], short: frozenset[str]):
        super().__init__(s, builder, args, short)
        rows = len(s.rows_c)
        self.groups = [(i, min(SIDE, rows - i)) for i in range(0, rows, SIDE)]
        self.columns = range(s.vectors)
        self.sums = self.space(4 * SIDE)

    def space(self, lines: int) -> Any:
        """So many rows of a register on the stack."""
        kind = ir.ArrayType(ir.VectorType(I32, SIDE), lines)
        with self.b.goto_entry_block():
            place = self.b.alloca(kind)
        place.align = LINE
        return self.b.bitcast(place, BYTE)

    def do(self, name: str, *operands: Any) -> None:
        instruction(self.b, name, *operands)

    def bytes_at(self, pointer: Any) -> Any:
        return self.b.bitcast(pointer, BYTE)

    def line_of_sums(self, i: int, j: int) -> Any:
        """Where row i, vector j of the sums lies on the stack."""
        line = (i // SIDE * 2 + j) * SIDE + i % SIDE
        return self.b.gep(self.sums, [constant(line * LINE)])

    def write(self) -> None:
        self.configure()
        if self.s.reads_m:
            self.ask_for_m()
        self.start()
        self.loop(self.outer_count(), [], self.outer_step, guarded=True)
        c, whole = self.out_base(), self.in_place and self.s.final == "store"
        self.move("tilestored64", c if whole else None)
        if whole:
            return
        for i in range(len(self.rows_c)):
            for j in self.columns:
                value = self.finish(self.v.load(self.line_of_sums(i, j)), i, j)
                at = self.b.gep(c, [self.b.add(self.rows_c[i], constant(j * self.s.lanes))])
                self.store(value, at, self.last_mask if j == self.s.vectors - 1 else None)

    @property
    def in_place(self) -> bool:
        """Whether C holds sums as they are: float32, whole vectors, rows equally far apart."""
        rows = self.s.rows_c
        apart = {b - a for a, b in itertools.pairwise(rows)}
        return not self.s.tail and self.s.out == "f4" and len(apart) < 2

    def move(self, name: str, c: Any = None) -> None:
        """Load or store all sums: from C, else on the stack."""
        row = constant(LINE)
        if c is not None and len(self.rows_c) > 1:
            row = self.b.mul(self.b.sub(self.rows_c[1], self.rows_c[0]), constant(4))
        for i, _ in self.groups:
            for j in self.columns:
                at = self.line_of_sums(i, j)
                if c is not None:
                    place = self.b.add(self.rows_c[i], constant(j * SIDE))
                    at = self.bytes_at(self.b.gep(c, [place]))
                self.do(name, i // SIDE * 2 + j, at, row)

    def configure(self) -> None:
        """Give the registers their shapes (Intel's manual, LDTILECFG): palette 1; rows, and bytes
        of a row, of each.
        """
        rows, row_bytes = [0] * 8, [0] * 8
        for g, (_, count) in enumerate(self.groups):
            for register in (A + g, *(2 * g + j for j in self.columns)):
                rows[register], row_bytes[register] = count, LINE
        for j in self.columns:
            rows[B + j], row_bytes[B + j] = SIDE, LINE
        shape = [1, *[0] * 15]
        for n in row_bytes:
            shape += [n & 255, n >> 8]
        shape += [0] * 16 + rows + [0] * 8
        place = self.space(1)
        value = ir.Constant(ir.VectorType(I8, 64), shape)
        self.b.store(value, self.b.bitcast(place, value.type.as_pointer())).align = LINE
        self.do("ldtilecfg", place)

    def start(self) -> None:
        """The sums before the first product."""
        if self.s.init == "zero":
            for i, _ in self.groups:
                for j in self.columns:
                    self.do("tilezero", i // SIDE * 2 + j)
            return
        if self.s.init == "load" and self.in_place:
            self.move("tileloadd64", self.out_base())
            return
        if self.s.init == "bias" and not self.s.tail:  # the same line for all rows
            for (i, _), j in itertools.product(self.groups, self.columns):
                line = self.bytes_at(self.b.gep(self.base("e"), [constant(j * SIDE)]))
                self.do("tileloadd64", i // SIDE * 2 + j, line, constant(0))
            return
        base = self.base("e") if self.s.init == "bias" else self.out_base()
        for i in range(len(self.rows_c)):
            row = base if self.s.init == "bias" else self.b.gep(base, [self.rows_c[i]])
            for j in self.columns:
                self.v.store(self.load(row, j), self.line_of_sums(i, j))
        self.move("tileloadd64")

    def outer_step(self, r: Any, acc: Any) -> Any:
        """All pairs of one step: whole registers, then what is left, with zeros behind it."""
        b, side = self.b, constant(SIDE)
        at_a = b.gep(self.base("a"), [b.mul(r, self.args["sar"])])
        at_b = b.gep(self.base("b"), [b.mul(r, self.args["sbr"])])
        kc = constant(self.s.static_k) if self.s.static_k else self.args["kc"]
        row_a, row_b = self.row_a(), self.step_of(constant(1), "step_b")

        def block(n: Any, acc: Any) -> Any:
            k, along_a = b.mul(n, side), b.mul(n, constant(SIDE * self.s.step_a))
            self.multiply(
                b.gep(at_a, [along_a]), row_a, b.gep(at_b, [b.mul(k, row_b)]), row_b, self.rows_a
            )
            return acc

        self.loop(b.udiv(kc, side), acc, block, guarded=True)
        left = b.urem(kc, side)
        with b.if_then(b.icmp_unsigned("!=", left, constant(0))):
            k = b.sub(kc, left)
            along_a = b.mul(k, constant(self.s.step_a))
            self.multiply_rest(b.gep(at_a, [along_a]), b.gep(at_b, [b.mul(k, row_b)]), row_b, left)
        return acc

    def row_a(self) -> Any:
        """Pairs from a row of A to the next."""
        if len(self.rows_a) == 1:
            return constant(SIDE)
        return self.b.sub(self.rows_a[1], self.rows_a[0])

    def multiply(self, at_a: Any, row_a: Any, at_b: Any, row_b: Any, rows: Any) -> None:
        """16 pairs of all rows and columns; row_a, row_b: pairs between rows."""
        b = self.b
        for g, (i, _) in enumerate(self.groups):
            place = self.bytes_at(b.gep(at_a, [rows[i]]))
            self.do("tileloadd64", A + g, place, b.mul(row_a, constant(4)))
        for j in self.columns:
            place = self.bytes_at(b.gep(at_b, [constant(j * SIDE)]))
            self.do("tileloadd64", B + j, place, b.mul(row_b, constant(4)))
            for g, _ in enumerate(self.groups):
                self.do("tdpbf16ps", 2 * g + j, A + g, B + j)

    def multiply_rest(self, at_a: Any, at_b: Any, row_b: Any, left: Any) -> None:
        """The last pairs, fewer than 16: rows of A, and as many rows of B, are copied."""
        b, v = self.b, self.pairs
        rows = len(self.rows_a)
        mask = v.mask(left)
        of_a, of_b = (b.bitcast(self.space(2 * SIDE), I32.as_pointer()) for _ in range(2))
        for i in range(rows):
            row = v.load(b.gep(at_a, [self.rows_a[i]]), mask)
            v.store(row, b.gep(of_a, [constant(i * SIDE)]))
        for j in self.columns:
            for k in range(SIDE):
                there = b.icmp_unsigned("<", constant(k), left)
                row = v.mask(b.select(there, constant(SIDE), constant(0)))
                at = b.gep(at_b, [b.add(b.mul(constant(k), row_b), constant(j * SIDE))])
                v.store(v.load(at, row), b.gep(of_b, [constant((k * 2 + j) * SIDE)]))
        places = [constant(i * SIDE) for i in range(rows)]
        self.multiply(of_a, constant(SIDE), of_b, constant(2 * SIDE), places)
