"""Plan: every launch, every buffer's lifetime, and where each lies once the extents are known.

Regions: inputs and stores are where their owners keep them; constants, work and scratch belong to
the Plan. The work arena is planned by lifetime: buffers that live at the same time never overlap; a
strip is a group of buffers that one merged launch reads as one, so they lie at fixed distances.
"""

from __future__ import annotations

import bisect
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from nnjit.compiler.chains import Chain, peak
from nnjit.compiler.groups import Buffer, Launch
from nnjit.graph import Graph, Node

ALIGN = 64


def align(n: int) -> int:
    """n rounded up to the next multiple of 64."""
    return -(-n // ALIGN) * ALIGN


@dataclass(frozen=True, eq=False)
class Strip:
    """Work buffers at fixed byte distances from each other; `span` is the bytes of all."""

    offsets: dict[Buffer, int]
    span: int


@dataclass(frozen=True, eq=False)
class Plan:
    """What a device needs to run a graph.

    name, symbols: those of the graph. lives: first and last launch of each work buffer. outputs:
    their buffers, but for those that are leaves under another name, which are in `leaves`. origin:
    gives the graph after all passes and the buffers of its Nodes; running needs neither, and a Plan
    from a file compiles for them. key: of its file, "" where it has none. chains: launches that may
    run together; what one of them uses lives as long as all of them run.
    """

    name: str
    symbols: tuple[str, ...]
    launches: tuple[Launch, ...]
    lives: Mapping[Buffer, tuple[int, int]]
    strips: tuple[Strip, ...]
    outputs: Mapping[str, Buffer]
    leaves: Mapping[str, Node]
    origin: Callable[[], tuple[Graph, Mapping[Node, Buffer]]]
    key: str = ""
    chains: tuple[Chain, ...] = ()

    @functools.cached_property
    def _origin(self) -> tuple[Graph, Mapping[Node, Buffer]]:
        return self.origin()

    @property
    def graph(self) -> Graph:
        """The graph that the launches compute: after all passes."""
        return self._origin[0]

    @property
    def buffers(self) -> Mapping[Node, Buffer]:
        """Where the values of the graph's Nodes are."""
        return self._origin[1]

    def arrange(self, extents: Mapping[str, int]) -> Arrangement:
        """Byte offsets of all work buffers, constants and scratch for these extents."""
        blocks = [Block(b, b.nbytes(extents), *self.lives[b]) for b in self.lives]
        in_strip = {b: s for s in self.strips for b in s.offsets}
        blocks = [b for b in blocks if b.key not in in_strip]
        for s in self.strips:
            lives = [self.lives[b] for b in s.offsets]
            blocks.append(Block(s, s.span, min(a for a, _ in lives), max(z for _, z in lives)))
        places, total = place(blocks)
        offsets: dict[Buffer, int] = {}
        for key, at in places.items():
            if isinstance(key, Strip):
                offsets.update({b: at + d for b, d in key.offsets.items()})
            else:
                offsets[key] = at
        own = [scratch_of(launch, extents) for launch in self.launches]
        together = [sum(own[c.first : c.last + 1]) for c in self.chains]
        return Arrangement(dict(extents), offsets, total, max([*own, *together], default=0))

    def peak(self, extents: Mapping[str, int]) -> int:
        """Bytes of work buffers that are needed at once, at most; gaps not counted."""
        return peak([(b.nbytes(extents), *life) for b, life in self.lives.items()])


@dataclass(frozen=True)
class Arrangement:
    """Offsets into the work arena, its size, and the scratch of one thread, in bytes."""

    extents: dict[str, int]
    offsets: dict[Buffer, int]
    work: int
    scratch: int


@dataclass(frozen=True)
class Block:
    """Something to place: its bytes, and the first and last launch that need it."""

    key: Buffer | Strip
    size: int
    first: int
    last: int


def place(blocks: Sequence[Block]) -> tuple[dict[Buffer | Strip, int], int]:
    """Offsets such that blocks which live at the same time never overlap; largest first, at the
    lowest gap.
    """
    placed: list[tuple[int, int, int, int]] = []  # offset, end, first, last; by offset
    out: dict[Buffer | Strip, int] = {}
    total = 0
    for block in sorted(blocks, key=lambda b: (-b.size, b.first)):
        size = align(max(block.size, 1))
        born, dies, at = block.first, block.last, 0
        for a, z, first, last in placed:
            if first <= dies and born <= last:
                if at + size <= a:
                    break
                at = z if z > at else at
        bisect.insort(placed, (at, at + size, born, dies))
        out[block.key] = at
        total = max(total, at + size)
    return out, total


def lifetimes(
    launches: Sequence[Launch], outputs: Sequence[Buffer], chains: Sequence[Chain] = ()
) -> dict[Buffer, tuple[int, int]]:
    """First and last launch of each work buffer, a chain taken as one; what is an output lives to
    the end.
    """
    chained = {i: (c.first, c.last) for c in chains for i in range(c.first, c.last + 1)}
    lives: dict[Buffer, tuple[int, int]] = {}
    for i, launch in enumerate(launches):
        first, last = chained.get(i, (i, i))
        for b in launch.touched:
            if b.kind == "work":
                lives[b] = (lives[b][0] if b in lives else first, last)
    for b in outputs:
        if b.kind == "work":
            lives[b] = (lives[b][0], len(launches))
    return lives


def scratch_of(launch: Launch, extents: Mapping[str, int]) -> int:
    """Bytes of one thread's scratch."""
    return sum(align(b.nbytes(extents)) for b in launch.buffers if b.kind == "scratch")


def make_plan(
    graph: Graph, launches: Sequence[Launch], buffers: Mapping[Node, Buffer],
    outputs: Mapping[str, Buffer], strips: Sequence[Strip] = (), chains: Sequence[Chain] = (),
) -> Plan:  # fmt: skip
    """A Plan of lowered launches."""
    lives = lifetimes(launches, list(outputs.values()), chains)
    leaves = {name: leaf_of(n) for name, n in graph.outputs.items() if name not in outputs}
    return Plan(
        graph.name, graph.symbols, tuple(launches), lives, tuple(strips), outputs, leaves,
        lambda: (graph, buffers), chains=tuple(chains),
    )  # fmt: skip


def leaf_of(n: Node) -> Node:
    """The leaf that n, a reshape of a reshape, names anew."""
    while n.inputs:
        n = n.inputs[0]
    return n
