"""Values that are cheaper to compute again than to keep.

A value that one group computes is written to memory because another group reads it. Where it is a
few additions and multiplications of something that is in memory anyway (the normalised values of a
normalisation, a mask), the readers compute it themselves from that. Needs a fusion, and gives a
better one of the same graph with some Nodes repeated.
"""

from __future__ import annotations

from collections.abc import Iterable

from nnjit.compiler.fuse import fuse
from nnjit.compiler.groups import Fusion, Group, nominal_bytes
from nnjit.graph import CONSTANT, EXTENT, Graph, Node, users

CHEAP = (
    "add", "subtract", "multiply", "negative", "square", "relu", "absolute", "maximum", "minimum",
    "where", "cast", "equal", "not_equal", "greater", "greater_equal", "less", "less_equal",
    "logical_and", "logical_or", "logical_not",
)  # fmt: skip
LARGE = 1 << 12  # bytes from which a value counts
LONGEST = 12  # operations that one reader repeats, at most


def recompute(fusion: Fusion) -> Fusion:
    """The fusion, or a better one in which readers repeat cheap operations."""
    chosen = Choice(fusion).run()
    if not chosen:
        return fusion
    better = fuse(repeated(fusion, chosen))
    return better if traffic(better) < traffic(fusion) else fusion


def nbytes(n: Node) -> int:
    """Bytes of a value, 0 where they do not count."""
    number = nominal_bytes(n)
    return 0 if number < LARGE or n.op in (CONSTANT, EXTENT) else number


def traffic(fusion: Fusion) -> int:
    """Bytes that all groups read and write."""
    readers = users(fusion.graph.nodes())
    roots = set(map(fusion.base, fusion.graph.roots))
    total = 0
    for g in fusion.groups:
        reads = {fusion.base(x) for n in g.nodes for x in n.inputs} - set(g.nodes)
        writes = [n for n in g.nodes if n in roots or any(u not in g.nodes for u in readers[n])]
        total += sum(map(nbytes, reads)) + sum(map(nbytes, writes))
    return total


class Choice:
    """Which stored values of a fusion their readers should compute again."""

    def __init__(self, fusion: Fusion):
        self.fusion = fusion
        self.users = users(fusion.graph.nodes())
        self.roots = set(map(fusion.base, fusion.graph.roots))
        self.chosen = {n for n in fusion.of if self.possible(n)}

    def stored(self, n: Node) -> bool:
        """Is n in memory, as things are?"""
        home = self.fusion.of.get(n)
        outside = any(self.fusion.of.get(u) is not home for u in self.users[n])
        return n.is_leaf or n in self.fusion.aliases or n in self.roots or outside

    def possible(self, n: Node) -> bool:
        """Is n stored only for groups that could compute it themselves?"""
        if n.op.name not in CHEAP or n in self.roots or not nbytes(n) or not self.stored(n):
            return False
        return all(
            u.op.kind in ("elementwise", "reduce")
            and u not in self.fusion.aliases
            and self.fusion.of[u].kind != "single"
            for u in self.users[n]
        )

    def run(self) -> set[Node]:
        """Sources come first, so what has been decided of them stands."""
        for n in self.fusion.graph.nodes():
            if n in self.chosen and self.gain(n) <= 0:
                self.chosen.remove(n)
        return self.chosen

    def gain(self, n: Node) -> int:
        """Bytes that need not be moved if n is not kept."""
        sources, count = self.sources(n)
        if count > LONGEST:
            return 0
        saved = nbytes(n) - sum(nbytes(s) for s in sources if not self.stored(s))
        for g in self.other_readers(n):
            reads = self.reads(g)
            saved += nbytes(n) - sum(nbytes(s) for s in sources if s not in reads)
        return saved

    def other_readers(self, n: Node) -> list[Group]:
        groups = dict.fromkeys(self.fusion.of[u] for u in self.users[n])
        return [g for g in groups if g is not self.fusion.of[n]]

    def reads(self, g: Group) -> set[Node]:
        """What g has at hand: what it computes, and what it reads."""
        return {self.fusion.base(x) for n in g.nodes for x in n.inputs} | set(g.nodes)

    def sources(self, n: Node) -> tuple[set[Node], int]:
        """What n is computed from, and by how many operations."""
        found: set[Node] = set()
        through = {n}
        stack = [n]
        while stack:
            for x in stack.pop().inputs:
                if x in self.chosen or (x.op.name in CHEAP and nbytes(x) and not self.stored(x)):
                    if x not in through:
                        through.add(x)
                        stack.append(x)
                else:
                    found.add(self.fusion.base(x))
        return found, len(through)


def repeated(fusion: Fusion, chosen: Iterable[Node]) -> Graph:
    """The graph in which each group has Nodes of its own for the chosen values that it reads."""
    choice = set(chosen)
    again = Again(fusion, choice)
    graph = fusion.graph
    for n in graph.nodes():
        if not n.is_leaf:
            again.new[n] = again.rebuilt(n, fusion.of.get(n))
    outputs = {name: again.at_home(n) for name, n in graph.outputs.items()}
    return Graph(graph.name, outputs, {k: again.at_home(n) for k, n in graph.updates.items()})


class Again:
    """New Nodes while a graph is repeated."""

    def __init__(self, fusion: Fusion, chosen: set[Node]):
        self.fusion, self.chosen = fusion, chosen
        self.new: dict[Node, Node] = {}
        self.copies: dict[tuple[Node, int], Node] = {}
        self.inner = Choice(fusion)
        self.inner.chosen = chosen

    def at_home(self, n: Node) -> Node:
        return self.new.get(n, n)

    def rebuilt(self, n: Node, g: Group | None) -> Node:
        inputs = tuple(self.seen_from(x, g) for x in n.inputs)
        return Node(n.op, inputs, n.attrs, n.spec, n.scope)

    def seen_from(self, x: Node, g: Group | None) -> Node:
        """x as group g reads it: its own copy of a chosen value, and of what leads there."""
        if x.is_leaf or g is None or self.fusion.of.get(x) is g:
            return self.at_home(x)
        passed = x.op.name in CHEAP and nbytes(x) and not self.inner.stored(x)
        if x not in self.chosen and not passed:
            return self.at_home(x)
        key = (x, id(g))
        if key not in self.copies:
            self.copies[key] = self.rebuilt(x, g)
        return self.copies[key]
