"""Dead borders: rows and columns at the end of an image that nothing reads, or that are zero.

Where a pooling's windows leave a remainder over (11 rows, windows of 2), the last rows of the image
are never read; backwards, their gradient is zero. Convolutions, poolings and what is elementwise
between them are cut to what is needed, forward and backward: the same results from fewer products.
Where an image cannot be cut, as an input, the convolution gets a negative padding behind.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from nnjit.graph import CONSTANT, Graph, Node, rebuilt, rewrite, users

Pair = tuple[int, int]
POOLS = ("max_pool", "max_pool_index", "avg_pool")
POOL_GRADS = ("max_pool_grad", "avg_pool_grad")
CONVS = ("conv2d", "conv2d_dx", "conv2d_dw")


def crop_dead_borders(graph: Graph) -> Graph:
    """Images without the rows and columns that have no effect."""
    nodes = graph.nodes()
    if not any(n.op.name in (*POOLS, *POOL_GRADS) for n in nodes):
        return graph
    sizes = Needs(graph, nodes).solve()
    if all(sizes[n] == whole(n) for n in sizes):
        return graph
    return rewrite(graph, lambda n, inputs: cropped(n, inputs, sizes.get(n)))


def whole(n: Node) -> Pair:
    """Height and width of an image."""
    _, h, w, _ = n.shape
    assert isinstance(h, int)
    assert isinstance(w, int)
    return h, w


def is_image(n: Node) -> bool:
    return n.rank == 4 and all(isinstance(d, int) for d in n.shape[1:3])


def follows(n: Node) -> bool:
    """May n be smaller than it is written, if its inputs are or its users allow it?"""
    if not is_image(n):
        return False
    if n.op.name in (*POOLS, *POOL_GRADS):
        return not any(map(any, n.attrs["padding"])) and all(map(is_image, n.inputs))
    if n.op.kind == "elementwise":
        return all(alike(n, x) or not any(d != 1 for d in x.shape[-3:-1]) for x in n.inputs)
    return n.op.name in ("conv2d", "conv2d_dx")


def alike(n: Node, x: Node) -> bool:
    return x.rank == 4 and x.shape[1:3] == n.shape[1:3]


# --------------------------------------------------------------------------------------- geometry
def options(n: Node, axis: int) -> tuple[int, int, int]:
    """(reach of a window, stride, padding before) along height (0) or width (1)."""
    if n.op.name in CONVS:
        kernel: Any = n.attrs["kernel"] if n.op.name == "conv2d_dw" else n.inputs[1].shape[:2]
        reach = (kernel[axis] - 1) * n.attrs["dilation"][axis] + 1
    else:
        reach = n.attrs["window"][axis]
    return reach, n.attrs["strides"][axis], n.attrs["padding"][axis][0]


def covered(n: Node, axis: int, count: int, most: int) -> int:
    """How much of the image the first `count` windows read, or write."""
    reach, stride, before = options(n, axis)
    return min(most, max(0, (count - 1) * stride + reach - before))


def touching(n: Node, axis: int, size: int, most: int) -> int:
    """How many windows begin within the first `size` of the image."""
    _, stride, before = options(n, axis)
    return min(most, (size - 1 + before) // stride + 1)


class Needs:
    """Finds the size of each image: from none, growing until every reader has what it needs."""

    def __init__(self, graph: Graph, nodes: Sequence[Node]):
        self.nodes, self.users = nodes, users(nodes)
        self.roots = set(graph.roots)
        self.zero_from = {n: whole(n) for n in nodes if is_image(n)}
        for n in nodes:
            if n in self.zero_from:
                self.zero_from[n] = self.support(n)
        self.size: dict[Node, Pair] = {n: (0, 0) for n in nodes if is_image(n)}

    def support(self, n: Node) -> Pair:
        """From where on n is zero."""
        full = whole(n)
        if n.op.name == "conv2d_dx" or (n.op.name in POOL_GRADS and follows(n)):
            dy = self.zero_from[n.inputs[0]]
            return (covered(n, 0, dy[0], full[0]), covered(n, 1, dy[1], full[1]))
        if n.op.name == "cast":
            return self.zero_from[n.inputs[0]]
        if n.op.name == "where" and n.inputs[1] in self.zero_from and alike(n, n.inputs[1]):
            no = n.inputs[2]
            if no.op is CONSTANT and not no.attrs["value"].any():
                return self.zero_from[n.inputs[1]]
        return full

    def solve(self) -> dict[Node, Pair]:
        changed = True
        while changed:
            changed = False
            for n in reversed(self.nodes):
                if n in self.size:
                    new = self.wanted(n)
                    changed |= new != self.size[n]
                    self.size[n] = new
        return self.size

    def wanted(self, n: Node) -> Pair:
        """The least size for all readers, and for the shapes of n's own op to fit together."""
        full = whole(n)
        if not follows(n) or n in self.roots:
            return full
        h, w = self.size[n]
        for u in self.users[n]:
            for place, x in enumerate(u.inputs):
                if x is n:
                    a, b = (self.by(u, place, n, axis) for axis in (0, 1))
                    h, w = max(h, a), max(w, b)
        for axis in (0, 1):
            least = self.of_inputs(n, axis)
            h, w = (max(h, least), w) if axis == 0 else (h, max(w, least))
        return min(h, full[0]), min(w, full[1])

    def by(self, u: Node, place: int, n: Node, axis: int) -> int:
        """What reader u needs of n, its input `place`, along an axis."""
        full, zero = whole(n)[axis], self.zero_from[n][axis]
        name = u.op.name
        if name == "conv2d_dw":
            if place == 1:
                return zero
            return covered(u, axis, self.size[u.inputs[1]][axis], full)
        if name == "sum" and {1, 2} <= set(u.attrs["axes"]):
            return zero
        if not follows(u):
            return full
        size = self.size[u][axis]
        if size == 0:
            return 0
        if name in POOLS or (name == "conv2d" and place == 0):
            return covered(u, axis, size, full)
        if name in POOL_GRADS:
            return touching(u, axis, size, full)
        if name == "conv2d_dx" and place == 0:
            return min(zero, touching(u, axis, size, full))
        return size if u.op.kind == "elementwise" and alike(u, n) else full

    def of_inputs(self, n: Node, axis: int) -> int:
        """What n has to be because its inputs are as large as they are."""
        images = [x for x in n.inputs if x in self.size]
        if n.op.kind == "elementwise":
            return max((self.size[x][axis] for x in images if alike(n, x)), default=0)
        count = max(self.size[x][axis] for x in images[: 2 if n.op.name in POOL_GRADS else 1])
        if n.op.name in POOLS:
            reach, stride, _ = options(n, axis)
            return (count - reach) // stride + 1 if count >= reach else 0
        if n.op.name in POOL_GRADS:
            return covered(n, axis, count, whole(n)[axis]) if count else 0
        return 0


# ----------------------------------------------------------------------------------------- rebuild
def cropped(n: Node, inputs: tuple[Node, ...], size: Pair | None) -> Node:
    """n with these inputs, of this size."""
    alike_inputs = all(a.spec == b.spec for a, b in zip(inputs, n.inputs, strict=True))
    if alike_inputs and size in (None, n.shape[1:3]):
        return rebuilt(n, inputs)
    attrs: dict[str, Any] = dict(n.attrs)
    if n.op.name in ("conv2d_dx", *POOL_GRADS):
        assert size is not None
        attrs["height"], attrs["width"] = size
    if n.op.name in CONVS:
        attrs["padding"] = tuple(padding(n, inputs, size, axis) for axis in (0, 1))
    spec = n.op.rule(*(x.spec for x in inputs), **attrs)
    return Node(n.op, inputs, attrs, spec, n.scope)


def padding(n: Node, inputs: tuple[Node, ...], size: Pair | None, axis: int) -> Pair:
    """The padding with which the image gives just the results that are left."""
    reach, stride, before = options(n, axis)
    at: Callable[[Node], Any] = lambda x: x.shape[1 + axis]  # noqa: E731
    if n.op.name == "conv2d_dw":
        image, count = at(inputs[0]), at(inputs[1])
    else:
        assert size is not None
        small = n.op.name == "conv2d"
        image, count = (at(inputs[0]), size[axis]) if small else (size[axis], at(inputs[0]))
    old = n.attrs["padding"][axis]
    if (image + sum(old) - reach) // stride + 1 == count:
        return old
    return before, (count - 1) * stride + reach - before - image
