"""Group, Buffer and Launch: what fusion, lowering and the plan hand to each other.

A Group is a set of Nodes that one recipe computes. A Launch is one kernel with its buffers. Nothing
here knows a device.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field

from nnjit.graph import PARAMETER, Graph, Node
from nnjit.kernels.template import Template
from nnjit.spec import DTYPES, Dim, Spec, evaluate


@dataclass(eq=False)
class Group:
    """Nodes that are computed together.

    kind: "loop" (elementwise, with reductions over the `inner` last axes fused in), "sink"
    (elementwise into reductions over other axes) or "single" (one contraction, window, gather,
    concatenation). domain is the loops' shape. nodes maps each Node to the domain axis of each of
    its own axes (-1: broadcast). head is the contraction that a loop follows; apart: it is a
    gradient that nothing else reads, and the loop overwrites the parameters that it reads. Groups
    run in ascending index.
    """

    index: int
    kind: str
    domain: tuple[Dim, ...] = ()
    inner: int = 0
    nodes: dict[Node, tuple[int, ...]] = field(default_factory=dict)
    head: Node | None = None
    holds_update: bool = False
    apart: bool = False


@dataclass(frozen=True)
class Fusion:
    """The groups in the order they run, the group of each Node, and the reshapes that only name a
    buffer anew (or weights that products round to bfloat16 as they read them).
    """

    graph: Graph
    groups: list[Group]
    of: dict[Node, Group]
    aliases: set[Node]

    def base(self, n: Node) -> Node:
        """The Node whose buffer n names."""
        while n in self.aliases:
            n = n.inputs[0]
        return n

    @functools.cached_property
    def parameter_updates(self) -> dict[Node, Node]:
        """The next values of parameters, by the Node whose buffer they name."""
        updates = self.graph.updates.items()
        return {self.base(value): value for leaf, value in updates if leaf.op is PARAMETER}


@dataclass(frozen=True, eq=False)
class Buffer:
    """Memory of one value.

    kind: input, store (parameter or state), constant, work, kept (made of parameters alone, good
    until one changes) or scratch (per thread). elements: how
    many, as an expression of the symbols, where that is no extent: "(batch + 15) // 16 * 16".
    """

    name: str
    kind: str
    spec: Spec
    node: Node | None = None
    elements: str = ""

    def nbytes(self, extents: Mapping[str, int]) -> int:
        """Bytes when the symbols have these values."""
        if self.elements:
            return number(self.elements, extents) * DTYPES[self.spec.dtype]
        return evaluate(self.spec.nbytes, extents)


NOMINAL = 64  # what a run-time symbol counts as where bytes are compared


def nominal_bytes(n: Node) -> int:
    """Bytes of a value, run-time symbols counted as NOMINAL."""
    size = n.spec.nbytes
    return size if isinstance(size, int) else size.factor * NOMINAL ** len(size.symbols)


def number(value: int | str, names: Mapping[str, int]) -> int:
    """The value of a trip count or size: an int, or an expression of these names."""
    if isinstance(value, int):
        return value
    return int(eval(value, {"__builtins__": {}}, dict(names)))


@dataclass(frozen=True, eq=False)
class Launch:
    """One kernel and the buffers of its parameters, in order. `writes` are positions in buffers.

    flat: the kernel is one loop over all elements, so launches of it over adjacent memory can be
    merged. members: what a merged launch stands for; its trip covers all of them. walk: how it goes
    through the samples of a batch, if that is known (`compiler.walks`).
    """

    template: Template
    buffers: tuple[Buffer, ...]
    writes: frozenset[int]
    scopes: tuple[str, ...]
    ops: str
    flops: tuple[Dim, ...] = ()
    flat: bool = False
    members: tuple[Launch, ...] = ()
    merged_trip: int = 0
    walk: str = ""

    @property
    def trip(self) -> int | str:
        return self.merged_trip or self.template.trip

    @property
    def touched(self) -> list[Buffer]:
        """Every buffer that is read or written, those of members too."""
        return list(dict.fromkeys(b for m in (self, *self.members) for b in m.buffers))

    @property
    def written(self) -> list[Buffer]:
        return list(
            dict.fromkeys(m.buffers[i] for m in (self, *self.members) for i in sorted(m.writes))
        )

    def flop_count(self, extents: Mapping[str, int]) -> int:
        """Floating-point operations when the symbols have these values."""
        return sum(evaluate(f, extents) for f in self.flops)

    def byte_count(self, extents: Mapping[str, int]) -> int:
        """Bytes read and written, each buffer once, scratch left out."""
        used = (b for b in self.touched if b.kind != "scratch")
        return sum(b.nbytes(extents) for b in used)
