"""Cells: what a recurrent layer does at one time step; Keras' names, defaults, weights, gates.

A cell is a layer with `state_size` and call(inputs, states) -> (output, new states), values
(batch, features). The cells of this file also say what does not depend on the state, `project`,
which a recurrent layer computes for all times at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nnjit import activations, initializers, ops
from nnjit.errors import ArgumentError
from nnjit.graph import Node
from nnjit.layers.base import REGISTRY, Layer
from nnjit.layers.calls import leaves
from nnjit.layers.core import known, positive, settings, stream
from nnjit.spec import Dim


def share(layer: Layer, option: str, value: Any) -> float:
    """value as a rate of dropout, or ArgumentError."""
    if not isinstance(value, int | float) or not 0 <= value < 1:
        raise ArgumentError(f"{layer.name}: {option}={value!r}: expected at least 0, less than 1")
    return float(value)


class RecurrentCell(Layer):
    """Base of the cells of Keras: one kernel, one recurrent kernel and one bias for all gates.

    Weights: kernel (in, gates * units), recurrent_kernel (units, gates * units), bias. dropout and
    recurrent_dropout choose once per batch, for all times alike; with recurrent_dropout each gate
    has a choice of its own.
    """

    gates = 1
    gates_drop_alike = False
    kernel: Any
    recurrent_kernel: Any
    bias: Any

    def __init__(
        self,
        units: int,
        activation: Any = "tanh",
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        recurrent_initializer: Any = "orthogonal",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        recurrent_regularizer: Any = None,
        bias_regularizer: Any = None,
        kernel_constraint: Any = None,
        recurrent_constraint: Any = None,
        bias_constraint: Any = None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        seed: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.units = positive(self, "units", units)
        self.activation, self.use_bias = activations.get(activation), use_bias
        self._kernel = settings(kernel_initializer, kernel_regularizer, kernel_constraint)
        self._recurrent = settings(
            recurrent_initializer, recurrent_regularizer, recurrent_constraint
        )
        self._bias = settings(bias_initializer, bias_regularizer, bias_constraint)
        self.dropout = share(self, "dropout", dropout)
        self.recurrent_dropout = share(self, "recurrent_dropout", recurrent_dropout)
        self.seed = seed

    @property
    def state_size(self) -> Any:
        """The extents of the states: a number, or a list."""
        return self.units

    @property
    def output_size(self) -> int:
        return self.units

    @property
    def bias_shape(self) -> tuple[int, ...]:
        return (self.gates * self.units,)

    def build(self, input_shape):
        wide = self.gates * self.units
        parts = [
            ("kernel", (known(self, input_shape), wide), self._kernel),
            ("recurrent_kernel", (self.units, wide), self._recurrent),
            ("bias", self.bias_shape, self._bias),
        ]
        self.bias = None
        for name, shape, (initializer, regularizer, constraint) in parts:
            if name != "bias" or self.use_bias:
                weight = self.add_weight(
                    shape, initializer, name, regularizer=regularizer, constraint=constraint
                )
                setattr(self, name, weight)

    # ---------------------------------------------------------------------------------- dropout
    def _keeps(self, rate: float, shape: Sequence[Dim], training: bool) -> list[Node]:
        """What to multiply by: nothing, one value, or one per gate."""
        if not training or not rate:
            return []
        own = self.recurrent_dropout > 0 and not self.gates_drop_alike
        ones = ops.full(shape, 1, self.dtype)
        return [
            ops.dropout(ones, rate, stream=stream(self.seed))
            for _ in range(self.gates if own else 1)
        ]

    def _product(self, x: Node, keeps: Sequence[Node], w: Any, first: int, last: int) -> Node:
        """x @ w for the gates first..last-1, after dropout."""
        if len(keeps) > 1:
            parts = [self._product(x, keeps[g : g + 1], w, g, g + 1) for g in range(first, last)]
            return ops.concatenate(parts, -1)
        x = x * keeps[0] if keeps else x
        columns = self.units * first, self.units * last
        return ops.matmul(x, w if columns == (0, w.shape[1]) else w[:, columns[0] : columns[1]])

    # ----------------------------------------------------------------------------------- calling
    def input_bias(self) -> Any:
        """The part of the bias that is added to the projected inputs."""
        return self.bias

    def project(self, x: Node, training: bool = False) -> Node:
        """(…, batch, features) -> (…, batch, gates * units): the inputs' part of all gates."""
        keeps = self._keeps(self.dropout, x.shape[-2:], training)
        z = self._product(x, keeps, self.kernel, 0, self.gates)
        return z if self.bias is None else z + self.input_bias()

    def call(self, inputs, states, training=False, projected=False):
        """(output, new states). projected: `inputs` come from `project`."""
        z = inputs if projected else self.project(inputs, training)
        states = leaves(states)
        keeps = self._keeps(self.recurrent_dropout, states[0].shape, training)
        new = self.step(z, states, keeps)
        return new[0], new

    def step(self, z: Node, states: list[Node], keeps: list[Node]) -> list[Node]:
        """The new states, the first of which is the output."""
        raise NotImplementedError(f"{type(self).__name__} does not define step")


@REGISTRY.named()
class SimpleRNNCell(RecurrentCell):
    """activation(x @ kernel + bias + h @ recurrent_kernel)."""

    gates_drop_alike = True

    def step(self, z, states, keeps):
        return [self.activation(z + self._product(states[0], keeps, self.recurrent_kernel, 0, 1))]


class GatedCell(RecurrentCell):
    """Base of LSTM and GRU cells, whose gates have an activation of their own."""

    def __init__(
        self,
        units: int,
        activation: Any = "tanh",
        recurrent_activation: Any = "sigmoid",
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        recurrent_initializer: Any = "orthogonal",
        bias_initializer: Any = "zeros",
        **kwargs: Any,
    ):
        super().__init__(
            units, activation, use_bias, kernel_initializer, recurrent_initializer,
            bias_initializer, **kwargs,
        )  # fmt: skip
        self.recurrent_activation = activations.get(recurrent_activation)


@REGISTRY.named()
class GRUCell(GatedCell):
    """Gates z, r, h (Cho et al., 2014): h = z * h + (1 - z) * activation(…).

    reset_after: the reset gate is applied after the recurrent product, which has a bias of its own
    (bias (2, 3 * units)), else before it (bias (3 * units,)).
    """

    gates = 3

    def __init__(
        self,
        units: int,
        activation: Any = "tanh",
        recurrent_activation: Any = "sigmoid",
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        recurrent_initializer: Any = "orthogonal",
        bias_initializer: Any = "zeros",
        reset_after: bool = True,
        **kwargs: Any,
    ):
        super().__init__(
            units, activation, recurrent_activation, use_bias, kernel_initializer,
            recurrent_initializer, bias_initializer, **kwargs,
        )  # fmt: skip
        self.reset_after = reset_after

    @property
    def bias_shape(self):
        return (2, 3 * self.units) if self.reset_after else (3 * self.units,)

    def input_bias(self):
        return self.bias[0] if self.reset_after else self.bias

    def step(self, z, states, keeps):
        (h,), u = states, self.units
        if self.reset_after:
            inner = self._product(h, keeps, self.recurrent_kernel, 0, 3)
            inner = inner if self.bias is None else inner + self.bias[1]
        else:
            inner = self._product(h, keeps, self.recurrent_kernel, 0, 2)
        update = self.recurrent_activation(z[:, :u] + inner[:, :u])
        reset = self.recurrent_activation(z[:, u : 2 * u] + inner[:, u : 2 * u])
        if self.reset_after:
            again = reset * inner[:, 2 * u :]
        else:
            again = self._product(reset * h, keeps[-1:], self.recurrent_kernel, 2, 3)
        new = self.activation(z[:, 2 * u :] + again)
        return [update * h + (1 - update) * new]


@REGISTRY.named()
class LSTMCell(GatedCell):
    """Gates i, f, c, o (Hochreiter and Schmidhuber, 1997); states h, c.

    unit_forget_bias: the forget gate's bias begins as 1.
    """

    gates = 4

    def __init__(
        self,
        units: int,
        activation: Any = "tanh",
        recurrent_activation: Any = "sigmoid",
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        recurrent_initializer: Any = "orthogonal",
        bias_initializer: Any = "zeros",
        unit_forget_bias: bool = True,
        **kwargs: Any,
    ):
        super().__init__(
            units, activation, recurrent_activation, use_bias, kernel_initializer,
            recurrent_initializer, bias_initializer, **kwargs,
        )  # fmt: skip
        self.unit_forget_bias = unit_forget_bias
        if unit_forget_bias:
            self._bias = (ForgetBias(self._bias[0]), *self._bias[1:])

    @property
    def state_size(self):
        return [self.units, self.units]

    def step(self, z, states, keeps):
        h, c = states
        z = z + self._product(h, keeps, self.recurrent_kernel, 0, 4)
        i, f, new, o = ops.split(z, 4)
        kept = self.recurrent_activation(f) * c
        c = kept + self.recurrent_activation(i) * self.activation(new)
        return [self.recurrent_activation(o) * self.activation(c), c]


class ForgetBias(initializers.Initializer):
    """A bias of four gates, ones for the second, the others from another initializer."""

    def __init__(self, inner: Any):
        self.inner = inner

    def values(self, shape, rng):
        units = shape[0] // 4

        def part(n: int) -> Any:
            if isinstance(self.inner, initializers.Initializer):
                return self.inner((n,), "float64", rng)
            return self.inner((n,), "float64")

        return np.concatenate([part(units), np.ones(units), part(2 * units)])
