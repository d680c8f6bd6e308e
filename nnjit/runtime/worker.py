"""The compile worker: `python -m nnjit.runtime.worker` reads jobs from stdin and publishes one
object per kernel.

A job is a line of JSON (see `Job`), the answer is a line of JSON: {"seconds"} or {"error"} or
{"unproven"}, the last where Numba lacks a private name that the object path needs. The only place,
with `inprocess`, that compiles. The text of this file and of `frontend` is part of every key: a
change there recompiles everything.
"""

from __future__ import annotations

import gc
import json
import os
import re
import signal
import sys
import time
import traceback
import types
import warnings
from typing import Any, TypedDict

from nnjit.atomic import write_atomic
from nnjit.runtime import frontend, objects

#: reordering and fused multiply-add, but NaN and inf are kept, and no reciprocal estimates: LLVM
#: would use those in vector bodies only, so that a result would depend on where a chunk ends
SAFE = frozenset({"nsz", "contract", "reassoc"})
#: of every kernel, for Numba
OPTIONS: dict[str, Any] = {"fastmath": set(SAFE), "error_model": "numpy", "_nrt": False}


class Job(TypedDict):
    """What a worker needs to know about one kernel; object: the file to write, path: the source's
    file."""

    name: str
    entry: str
    signature: str
    text: str
    path: str
    object: str
    meta: dict
    inspect: bool


def main() -> None:
    """Answer jobs until stdin ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    warnings.simplefilter("ignore")
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # a stray print must not look like an answer
    prepare()
    for count, line in enumerate(sys.stdin.buffer):
        answers.write(json.dumps(answer(json.loads(line))).encode() + b"\n")
        answers.flush()
        if count % 64 == 63:
            gc.collect()


def prepare() -> None:
    """Import Numba and switch the helpers of nnjit.kernels to their jitted form, garbage collector
    off."""
    from nnjit.kernels import target

    target.jitting = True
    gc.disable()
    sys.modules["scipy"] = None  # type: ignore[assignment]
    from numba.core import codegen  # which would import scipy for its BLAS; no kernel calls that

    never_run(codegen)
    frontend.limit_unrolling()
    frontend.widen_vectors()
    frontend.hasten()
    gc.freeze()


def never_run(codegen: Any) -> None:
    """Keep Numba from making machine code of what it compiles and putting it into this process: a
    fifth of the time, and here only objects are wanted.

    Addresses are 0, environments are not set. Where these private names are others, only time is
    lost.
    """
    for kind, name, replaced in (
        ("JITCodeLibrary", "_finalize_specific", lambda library: None),
        ("JITCodeLibrary", "get_pointer_to_function", lambda x, name: x._ensure_finalized() or 0),
        ("JITCPUCodegen", "set_env", lambda codegen, name, environment: None),
    ):
        if hasattr(getattr(codegen, kind, None), name):
            setattr(getattr(codegen, kind), name, replaced)


def answer(job: Job) -> dict:
    """Compile one job and publish its object, or return its text where that is asked for."""
    start = time.perf_counter()
    try:
        made = compile_kernel(job["text"], job["path"], job["name"], job["signature"])
        module, machine = finished(made, job["entry"])
        if job["inspect"]:
            return {"llvm": str(module), "assembly": machine.emit_assembly(module)}
        code = machine.emit_object(module)
    except objects.Unproven as error:
        return {"unproven": str(error)}
    except Exception as error:
        return {"error": explain(error, job["path"])}
    entry = objects.Entry({**job["meta"], "undefined": objects.undefined_symbols(code)}, code)
    try:
        write_atomic(job["object"], objects.encode(entry), durable=False)
    except OSError as error:
        return {"unwritable": str(error)}
    return {"seconds": time.perf_counter() - start}


def explain(error: Exception, path: str) -> str:
    """One readable message: where in the kernel's file, and what Python or Numba said."""
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == path]
    if isinstance(error, SyntaxError):
        lines = [error.lineno]
    where = f"line {lines[-1]}: " if lines else ""
    return f"{where}{type(error).__name__}: {error}"


def compile_kernel(text: str, path: str, name: str, signature: str):
    """Numba's compile result of the function `name` of the file's text."""
    module = types.ModuleType(name)
    exec(compile(text, path, "exec"), module.__dict__)
    result, arguments = parse_signature(signature)
    return frontend.compile_function(module.__dict__[name], arguments, result, OPTIONS)


def parse_signature(signature: str):
    """'void(int64, *float32)' as Numba types, the result and the arguments; '*' is a pointer."""
    from numba import types as nb

    match = re.fullmatch(r"(\w+)\(([\w*, ]*)\)", signature)
    if match is None:
        raise ValueError(f"signature {signature!r}: expected 'void(int64, ..., *float32)'")
    result, listed = match.groups()
    arguments = []
    for word in (part.strip() for part in listed.split(",") if part.strip()):
        kind = getattr(nb, word.lstrip("*"))
        arguments.append(nb.CPointer(kind) if word.startswith("*") else kind)
    return getattr(nb, result), tuple(arguments)


def finished(made, entry: str):
    """The LLVM module of a compile result, `entry` its only visible symbol, and its target."""
    import llvmlite.binding as llvm

    try:
        library = made.library
        bitcode, machine = library._final_module.as_bitcode(), library._codegen._tm
    except AttributeError as error:
        raise objects.Unproven(str(error)) from error
    module = llvm.parse_bitcode(bitcode)
    frontend.add_entry(module, made, entry)
    own = [v for v in (*module.functions, *module.global_variables) if not v.is_declaration]
    for number, value in enumerate(v for v in own if v.name != entry):
        value.linkage = llvm.Linkage.internal
        value.name = f"{made.fndesc.qualname}.{number}"  # Numba counts on between kernels
    passes = llvm.create_new_module_pass_manager()
    passes.add_global_dead_code_eliminate_pass()  # helpers that were inlined go
    passes.run(module, llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options()))
    return module, machine


if __name__ == "__main__":
    main()
