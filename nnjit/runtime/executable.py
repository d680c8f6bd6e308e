"""Executable: a compiled Graph that runs. `build` makes one for a device; every device has the same interface."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nnjit.config import DEVICES
from nnjit.errors import ArgumentError, DTypeError, NnjitError, ShapeError, nearest
from nnjit.graph import Graph, bind_symbols, interpret
from nnjit.runtime.store import Store


def build(graph: Graph, store: Store, device: str = "cpu") -> Any:
    """Compile a graph whose parameters and state live in `store`; ArgumentError for an unknown device."""
    if device == "interpret":
        return InterpretExecutable(graph, store)
    raise ArgumentError(f"unknown device {device!r}{nearest(device, DEVICES)}")


def check_inputs(
    graph: Graph, inputs: Mapping[str, Any]
) -> tuple[dict[str, np.ndarray], dict[str, int]]:
    """The inputs as contiguous arrays of the right dtype, and the symbols' values; errors name the input."""
    leaves = graph.leaves("input")
    arrays: dict[str, np.ndarray] = {}
    for n in leaves:
        if n.name not in inputs:
            raise ShapeError(f"input {n.name!r} is missing: given {sorted(inputs)}")
        a = np.asarray(inputs[n.name])
        if a.dtype != n.dtype:
            raise DTypeError(f"input {n.name!r}: expected {n.dtype}, got {a.dtype}")
        arrays[n.name] = np.ascontiguousarray(a).reshape(a.shape)
    extents = bind_symbols((n.name, n.spec, arrays[n.name].shape) for n in leaves)
    return arrays, extents


class InterpretExecutable:
    """device="interpret": every op's NumPy meaning, one after the other. The oracle; nothing is compiled."""

    def __init__(self, graph: Graph, store: Store):
        from nnjit.compiler.passes import expand

        self.graph, self.store = expand(graph), store

    @property
    def symbols(self) -> Sequence[str]:
        return self.graph.symbols

    def run(self, inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Outputs by name; updates are written into the store."""
        arrays, _ = check_inputs(self.graph, inputs)
        outputs, updates = interpret(self.graph, {**self.store.arrays, **arrays})
        for name, value in updates.items():
            self.store.arrays[name][...] = value
        return outputs

    def _none(self, *_: Any, **__: Any) -> Any:
        raise NnjitError("device 'interpret' has no plan, source or profile: choose 'cpu' or 'python'")

    plan = source = listing = profile = _none
