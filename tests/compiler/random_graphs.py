"""Random graphs: elementwise, reductions, views, products, softmax, random numbers; updates of
every kind.
"""

from __future__ import annotations

import random

import numpy as np

from nnjit import ops
from nnjit.autodiff import gradients
from nnjit.errors import NnjitError
from nnjit.graph import Graph, Node, input_node, scoped
from nnjit.spec import Spec, divide
from tests.compiler.drive import Variable

LARGEST = 400  # elements of a Node, a symbol counting as 7


class Builder:
    """Nodes so far, and steps that add one."""

    def __init__(self, rng: random.Random, floats: str):
        self.rng, self.floats = rng, floats
        values = np.random.default_rng(rng.randrange(1 << 30))

        def leaf(name: str, *shape: int, state: bool = False) -> Variable:
            return Variable(name, values.uniform(-1, 1, shape).astype(floats), state)

        self.variables = [
            leaf("w", 4, 4), leaf("u", 4, 4), leaf("b", 4), leaf("c", 4), leaf("g", 3, 4),
            leaf("s"), leaf("m", 4, 4, state=True), leaf("n", 4, state=True),
            leaf("o", 1, 4, state=True), leaf("z", state=True),
            leaf("f", 2, 2, 2, 3), Variable("seed", np.array([5, 0], np.int64), True),
        ]  # fmt: skip
        self.inputs = [input_node("x", Spec(("batch", 4), floats)),
                       input_node("y", Spec(("batch", 3, 4), floats)),
                       input_node("k", Spec(("batch",), "int32")),
                       input_node("i", Spec(("batch", 3, 4, 2), floats)),
                       input_node("t", Spec(("batch", "time", 4), floats))]  # fmt: skip
        self.pool = [*self.inputs[:2], self.inputs[4], *(v.node for v in self.variables[:-2])]
        self.stream = 0

    # -- picking
    def any(self) -> Node:
        """A Node, rather a young one."""
        k = len(self.pool)
        return self.pool[max(self.rng.randrange(k) for _ in range(3))]

    def axes(self, x: Node) -> tuple[int, ...]:
        return tuple(a for a in range(x.rank) if self.rng.random() < 0.5)

    def beside(self, x: Node) -> Node:
        """A Node that broadcasts with x."""
        fits = []
        for n in self.pool[1:]:
            pairs = list(zip(reversed(n.shape), reversed(x.shape), strict=False))
            if all(a == b or 1 in (a, b) for a, b in pairs) and n.rank and x.rank:
                fits.append(n)
        return self.rng.choice(fits) if fits else x

    # -- steps
    def unary(self) -> Node:
        f = self.rng.choice([ops.tanh, ops.relu, ops.sigmoid, ops.abs, ops.negative, ops.sin,
                             lambda x: ops.exp(ops.tanh(x)), lambda x: ops.sqrt(ops.abs(x) + 0.5),
                             lambda x: ops.square(ops.tanh(x)), lambda x: x * 0.5 + 1])  # fmt: skip
        return f(self.any())

    def binary(self) -> Node:
        f = self.rng.choice([ops.add, ops.subtract, lambda a, b: ops.tanh(a) * b, ops.maximum,
                             lambda a, b: a / (ops.square(b) + 1),
                             lambda a, b: ops.where(a > b, a, b * 0.5)])  # fmt: skip
        x = self.any()
        return f(x, self.beside(x))

    def reduce(self) -> Node:
        x = self.any()
        f = self.rng.choice([ops.sum, ops.mean, ops.max, ops.min])
        return f(x, self.axes(x), self.rng.random() < 0.4) * 0.5

    def position(self) -> Node:
        x = self.any()
        f = self.rng.choice([ops.argmax, ops.argmin])
        return ops.cast(f(x, self.rng.randrange(x.rank)), self.floats) * 0.1

    def shaped(self) -> Node:
        x = self.any()
        kind = self.rng.randrange(4)
        if kind == 0:
            return ops.reshape(x, (*x.shape[:1], -1))
        if kind == 1:
            at = self.rng.randrange(x.rank + 1)
            return ops.reshape(x, (*x.shape[:at], 1, *x.shape[at:]))
        if kind == 2 and x.rank > 1:
            return ops.reshape(x, (-1, x.shape[-1]))
        perm = list(range(x.rank))
        self.rng.shuffle(perm)
        return ops.transpose(x, perm)

    def sliced(self) -> Node:
        x = self.any()
        kind = self.rng.randrange(4)
        if kind == 0:
            return ops.flip(x, self.axes(x))
        if kind == 1:
            widths = [(0, 0, 0) if not isinstance(d, int) else tuple(
                self.rng.randrange(3) for _ in range(3)) for d in x.shape]  # fmt: skip
            return ops.pad(x, widths, self.rng.choice([0, 1]))
        if kind == 2 and x.shape[-1] == 4:
            return x[
                ..., self.rng.choice([slice(0, 2), slice(1, 4, 2), slice(3, 4), slice(2, None)])
            ]
        axis = self.rng.randrange(x.rank)

        def rest(n: Node) -> tuple:
            return (*n.shape[:axis], *n.shape[axis + 1 :])

        fits = [n for n in self.pool if n.rank == x.rank and rest(n) == rest(x)]
        return ops.concatenate([x, self.rng.choice(fits), x], axis)

    def product(self) -> Node:
        a = self.any()
        fits = [n for n in self.pool if n.rank > 1 and a.rank and n.shape[-2] == a.shape[-1]]
        b = self.rng.choice(fits or self.pool)
        return ops.matmul(a, b, self.rng.random() < 0.2, self.rng.random() < 0.3) * 0.3

    def dense(self) -> Node:
        w, b = (self.variables[k].node for k in (0, 2))
        h = ops.matmul(self.any(), w) * 1.0 + b
        return self.rng.choice([h, ops.relu(h), ops.tanh(h), ops.relu(h) + self.any()])

    def composite(self) -> Node:
        x = self.any()
        kind = self.rng.randrange(4)
        if kind == 0:
            return ops.softmax(x, self.rng.randrange(x.rank))
        if kind == 1:
            return ops.log_softmax(x)
        if kind == 2:
            return ops.sparse_softmax_cross_entropy(x, self.inputs[2])
        centred = x - ops.mean(x, -1, True)
        return centred / ops.sqrt(ops.mean(ops.square(centred), -1, True) + 0.1)

    def windowed(self) -> Node:
        images = [n for n in [*self.pool, self.inputs[3]] if n.rank == 4]
        x = self.rng.choice(images)
        kind = self.rng.randrange(4)
        padding = self.rng.choice(["same", "valid"])
        if kind == 0:
            return ops.max_pool(x, self.rng.choice([2, (1, 2), 3]), self.rng.choice([1, 2]), "same")
        if kind == 1:
            return ops.average_pool(x, 2, self.rng.choice([1, 2]), padding)
        h = ops.conv(x, self.variables[-2].node, self.rng.choice([1, 2]), padding) * 0.5
        return self.rng.choice([h, ops.relu(h), ops.mean(h, (1, 2))])

    def gathered(self) -> Node:
        if self.rng.random() < 0.4:
            return ops.one_hot(self.inputs[2], 4, dtype=self.floats)
        if self.rng.random() < 0.5:
            return ops.take(self.any(), self.inputs[2])
        x = self.any()
        return ops.cast(ops.iota(x.shape, self.rng.randrange(x.rank)), self.floats) * 0.1

    def noise(self) -> Node:
        self.stream += 1
        x, rng = self.any(), self.variables[-1].node
        u = ops.OPS["random_uniform"](rng, shape=x.shape, dtype=self.floats, stream=self.stream)
        return self.rng.choice([u, ops.where(u > 0.3, x, 0 * u)])

    def grow(self, count: int) -> None:
        """Add Nodes; a step that these shapes do not allow is left out."""
        kinds = [self.unary, self.binary, self.binary, self.reduce, self.shaped, self.sliced,
                 self.product, self.dense, self.composite, self.gathered, self.position,
                 self.noise, self.windowed, self.sliced]  # fmt: skip
        for k in range(count):
            try:
                with scoped(f"layer_{k % 5}"):
                    n = self.rng.choice(kinds)()
            except (NnjitError, ValueError, IndexError, TypeError):
                continue
            size = n.spec.size
            if (size if isinstance(size, int) else size.factor * 7 ** len(size.symbols)) <= LARGEST:
                self.pool.append(n)

    # -- roots
    def value_for(self, spec: Spec) -> Node:
        """Something of this spec: a Node that has it, or one made to fit."""
        same = [n for n in self.pool if n.spec == spec]
        n = self.any()
        if self.rng.random() < 0.6 and same:
            n = self.rng.choice(same[-6:])
        elif divide(n.spec.size, spec.size) == 1:
            n = ops.reshape(n, spec.shape)
        elif n.rank > len(spec.shape) and n.shape[n.rank - len(spec.shape) :] == spec.shape:
            n = ops.mean(n, tuple(range(n.rank - len(spec.shape))))
        else:
            n = ops.broadcast_to(ops.mean(n), spec.shape)
        if self.rng.random() < 0.3:
            n = n * 0.5 + 0.1
        return n

    def graph(self) -> Graph:
        updates: dict[Node, Node] = {}
        trained: dict[Node, Node] = {}
        if self.rng.random() < 0.5:
            parameters = [v.node for v in self.variables if v.node.op.name == "parameter"]
            loss = ops.mean(ops.tanh(self.any())) + ops.mean(ops.tanh(self.any()))
            trained = dict(zip(parameters, gradients(loss, parameters), strict=True))
        for v in self.variables[:-1]:
            if v.node in trained and self.rng.random() < 0.8:
                updates[v.node] = v.node - 0.1 * trained[v.node]
            elif self.rng.random() < 0.5:
                updates[v.node] = self.value_for(v.spec)
            if self.rng.random() < 0.3:
                value = updates.get(v.node, v.node)
                updates[v.node] = v.node * 0.9 + value * 0.1
        pairs = [("w", "u"), ("b", "c"), ("s", "z"), ("n", "b"), ("m", "w")]
        leaves = {v.name: v.node for v in self.variables}
        if self.rng.random() < 0.3:
            a, b = self.rng.choice(pairs)
            updates[leaves[a]], updates[leaves[b]] = leaves[b], leaves[a]
        if self.stream:
            seed = self.variables[-1].node
            updates[seed] = seed + ops.as_node(np.array([0, 1], np.int64))
        outputs = {f"out{k}": self.any() for k in range(self.rng.randrange(2, 9))}
        if self.rng.random() < 0.4 and updates:
            outputs["new"] = self.rng.choice(list(updates.values()))
        if self.rng.random() < 0.3:
            outputs["leaf"] = self.rng.choice(self.pool[:12])
        if self.rng.random() < 0.2:
            outputs["view"] = ops.reshape(self.rng.choice(self.pool[:12]), (-1,))
        if self.rng.random() < 0.2:
            outputs["constant"] = ops.as_node(np.arange(3.0).astype(self.floats))
        return Graph("random", {**outputs, "x": self.inputs[0], "t": self.inputs[4]}, updates)


def random_graph(
    rng: random.Random, floats: str = "float64", nodes: int = 25
) -> tuple[Graph, list[Variable]]:
    """A graph and its variables."""
    builder = Builder(rng, floats)
    builder.grow(nodes)
    return builder.graph(), builder.variables
