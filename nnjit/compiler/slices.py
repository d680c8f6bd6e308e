"""A step on slices of the batch: gradient accumulation, found in the graph.

What is computed from one sample alone is the body, which runs once for each slice. Sums over
samples, weight gradients among them, are added up in accumulators: state that the body updates.
What follows from the sums, the optimizer above all, runs once after the last slice. What the body
needs of the whole batch is known before: the batch's extent, and what is made of the inputs alone,
as the number of values that a mask shows. The mathematics is that of the whole step; sums are
rounded in another order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nnjit import ops
from nnjit.compiler.passes import expand, share, simplify
from nnjit.compiler.samples import FREE, LATE, SUM, NotSliceable, Rows, Samples, where
from nnjit.graph import (
    EXTENT,
    Graph,
    Node,
    extent_node,
    input_node,
    rebuilt,
    state_node,
    walk,
)
from nnjit.ops.base import flops_of
from nnjit.spec import Dim, Spec, divide, evaluate, product, symbols_of

FIRST = "first sample of the slice"  # an input of the body, where it draws random numbers


@dataclass(frozen=True, eq=False)
class Split:
    """A step in parts.

    before: makes inputs of body and after from the whole batch; None where none is needed. body:
    reads a slice of each input that has samples (`sliced`), adds to `sums`. after: reads the sums.
    extents: inputs of body and after that are numbers of the whole batch.
    """

    symbol: str
    before: Graph | None
    body: Graph
    after: Graph
    sums: tuple[Node, ...]
    sliced: frozenset[str]
    extents: Mapping[str, Node]

    def numbers(self, extents: Mapping[str, int]) -> dict[str, np.ndarray]:
        """The inputs that are extents of the whole batch."""
        return {
            name: np.asarray(evaluate(n.attrs["dim"], extents), n.dtype)
            for name, n in self.extents.items()
        }


def split(graph: Graph, symbol: str = "batch") -> Split:
    """The parts of a step whose inputs have a batch on axis 0; NotSliceable says why there are
    none.
    """
    graph = share(simplify(expand(graph)))
    nodes = graph.nodes()
    samples = Samples(symbol)
    kinds = samples.find(nodes)
    for root in graph.roots:
        if isinstance(kinds[root], Rows):
            raise NotSliceable(f"{where(root)}, a result of the step, has a value for each sample")
    given = {x: input_node(f"whole {i}", x.spec) for i, x in enumerate(samples.given)}
    late = [n for n in walk(graph.roots, given) if kinds[n] in (LATE, FREE) and n not in given]
    found = {x: None for n in late for x in n.inputs if kinds[x] == SUM and x not in given}
    found |= {n: None for n in graph.roots if kinds[n] == SUM}
    for x in found:
        if symbols_of(x.shape):
            raise NotSliceable(f"{where(x)}, a sum over the batch, has an open extent")
    sums = {x: state_node(f"sum {i}", x.spec) for i, x in enumerate(found)}
    if not sums:
        raise NotSliceable("nothing is summed over the batch")
    extents: dict[str, Node] = {}
    body = body_of(graph.name, samples, sums, given, extents)
    after = after_of(graph, sums, given, extents)
    before = None
    if given:
        before = Graph(f"{graph.name} before", {leaf.name: x for x, leaf in given.items()})
    sliced = frozenset(n.name for n in graph.leaves("input") if isinstance(kinds[n], Rows))
    return Split(symbol, before, body, after, tuple(sums.values()), sliced, extents)


def whole_extent(n: Node, extents: dict[str, Node]) -> Node:
    """An extent as an input, which stays that of the whole batch."""
    name = f"{n.attrs['dim']} {n.dtype}"
    extents[name] = n
    return input_node(name, n.spec)


def replaced(
    roots: Sequence[Node], new: dict[Node, Node], rule: Callable[[Node], Node | None]
) -> None:
    """Fill `new` with the copies of all Nodes below roots, not looking below those it has; rule: a
    Node in place of one, or None.
    """
    for n in walk(roots, new):
        if n in new:
            continue
        found = rule(n)
        if found is None:
            found = n if n.is_leaf else rebuilt(n, tuple(new[x] for x in n.inputs))
        new[n] = found


def body_of(
    name: str, samples: Samples, sums: Mapping[Node, Node], given: Mapping[Node, Node],
    extents: dict[str, Node],
) -> Graph:  # fmt: skip
    """The step of one slice."""
    new = dict(given)
    first: list[Node] = []

    def rule(n: Node) -> Node | None:
        if n.op is EXTENT and samples.has([n.attrs["dim"]]):
            return whole_extent(n, extents)
        if n.op.kind == "random" and samples.has(n.shape):
            first[:] = first or [input_node(FIRST, Spec((1,), "int64"))]
            state = drawn_from(new[n.inputs[0]], first[0], n, samples)
            return Node(n.op, (state,), n.attrs, n.spec, n.scope)
        return None

    replaced(list(sums), new, rule)
    updates = {leaf: ops.add(leaf, new[x]) for x, leaf in sums.items()}
    return Graph(f"{name} slice", {}, updates)


def drawn_from(state: Node, first: Node, n: Node, samples: Samples) -> Node:
    """The random state of a slice: its elements are those that they are in the whole batch."""
    if state.shape == (3,):
        raise NotSliceable(f"{where(n)} draws from a state with a place of its own")
    inner = divide(n.spec.size, samples.batch)
    assert inner is not None
    return ops.concatenate([state, first * extent_node(inner, "int64")])


def after_of(
    graph: Graph, sums: Mapping[Node, Node], given: Mapping[Node, Node], extents: dict[str, Node]
) -> Graph:
    """What follows once all slices are added up."""
    new = {**given, **sums}

    def rule(n: Node) -> Node | None:
        if n.op is EXTENT:
            return whole_extent(n, extents)
        if symbols_of(n.shape):
            raise NotSliceable(f"{where(n)} has an open extent after the sums over the batch")
        return None

    replaced(graph.roots, new, rule)
    return Graph(
        f"{graph.name} after",
        {name: new[n] for name, n in graph.outputs.items()},
        {leaf: new[n] for leaf, n in graph.updates.items()},
    )


# --------------------------------------------------------------------------------- how many slices
#: rows of a product from which more of them do not make it faster
ROWS = 256
#: the part of a slice's products that must have so many rows
FULL = 0.9


@dataclass(frozen=True)
class Work:
    """A contraction of the body: its operations and rows, as extents."""

    flops: Dim
    rows: Dim


def contractions(body: Graph, symbol: str) -> list[Work]:
    """The contractions of a slice that grow with it. The rows of a scan's products are samples."""
    found = []
    for n in body.nodes():
        if n.op.kind == "contraction" and symbol in symbols_of([flops_of(n)]):
            a = n.inputs[0]
            over_rows = n.attrs.get("transpose_a") or n.op.name == "conv2d_dw"
            shape = a.shape[:-1] if over_rows else n.shape[:-1]
            found.append(Work(flops_of(n), product(shape)))
        elif n.op.name == "scan":
            found.append(Work(flops_of(n), n.attrs["step"].batch))
    return found


def least_rows(works: Sequence[Work], extents: Mapping[str, int], symbol: str) -> int:
    """The samples that a slice needs at least so that its products are about as fast as those of
    the whole batch; all of them if no slice does.
    """
    batch = extents[symbol]

    def full(samples: int) -> float:
        at = {**extents, symbol: samples}
        return sum(
            evaluate(w.flops, extents) * min(1.0, evaluate(w.rows, at) / ROWS) for w in works
        )

    want = FULL * sum(evaluate(w.flops, extents) for w in works)
    low, high = 1, batch
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if full(middle) >= want else (middle + 1, high)
    return low


KEPT = ("contraction", "window", "family", "composite")


def kept_bytes(graph: Graph, extents: Mapping[str, int], symbol: str = "batch") -> int:
    """About what a step keeps in memory, quickly: the results of its larger operations that grow
    with the batch.
    """
    return sum(
        evaluate(n.spec.nbytes, extents)
        for n in graph.nodes()
        if n.op.kind in KEPT and symbol in symbols_of(n.shape)
    )
