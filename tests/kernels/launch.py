"""Runs one template in tests: jitted or as plain Python, cut into random chunks, its outputs
between guards.
"""

from __future__ import annotations

import numpy as np

from nnjit.kernels import target
from nnjit.kernels.template import Template
from tests.kernels.harness import GUARD, chunks, evaluate, guarded, native, numbers, python_function


def launch(
    template: Template,
    inputs: dict[str, np.ndarray],
    outputs: dict[str, tuple[int, ...]],
    rng: np.random.Generator | None = None,
    jit: bool = True,
    **symbols: int,
) -> list[np.ndarray]:
    """The outputs, given by shape. They start as NaN (integers 77); nothing outside of them may
    change.
    """
    held, arrays = {}, []
    for name, code in template.params:
        dtype = np.dtype(target.storage(code))
        if name in inputs:
            assert inputs[name].dtype == dtype, (name, code)
            arrays.append(inputs[name].ravel())
            continue
        start = np.full(outputs[name], np.nan if dtype.kind == "f" else 77, dtype)
        inside, whole = guarded(start)
        held[name] = whole
        arrays.append(inside)
    function = native(template) if jit else python_function(template)
    for lo, hi in chunks(evaluate(template.trip, symbols), rng):
        function(lo, hi, 0, *numbers(template, symbols), *arrays)
    results = []
    for name, shape in outputs.items():
        inside, edges = held[name][GUARD:-GUARD], np.r_[held[name][:GUARD], held[name][-GUARD:]]
        assert np.array_equal(
            edges, np.full_like(edges, edges[0]), equal_nan=edges.dtype.kind == "f"
        ), name
        results.append(inside.reshape(shape).copy())
    return results
