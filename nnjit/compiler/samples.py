"""Where the samples of a batch are in the values of a step.

Every Node is one of these:

- FREE: it does not depend on a sample (parameters, constants, what is made of them).
- Rows: it holds something for each sample, computed from that sample alone.
- SUM: a sum over samples; it is the sum of what parts of the batch give.
- LATE: anything else that is computed from sums.

A value has its samples at one place of the row-major order of its elements: `outer` times over, the
batch, and for each sample the elements inside. A reshape leaves that as it is, whatever axes it
makes of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nnjit.graph import EXTENT, INPUT, Node, walk
from nnjit.spec import Dim, Extent, divide, product, symbols_of

FREE, SUM, LATE = "free", "sum", "late"


@dataclass(frozen=True)
class Rows:
    """Something for each sample. outer: the number of times that the batch is there, one after the
    other (the time steps of a time-major value); None: one number everywhere.
    """

    outer: Dim | None = 1


Kind = str | Rows


class NotSliceable(Exception):
    """Why a graph cannot run on parts of the batch: a sentence for people."""


@dataclass(frozen=True)
class Place:
    """The axis with the samples: its extent is outer * batch * inner."""

    axis: int
    outer: Dim | None


class Samples:
    """The kind of each Node of a graph. symbol: the batch's; given: what is computed of the whole
    batch beforehand (`find` fills it).
    """

    def __init__(self, symbol: str):
        self.symbol = symbol
        self.batch = Extent(1, (symbol,))
        self.kinds: dict[Node, Kind] = {}
        self.given: dict[Node, None] = {}

    def find(self, nodes: Sequence[Node]) -> Mapping[Node, Kind]:
        """The kinds of Nodes, inputs before users. NotSliceable names what mixes samples."""
        for n in nodes:
            try:
                self.kinds[n] = self.leaf(n) if n.is_leaf else self.node(n)
            except NotSliceable:
                if n.op.kind == "view" and any(self.over_samples(x, n.scope) for x in nodes):
                    raise NotSliceable(f"{n.scope} needs the whole batch") from None
                raise
        return self.kinds

    def over_samples(self, n: Node, scope: str) -> bool:
        """Does this Node of a layer reduce over samples? The layer's views are then parts of a
        statistic, as the first sample is of a variance.
        """
        if not scope or n.scope != scope or n.op.kind != "reduce":
            return False
        axes = n.attrs.get("axes") or (n.attrs.get("axis"),)
        return any(self.has([d]) for i, d in enumerate(n.inputs[0].shape) if i in axes)

    def has(self, dims: Sequence[Dim]) -> bool:
        return self.symbol in symbols_of(dims)

    def leaf(self, n: Node) -> Kind:
        if n.op is not INPUT or not self.has(n.shape):
            return FREE
        if n.shape[0] != self.batch or self.has(n.shape[1:]):
            raise NotSliceable(f"input {n.name!r} has its samples elsewhere than on axis 0")
        return Rows(1)

    def node(self, n: Node) -> Kind:
        kinds = [self.kinds[x] for x in n.inputs]
        rows = self.has(n.shape) or any(isinstance(k, Rows) for k in kinds)
        if not rows:
            return self.without_rows(n, kinds)
        for x, k in zip(n.inputs, kinds, strict=True):
            if k in (SUM, LATE) and x not in self.given:
                self.beforehand(n, x)
        rule = RULES.get(n.op.name) or RULES.get(n.op.kind)
        if rule is None:
            raise NotSliceable(f"{where(n)} may mix samples")
        return rule(self, n)

    def beforehand(self, n: Node, x: Node) -> None:
        """n needs, for every sample, x of the whole batch: is that known before the step?"""
        if not cheap(x):
            raise NotSliceable(f"{where(n)} needs, for every sample, {where(x)} of the whole batch")
        self.given[x] = None

    def without_rows(self, n: Node, kinds: Sequence[Kind]) -> Kind:
        """What has nothing for each sample; linear functions of sums are sums."""
        if all(k == FREE for k in kinds):
            return FREE
        return SUM if n.op.name in LINEAR and all(k == SUM for k in kinds) else LATE

    # -- places
    def of(self, x: Node) -> Rows | None:
        """The Rows of an operand; None if it is the same for all samples."""
        found = self.kinds[x]
        return found if isinstance(found, Rows) else None

    def place(self, n: Node, x: Node) -> Place:
        """Where operand x of n has its samples."""
        found = self.of(x)
        assert found is not None
        return self.at(n, x.shape, found.outer)

    def at(self, n: Node, dims: Sequence[Dim], outer: Dim | None) -> Place:
        """The axis of `dims` that has the samples, `outer` times over."""
        axes = [i for i, d in enumerate(dims) if self.has([d])]
        if len(axes) == 1:
            axis = axes[0]
            if outer is None:
                return Place(axis, None)
            times = divide(outer, product(dims[:axis]))
            inner = None if times is None else divide(dims[axis], times * self.batch)
            if inner is not None and not self.has([inner]):
                return Place(axis, times)
        raise NotSliceable(f"{where(n)} splits or mixes the axis of the samples")

    def rows(self, n: Node, axis: int, outer: Dim | None) -> Rows:
        """n with samples on this axis, `outer` times over."""
        found = Rows(None if outer is None else product(n.shape[:axis]) * outer)
        self.at(n, n.shape, found.outer)
        return found

    def same(self, n: Node, places: Sequence[Place]) -> Place:
        """The one place of several operands."""
        known = list(dict.fromkeys(p for p in places if p.outer is not None)) or list(places)[:1]
        if len(known) != 1 or any(p.axis != known[0].axis for p in places):
            raise NotSliceable(f"{where(n)} joins values that have their samples elsewhere")
        return known[0]


def where(n: Node) -> str:
    """'sum in batch_normalization'."""
    name = n.name or n.op.name
    return f"{name} in {n.scope}" if n.scope else name


def cheap(x: Node) -> bool:
    """Is x made of inputs and extents alone, without products? Then it is known beforehand."""
    kinds = ("elementwise", "view", "reduce", "index")
    return all(
        n.op in (INPUT, EXTENT) or n.op.name == "constant" if n.is_leaf else n.op.kind in kinds
        for n in walk([x])
    )


LINEAR = ("reshape", "transpose", "slice", "flip", "concatenate", "negative", "add", "subtract",
          "sum")  # fmt: skip


# ------------------------------------------------------------------------------------------- rules
def _elementwise(s: Samples, n: Node) -> Kind:
    places = []
    for x in n.inputs:
        if s.of(x) is not None:
            p = s.place(n, x)
            places.append(Place(p.axis + n.rank - x.rank, p.outer))
    p = s.same(n, places)
    varies = [x for x in n.inputs if s.of(x) is None and x.spec.size != 1]
    # one number everywhere, and something of its own for other axes: as if batch came first
    return s.rows(n, p.axis, 1 if p.outer is None and varies else p.outer)


def _reshape(s: Samples, n: Node) -> Kind:
    (x,) = n.inputs
    found = s.of(x)
    assert found is not None
    s.at(n, n.shape, found.outer)
    return found


def _transpose(s: Samples, n: Node) -> Kind:
    p = s.place(n, n.inputs[0])
    return s.rows(n, n.attrs["perm"].index(p.axis), p.outer)


def _whole_axis(untouched: Callable[[Node, int], bool]) -> Callable[[Samples, Node], Kind]:
    """A view of one operand that must leave the samples' axis alone."""

    def rule(s: Samples, n: Node) -> Kind:
        p = s.place(n, n.inputs[0])
        if not untouched(n, p.axis):
            raise NotSliceable(f"{where(n)} takes some of the samples, or moves them")
        return s.rows(n, p.axis, 1 if p.outer is None else p.outer)

    return rule


def _slice_leaves(n: Node, axis: int) -> bool:
    a = n.attrs
    return (a["starts"][axis], a["stops"][axis], a["steps"][axis]) == (
        0, n.inputs[0].shape[axis], 1,
    )  # fmt: skip


def _broadcast(s: Samples, n: Node) -> Kind:
    (x,) = n.inputs
    if s.of(x) is not None:
        p = s.place(n, x)
        return s.rows(n, p.axis + n.rank - x.rank, p.outer)
    if x.spec.size == 1:
        s.at(n, n.shape, None)
        return Rows(None)
    return s.rows(n, s.at(n, n.shape, None).axis, 1)


def _concatenate(s: Samples, n: Node) -> Kind:
    p = s.same(n, [s.place(n, x) for x in n.inputs])
    if p.axis == n.attrs["axis"]:
        raise NotSliceable(f"{where(n)} puts samples behind each other")
    return s.rows(n, p.axis, 1 if p.outer is None else p.outer)


def _iota(s: Samples, n: Node) -> Kind:
    axis = s.at(n, n.shape, None).axis
    if axis == n.attrs["axis"]:
        raise NotSliceable(f"{where(n)} numbers the samples")
    return s.rows(n, axis, 1)


def _random(s: Samples, n: Node) -> Kind:
    return s.rows(n, s.at(n, n.shape, None).axis, 1)


def _reduce(s: Samples, n: Node) -> Kind:
    (x,) = n.inputs
    p = s.place(n, x)
    given = n.attrs.get("axes")
    axes = (n.attrs["axis"],) if given is None else given
    if p.axis in axes:
        if n.op.name != "sum":
            raise NotSliceable(f"{where(n)} over all samples")
        return SUM
    axis = p.axis if n.attrs["keepdims"] else p.axis - sum(a < p.axis for a in axes)
    return s.rows(n, axis, p.outer)


def _matmul(s: Samples, n: Node) -> Kind:
    places: list[Place | None] = []  # axis: of the result; -1: the axis that is summed over
    for k, x in enumerate(n.inputs):
        if s.of(x) is None:
            places.append(None)
            continue
        p, own = s.place(n, x), x.rank - 2 + k  # own: the axis of this operand that the result has
        if n.attrs["transpose_b" if k else "transpose_a"]:
            own = 2 * x.rank - 3 - own
        axis = p.axis if p.axis < x.rank - 2 else x.rank - 2 + k if p.axis == own else -1
        places.append(Place(axis, p.outer))
    known = [p for p in places if p is not None]
    shared = known[0].axis < n.rank - 2  # of a stack, or summed over: both operands have it
    if shared:
        p = s.same(n, known)
        if len(known) == 2:
            return SUM if p.axis == -1 else s.rows(n, p.axis, p.outer)
    elif len(known) == 1:
        return s.rows(n, known[0].axis, 1 if known[0].outer is None else known[0].outer)
    raise NotSliceable(f"{where(n)} multiplies samples with each other")


def _images(s: Samples, n: Node) -> Kind:
    """Samples on axis 0 of all operands that have any, and of the result."""
    p = s.same(n, [s.place(n, x) for x in n.inputs if s.of(x) is not None])
    if p.axis != 0:
        raise NotSliceable(f"{where(n)} has its samples on axis {p.axis}")
    return SUM if n.op.name == "conv2d_dw" else s.rows(n, 0, 1 if p.outer is None else p.outer)


def _convolution(s: Samples, n: Node) -> Kind:
    first, second = (s.of(x) is not None for x in n.inputs)
    if not first or second != (n.op.name == "conv2d_dw"):
        raise NotSliceable(f"{where(n)} multiplies samples with each other")
    return _images(s, n)


def _take(s: Samples, n: Node) -> Kind:
    table, index = n.inputs
    if s.of(table) is not None:
        raise NotSliceable(f"{where(n)} takes rows of other samples")
    p = s.place(n, index)
    return s.rows(n, p.axis, 1 if p.outer is None else p.outer)


def _scatter(s: Samples, n: Node) -> Kind:
    if s.has(n.shape) or any(s.of(x) is None for x in n.inputs):
        raise NotSliceable(f"{where(n)} moves samples")
    s.same(n, [s.place(n, x) for x in n.inputs])
    return SUM


def _scan(s: Samples, n: Node) -> Kind:
    step = n.attrs["step"]
    if any(x.op is EXTENT and s.has([x.attrs["dim"]]) for x in step.nodes()):
        raise NotSliceable(f"{where(n)} counts its samples")
    carries, sequences, constants = step.split(n.inputs)
    for axis, values in ((0, [*carries, *constants]), (1, sequences)):
        for x in values:
            if s.of(x) is not None and s.place(n, x) not in (Place(axis, 1), Place(axis, None)):
                raise NotSliceable(f"{where(n)} has samples elsewhere")
    return s.rows(n, 0 if n.attrs["result"][0] == "last" else 1, 1)


RULES: dict[str, Callable[[Samples, Node], Any]] = {
    "elementwise": _elementwise, "reduce": _reduce, "random": _random, "window": _images,
    "reshape": _reshape, "transpose": _transpose, "broadcast_to": _broadcast,
    "concatenate": _concatenate, "iota": _iota, "matmul": _matmul,
    "slice": _whole_axis(_slice_leaves),
    "flip": _whole_axis(lambda n, axis: axis not in n.attrs["axes"]),
    "pad": _whole_axis(lambda n, axis: n.attrs["widths"][axis] == (0, 0, 0)),
    "conv2d": _convolution, "conv2d_dx": _convolution, "conv2d_dw": _convolution,
    "take_rows": _take, "scatter_rows": _scatter,
    "attention": _images, "attention_grad": _images, "scan": _scan,
}  # fmt: skip
