"""Fusion: which Nodes are computed together.

Nodes are visited users first. A Node joins the group of its earliest user where the loops allow it;
otherwise it starts a group that runs before all groups so far. So every edge leads from a lower or
equal index to a higher one, and running groups by index is a valid order. A view that only renames
axes is carried through by the axis maps; slices, pads and flips become index arithmetic on a
buffer; a reshape is another name for its input's buffer.
"""

from __future__ import annotations

from nnjit.compiler.cpu.text import text_of
from nnjit.compiler.early import early
from nnjit.compiler.groups import Fusion, Group
from nnjit.compiler.join import join_groups, sink_axes
from nnjit.compiler.maps import (
    AXIS_VIEWS,
    INDEX_VIEWS,
    POINTWISE,
    identity_map,
    input_maps,
    is_row_reduce,
    reduced_axes,
    unit_axes,
    use_map,
)
from nnjit.graph import EXTENT, PARAMETER, Graph, Node, siblings, users, walk
from nnjit.kernels.contraction_updates import update_applies
from nnjit.kernels.target import CODES
from nnjit.spec import symbols_of

HEADS = ("matmul", "conv2d", "conv2d_dx")  # contractions that take an elementwise epilogue
NO_GROUP = 1 << 60


class Fuser:
    """The state of one fusion: groups so far, and the group of each Node."""

    def __init__(self, graph: Graph):
        self.graph = graph
        # What parameters need comes first: a loss is then added up after the backward pass has
        # begun, and its rows are computed where the gradient's are.
        first = sorted(graph.updates, key=lambda leaf: leaf.op is not PARAMETER)
        self.nodes = walk([*(graph.updates[leaf] for leaf in first), *graph.outputs.values()])
        self.users = users(self.nodes)
        self.nodes, self.early = early(self.nodes, self.users, HEADS)
        self.families = siblings(self.nodes)
        self.updates = set(graph.updates.values())
        self.roots = set(graph.roots)
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
            if self.rounded_weight(n):
                self.aliases.add(n)
                continue
            if n.op.name == "reshape" and not (unit_axes(n) and self.join_user(n)):
                self.aliases.add(n)
                continue
            if n in self.families:
                self.start_family(n)
            elif not (n in self.of or self.join_user(n) or self.join_sibling(n)):
                self.start(n)
            for m in self.early.get(n, ()):
                self.join_early(m, self.of[n])
            if n in self.updates and n in self.of:
                self.of[n].holds_update = True
        groups = sorted(self.groups, key=lambda g: g.index)
        return join_groups(Fusion(self.graph, groups, self.of, self.aliases))

    def rounded_weight(self, n: Node) -> bool:
        """Is n a float32 leaf as bfloat16 for products alone? They round it where they pack it."""
        if n.op.name != "cast" or n.dtype != "bfloat16" or n.inputs[0].op is not PARAMETER:
            return False
        readers = [(n, u) for u in self.users[n]]
        for x, u in readers:
            if u.op.name == "reshape" and u in self.aliases:
                readers += [(u, v) for v in self.users[u]]
            elif u.op.name not in HEADS or u.inputs[0] is x:
                return False
        return True

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
        maps = {use_map(n, u, g) for u in inside}
        if len(maps) != 1 or None in maps:
            return False
        axes = maps.pop()
        assert axes is not None
        if not self.fits(n, axes, g) or self.stays_with_head(n, g, inside):
            return False
        self.add(n, axes, g)
        return True

    def fits(self, n: Node, axes: tuple[int, ...], g: Group) -> bool:
        """May n be computed inside g's loops? It must vary along all of the rows' axes, or g grow
        to its domain.
        """
        real = {i for i, d in enumerate(g.domain) if d != 1}
        rows = {i for i in real if i < len(g.domain) - g.inner}
        used = {a for a in axes if a >= 0}
        if g.head is not None and not self.plain(n, axes, g, None):
            return False
        if is_convolution(g.head) and touches_half(n):
            return False
        if n.op.kind in POINTWISE or n.op.name in (*INDEX_VIEWS, *AXIS_VIEWS, "reshape"):
            return used == real or (g.inner > 0 and used == rows)
        if is_row_reduce(n) and g.kind == "loop" and g.head is None and not g.holds_update:
            if g.inner:
                count = len(reduced_axes(n))
                return used == rows and n.inputs[0].shape[-count:] == g.domain[-g.inner :]
            return self.is_inner(n, axes, g) or (used == real and len(used) > 0)
        if n.op.name in HEADS and g.kind == "loop" and g.head is None and not g.inner:
            if axes != identity_map(g.domain) or (g.holds_update and not self.feeds(n, g)):
                return False
            if is_convolution(n) and any(map(touches_half, g.nodes)):
                return False
            return all(self.plain(m, a, g, n) for m, a in g.nodes.items())
        return False

    def feeds(self, n: Node, g: Group) -> bool:
        """Is n a weight gradient for the updates in g alone, to be used where it is computed?"""
        alone = n not in self.roots and all(self.of.get(u) is g for u in self.users[n])
        return alone and n.op.name == "matmul" and updates_in_place(n)

    def stays_with_head(self, n: Node, g: Group, inside: list[Node]) -> bool:
        """Is n better computed where a contraction's result is still in L1? It is stored anyway, as
        others than g read it.
        """
        takes_none = g.kind == "sink" or g.inner
        if not takes_none or n.op.kind != "elementwise" or len(inside) == len(self.users[n]):
            return False
        if g.kind == "sink" and any(x.op.name in HEADS and x.shape == n.shape for x in n.inputs):
            return True
        return self.follows_head(n)

    def follows_head(self, n: Node) -> bool:
        """Is n elementwise in the result of a contraction that nothing else reads?"""
        alone = [x for x in n.inputs if x.shape == n.shape and len(self.users[x]) == 1]
        return n.op.kind == "elementwise" and any(
            x.op.name in HEADS or self.follows_head(x) for x in alone
        )

    def is_inner(self, n: Node, axes: tuple[int, ...], g: Group) -> bool:
        """Are the axes that n reduces the last ones of g's domain, as in softmax?"""
        count = len(reduced_axes(n))
        rows = {i for i, d in enumerate(g.domain[:-count]) if d != 1}
        same = g.domain[-count:] == n.inputs[0].shape[-count:]
        return same and {a for a in axes if a >= 0} == rows and len(rows) > 0

    def plain(self, n: Node, axes: tuple[int, ...], g: Group, head: Node | None) -> bool:
        """Does n read only whole values, rows of the last axis and scalars? Then it can follow a
        contraction.
        """
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
            g.head, g.apart = n, g.holds_update
        if is_row_reduce(n) and not g.inner:
            whole, count = n.inputs[0].shape, len(reduced_axes(n))
            if g.domain == (*whole[:-count], *(1,) * count):
                g.domain = whole
            elif not self.is_inner(n, axes, g):
                g.domain = (*g.domain, *whole[-count:])
            g.inner = count
        g.nodes[n] = axes
        self.of[n] = g

    def join_early(self, n: Node, g: Group) -> None:
        """Compute n in the group of a Node that shares its expensive part."""
        self.limit[n] = min(self.position(u) for u in self.users[n])
        loops = g.kind == "loop" and g.domain == n.shape and g.head is None and not g.inner
        if loops and not g.holds_update and g.index < self.limit[n]:
            self.add(n, identity_map(n.shape), g)

    # -- a group that reads the same
    def join_sibling(self, n: Node) -> bool:
        """A reduction, or a value, over loops that some earlier group has already, reading
        something of the same.
        """
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
                or g.head is not None
                or g.inner
            ):
                continue
            if g.holds_update != (n in self.updates) and domain:
                continue
            if want == "sink" and sink_axes(g) != reduced_axes(n):
                continue
            if want == "sink" and any(m.op.name.startswith("arg") for m in (n, *g.nodes)):
                continue
            shared = any(not mine.isdisjoint(m.inputs) for m in g.nodes)
            if shared or not domain:
                self.add(n, identity_map(domain if want == "loop" else n.shape), g)
                return True
        return False

    def start_family(self, n: Node) -> None:
        """One group for all results of a family, once every reader of each has its place."""
        members = self.families[n]
        if n is not members[0]:
            return
        self.next -= 1
        g = Group(self.next, "single", n.shape)
        for m in members:
            g.nodes[m] = identity_map(m.shape)
            g.holds_update |= m in self.updates
            self.of[m] = g
        self.groups.append(g)

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


def is_convolution(n: Node | None) -> bool:
    """Is n a convolution of float32? Those write float32 alone, and read nothing else."""
    found = n is not None and n.op.name.startswith("conv2d")
    return found and n.inputs[0].dtype != "bfloat16"  # type: ignore[union-attr]


def updates_in_place(n: Node) -> bool:
    """Has the product n a kernel that computes what becomes of it where it is computed?"""
    a, way = n.inputs[0], (n.attrs["transpose_a"], n.attrs["transpose_b"])
    if n.rank != 2 or way != (True, False) or n.dtype not in (a.dtype, "float32"):
        return False
    rows, columns, depth = map(text_of, (*n.shape, a.shape[0]))
    return update_applies(rows, columns, depth, CODES[a.dtype])


def touches_half(n: Node) -> bool:
    """Does n read or make bfloat16?"""
    return "bfloat16" in (n.dtype, *(x.dtype for x in n.inputs))


def fuse(graph: Graph) -> Fusion:
    """Group the Nodes of a graph of plain ops (composites expanded)."""
    return Fuser(graph).run()
