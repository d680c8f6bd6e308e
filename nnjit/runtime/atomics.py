"""Words of memory for the driver: loads, stores, atomics, a clock and calls by address.

Imported by interpreter.py when it is compiled, never elsewhere: this module imports Numba.
"""

# mypy: ignore-errors

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

I64 = ir.IntType(64)
MAX_WORDS = 64  # of a table


def pointer(builder, address):
    return builder.inttoptr(address, ir.PointerType(I64))


@intrinsic
def load(context, address):
    """A plain load."""

    def generate(ctx, builder, sig, args):
        return builder.load(pointer(builder, args[0]), typ=I64)

    return types.int64(types.int64), generate


@intrinsic
def store(context, address, value):
    """A plain store."""

    def generate(ctx, builder, sig, args):
        builder.store(args[1], pointer(builder, args[0]))
        return ctx.get_dummy_value()

    return types.void(types.int64, types.int64), generate


@intrinsic
def peek(context, address):
    """An atomic load, sequentially consistent (a plain move on x86)."""

    def generate(ctx, builder, sig, args):
        return builder.load_atomic(pointer(builder, args[0]), "seq_cst", 8, typ=I64)

    return types.int64(types.int64), generate


@intrinsic
def publish(context, address, value):
    """An atomic store: who sees it sees all earlier stores."""

    def generate(ctx, builder, sig, args):
        builder.store_atomic(args[1], pointer(builder, args[0]), "release", 8)
        return ctx.get_dummy_value()

    return types.void(types.int64, types.int64), generate


@intrinsic
def add(context, address, value):
    """An atomic addition; the value before."""

    def generate(ctx, builder, sig, args):
        return builder.atomic_rmw("add", pointer(builder, args[0]), args[1], "seq_cst")

    return types.int64(types.int64, types.int64), generate


@intrinsic
def swap_if(context, address, old, new):
    """1 where the word was `old` and is now `new`, atomically; else 0."""

    def generate(ctx, builder, sig, args):
        target = pointer(builder, args[0])
        pair = builder.cmpxchg(target, args[1], args[2], "seq_cst", "seq_cst")
        return builder.zext(builder.extract_value(pair, 1), I64)

    return types.int64(types.int64, types.int64, types.int64), generate


@intrinsic
def divide(context, a, b):
    """a / b of numbers >= 0."""

    def generate(ctx, builder, sig, args):
        return builder.udiv(args[0], args[1])

    return types.int64(types.int64, types.int64), generate


@intrinsic
def pause(context):
    """Tell the core that this is a waiting loop."""

    def generate(ctx, builder, sig, args):
        triple, i32 = builder.module.triple, ir.IntType(32)
        if triple.startswith(("x86", "i")):
            kind, name, values = ir.FunctionType(ir.VoidType(), []), "llvm.x86.sse2.pause", []
        elif triple.startswith(("aarch64", "arm64")):
            kind, name = ir.FunctionType(ir.VoidType(), [i32]), "llvm.aarch64.isb"
            values = [i32(15)]
        else:
            return ctx.get_dummy_value()
        builder.call(cgutils.get_or_insert_function(builder.module, kind, name), values)
        return ctx.get_dummy_value()

    return types.void(), generate


@intrinsic
def ticks(context):
    """A counter of constant rate: the time stamp counter, or the system counter on ARM."""

    def generate(ctx, builder, sig, args):
        x86 = builder.module.triple.startswith(("x86", "i"))
        name = "llvm.readcyclecounter" if x86 else "llvm.readsteadycounter"
        kind = ir.FunctionType(I64, [])
        return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), [])

    return types.int64(), generate


@intrinsic
def call_address(context, function, a, b):
    """Call a C function of up to two word arguments; its result is dropped."""

    def generate(ctx, builder, sig, args):
        kind = ir.FunctionType(ir.VoidType(), [I64, I64])
        builder.call(builder.inttoptr(args[0], kind.as_pointer()), [args[1], args[2]])
        return ctx.get_dummy_value()

    return types.void(*[types.int64] * 3), generate


@intrinsic
def call_table(context, function, table, count, a, b, c):
    """Call a C function of three words and the `count` words of a table.

    Words are passed in fours: a C function ignores arguments beyond its own (the caller clears the
    stack), and numbers and pointers travel alike. Tables are therefore padded to a multiple of four
    words.
    """

    def generate(ctx, builder, sig, args):
        builder.call(calling(builder.module), args)
        return ctx.get_dummy_value()

    return types.void(*[types.int64] * 6), generate


def calling(module):
    """The function behind `call_table`. It is long, so LLVM must not copy it to where it is called:
    the driver would be twice as large, and take much longer to compile.
    """
    kind = ir.FunctionType(ir.VoidType(), [I64] * 6)
    function = cgutils.get_or_insert_function(module, kind, "nnjit_call_table")
    if not function.is_declaration:
        return function
    function.linkage = "linkonce_odr"
    function.attributes.add("noinline")
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    address, table, count, *given = function.args
    end = function.append_basic_block("end")
    choice = builder.switch(builder.udiv(builder.add(count, I64(3)), I64(4)), end)
    for words in range(0, MAX_WORDS + 1, 4):
        block = function.append_basic_block(f"words_{words}")
        choice.add_case(I64(words // 4), block)
        builder.position_at_end(block)
        places = [builder.add(table, I64(8 * i)) for i in range(words)]
        more = [builder.load(pointer(builder, place), typ=I64) for place in places]
        kind = ir.FunctionType(ir.VoidType(), [I64] * (3 + words))
        builder.call(builder.inttoptr(address, kind.as_pointer()), [*given, *more])
        builder.branch(end)
    builder.position_at_end(end)
    builder.ret_void()
    return function
