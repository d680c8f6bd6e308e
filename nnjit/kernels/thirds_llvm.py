"""`thirds.split_thirds` as a Numba intrinsic, and what the tile of thirds shares with it. Compile
workers only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils

from nnjit.kernels.amx_llvm import LINE
from nnjit.kernels.amx_tile import SIDE
from nnjit.kernels.pairs_llvm import I16, UPPER
from nnjit.kernels.recipe import MOST_ASKED
from nnjit.kernels.thirds import DEEP, block_size
from nnjit.kernels.tile_llvm import I32, I64, Vectors, constant, named, transpose_vectors

POINTERS = {
    "a": types.uint32, "b": types.uint32, "dst": types.uint32, "src": types.float32,
    "y": types.float32, "e": types.float32, "m": types.float32,
    **{f"p{n}": types.float32 for n in range(MOST_ASKED)},
}  # fmt: skip
AHEAD = 32  # numbers along k that are asked for before they are read, where they are ld apart
HALF = ir.VectorType(I16, 2 * SIDE)


def define(names: list[str], write: Callable[[Any, dict[str, Any]], None]) -> Any:
    """An intrinsic with these arguments; `write` gets builder and LLVM values."""
    sig = types.void(
        *[types.CPointer(POINTERS[n]) if n in POINTERS else types.int64 for n in names]
    )

    def codegen(cx: Any, builder: Any, _sig: Any, args: Any) -> Any:
        write(builder, dict(zip(names, args, strict=True)))
        return cx.get_dummy_value()

    return named(names, lambda *_given: (sig, codegen))


class Writer:
    """What both need: vectors of float32 and of pairs, loops, a place on the stack."""

    def __init__(self, builder: Any, args: dict[str, Any]):
        self.b, self.args = builder, args
        self.v, self.pairs = Vectors(builder, SIDE, "f4"), Vectors(builder, SIDE, "u4")

    def space(self, lines: int) -> Any:
        """So many vectors on the stack, as floats."""
        with self.b.goto_entry_block():
            place = self.b.alloca(ir.ArrayType(ir.VectorType(I32, SIDE), lines))
        place.align = LINE
        return self.b.bitcast(place, self.v.element.as_pointer())

    def loop(self, count: Any) -> Any:
        """`with self.loop(n) as i`: a loop over 0..n-1."""
        return cgutils.for_range(self.b, count, intp=I64)

    def every(self, number: int) -> Any:
        return ir.Constant(self.pairs.vector, [number] * SIDE)

    def bits(self, x: Any) -> Any:
        return self.b.bitcast(x, self.pairs.vector)

    def floats(self, bits: Any) -> Any:
        return self.b.bitcast(bits, self.v.vector)

    def blocks(self) -> Any:
        """Blocks of 32 numbers along k."""
        return self.b.sdiv(self.b.add(self.args["depth"], constant(DEEP - 1)), constant(DEEP))


class SplitWriter(Writer):
    """Writes one call of `split_thirds`."""

    def __init__(self, builder: Any, args: dict[str, Any], side: str, along: bool, lines: int):
        super().__init__(builder, args)
        self.side, self.along, self.lines = side, along, lines
        # numbers of a whole block in dst's own order: rows along k for A, along columns for B
        self.as_it_lies = along == (side == "a")
        self.turned = None if self.as_it_lies else self.space(DEEP)

    def write(self) -> None:
        b, size = self.b, constant(block_size(self.lines))
        with self.loop(self.blocks()) as block:
            k = b.mul(block.index, constant(DEEP))
            to = b.add(self.args["to"], b.mul(block.index, size))
            left = b.sub(self.args["depth"], k)
            if self.as_it_lies:
                self.split_as_it_lies(k, left, to)
            else:
                for first in range(0, self.lines, SIDE):
                    self.turn(k, left, first)
                    self.split_turned(first, to)

    def at(self, k: Any, line: Any) -> Any:
        """Where number k of a line is in src."""
        b, ld = self.b, self.args["ld"]
        far, near = (line, k) if self.along else (k, line)
        return self.v.at(self.args["src"], b.add(self.args["at"], b.add(b.mul(far, ld), near)))

    def split_as_it_lies(self, k: Any, left: Any, to: Any) -> None:
        b = self.b
        if self.side == "a":
            masks = [self.v.mask(left), self.v.mask(b.sub(left, constant(SIDE)))]
            with self.loop(self.args["count"]) as row:
                at = self.at(k, row.index)
                halves = [self.v.load(b.gep(at, [constant(SIDE * n)]), masks[n]) for n in range(2)]
                self.store_a(halves, to, row.index)
            return
        with self.loop(constant(SIDE)) as pair:
            row = b.mul(pair.index, constant(2))
            for j in range(self.lines // SIDE):
                numbers = []
                for n in range(2):
                    along = b.add(row, constant(n))
                    there = b.icmp_signed("<", along, left)
                    columns = b.sub(self.args["count"], constant(SIDE * j))
                    mask = self.v.mask(b.select(there, columns, constant(0)))
                    at = self.at(b.add(k, along), constant(SIDE * j))
                    self.v.ask_for(self.at(b.add(k, b.add(along, constant(AHEAD))),
                                           constant(SIDE * j)))  # fmt: skip
                    numbers.append(self.v.load(at, mask))
                self.store_b(numbers, to, pair.index, j)

    def turn(self, k: Any, left: Any, first: int) -> None:
        """A block of 16 lines transposed on the stack: 32 numbers of each line of A (lines of src
        lie along k); 16 of each of 32 steps along k for B.
        """
        b = self.b
        lines = b.sub(self.args["count"], constant(first))
        for half in range(2):
            block = []
            for n in range(SIDE):
                step = constant(SIDE * half + n)
                if self.along:  # a line of B, 16 numbers along k
                    exists = b.icmp_signed("<", constant(n), lines)
                    room = b.sub(left, constant(SIDE * half))
                    at = self.at(b.add(k, constant(SIDE * half)), constant(first + n))
                else:  # a step along k, 16 lines of A
                    exists = b.icmp_signed("<", step, left)
                    room, at = lines, self.at(b.add(k, step), constant(first))
                    self.v.ask_for(self.at(b.add(k, b.add(step, constant(AHEAD))),
                                           constant(first)))  # fmt: skip
                mask = self.v.mask(b.select(exists, room, constant(0)))
                block.append(self.v.load(at, mask))
            transpose_vectors(b, block)
            for n, vector in enumerate(block):
                place = 2 * n + half if self.side == "a" else SIDE * half + n
                self.v.store(vector, b.gep(self.turned, [constant(SIDE * place)]))

    def split_turned(self, first: int, to: Any) -> None:
        """The block on the stack: two vectors at a time, one line of A or one pair of steps."""
        b = self.b
        with self.loop(constant(SIDE)) as n:
            at = b.gep(self.turned, [b.mul(n.index, constant(DEEP))])
            numbers = [self.v.load(b.gep(at, [constant(SIDE * half)])) for half in range(2)]
            if self.side == "a":
                self.store_a(numbers, to, b.add(n.index, constant(first)))
            else:
                self.store_b(numbers, to, n.index, first // SIDE)

    def store_a(self, halves: list[Any], to: Any, row: Any) -> None:
        """32 numbers of a row: neighbours become pairs."""
        order = [2 * n + 1 for n in range(2 * SIDE)]
        self.store(halves, order, to, self.b.mul(row, constant(SIDE)))

    def store_b(self, numbers: list[Any], to: Any, pair: Any, j: int) -> None:
        """Numbers 2k and 2k + 1 of 16 columns: what lies below each other becomes pairs."""
        order = [n + 1 + 2 * SIDE * m for n in range(0, 2 * SIDE, 2) for m in range(2)]
        at = self.b.add(self.b.mul(pair, constant(self.lines)), constant(SIDE * j))
        self.store(numbers, order, to, at)

    def store(self, numbers: list[Any], order: list[int], to: Any, at: Any) -> None:
        """Upper halves of the thirds of two vectors, in this order."""
        b, index = self.b, ir.Constant(ir.VectorType(I32, 2 * SIDE), order)
        for n, (x, y) in enumerate(zip(*map(self.thirds, numbers), strict=True)):
            pairs = b.shuffle_vector(b.bitcast(x, HALF), b.bitcast(y, HALF), index)
            place = b.add(to, b.add(at, constant(n * SIDE * self.lines)))
            self.pairs.store(self.bits(pairs), self.pairs.at(self.args["dst"], place))

    def thirds(self, x: Any) -> tuple[Any, Any, Any]:
        """See `thirds.thirds_of`; the bits are the upper halves."""
        b = self.b
        first = self.nearest(x)
        left = b.fsub(x, self.floats(first))
        size = b.and_(self.bits(left), self.every(0x7FFFFFFF))
        finite = b.icmp_unsigned("<", size, self.every(0x7F800000))
        first = b.select(finite, first, self.bits(x))
        left = b.select(finite, left, self.v.zero)
        second = self.nearest(left)
        return first, second, self.bits(b.fsub(left, self.floats(second)))

    def nearest(self, x: Any) -> Any:
        """Bits of the nearest bfloat16, with 16 zeros."""
        return self.b.and_(self.b.add(self.bits(x), self.every(0x8000)), self.every(UPPER))


def split_intrinsic(side: str, along: bool, lines: int) -> Any:
    """See `thirds.split_thirds`."""
    names = ["src", "at", "ld", "count", "depth", "dst", "to"]
    return define(names, lambda b, args: SplitWriter(b, args, side, along, lines).write())
