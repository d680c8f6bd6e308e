"""Small networks as low-level graphs of one training step, for tests of the compiler."""

from __future__ import annotations

import numpy as np

from nnjit import ops
from nnjit.autodiff import gradients
from nnjit.graph import Graph, Node, constant, input_node, scoped
from nnjit.runtime.store import Store
from nnjit.spec import Spec
from tests.compiler.drive import Variable


class Net:
    """Parameters made as they are asked for, and the loss of some layers."""

    def __init__(self, seed: int = 0):
        self.rng = np.random.default_rng(seed)
        self.variables: list[Variable] = []
        self.state: list[Variable] = []
        self.updates: dict[Node, Node] = {}
        self.outputs: dict[str, Node] = {}

    def parameter(self, name: str, *shape: int) -> Node:
        fan = max(1, int(np.prod(shape[:-1])))
        value = self.rng.standard_normal(shape) / fan**0.5 if len(shape) > 1 else np.zeros(shape)
        self.variables.append(Variable(name, value.astype(np.float32)))
        return self.variables[-1].node

    def keep(self, name: str, value) -> Node:
        self.state.append(Variable(name, value, state=True))
        return self.state[-1].node

    def dense(self, name: str, x: Node, units: int, activation=None) -> Node:
        with scoped(name):
            w = self.parameter(f"{name}/kernel", x.shape[-1], units)
            y = ops.matmul(x, w) + self.parameter(f"{name}/bias", units)
            return activation(y) if activation else y

    def conv(self, name: str, x: Node, size: int, channels: int, activation=None) -> Node:
        with scoped(name):
            w = self.parameter(f"{name}/kernel", size, size, x.shape[-1], channels)
            y = ops.conv(x, w, padding="same") + self.parameter(f"{name}/bias", channels)
            return activation(y) if activation else y

    def classify(self, logits: Node) -> Node:
        """The loss against the input y; it and the accuracy become outputs."""
        y = input_node("y", Spec(("batch",), "int32"))
        with scoped("loss"):
            loss = ops.mean(ops.sparse_softmax_cross_entropy(logits, y))
        with scoped("metrics"):
            right = ops.equal(ops.argmax(logits, axis=-1), y)
            accuracy = ops.mean(ops.cast(right, "float32"))
        self.outputs |= {"loss": loss, "accuracy": accuracy}
        return loss

    def sgd(self, loss: Node, rate: float = 0.1, frozen: tuple[str, ...] = ()) -> None:
        """Momentum for every parameter that is not frozen."""
        trained = [v for v in self.variables if v.name not in frozen]
        slots = [self.keep(f"velocity/{v.name}", np.zeros(v._array.shape, np.float32))
                 for v in trained]  # fmt: skip
        found = gradients(loss, [v.node for v in trained])
        with scoped("sgd"):
            for v, slot, g in zip(trained, slots, found, strict=True):
                velocity = slot * 0.9 - g * rate
                self.updates |= {slot: velocity, v.node: v.node + velocity}

    def adam(self, loss: Node, rate: float = 1e-3) -> None:
        """Adam for every parameter."""
        zeros = [np.zeros(v._array.shape, np.float32) for v in self.variables]
        pairs = list(zip(self.variables, zeros, strict=True))
        step = self.keep("iterations", np.zeros((), np.int64))
        means = [self.keep(f"m/{v.name}", z) for v, z in pairs]
        squares = [self.keep(f"v/{v.name}", z) for v, z in pairs]
        found = gradients(loss, [v.node for v in self.variables])
        with scoped("adam"):
            now = step + 1
            t = ops.cast(now, "float32")
            shrink = ops.sqrt(1 - ops.power(constant(0.999), t)) / (1 - ops.power(constant(0.9), t))
            self.updates[step] = now
            for v, m, s, g in zip(self.variables, means, squares, found, strict=True):
                mean, square = m + (g - m) * 0.1, s + (ops.square(g) - s) * 0.001
                change = rate * shrink * mean / (ops.sqrt(square) + 1e-7)
                self.updates |= {m: mean, s: square, v.node: v.node - change}

    def graph(self, name: str = "train") -> Graph:
        return Graph(name, self.outputs, self.updates)

    def store(self) -> Store:
        """Parameters in one block, each family of slots in one of its own, as models lay them."""
        out = Store(fresh(self.variables))
        families: dict[str, list[Variable]] = {}
        for v in self.state:
            families.setdefault(v.name.split("/")[0], []).append(v)
        for family in families.values():
            out.add(fresh(family))
        return out


def fresh(variables: list[Variable]) -> list[Variable]:
    """Copies with the same Nodes."""
    out = []
    for v in variables:
        copy = Variable(v.name, v._array)
        copy.node = v.node
        out.append(copy)
    return out


def mlp(units: tuple[int, ...] = (32, 32)) -> Net:
    """Dense layers with ReLU and Adam; layers of equal sizes share their kernels."""
    net = Net()
    h = input_node("x", Spec(("batch", 20)))
    for k, n in enumerate(units):
        h = net.dense(f"dense_{k}", h, n, ops.relu)
    net.adam(net.classify(net.dense("head", h, 10)))
    return net


def cnn(dropout: bool = False) -> Net:
    """Convolution, max pooling, dense; with `dropout` on the features."""
    net = Net()
    h = net.conv("conv_0", input_node("x", Spec(("batch", 8, 8, 3))), 3, 8, ops.relu)
    h = ops.max_pool(h, 2)
    h = ops.max_pool(net.conv("conv_1", h, 3, 16, ops.relu), 2)
    h = ops.flatten(h)
    if dropout:
        seed = net.keep("seed", np.array([7, 0], np.int64))
        with scoped("dropout"):
            u = ops.OPS["random_uniform"](seed, shape=h.shape, dtype="float32", stream=1)
            h = ops.where(u >= 0.25, h / 0.75, 0.0)
        net.updates[seed] = seed + constant(np.array([0, 1], np.int64))
    net.sgd(net.classify(net.dense("head", h, 10)))
    return net


def softmax() -> Net:
    """One dense layer and plain gradient descent."""
    net = Net()
    loss = net.classify(net.dense("dense", input_node("x", Spec(("batch", 12))), 5))
    found = gradients(loss, [v.node for v in net.variables])
    with scoped("sgd"):
        for v, g in zip(net.variables, found, strict=True):
            net.updates[v.node] = v.node - 0.1 * g
    return net


def lstm(units: int = 12) -> Net:
    """An LSTM over six time steps whose last state is classified."""
    net = Net()
    x = ops.transpose(input_node("x", Spec(("batch", 6, 5))), (1, 0, 2))
    with scoped("lstm"):
        gates = net.dense("lstm", x, 4 * units)
        kernel = net.parameter("lstm/recurrent_kernel", units, 4 * units)
        zeros = ops.broadcast_to(0.0, (x.shape[1], units))

        def step(carries, inputs, _):
            h, c = carries
            i, f, g, o = ops.split(inputs[0] + ops.matmul(h, kernel), 4)
            c = ops.sigmoid(f) * c + ops.sigmoid(i) * ops.tanh(g)
            return [ops.sigmoid(o) * ops.tanh(c), c], []

        (last, _), _ = ops.scan(step, [zeros, zeros], [gates])
    net.sgd(net.classify(net.dense("head", last, 3)))
    return net


NETWORKS = {"mlp": mlp, "cnn": lambda: cnn(dropout=True), "softmax": softmax, "lstm": lstm}
