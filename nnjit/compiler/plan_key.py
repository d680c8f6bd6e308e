"""What a Plan is made from, as one text to hash: the graph as it was built, and the places of its
leaves in the store.

Two graphs have the same text if they have the same Nodes in the same order: ops, inputs, attrs,
shapes, layers, the bytes of constants, names of outputs and leaves. A few microseconds a Node.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from nnjit.graph import Graph, Node, Op, walk
from nnjit.ops.step import Step
from nnjit.spec import Extent, Spec

#: values whose repr says all; every float has its own, -0.0 and nan among them
_PLAIN = frozenset({str, int, bool, float, type(None), Extent, Spec})


class Unkeyed(Exception):
    """The graph has something that may change unseen: an op or an attribute of somebody else's."""


def graph_text(graph: Graph, layout: Mapping[str, tuple[int, int]]) -> str:
    """All that a Plan of this graph depends on but for settings and the compiler itself.

    Raises Unkeyed where an attribute is of an unknown kind, or an op is not nnjit's own.
    """
    text, names = _text(graph)
    return "\n".join([text, *(f"lies {name!r} {layout.get(name)}" for name in names)])


@functools.lru_cache(maxsize=2)  # a step may be asked about twice: whole, and in slices
def _text(graph: Graph) -> tuple[str, tuple[str, ...]]:
    """The graph's text, and the names of its leaves in the store."""
    writer = _Writer()
    numbers = writer.nodes([*graph.roots, *graph.updates])
    writer.lines.append(f"graph {graph.name!r}")
    writer.lines += [f"output {k!r} {numbers[n]}" for k, n in graph.outputs.items()]
    writer.lines += [f"update {numbers[leaf]} {numbers[n]}" for leaf, n in graph.updates.items()]
    names = [n.attrs["name"] for n in numbers if n.op.name in ("parameter", "state")]
    return "\n".join(writer.lines), tuple(names)


class _Writer:
    """Lines of text, and what was found out about ops and steps so far."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.ops: dict[Op, str] = {}
        self.steps: dict[Step, int] = {}

    def nodes(self, roots: Iterable[Node]) -> dict[Node, int]:
        """A line for each Node below roots; their numbers."""
        numbers: dict[Node, int] = {}
        lines: list[str] = []
        for n in walk(roots):
            inputs = [numbers[x] for x in n.inputs]
            attrs = [(k, self.value(v)) for k, v in n.attrs.items() if k != "spec"]
            op = self.ops.get(n.op) or self.op(n.op)
            numbers[n] = len(numbers)
            lines.append(f"{op} {inputs} {attrs} {n.spec.shape!r} {n.spec.dtype} {n.scope}")
        self.lines += lines
        return numbers

    def op(self, op: Op) -> str:
        """The op's name and expression; Unkeyed for one whose code is not nnjit's."""
        for function in (op.rule, op.numpy, op.expand):
            module = getattr(function, "__module__", "nnjit")
            if module.partition(".")[0] != "nnjit":
                raise Unkeyed(f"op {op.name} is declared in {module}")
        self.ops[op] = f"{op.name} {op.expr}" if op.expr else op.name
        return self.ops[op]

    def value(self, value: Any) -> str:
        """An attribute as text."""
        kind = type(value)
        if kind in _PLAIN:
            return repr(value)
        if kind is tuple:
            return f"({', '.join(map(self.value, value))})"
        if kind is np.ndarray:
            data = value.tobytes()
            data = data if len(data) <= 64 else hashlib.sha256(data).digest()
            return f"array {value.dtype.str}{value.shape} {data.hex()}"
        if kind is Step:
            return f"step {self.step(value)}"
        raise Unkeyed(f"an attribute is a {kind.__module__}.{kind.__qualname__}")

    def step(self, step: Step) -> int:
        """The number of a scan's step; its lines are written where it is met first."""
        if step not in self.steps:
            parts = (step.carries, step.inputs, step.constants, step.next, step.results)
            numbers = self.nodes(n for part in parts for n in part)
            self.lines.append(f"step {[[numbers[n] for n in part] for part in parts]}")
            self.steps[step] = len(self.steps)
        return self.steps[step]
