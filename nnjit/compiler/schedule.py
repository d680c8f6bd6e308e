"""The order in which groups run: what was just computed is read while it is still in cache, and
memory is given back soon.

Of the groups whose inputs are known, the one that frees the most bytes comes next (a weight
gradient, say, once nothing else needs its activations); where that is equal, the one that reads
what was written last. Updates of parameters come when nothing else is left, so that they can be
merged; but for those that are computed with their gradient.
"""

from __future__ import annotations

from nnjit.compiler.groups import Fusion, Group, nominal_bytes
from nnjit.graph import PARAMETER, Node


def schedule(fusion: Fusion) -> Fusion:
    """The fusion with its groups in a better order; their indices follow it."""
    groups = Scheduler(fusion).run()
    for i, g in enumerate(groups):
        g.index = i
    return Fusion(fusion.graph, groups, fusion.of, fusion.aliases)


class Scheduler:
    """What each group waits for, reads and writes."""

    def __init__(self, fusion: Fusion):
        self.fusion = fusion
        self.groups = fusion.groups
        self.reads = {g: self.values_read(g) for g in self.groups}
        self.readers: dict[Node, set[Group]] = {}
        for g, values in self.reads.items():
            for x in values:
                self.readers.setdefault(x, set()).add(g)
        updates = fusion.graph.updates
        self.roots = {fusion.base(n) for n in fusion.graph.roots}
        self.last = {
            fusion.of[v] for leaf, n in updates.items()
            if leaf.op is PARAMETER and (v := fusion.base(n)) in fusion.of
            and not fusion.of[v].apart
        }  # fmt: skip
        self.before = self.dependencies()
        self.bytes = {
            x: 0 if x in self.roots or x not in fusion.of else nominal_bytes(x)
            for x in self.readers
        }  # fmt: skip
        self.taken = {
            g: sum(self.bytes[n] for n in g.nodes if self.is_new(n, g)) for g in self.groups
        }

    def values_read(self, g: Group) -> set[Node]:
        """Buffers from outside of the group that it reads."""
        found = {self.fusion.base(x) for n in g.nodes for x in n.inputs}
        return {x for x in found if self.fusion.of.get(x) is not g}

    def dependencies(self) -> dict[Group, set[Group]]:
        """The groups that must run before each: those that compute what it reads, and, where it
        overwrites a leaf, those that now come before it and read the old value.
        """
        of = self.fusion.of
        before = {g: {of[x] for x in self.reads[g] if x in of} for g in self.groups}
        position = {g: i for i, g in enumerate(self.groups)}
        for leaf, value in self.fusion.graph.updates.items():
            home = of.get(self.fusion.base(value))
            if home is not None:
                readers = self.readers.get(leaf, set())
                before[home] |= {g for g in readers if position[g] < position[home]}
        return before

    def run(self) -> list[Group]:
        waiting = {g: len(self.before[g]) for g in self.groups}
        after: dict[Group, list[Group]] = {g: [] for g in self.groups}
        for g in self.groups:
            for b in self.before[g]:
                after[b].append(g)
        position = {g: i for i, g in enumerate(self.groups)}
        left = {x: len(readers) for x, readers in self.readers.items()}
        written: dict[Node, int] = {}
        ready = [g for g in self.groups if not waiting[g]]
        out: list[Group] = []
        while ready:
            g = min(ready, key=lambda g: self.priority(g, left, written, position[g]))
            ready.remove(g)
            for x in self.reads[g]:
                left[x] -= 1
            written.update((n, len(out)) for n in g.nodes)
            out.append(g)
            for user in after[g]:
                waiting[user] -= 1
                if not waiting[user]:
                    ready.append(user)
        assert len(out) == len(self.groups)
        return out

    def priority(
        self, g: Group, left: dict[Node, int], written: dict[Node, int], position: int
    ) -> tuple[bool, int, int, int]:
        """The least comes first."""
        freed, newest = 0, -1
        for x in self.reads[g]:
            if left[x] == 1:
                freed += self.bytes[x]
            newest = max(newest, written.get(x, -1))
        return g in self.last, self.taken[g] - freed, -newest, position

    def is_new(self, n: Node, g: Group) -> bool:
        """Does n take memory that could be given back before the end?"""
        readers = self.readers.get(n, set()) - {g}
        return bool(readers) and not readers <= self.last
