"""How nnjit uses Numba and LLVM. A part of every key, as `worker` is.

What kernels do not need is left out, a third of the time of compiling them, which leaves their code
as it is: passes for closures, tuples, array expressions and literals; types of `a + b` worked out
anew for each place; the callback around a kernel, which asks Python to print errors that no kernel
raises. One setting of LLVM changes code: see `UNROLLED`.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

#: the most rounds of a loop that LLVM may write out one by one. It does that before it looks for
#: loops to make vectors of, and of 16 or 32 elements one by one it makes no vectors: copies of
#: channels were 2 to 4 times slower for it
UNROLLED = 8
#: LLVM's names of what a kernel and the driver return
RESULTS = {"none": "void", "int64": "i64"}


@functools.cache  # LLVM refuses an option that is given twice
def limit_unrolling() -> None:
    """Set `UNROLLED`, for the whole process."""
    import llvmlite.binding as llvm

    llvm.set_option("nnjit", f"-unroll-full-max-count={UNROLLED}")


@functools.cache
def widen_vectors() -> None:
    """Have LLVM make vectors as wide as those that kernels are written for. For some processors it
    prefers half of that, to spare their clock: a price that the tiles have paid already.
    """
    from numba.core import codegen, config

    from nnjit.kernels import target

    if target.vector_bits() == 512:
        wide = f"{codegen.get_host_cpu_features()},-prefer-256-bit"
        config.CPU_FEATURES = wide  # type: ignore[attr-defined]


@functools.cache  # once: each replaces what it calls
def hasten() -> None:
    """Spare Numba what it finds out again and again; what it makes stays the same to the byte."""
    remember_types()
    remember_facts()
    list_variables_quickly()


def remember_types() -> None:
    """Have Numba keep what a built-in function gives for argument types. It asks NumPy's ufuncs
    for every addition of two numbers: a seventh of all time.
    """
    from numba.core.types.functions import BaseFunction

    resolve = BaseFunction.get_call_type
    known: dict[Any, Any] = {}

    def get_call_type(self, context, args, kws):
        if kws:
            return resolve(self, context, args, kws)
        key = (self, args, context)
        found = known.get(key)
        if found is None:
            found = known[key] = resolve(self, context, args, kws)
        return found

    BaseFunction.get_call_type = get_call_type  # type: ignore[method-assign]


def remember_facts() -> None:
    """Have Numba find out once what it asks again for every instruction: the size of a type, for
    which LLVM reads a module, and whether a function of Numba's takes a place in the source.

    Where these private names are others, only time is lost.
    """
    from numba.core import base

    if hasattr(base, "_has_loc"):
        base._has_loc = functools.cache(base._has_loc)
    for name in ("get_abi_sizeof", "get_abi_alignment"):
        if hasattr(base.BaseContext, name):
            setattr(base.BaseContext, name, functools.cache(getattr(base.BaseContext, name)))


def list_variables_quickly() -> None:
    """Replace what lists the variables of an instruction, a tenth of Numba's own time: it asks each
    operand in turn whether it is of this class or that, and most are names and places.
    """
    from numba.core import ir

    thorough = getattr(ir.Inst, "_rec_list_vars", None)
    if thorough is None:
        return
    plain = {str, int, float, bool, type(None), ir.Loc}
    nested = {list, tuple, dict}

    def listed(self, value) -> list:
        found: list[Any] = []
        kind = type(value)
        for each in value.values() if kind is dict else value if kind in nested else (value,):
            kind = type(each)
            if kind is ir.Var:
                found.append(each)
            elif kind in nested:
                found += listed(self, each)
            elif kind not in plain:
                found += each.list_vars() if isinstance(each, ir.Inst) else thorough(self, each)
        return found

    ir.Inst._rec_list_vars = listed  # type: ignore[method-assign]


@contextlib.contextmanager
def unfinished() -> Iterator[None]:
    """Functions that are compiled meanwhile are not optimized as a whole: what calls them is, with
    them in it. Without this each level of calls optimizes all levels below it again.

    Where this private name is another, only time is lost.
    """
    from numba.core import codegen
    from numba.core.compiler_lock import global_compiler_lock

    library = codegen.CPUCodeLibrary
    name = "_optimize_final_module"
    finish = getattr(library, name, None)
    if finish is None:
        yield
        return
    with global_compiler_lock:  # what another thread compiles is finished
        setattr(library, name, lambda self: None)
        try:
            yield
        finally:
            setattr(library, name, finish)


def short_pipeline() -> type:
    """A pipeline class for numba.njit and numba.cfunc: names, types, machine code."""
    from numba.core import compiler, typed_passes, untyped_passes
    from numba.core.compiler_machinery import PassManager

    passes = (
        untyped_passes.TranslateByteCode, untyped_passes.FixupArgs, untyped_passes.IRProcessing,
        untyped_passes.ReconstructSSA, typed_passes.NopythonTypeInference,
        typed_passes.PreLowerStripPhis, typed_passes.IRLegalization, typed_passes.AnnotateTypes,
        typed_passes.NativeLowering, typed_passes.NoPythonBackend,
    )  # fmt: skip

    class Short(compiler.CompilerBase):
        def define_pipelines(self):
            manager = PassManager("short")
            for each in passes:
                manager.add_pass(each, each.__name__)
            manager.finalize()
            return [manager]

    return Short


def compile_function(function, arguments: tuple, result, options: dict[str, Any]):
    """Numba's compile result of a function for these types, without wrappers for Python or C.

    What the short pipeline cannot compile goes through Numba's own.
    """
    from numba import njit
    from numba.core.errors import NumbaError

    options = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True, **options}
    signature = result(*arguments)
    try:
        dispatcher = njit(signature, pipeline_class=short_pipeline(), **options)(function)
    except (NumbaError, NotImplementedError, AssertionError, KeyError):
        dispatcher = njit(signature, **options)(function)
    return dispatcher.overloads[arguments]


def add_entry(module, made, entry: str) -> None:
    """Give the LLVM module of a compile result the C function `entry`, which calls Numba's.

    Numba's function has two parameters more: where its result goes, and an error, which no kernel
    raises.
    """
    import llvmlite.binding as llvm

    native = made.fndesc.llvm_func_name
    result = RESULTS[str(made.signature.return_type)]
    function = module.get_function(native)
    kinds = [str(argument.type) for argument in function.arguments]
    taken = [f"{kind} %a{i}" for i, kind in enumerate(kinds)]
    value = "" if result == "void" else "%value"
    lines = [
        f'declare i32 @"{native}"({", ".join(kinds)})',
        f"define {result} @{entry}({', '.join(taken[2:])}) {{",
        "  %result = alloca i64",
        "  %error = alloca ptr",
        f'  %status = call i32 @"{native}"({", ".join(["ptr %result", "ptr %error", *taken[2:]])})',
        f"  {value} = load {result}, ptr %result" if value else "",
        f"  ret {result} {value}",
        "}",
    ]
    caller = llvm.parse_assembly("\n".join(lines))
    caller.triple, caller.data_layout = module.triple, module.data_layout
    module.link_in(caller)
