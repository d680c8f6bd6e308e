"""Values of a mixed_bfloat16 step that lie in memory as bfloat16 between two groups.

A step whose products read bfloat16 keeps in 16 bits whatever else one group computes for another
per sample: the residual stream, f'(x), what a mask is taken from. The group that computes a value
goes on with it unrounded; the others read what was stored. Results of reductions, statistics, what
the loss or a metric reads, and what a kernel takes in float32 alone (attention, recurrences) stay
float32. Needs a fusion, and gives one of a graph with casts if that moves fewer bytes.
"""

from __future__ import annotations

from nnjit.bfloat16 import rounded
from nnjit.compiler.fuse import fuse, is_convolution
from nnjit.compiler.groups import Fusion
from nnjit.compiler.recompute import nbytes, traffic
from nnjit.graph import Graph, Node, users
from nnjit.ops.base import OPS
from nnjit.precision import EXACT
from nnjit.spec import symbols_of

#: ops that only move elements, so that they can move 16 bits
MOVES = ("reshape", "transpose", "broadcast_to", "slice", "flip", "pad", "concatenate", "max_pool")
UNROLLED = 16  # largest window whose gradient is moved


def halves(fusion: Fusion) -> Fusion:
    """The fusion, or a better one in which groups hand each other bfloat16."""
    nodes = fusion.graph.nodes()
    if not any(n.op.kind == "contraction" and n.inputs[0].dtype == "bfloat16" for n in nodes):
        return fusion
    found = Choice(fusion, nodes)
    if not found.chosen:
        return fusion
    better = fuse(Halved(found).graph())
    return better if traffic(better) < traffic(fusion) else fusion


class Choice:
    """Which values are stored in 16 bits, and who reads them so."""

    def __init__(self, fusion: Fusion, nodes: list[Node]):
        self.fusion, self.nodes, self.users = fusion, nodes, users(nodes)
        self.roots = set(fusion.graph.roots)
        self.small = statistics(nodes)
        self.halves = {n.inputs[0]: n for n in nodes if is_half(n)}
        self.able: dict[Node, bool] = {}  # can all that a move hands on be read from 16 bits?
        self.chosen: set[Node] = set()
        self.moved: set[Node] = set()
        mixed: set[Node] = set()  # moves of which only some inputs can be had in 16 bits
        while True:
            self.choose(mixed)
            found = {n for n in self.able if self.able[n] and n not in self.moved}
            found = {n for n in found if any(map(self.stored, moved_inputs(n)))}
            if not found:
                break
            mixed |= found

    def choose(self, mixed: set[Node]) -> None:
        """Decide from the last reader to the first, then what can be moved from first to last."""
        for n in reversed(self.nodes):
            if moves(n):
                free = n not in self.roots and n not in mixed
                self.able[n] = free and all(map(self.reads, self.users[n]))
        self.chosen = {n for n in self.nodes if self.possible(n)}
        self.moved = set()
        for n in self.nodes:
            if self.able.get(n) and all(map(self.stored, moved_inputs(n))):
                self.moved.add(n)

    def stored(self, n: Node) -> bool:
        """Does n lie in memory in 16 bits alone?"""
        return n in self.chosen or n in self.moved

    def is_half_for(self, x: Node, reader: Node) -> bool:
        """Does the reader take x from 16 bits: as nothing else is stored, or as products need it
        so anyway?
        """
        home, there = self.fusion.of.get(x), self.fusion.of.get(reader)
        if x in self.moved:
            return True
        if x in self.chosen:
            return home is not there
        half = self.halves.get(x)
        elsewhere = half is not None and there not in (home, self.fusion.of.get(half))
        return elsewhere and not moves(reader) and self.reads(reader) and nbytes(x) > 0

    def reads(self, u: Node) -> bool:
        """Can u take its operands from 16 bits?"""
        if moves(u):
            return self.able[u]
        if is_half(u) or u.op.name == "max_pool_index":
            return True
        if u.scope.partition("/")[0] in EXACT or u.op.kind not in ("elementwise", "reduce"):
            return False
        return self.fusion.of[u].kind in ("loop", "sink")

    def possible(self, n: Node) -> bool:
        """May n be stored rounded? Every reader elsewhere must be able to take it."""
        if n.dtype != "float32" or n not in self.fusion.of or moves(n) or n in self.roots:
            return False
        if n.op.kind not in ("elementwise", "contraction") or n in self.small:
            return False
        if not symbols_of(n.shape) or not nbytes(n):
            return False
        home = self.fusion.of[n]
        if is_convolution(n) or is_convolution(home.head):
            return False
        away = [u for u in self.users[n] if self.fusion.of.get(u) is not home]
        others = [u for u in away if not is_half(u)]
        return bool(others) and all(map(self.reads, away))


def moves(n: Node) -> bool:
    """Does n only move float32 elements, with no other number among them than bfloat16 has?"""
    if n.dtype != "float32":
        return False
    if n.op.name == "max_pool_grad":  # windows side by side: nothing is added up
        window = n.attrs["window"]
        apart = window == n.attrs["strides"] and not any(map(any, n.attrs["padding"]))
        return apart and window[0] * window[1] <= UNROLLED
    if n.op.name == "pad":
        return bool(rounded(n.attrs["value"]) == n.attrs["value"])
    return n.op.name in MOVES


def moved_inputs(n: Node) -> tuple[Node, ...]:
    """The inputs whose elements n moves."""
    return n.inputs[:1] if n.op.name == "max_pool_grad" else n.inputs


def is_half(n: Node) -> bool:
    """Is n a float32 value rounded to bfloat16?"""
    return n.op.name == "cast" and n.dtype == "bfloat16" and n.inputs[0].dtype == "float32"


def statistics(nodes: list[Node]) -> set[Node]:
    """Results of reductions, and what is computed from those alone."""
    found: set[Node] = set()
    for n in nodes:
        whole = [x for x in n.inputs if x.spec.size != 1]
        if n.op.kind == "reduce" or (
            n.op.kind in ("elementwise", "view") and whole and all(x in found for x in whole)
        ):
            found.add(n)
    return found


class Halved:
    """New Nodes while a graph is written anew."""

    def __init__(self, choice: Choice):
        self.choice, self.of = choice, choice.fusion.of
        self.new: dict[Node, Node] = {}
        self.half: dict[Node, Node] = {}  # the bfloat16 form of a chosen or moved value
        self.wide: dict[tuple[Node, int], Node] = {}

    def graph(self) -> Graph:
        """The graph in which each group widens what it reads in 16 bits."""
        old = self.choice.fusion.graph
        for n in self.choice.nodes:
            if n in self.choice.moved:
                spec = n.spec.with_dtype("bfloat16")
                inputs = tuple(
                    self.halved(x) if x in moved_inputs(n) else self.new.get(x, x) for x in n.inputs
                )
                self.half[n] = Node(n.op, inputs, n.attrs, spec, n.scope)
            elif is_half(n):
                self.new[n] = self.halved(n.inputs[0])
            elif not n.is_leaf:
                inputs = tuple(self.seen_from(x, n) for x in n.inputs)
                self.new[n] = Node(n.op, inputs, n.attrs, n.spec, n.scope)
        outputs = {name: self.new.get(n, n) for name, n in old.outputs.items()}
        return Graph(old.name, outputs, {k: self.new.get(n, n) for k, n in old.updates.items()})

    def halved(self, x: Node) -> Node:
        """x in 16 bits."""
        if x not in self.half:
            spec = x.spec.with_dtype("bfloat16")
            now = self.new.get(x, x)
            self.half[x] = Node(OPS["cast"], (now,), {"dtype": "bfloat16"}, spec, x.scope)
        return self.half[x]

    def seen_from(self, x: Node, reader: Node) -> Node:
        """x as a Node of the reader's group sees it."""
        if not self.choice.is_half_for(x, reader):
            return self.new.get(x, x)
        if reader.op.name == "max_pool_index":
            return self.halved(x)
        key = (x, id(self.of.get(reader)))
        if key not in self.wide:
            self.wide[key] = Node(
                OPS["cast"], (self.halved(x),), {"dtype": "float32"}, x.spec, reader.scope
            )
        return self.wide[key]
