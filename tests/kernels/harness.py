"""Runs templates and recipes in tests: jitted in this process as a compile worker does it, or as
plain Python.

Every array lies between guard zones, temporaries and scratch start as NaN, and a launch may be cut
into random chunks.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import itertools
from collections.abc import Iterator

import numpy as np

from nnjit.kernels import target
from nnjit.kernels.recipe import Recipe
from nnjit.kernels.template import Template, render, signature
from nnjit.runtime import frontend, worker

GUARD = 96


@contextlib.contextmanager
def jitting() -> Iterator[None]:
    target.jitting = True
    try:
        yield
    finally:
        target.jitting = False


def python_function(template: Template):
    """The file's function with NumPy meanings."""
    space: dict = {}
    exec(compile(render(template), f"<{template.name}>", "exec"), space)
    return space[template.name]


@functools.lru_cache(maxsize=512)
def compiled(source: str, name: str, sig: str):
    """(function, Numba's compile result, which owns the code); Numba as the compile workers use it.

    The function is Numba's own, without the wrapper that `numba.cfunc` optimizes and makes machine
    code of once more: before the kernel's arguments it takes where a result and an error go.
    """
    frontend.limit_unrolling()
    frontend.widen_vectors()
    frontend.hasten()
    with jitting():
        made = worker.compile_kernel(source, f"<{name}>", name, sig)
    address = made.library.get_pointer_to_function(made.fndesc.llvm_func_name)
    kinds = [ctypes.c_void_p if "*" in word else ctypes.c_int64 for word in sig.split(", ")]
    return ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p, *kinds)(address), made


def native(template: Template):
    """A function of (lo, hi, tid, *symbols, *arrays) that runs the machine code."""
    function, _ = compiled(render(template), template.name, signature(template))
    unused = ctypes.c_int64()
    ends = ctypes.byref(unused)

    def call(*args):
        found = [a.ctypes.data if isinstance(a, np.ndarray) else a for a in args]
        assert function(ends, ends, *found) == 0

    return call


def evaluate(dim, symbols: dict[str, int]) -> int:
    return dim if isinstance(dim, int) else int(eval(dim, {}, dict(symbols)))


def chunks(trip: int, rng: np.random.Generator | None) -> list[tuple[int, int]]:
    """The whole launch, or cut at random places and in random order."""
    if rng is None:
        return [(0, trip)]
    cuts = sorted({0, trip, *rng.integers(0, trip + 1, rng.integers(0, 5)).tolist()})
    pieces = list(itertools.pairwise(cuts))
    rng.shuffle(pieces)
    return pieces


def guarded(array: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(flat copy inside a larger buffer, the buffer); the guard is NaN, or 77 for integers."""
    fill = np.nan if array.dtype.kind == "f" else 77
    whole = np.full(array.size + 2 * GUARD, fill, array.dtype)
    inside = whole[GUARD : GUARD + array.size]
    inside[:] = array.ravel()
    return inside, whole


def unset(count: int, code: str) -> np.ndarray:
    """What no kernel has written yet: NaN, also as bfloat16 and as pairs of it."""
    nans = {"b2": 0x7FC0, "u4": 0x7FC07FC0}
    return np.full(count, nans.get(code, np.nan), target.storage(code))


def numbers(t, symbols):
    """What a kernel takes between tid and its arrays."""
    return [*(symbols[s] for s in t.symbols), *(n for _, n in t.sizes)]


def run_recipe(
    recipe: Recipe,
    operands: dict[str, np.ndarray],
    outputs: tuple[str, ...] = ("out",),
    symbols: dict[str, int] | None = None,
    rng: np.random.Generator | None = None,
    jit: bool = True,
) -> dict[str, np.ndarray]:
    """The outputs after all steps. Fails if anything outside of a buffer, or an operand that is no
    output, changed.
    """
    symbols = symbols or {}
    held = {name: guarded(array) for name, array in operands.items()}
    for name, (elements, code) in recipe.temps.items():
        held[name] = guarded(unset(evaluate(elements, symbols), code))
    before = {name: whole.copy() for name, (_, whole) in held.items()}
    for step in recipe.steps:
        t = step.template
        arrays = [held[arg][0] for arg in step.args if arg != "scratch"]
        if t.scratch:
            code = t.params[-1][1]
            count = evaluate(t.scratch, symbols) // target.itemsize(code)
            arrays.append(unset(2 * count, code))
        assert len(arrays) == len(t.params), (t.name, step.args, t.params)
        assert [a.dtype.name for a in arrays] == [target.storage(code) for _, code in t.params]
        function = native(t) if jit else python_function(t)
        for i, (lo, hi) in enumerate(chunks(evaluate(t.trip, symbols), rng)):
            function(lo, hi, i % 2, *numbers(t, symbols), *arrays)
    for name, (_, whole) in held.items():
        was = before[name]
        inside = slice(GUARD, whole.size - GUARD)
        if name in outputs or name in recipe.temps:
            now = whole.copy()
            now[inside] = was[inside]
        else:
            now = whole
        assert np.array_equal(now, was, equal_nan=now.dtype.kind == "f"), (
            f"{name}: written outside of it"
        )
    return {name: held[name][0].reshape(operands[name].shape).copy() for name in outputs}


def slot_update(index: str, column: str) -> list[str]:
    """The tail of an update with one slot m, scaled by column, as `Epilogue.tail`."""
    return [
        f"m[{index}] = m[{index}] * scale[{column}] + scratch[at_sums + j]",
        f"y[{index}] = y[{index}] - m[{index}]",
    ]
