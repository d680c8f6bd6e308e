"""The tile and the block transposition as Numba intrinsics that write LLVM vectors. Compile workers
only.

Every stride is a literal of the machine code unless the tile's `runtime` names it, so addresses
become register plus displacement. Vector loads and stores assume element alignment only. The fused
multiply-adds carry no fast-math flags: each output element is one chain over r, taps, k in order,
whatever the tile's size, so results do not depend on how rows are grouped into tiles.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from nnjit.kernels import target
from nnjit.kernels.tile import TileShape

LINE = 64  # bytes of a cache line
FAR = 512  # bytes from one k to the next that the CPU does not foresee
I1, I32, I64 = ir.IntType(1), ir.IntType(32), ir.IntType(64)
ELEMENT = {
    "f4": (ir.FloatType(), types.float32, "f32"),
    "f8": (ir.DoubleType(), types.float64, "f64"),
    "u4": (ir.IntType(32), types.uint32, "i32"),
    "u2": (ir.IntType(16), types.uint16, "i16"),
}
POINTERS = {"a", "b", "c", "e", "m", "src", "dst"}


def define(names: list[str], dtype: str, write: Callable[[Any, dict[str, Any]], None]) -> Any:
    """An intrinsic with these argument names (pointers to dtype, else int64); `write` gets builder
    and LLVM values.
    """
    pointer = types.CPointer(ELEMENT[dtype][1])
    sig = types.void(*[pointer if name in POINTERS else types.int64 for name in names])

    def codegen(cx: Any, builder: Any, _sig: Any, args: Any) -> Any:
        write(builder, dict(zip(names, args, strict=True)))
        return cx.get_dummy_value()

    return named(names, lambda *_given: (sig, codegen))


def named(names: list[str], typed: Callable[..., Any]) -> Any:
    """`typed` (argument types -> signature and code generator) as an intrinsic.

    Numba reads the number of arguments off the Python function, and it differs from tile to tile.
    """
    listed = ", ".join(names)
    space = {"typed": typed}
    exec(f"def kernel_block(tc, {listed}):\n    return typed({listed})", space)
    return intrinsic(space["kernel_block"])


def tile_intrinsic(s: TileShape) -> Any:
    """The tile of this shape as an intrinsic; same arguments and results as `tile.numpy_tile`."""
    if s.dtype == "b2":
        from nnjit.kernels.pairs_llvm import pair_intrinsic

        return pair_intrinsic(s)
    return define(
        s.arguments(), s.dtype, lambda builder, args: TileWriter(s, builder, args).write()
    )


def constant(value: int) -> ir.Constant:
    return ir.Constant(I64, value)


class Vectors:
    """Loads, stores and broadcasts of vectors of `lanes` elements at a builder's position."""

    def __init__(self, builder: Any, lanes: int, dtype: str, align: int = 0):
        self.builder, self.lanes = builder, lanes
        self.element, _, self.suffix = ELEMENT[dtype]
        self.align = align or int(dtype[1])
        self.vector = ir.VectorType(self.element, lanes)
        self.mask_type = ir.VectorType(I1, lanes)
        self.zero = ir.Constant(self.vector, [0.0 if dtype[0] == "f" else 0] * lanes)

    def function(self, name: str, result: Any, operands: list[Any]) -> Any:
        kind = ir.FunctionType(result, operands)
        return cgutils.get_or_insert_function(self.builder.module, kind, name)

    def elementwise(self, name: str, *operands: Any) -> Any:
        call = f"llvm.{name}.v{self.lanes}{self.suffix}"
        f = self.function(call, self.vector, [self.vector] * len(operands))
        return self.builder.call(f, operands)

    def at(self, pointer: Any, offset: Any) -> Any:
        return self.builder.gep(self.builder.bitcast(pointer, self.element.as_pointer()), [offset])

    def mask(self, columns: Any) -> Any:
        """Lanes below `columns`, an int or an LLVM value."""
        if isinstance(columns, int):
            return ir.Constant(self.mask_type, [int(i < columns) for i in range(self.lanes)])
        iota = ir.Constant(ir.VectorType(I64, self.lanes), list(range(self.lanes)))
        return self.builder.icmp_signed("<", iota, self.spread(columns, I64))

    def spread(self, value: Any, element: Any = None) -> Any:
        """The scalar in all lanes."""
        b, element = self.builder, element or self.element
        undef = ir.Constant(ir.VectorType(element, self.lanes), ir.Undefined)
        zeros = ir.Constant(ir.VectorType(I32, self.lanes), [0] * self.lanes)
        return b.shuffle_vector(b.insert_element(undef, value, ir.Constant(I32, 0)), undef, zeros)

    def load(self, pointer: Any, mask: Any = None) -> Any:
        p = self.builder.bitcast(pointer, self.vector.as_pointer())
        if mask is None:
            value = self.builder.load(p)
            value.align = self.align
            return value
        name = f"llvm.masked.load.v{self.lanes}{self.suffix}.p0"
        f = self.function(name, self.vector, [p.type, I32, self.mask_type, self.vector])
        return self.builder.call(f, [p, ir.Constant(I32, self.align), mask, self.zero])

    def ask_for(self, pointer: Any, write: bool = False, level: int = 1) -> None:
        """Prefetch the cache line at the pointer, to the cache of this level."""
        byte = ir.IntType(8).as_pointer()
        f = self.function("llvm.prefetch.p0", ir.VoidType(), [byte, I32, I32, I32])
        how = [ir.Constant(I32, n) for n in (int(write), 4 - level, 1)]  # 1: of data
        self.builder.call(f, [self.builder.bitcast(pointer, byte), *how])

    def store(self, value: Any, pointer: Any, mask: Any = None) -> None:
        p = self.builder.bitcast(pointer, self.vector.as_pointer())
        if mask is None:
            self.builder.store(value, p).align = self.align
            return
        name = f"llvm.masked.store.v{self.lanes}{self.suffix}.p0"
        f = self.function(name, ir.VoidType(), [self.vector, p.type, I32, self.mask_type])
        self.builder.call(f, [value, p, ir.Constant(I32, self.align), mask])


class TileWriter:
    """Writes one call of a tile: initial accumulators, the loops over r and k, the final stores."""

    def __init__(self, shape: TileShape, builder: Any, args: dict[str, Any]):
        self.s, self.b, self.args = shape, builder, args
        self.v = Vectors(builder, shape.lanes, "f4" if shape.dtype == "b2" else shape.dtype)
        self.last_mask = None
        if shape.tail:
            self.last_mask = self.v.mask(args["width"] if shape.tail == "run" else shape.tail)
        first, count = shape.rows_a[0], len(shape.rows_a)
        apart = shape.step_a * self.v.align >= FAR and shape.step_b > shape.vectors * shape.lanes
        # columns of A where they lie: what the next tile reads is asked for, a line at each k
        self.by_columns = apart and count > 1 and shape.rows_a == (*range(first, first + count),)
        self.rows_a = [self.scaled(row, "row_a") for row in shape.rows_a]
        self.rows_c = [self.scaled(row, "row_c") for row in shape.rows_c]

    def scaled(self, row: int, name: str) -> Any:
        if name not in self.s.runtime:
            return constant(row)
        return self.b.mul(constant(row), self.args[name])

    def step_of(self, k: Any, name: str) -> Any:
        step = self.args[name] if name in self.s.runtime else constant(getattr(self.s, name))
        return self.b.mul(k, step)

    def base(self, name: str) -> Any:
        return self.v.at(self.args[name], self.args[name + "off"])

    def load(self, pointer: Any, j: int) -> Any:
        mask = self.last_mask if j == self.s.vectors - 1 else None
        return self.v.load(self.b.gep(pointer, [constant(j * self.s.lanes)]), mask)

    def write(self) -> None:
        rows, c = range(len(self.rows_c)), self.out_base()
        columns = range(self.s.vectors)
        if self.s.init == "bias":
            e = self.base("e")
            row = [self.load(e, j) for j in columns]
            acc = [row for _ in rows]
        elif self.s.init == "load":
            acc = [[self.load(self.b.gep(c, [self.rows_c[i]]), j) for j in columns] for i in rows]
        else:
            acc = [[self.v.zero for _ in columns] for _ in rows]
        if self.s.reads_m:
            self.ask_for_m()
        if self.s.taps:
            acc = self.loop(self.outer_count(), acc, self.outer_step, guarded=True)
        for i in rows:
            for j in columns:
                value = self.finish(acc[i][j], i, j)
                at = self.b.gep(c, [self.b.add(self.rows_c[i], constant(j * self.s.lanes))])
                self.store(value, at, self.last_mask if j == self.s.vectors - 1 else None)

    def out_base(self) -> Any:
        return self.base("c")

    def store(self, value: Any, pointer: Any, mask: Any) -> None:
        self.v.store(value, pointer, mask)

    def beside(self, i: int, j: int) -> Any:
        """The mask or residual of row i, vector j."""
        return self.load(self.b.gep(self.base("m"), [self.rows_c[i]]), j)

    def ask_for_m(self) -> None:
        """Prefetch what `beside` reads: memory answers while the products are added up."""
        for row in self.rows_c:
            for j in range(self.s.vectors):
                at = self.b.add(row, constant(j * self.s.lanes))
                self.v.ask_for(self.b.gep(self.base("m"), [at]))

    def outer_count(self) -> Any:
        """R, or 0 where there is no inner step: so the k loops need no check of their own."""
        if self.s.static_k:
            return self.args["R"]
        some = self.b.icmp_signed(">", self.args["kc"], constant(0))
        return self.b.select(some, self.args["R"], constant(0))

    def outer_step(self, r: Any, acc: list[list[Any]]) -> list[list[Any]]:
        b, base_a, base_b = self.b, self.base("a"), self.base("b")
        base_a = b.gep(base_a, [b.mul(r, self.args["sar"])])
        base_b = b.gep(base_b, [b.mul(r, self.args["sbr"])])
        for tap_a, tap_b, lo, hi in self.s.taps:
            at_a, at_b = b.gep(base_a, [constant(tap_a)]), b.gep(base_b, [constant(tap_b)])

            def step(
                k: Any, acc: Any, pa: Any = at_a, pb: Any = at_b, lo: int = lo, hi: int = hi
            ) -> Any:
                return self.multiply_add(
                    acc,
                    b.gep(pa, [self.step_of(k, "step_a")]),
                    b.gep(pb, [self.step_of(k, "step_b")]),
                    lo,
                    hi,
                )

            if self.s.static_k:
                for k in range(self.s.static_k):
                    acc = step(constant(k), acc)
            else:
                acc = self.loop(self.args["kc"], acc, step)
        return acc

    def multiply_add(self, acc: Any, pa: Any, pb: Any, lo: int, hi: int) -> Any:
        """One k: the row of B times the broadcast element of each row of A."""
        if self.by_columns:
            self.v.ask_for(self.b.gep(pa, [constant(LINE // self.v.align)]))
        row, out = [self.load(pb, j) for j in range(self.s.vectors)], list(acc)
        for i in range(lo, hi):
            x = self.v.spread(self.b.load(self.b.gep(pa, [self.rows_a[i]])))
            out[i] = [self.v.elementwise("fma", x, y, z) for y, z in zip(row, acc[i], strict=True)]
        return out

    def finish(self, x: Any, i: int, j: int) -> Any:
        m = self.beside(i, j) if self.s.reads_m else None
        return finished(self.b, self.v, self.s.final, x, m)

    def loop(self, count: Any, acc: Any, body: Any, guarded: bool = False) -> Any:
        """A do-while loop over 0..count-1 that carries the accumulators; skipped at count <= 0 if
        guarded.
        """
        b, vector = self.b, self.v.vector
        before, head, done = b.block, b.append_basic_block("loop"), b.append_basic_block("done")
        if guarded:
            b.cbranch(b.icmp_signed(">", count, constant(0)), head, done)
        else:
            b.branch(head)
        b.position_at_end(head)
        n = b.phi(I64)
        n.add_incoming(constant(0), before)
        carried = [[b.phi(vector) for _ in row] for row in acc]
        new = body(n, carried)
        following, last = b.add(n, constant(1)), b.block
        n.add_incoming(following, last)
        join(carried, acc, before, new, last)
        b.cbranch(b.icmp_signed("<", following, count), head, done)
        b.position_at_end(done)
        if not guarded:
            return new
        out = [[b.phi(vector) for _ in row] for row in acc]
        join(out, acc, before, new, last)
        return out


def finished(b: Any, v: Vectors, final: str, x: Any, m: Any) -> Any:
    """What a tile's final makes of sums x; m: the mask or residual, None where there is none."""
    if final == "mask":
        x = b.select(b.fcmp_ordered(">", m, v.zero), x, v.zero)
    elif m is not None:
        x = b.fmul(x, m) if final == "mul" else b.fadd(x, m)
    if final.endswith("relu"):  # x < 0 is false for NaN, so NaN stays
        x = b.select(b.fcmp_ordered("<", x, v.zero), v.zero, x)
    return x


def join(phis: Any, first: Any, from_first: Any, second: Any, from_second: Any) -> None:
    """Each phi takes its value from the block it was left by."""
    for row, xs, ys in zip(phis, first, second, strict=True):
        for phi, x, y in zip(row, xs, ys, strict=True):
            phi.add_incoming(x, from_first)
            phi.add_incoming(y, from_second)


def prefetch_intrinsic(elements: int, dtype: str, write: bool) -> Any:
    """See `prefetch.prefetch`."""

    def ask(b: Any, args: dict[str, Any]) -> None:
        v = Vectors(b, 1, dtype)
        start = v.at(args["a"], args["aoff"])
        for k in range(0, elements, LINE // target.itemsize(dtype)):
            v.ask_for(b.gep(start, [constant(k)]), write)

    return define(["a", "aoff"], dtype, ask)


def transpose_intrinsic(lanes: int, rows: int, columns: int, dtype: str) -> Any:
    """See `tile.transpose_block`: log2(lanes) rounds of two-operand shuffles, all in registers."""

    def write(b: Any, args: dict[str, Any]) -> None:
        v = Vectors(b, lanes, dtype)
        mask = v.mask(columns) if columns < lanes else None
        block = [v.zero] * lanes
        for r in range(rows):
            offset = b.add(args["soff"], b.mul(args["ld_src"], constant(r)))
            block[r] = v.load(v.at(args["src"], offset), mask)
        transpose_vectors(b, block)
        for c in range(columns):
            offset = b.add(args["doff"], b.mul(args["ld_dst"], constant(c)))
            v.store(block[c], v.at(args["dst"], offset))

    return define(["src", "soff", "ld_src", "dst", "doff", "ld_dst"], dtype, write)


def transpose_vectors(b: Any, block: list[Any]) -> None:
    """The square block of vectors transposed in place."""
    lanes = len(block)
    half = lanes // 2
    while half:  # exchange the off-diagonal half x half blocks
        low = [i if not i & half else lanes + i - half for i in range(lanes)]
        high = [i + half if not i & half else lanes + i for i in range(lanes)]
        for r in range(lanes):
            if not r & half:
                x, y = block[r], block[r + half]
                for at, order in ((r, low), (r + half, high)):
                    index = ir.Constant(ir.VectorType(I32, lanes), order)
                    block[at] = b.shuffle_vector(x, y, index)
        half //= 2
