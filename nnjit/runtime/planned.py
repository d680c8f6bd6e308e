"""Devices that run a Plan: what the cpu and the python device share."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np

from nnjit import config
from nnjit.compiler.plan import Arrangement, Plan
from nnjit.graph import Graph, Node
from nnjit.kernels.template import render, signature
from nnjit.runtime.binding import Binder, Memory, Row, rows_of
from nnjit.runtime.cache import KernelSource
from nnjit.runtime.executable import Executable
from nnjit.runtime.listing import listing
from nnjit.runtime.plan_cache import plan_of
from nnjit.runtime.store import Store
from nnjit.spec import evaluate

KEPT_BOUNDS = 16  # bindings (one per batch size) that an executable remembers


class PlannedExecutable(Executable):
    """Devices that run a Plan: arrangements by extents, and the arrays behind every buffer."""

    def __init__(self, graph: Graph, store: Store):
        super().__init__(graph, store)
        self.compiled: Plan = plan_of(graph, store.layout, self.starting)
        self.memory = Memory()
        self.binder = Binder(self.compiled, store, self.memory)
        self.bounds: dict[tuple, Any] = {}
        self.threads = 1  # of the latest run

    def starting(self) -> None:
        """The step is about to be compiled, for the first time on this machine."""

    @functools.cached_property
    def kernels(self) -> list[KernelSource]:
        """The source of each launch."""
        templates = [launch.template for launch in self.compiled.launches]
        return [KernelSource(t.name, signature(t), render(t)) for t in templates]

    def plan(self) -> Plan:
        """The Plan: launches, buffers, lifetimes."""
        return self.compiled

    def arrange(self, **extents: int) -> Arrangement:
        """Where everything lies for these extents: arrange(batch=32)."""
        return self.compiled.arrange(extents)

    def source(self) -> str:
        """Every kernel's text, each once."""
        from nnjit.compiler.pipeline import source  # the compiler, which a warm start does not need

        return source(self.compiled)

    def rows(self, extents: Mapping[str, int]) -> list[Row]:
        """Trip counts and chunks for these extents."""
        return rows_of(self.compiled, extents)

    def listing(self, **extents: int) -> str:
        """The program as a table: launch, layers, kernel, buffers, trip count."""
        return listing(self.compiled, self.rows(extents), self.compiled.arrange(extents))

    def bound(self, extents: Mapping[str, int]) -> Any:
        """What `bind` made for these extents, made anew if memory has moved."""
        key = tuple(extents.values())
        found = self.bounds.get(key)
        threads = self.threads = config.threads()
        stale = threads > self.memory.threads
        if found is None or stale or found.generation != self.memory.generation:
            arrangement = self.compiled.arrange(extents)
            self.memory.reserve(arrangement, threads)
            if self.debugging >= 1:
                from nnjit.runtime import debug

                debug.arranged(self.graph.name, arrangement)
            if len(self.bounds) >= KEPT_BOUNDS:
                self.bounds.pop(next(iter(self.bounds)))
            found = self.bounds[key] = self.bind(arrangement)
        return found

    def bind(self, a: Arrangement) -> Any:
        raise NotImplementedError

    def outputs(self, a: Arrangement, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Views of the outputs."""
        out = {}
        for name, n in self.graph.outputs.items():
            if name in self.compiled.outputs:
                value = self.binder.array(self.compiled.outputs[name], a)
            else:
                value = self.leaf_value(self.compiled.leaves[name], arrays)
            out[name] = value.reshape(
                [d if isinstance(d, int) else evaluate(d, a.extents) for d in n.shape]
            )
        return out

    def leaf_value(self, leaf: Node, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        if leaf.op.name == "input":
            return arrays[leaf.name]
        if leaf.op.name == "constant":
            return leaf.attrs["value"]
        return self.store.arrays[leaf.name]
