"""Random scans: steps of functions, slices, joins, products and masks over one to three carries."""

from __future__ import annotations

import numpy as np

from nnjit import ops
from nnjit.autodiff import gradients
from nnjit.graph import Graph, Node, input_node
from nnjit.spec import Spec

WIDTHS = (1, 3, 4, 7)
KINDS = ("unary", "unary", "binary", "binary", "slice", "join", "product", "product", "where",
         "vector", "sample", "sum")  # fmt: skip
UNARY = (ops.tanh, ops.sigmoid, ops.relu, ops.negative, ops.softplus)
BINARY = (ops.add, ops.multiply, ops.subtract, ops.maximum)


class Maker:
    """One random step, and the leaves that it needs."""

    def __init__(self, seed: int):
        self.rng = np.random.default_rng(seed)
        self.leaves: list[Node] = []

    def pick(self, items):
        return items[self.rng.integers(len(items))]

    def leaf(self, name: str, *shape, dtype: str = "float64") -> Node:
        self.leaves.append(input_node(name, Spec(shape, dtype)))
        return self.leaves[-1]

    def constant(self, *shape) -> Node:
        return self.leaf(f"w{len(self.leaves)}", *shape)

    def grown(self, pool: list[Node], mask: Node) -> Node:
        """A value made of some of the pool."""
        a = self.pick(pool)
        width = a.shape[1]
        other = self.pick([n for n in pool if n.shape[1] in (width, 1)])
        kind = self.pick(KINDS)
        if kind == "unary":
            return self.pick(UNARY)(a)
        if kind == "binary":
            return self.pick(BINARY)(a, other)
        if kind == "slice":
            first = self.rng.integers(width)
            return a[:, int(first) : int(self.rng.integers(first + 1, width + 1))]
        if kind == "join":
            return ops.concatenate([a, self.pick(pool)], -1)
        if kind == "product":
            columns = self.pick(WIDTHS)
            if self.rng.random() < 0.5:
                return ops.matmul(a, self.constant(width, columns))
            return ops.matmul(a, self.constant(columns, width), transpose_b=True)
        if kind == "where":
            return ops.where(self.pick([mask, a > 0]), a, other)
        if kind == "vector":
            return a * self.constant(width)
        return ops.sum(a, -1, keepdims=True) if kind == "sum" else a + self.constant("batch", width)

    def step(self, carries, inputs, _):
        *values, mask = inputs
        pool = [*carries, *values]
        for _ in range(self.rng.integers(4, 13)):
            pool.append(self.grown(pool[-6:] if self.rng.random() < 0.5 else pool, mask))
        news = []
        for c in carries:
            new = self.pick([n for n in pool if n.shape == c.shape])
            if self.rng.random() < 0.3:
                new = ops.matmul(pool[-1], self.constant(pool[-1].shape[1], c.shape[1]))
            news.append(new if self.rng.random() < 0.5 else ops.tanh(new))
        return news, [self.pick(pool) for _ in range(3)]


def random_scan(seed: int) -> Graph:
    """Some results of a random scan; for odd seeds with all gradients."""
    m = Maker(seed)
    rng = m.rng
    carries = [m.leaf(f"c{i}", "batch", m.pick(WIDTHS)) for i in range(rng.integers(1, 4))]
    inputs = [m.leaf(f"x{i}", "time", "batch", m.pick(WIDTHS)) for i in range(2)]
    inputs.append(m.leaf("mask", "time", "batch", 1, dtype="bool"))
    last, stacked = ops.scan(m.step, carries, inputs, reverse=bool(rng.integers(2)))
    every = {f"y{i}": r for i, r in enumerate([*last, *stacked])}
    outputs = {name: r for name, r in every.items() if rng.random() < 0.7} or every
    if seed % 2:
        wrt = [n for n in m.leaves if n.dtype != "bool"]
        loss = sum(ops.sum(ops.sin(r)) for r in outputs.values())
        outputs |= {
            f"d{n.name}": g for n, g in zip(wrt, gradients(loss, wrt), strict=True)
        }  # fmt: skip
    return Graph("scan", outputs)


def sample(graph: Graph, seed: int = 0, **extents: int) -> dict[str, np.ndarray]:
    """Values between -1 and 1, and masks, for every input."""
    rng = np.random.default_rng(seed)
    found = {}
    for n in graph.leaves("input"):
        shape = [d if isinstance(d, int) else extents[str(d)] for d in n.shape]
        values = rng.uniform(-1, 1, shape)
        found[n.name] = values > -0.2 if n.dtype == "bool" else values.astype(n.dtype)
    return found
