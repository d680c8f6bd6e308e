"""Fusion: which Nodes are computed together.

Nodes are visited users first. A Node joins the group of its earliest user where the loops allow it; otherwise it starts
a group that runs before all groups so far. So every edge leads from a lower or equal index to a higher one, and running
groups by index is a valid order. A view that only renames axes is carried through by the axis maps; slices, pads and
flips become index arithmetic on a buffer; a reshape is another name
for its input's buffer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nnjit.compiler.groups import Group
from nnjit.graph import EXTENT, Graph, Node, users, walk
from nnjit.spec import Dim, symbols_of

HEADS = ("matmul", "conv2d", "conv2d_dx")  # contractions that take an elementwise epilogue
POINTWISE = ("elementwise", "index", "random")
INDEX_VIEWS = ("slice", "pad", "flip")  # read a buffer at computed indices
AXIS_VIEWS = ("transpose", "broadcast_to")  # rename axes
NO_GROUP = 1 << 60


def unit_axes(n: Node) -> tuple[int, ...] | None:
    """For a reshape that only adds or drops axes of extent 1: the output axis of each input axis (-1: dropped)."""
    if n.op.name != "reshape":
        return None
    source, target = n.inputs[0].shape, n.shape
    real = [i for i, d in enumerate(target) if d != 1]
    kept = [d for d in source if d != 1]
    if kept != [target[i] for i in real]:
        return None
    position = iter(real)
    return tuple(next(position) if d != 1 else -1 for d in source)


@dataclass(frozen=True)
class Fusion:
    """The groups in the order they run, the group of each Node, and the reshapes that only name a buffer anew."""

    graph: Graph
    groups: list[Group]
    of: dict[Node, Group]
    aliases: set[Node]

    def base(self, n: Node) -> Node:
        """The Node whose buffer n names."""
        while n in self.aliases:
            n = n.inputs[0]
        return n


def input_maps(n: Node, axes: Sequence[int], inner: Sequence[int]) -> list[tuple[int, ...]]:
    """The axis map of each input of n, when n itself has this one; `inner` are the domain's reduced axes."""
    if n.op.kind == "random":
        return [(-1,)]  # (seed, step), read once
    if n.op.kind in POINTWISE:
        return [broadcast_map(x, n, axes) for x in n.inputs]
    x = n.inputs[0]
    if n.op.name == "transpose":
        out = [0] * x.rank
        for position, source in enumerate(n.attrs["perm"]):
            out[source] = axes[position]
        return [tuple(out)]
    if n.op.name == "broadcast_to":
        return [broadcast_map(x, n, axes)]
    if n.op.name == "reshape":
        target = unit_axes(n)
        assert target is not None
        return [tuple(axes[t] if t >= 0 else -1 for t in target)]
    if n.op.kind == "reduce":
        return [reduce_map(n, axes, inner)]
    raise AssertionError(n)


def broadcast_map(x: Node, n: Node, axes: Sequence[int]) -> tuple[int, ...]:
    """NumPy's rule: axes align on the right, an extent of 1 is repeated."""
    lead = n.rank - x.rank
    return tuple(-1 if d == 1 else axes[lead + i] for i, d in enumerate(x.shape))


def reduced_axes(n: Node) -> tuple[int, ...]:
    """The axes that a reduce Node sums over."""
    return n.attrs["axes"] if "axes" in n.attrs else (n.attrs["axis"],)


def reduce_map(n: Node, axes: Sequence[int], inner: Sequence[int]) -> tuple[int, ...]:
    gone, rank = reduced_axes(n), n.inputs[0].rank
    kept = iter(range(rank) if n.attrs["keepdims"] else range(n.rank))
    out, reduced = [], iter(inner)
    for axis, d in enumerate(n.inputs[0].shape):
        if axis in gone:
            out.append(next(reduced) if d != 1 else -1)
            if n.attrs["keepdims"]:
                next(kept)
        else:
            out.append(axes[next(kept)])
    return tuple(out)


def is_row_reduce(n: Node) -> bool:
    """A reduction over the last axes, with something before them: fused into loops over rows."""
    if n.op.kind != "reduce":
        return False
    x, gone = n.inputs[0], reduced_axes(n)
    trailing = gone == tuple(range(x.rank - len(gone), x.rank))
    return trailing and any(d != 1 for d in x.shape[: x.rank - len(gone)])


class Fuser:
    """The state of one fusion: groups so far, and the group of each Node."""

    def __init__(self, graph: Graph):
        self.graph = graph
        # What updates need comes first: a loss is then added up after the backward pass has begun,
        # and its rows are computed where the gradient's are.
        self.nodes = walk([*graph.updates.values(), *graph.outputs.values()])
        self.users = users(self.nodes)
        self.updates = set(graph.updates.values())
        self.groups: list[Group] = []
        self.of: dict[Node, Group] = {}
        self.limit: dict[Node, int] = {}
        self.aliases: set[Node] = set()
        self.next = 0

    def run(self) -> Fusion:
        for n in reversed(self.nodes):
            if n.is_leaf:
                continue
            readers = self.users[n]
            self.limit[n] = min((self.position(u) for u in readers), default=NO_GROUP)
            if n.op.name == "reshape" and not (unit_axes(n) and self.join_user(n)):
                self.aliases.add(n)
                continue
            if not (n in self.of or self.join_user(n) or self.join_sibling(n)):
                self.start(n)
            if n in self.updates:
                self.of[n].holds_update = True
        groups = self.joined(sorted(self.groups, key=lambda g: g.index))
        return Fusion(self.graph, groups, self.of, self.aliases)

    # -- whole groups
    def joined(self, groups: list[Group]) -> list[Group]:
        """Groups over the same loops that read something in common become one, at the earlier's place.

        So a loss, its gradient and a metric over the same logits read them once.
        """
        kept: list[Group] = []
        for g in groups:
            home = next((k for k in reversed(kept) if self.may_absorb(k, g)), None)
            if home is None:
                kept.append(g)
                continue
            home.inner = max(home.inner, g.inner)
            home.nodes.update(g.nodes)
            self.of.update(dict.fromkeys(g.nodes, home))
        return kept

    def may_absorb(self, home: Group, g: Group) -> bool:
        """Is everything that g reads known at home, and are the loops the same?"""
        if home.kind != g.kind or g.kind == "single" or home.domain != g.domain or not g.domain:
            return False
        if home.head is not None or g.head is not None or home.holds_update or g.holds_update:
            return False
        if g.kind == "sink" and (self.pattern(home) != self.pattern(g) or self.counts(home, g)):
            return False
        if home.inner and g.inner and home.inner != g.inner:
            return False
        reads = {self.source(x) for n in g.nodes for x in n.inputs} - set(g.nodes)
        if any(self.of[x].index > home.index for x in reads if x in self.of):
            return False
        if g.kind == "sink" and any(x.op.kind == "reduce" for x in reads if x in home.nodes):
            return False
        if not all(self.agrees(n, g, home) for n in g.nodes):
            return False
        if any(n in self.aliases and self.source(n) in home.nodes for m in g.nodes for n in m.inputs):
            return False
        theirs = {self.source(x) for n in home.nodes for x in n.inputs} | set(home.nodes)
        return any(x in theirs and x.spec.size != 1 for x in reads)

    def agrees(self, n: Node, g: Group, home: Group) -> bool:
        """Does n, moved from g to home, find the values computed there at its own place?"""
        if not any(x in home.nodes for x in n.inputs):
            return True
        if n.op.name in INDEX_VIEWS or n.op.kind == "random":
            return False
        wants = [(x, self.map_from(x, n, g)) for x in n.inputs if x in home.nodes]
        return all(m == home.nodes[x] for x, m in wants)

    def counts(self, *groups: Group) -> bool:
        """Does a group hold an argmax or argmin?"""
        return any(n.op.name.startswith("arg") for g in groups for n in g.nodes)

    def source(self, n: Node) -> Node:
        while n in self.aliases:
            n = n.inputs[0]
        return n

    def position(self, n: Node) -> int:
        return self.limit[n] if n in self.aliases else self.of[n].index

    # -- a user's group
    def join_user(self, n: Node) -> bool:
        limit = self.limit[n]
        inside = [u for u in self.users[n] if u in self.of and self.of[u].index == limit]
        if not inside or any(self.position(u) == limit for u in self.users[n] if u in self.aliases):
            return False
        if n.op.name == "reshape" and len(inside) < len(self.users[n]):
            return False
        g = self.of[inside[0]]
        if g.kind == "single" or any(
            u.op.name in INDEX_VIEWS or u.op.kind == "random" or u is g.head for u in inside
        ):
            return False
        maps = {self.map_from(n, u, g) for u in inside}
        if len(maps) != 1 or None in maps:
            return False
        axes = maps.pop()
        assert axes is not None
        if not self.fits(n, axes, g):
            return False
        self.add(n, axes, g)
        return True

    def map_from(self, n: Node, u: Node, g: Group) -> tuple[int, ...] | None:
        inner = range(len(g.domain) - g.inner, len(g.domain))
        if g.kind == "sink" and u.op.kind == "reduce":
            return tuple(-1 if d == 1 else i for i, d in enumerate(n.shape))
        maps = input_maps(u, g.nodes[u], tuple(i for i in inner if g.domain[i] != 1))
        found = {m for x, m in zip(u.inputs, maps, strict=True) if x is n}
        return found.pop() if len(found) == 1 else None

    def fits(self, n: Node, axes: tuple[int, ...], g: Group) -> bool:
        """May n be computed inside g's loops? It must vary along all of the rows' axes, or g grow to its domain."""
        real = {i for i, d in enumerate(g.domain) if d != 1}
        rows = {i for i in real if i < len(g.domain) - g.inner}
        used = {a for a in axes if a >= 0}
        if g.head is not None and not self.plain(n, axes, g, None):
            return False
        if n.op.kind in POINTWISE or n.op.name in INDEX_VIEWS or n.op.name in AXIS_VIEWS:
            return used == real or (g.inner > 0 and used == rows)
        if n.op.name == "reshape":
            return used == real or (g.inner > 0 and used == rows)
        if is_row_reduce(n) and g.kind == "loop" and g.head is None and not g.holds_update:
            if g.inner:
                count = len(reduced_axes(n))
                return used == rows and n.inputs[0].shape[-count:] == g.domain[-g.inner :]
            return self.is_inner(n, axes, g) or (used == real and len(used) > 0)
        if n.op.name in HEADS and g.kind == "loop" and g.head is None and not g.inner:
            whole = axes == identity_map(g.domain)
            return not g.holds_update and whole and all(self.plain(m, a, g, n) for m, a in g.nodes.items())
        return False

    def is_inner(self, n: Node, axes: tuple[int, ...], g: Group) -> bool:
        """Are the axes that n reduces the last ones of g's domain, as in softmax?"""
        count = len(reduced_axes(n))
        rows = {i for i, d in enumerate(g.domain[:-count]) if d != 1}
        same = g.domain[-count:] == n.inputs[0].shape[-count:]
        return same and {a for a in axes if a >= 0} == rows and len(rows) > 0

    def plain(self, n: Node, axes: tuple[int, ...], g: Group, head: Node | None) -> bool:
        """Does n read only whole values, rows of the last axis and scalars? Then it can follow a contraction."""
        if n.op.kind not in ("elementwise", "random") or axes != identity_map(g.domain):
            return False
        real = [i for i, d in enumerate(g.domain) if d != 1]
        bound = symbols_of(g.domain)
        for x, m in zip(n.inputs, input_maps(n, axes, ()), strict=True):
            used = [a for a in m if a >= 0]
            if x.op is EXTENT and not set(symbols_of([x.attrs["dim"]])) <= set(bound):
                return False
            if x is not head and used and used != real and used != [len(g.domain) - 1]:
                return False
        return True

    def add(self, n: Node, axes: tuple[int, ...], g: Group) -> None:
        if n.op.name in HEADS:
            g.head = n
        if is_row_reduce(n) and not g.inner:
            count = len(reduced_axes(n))
            if not self.is_inner(n, axes, g):
                g.domain = (*g.domain, *n.inputs[0].shape[-count:])
            g.inner = count
        g.nodes[n] = axes
        self.of[n] = g

    # -- a group that reads the same
    def join_sibling(self, n: Node) -> bool:
        """A reduction, or a value, over loops that some earlier group has already, reading something of the same."""
        row = is_row_reduce(n)
        if n.op.kind == "reduce" and not row:
            want, domain = "sink", n.inputs[0].shape
        elif n.op.kind in POINTWISE:
            want, domain = "loop", n.shape
        else:
            return False
        mine = set(n.inputs)
        for g in reversed(self.groups):  # lowest index first is last created
            if (
                g.kind != want
                or g.domain != domain
                or g.index >= self.limit[n]
                or g.head is not None or g.inner
            ):
                continue
            if g.holds_update != (n in self.updates) and domain:
                continue
            if want == "sink" and self.pattern(g) != reduced_axes(n):
                continue
            if want == "sink" and any(m.op.name.startswith("arg") for m in (n, *g.nodes)):
                continue
            shared = any(not mine.isdisjoint(m.inputs) for m in g.nodes)
            if shared or not domain:
                self.add(n, identity_map(domain if want == "loop" else n.shape), g)
                return True
        return False

    def pattern(self, g: Group) -> tuple[int, ...]:
        return next(reduced_axes(m) for m in g.nodes if m.op.kind == "reduce")

    def start(self, n: Node) -> None:
        self.next -= 1
        if is_row_reduce(n):
            x, count = n.inputs[0], len(reduced_axes(n))
            g = Group(self.next, "loop", x.shape, count)
            rows = identity_map(x.shape[: x.rank - count])
            g.nodes[n] = rows + (-1,) * count if n.attrs["keepdims"] else rows
        elif n.op.kind == "reduce":
            g = Group(self.next, "sink", n.inputs[0].shape)
            g.nodes[n] = identity_map(n.shape)
        elif n.op.kind in POINTWISE or n.op.name in INDEX_VIEWS + AXIS_VIEWS:
            g = Group(self.next, "loop", n.shape)
            g.nodes[n] = identity_map(n.shape)
        else:
            g = Group(self.next, "single", n.shape)
            g.nodes[n] = identity_map(n.shape)
        self.groups.append(g)
        self.of[n] = g


def identity_map(shape: Sequence[Dim]) -> tuple[int, ...]:
    """Each axis is its own domain axis; an extent of 1 has none."""
    return tuple(-1 if d == 1 else i for i, d in enumerate(shape))


def fuse(graph: Graph) -> Fusion:
    """Group the Nodes of a graph of plain ops (composites expanded)."""
    return Fuser(graph).run()
