"""Executable: a compiled Graph that runs. `build` makes one for a device; every device has the same
interface.
"""

from __future__ import annotations

import contextlib
import gc
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from nnjit import config
from nnjit.changes import parameters_changed
from nnjit.config import DEVICES
from nnjit.errors import ArgumentError, DTypeError, NnjitError, ShapeError, nearest
from nnjit.graph import PARAMETER, Graph, Node, bind_symbols, interpret
from nnjit.runtime.store import Store

KEPT_SHAPES = 64  # shapes of inputs whose symbols an executable remembers


@contextlib.contextmanager
def no_collection() -> Iterator[None]:
    """No garbage collector inside: a graph or a Plan is many small objects, none of them garbage,
    and looking for some again and again takes a tenth of a start.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@no_collection()
def build(graph: Graph, store: Store, device: str = "cpu", slices: int | str = 1) -> Executable:
    """Compile a graph whose parameters and state live in `store`; ArgumentError for an unknown
    device. slices: of the batch, in how many of them the graph runs; "auto": as its size asks for.
    """
    if device not in DEVICES:
        raise ArgumentError(f"unknown device {device!r}{nearest(device, DEVICES)}")
    if slices != 1:
        from nnjit.runtime.sliced import SlicedExecutable

        return SlicedExecutable(graph, store, device, slices)
    if device == "interpret":
        return InterpretExecutable(graph, store)
    made: Executable
    if device == "python":
        from nnjit.runtime.device_python import PythonExecutable

        made = PythonExecutable(graph, store)
    else:
        from nnjit.runtime.device_cpu import CpuExecutable

        made = CpuExecutable(graph, store)
    if config.debug() >= 1:
        from nnjit.runtime import debug

        debug.built(made)
    return made


class Executable:
    """What all devices share: the graph, its inputs checked, its symbols."""

    def __init__(self, graph: Graph, store: Store):
        self.graph, self.store = graph, store
        self.inputs: list[Node] = graph.leaves("input")
        self.expected = [(n.name, np.dtype(n.dtype)) for n in self.inputs]
        self.extents: dict[tuple, dict[str, int]] = {}  # by the shapes of the inputs
        self.changes_parameters = any(leaf.op is PARAMETER for leaf in graph.updates)
        self.lock = threading.RLock()
        self.checking, self.debugging = config.check(), config.debug()  # as when it was built
        self.report: Any = None

    @property
    def symbols(self) -> Sequence[str]:
        """The run-time symbols of the inputs."""
        return self.graph.symbols

    def check_inputs(
        self, inputs: Mapping[str, Any]
    ) -> tuple[dict[str, np.ndarray], dict[str, int]]:
        """The inputs as contiguous arrays of the right dtype, and the symbols' values; errors name
        the input.
        """
        arrays: dict[str, np.ndarray] = {}
        for name, dtype in self.expected:
            if name not in inputs:
                raise ShapeError(f"input {name!r} is missing: given {sorted(inputs)}")
            a = np.asarray(inputs[name])
            if a.dtype != dtype:
                raise DTypeError(f"input {name!r}: expected {dtype}, got {a.dtype}")
            if not a.flags.c_contiguous:
                a = np.ascontiguousarray(a).reshape(a.shape)
            arrays[name] = a
        key = tuple([a.shape for a in arrays.values()])
        found = self.extents.get(key)
        if found is None:
            if len(self.extents) >= KEPT_SHAPES:
                self.extents.clear()
            found = bind_symbols((n.name, n.spec, arrays[n.name].shape) for n in self.inputs)
            self.extents[key] = found
        return arrays, found

    def run(self, inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Run once: outputs by name, views that are valid until the next run; updates go to the
        store.
        """
        raise NotImplementedError

    def remember(self, inputs: Mapping[str, np.ndarray]) -> None:
        """These inputs fit as they are: ones that look like them may be given to `again`, in this
        order.
        """

    def again(self, arrays: Sequence[Any]) -> list[np.ndarray] | None:
        """Run once, in a hurry: copies of the outputs; None, and nothing has run, where these look
        like nothing remembered or something has changed since.
        """
        return None

    def launches(self, extents: Mapping[str, int]) -> Sequence[Any]:
        """What runs for these extents, in order."""
        return self.plan().launches

    def slices_text(self, extents: Mapping[str, int]) -> str:
        """'8 slices of up to 6 samples'; '' where a batch of these extents runs whole."""
        return ""

    def whole_text(self, extents: Mapping[str, int]) -> str:
        """Why a batch of these extents runs whole; '' where it does not, or nobody asked for
        slices.
        """
        return ""

    def _none(self, *_: Any, **__: Any) -> Any:
        raise NnjitError("device 'interpret' has no plan and no source: choose 'cpu' or 'python'")

    plan = arrange = source = listing = rows = _none


class InterpretExecutable(Executable):
    """device="interpret": every op's NumPy meaning, one after the other. The oracle; nothing is
    compiled.
    """

    def __init__(self, graph: Graph, store: Store):
        from nnjit.compiler.passes import expand  # a warm start on the cpu does not need it

        super().__init__(expand(graph), store)

    def run(self, inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
        arrays, _ = self.check_inputs(inputs)
        with self.lock:
            outputs, updates = interpret(self.graph, {**self.store.arrays, **arrays})
            outputs = {k: np.array(v) for k, v in outputs.items()}
            try:
                for name, value in updates.items():
                    self.store.arrays[name][...] = value
            finally:
                if self.changes_parameters:
                    parameters_changed()
        return outputs
