"""What the multi-head attention layers share: projections, masks, and the attention in between."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from nnjit import ops
from nnjit.errors import ArgumentError, ShapeError
from nnjit.graph import Node
from nnjit.layers.base import Layer
from nnjit.layers.calls import masked
from nnjit.layers.core import known, positive, settings, stream
from nnjit.ops.attention_plain import combined, plain_weights
from nnjit.spec import product, shape_text

Shape = Sequence[int | None]


class Projection(Layer):
    """x @ kernel + bias over the last `bound` axes of x, as one matrix product.

    Weights: kernel (the bound axes, *outputs), bias (outputs).
    """

    def __init__(
        self, outputs: Sequence[int], bound: int, use_bias: bool, kernel: tuple, bias: tuple,
        **kwargs: Any,
    ):  # fmt: skip
        super().__init__(**kwargs)
        self.outputs, self.bound, self.use_bias = tuple(outputs), bound, use_bias
        self._kernel, self._bias = kernel, bias

    def build(self, input_shape):
        inner = [known(self, input_shape, -a) for a in range(self.bound, 0, -1)]
        initializer, regularizer, constraint = self._kernel
        self.kernel = self.add_weight(
            (*inner, *self.outputs), initializer, "kernel", regularizer=regularizer,
            constraint=constraint,
        )  # fmt: skip
        self.bias = None
        if self.use_bias:
            initializer, regularizer, constraint = self._bias
            self.bias = self.add_weight(
                self.outputs, initializer, "bias", regularizer=regularizer, constraint=constraint
            )

    def call(self, x):
        lead, inner = x.shape[: x.rank - self.bound], x.shape[x.rank - self.bound :]
        if inner != self.kernel.shape[: self.bound]:
            raise ShapeError(
                f"{self.path}: expected last axes {shape_text(self.kernel.shape[: self.bound])}, "
                f"got {shape_text(x.shape)}"
            )
        depth, columns = product(inner), product(self.outputs)
        rows = ops.reshape(x, (product(lead), depth))
        y = ops.matmul(rows, ops.reshape(self.kernel, (depth, columns)))
        if self.bias is not None:
            y = y + ops.reshape(self.bias, (columns,))
        return ops.reshape(y, (*lead, *self.outputs))


class HeadsAttention(Layer):
    """Base class: project query, key and value to heads, attend, project back.

    Sublayers, in the order of their weights: query, key, gate (if asked for), value,
    attention_output.
    """

    supports_masking = True

    heads: int
    kv_heads: int
    depth: int
    value_depth: int
    dropout: float
    outputs: tuple[int, ...] | None
    axes: tuple[int, ...] | None

    def settle(
        self, dropout: float, use_bias: bool, sliding_window: int | None,
        flash_attention: bool | None, use_gate: bool, seed: int | None, kernel: tuple, bias: tuple,
        activity_regularizer: Any,
    ) -> None:  # fmt: skip
        """Keep the options that all such layers have."""
        if not isinstance(dropout, int | float) or not 0 <= dropout < 1:
            raise ArgumentError(
                f"{self.name}: dropout={dropout!r}: expected at least 0 and less than 1"
            )
        if flash_attention and dropout > 0:
            raise ArgumentError(
                f"{self.name}: flash_attention=True with dropout={dropout}: dropping weights needs "
                "them all, which this option rules out"
            )
        self.dropout, self.use_bias, self.use_gate, self.seed = dropout, use_bias, use_gate, seed
        self.flash_attention = flash_attention
        self.sliding_window = (
            None if sliding_window is None else positive(self, "sliding_window", sliding_window)
        )
        self._kernel, self._bias = settings(*kernel), settings(*bias)
        self._activity_regularizer = activity_regularizer
        self._made = False

    # ---------------------------------------------------------------------------------- weights
    def build(self, query_shape, value_shape=None, key_shape=None):
        """Without the shape of the value the weights are made by the first call, which knows it."""
        if value_shape is None or self._made:
            return
        key_shape = value_shape if key_shape is None else key_shape
        if tuple(value_shape[1:-1]) != tuple(key_shape[1:-1]):
            raise ShapeError(
                f"{self.path}: value {shape_text(value_shape)} and key {shape_text(key_shape)} "
                "must have the same axes but for the last one"
            )
        own = (self.kv_heads, self.depth)
        self.query_dense = self._projection("query", (self.heads, self.depth), query_shape)
        self.key_dense = self._projection("key", own, key_shape)
        self.gate_dense = None
        if self.use_gate:
            gate = (self.heads, self.value_depth)
            self.gate_dense = self._projection("gate", gate, query_shape)
        self.value_dense = self._projection("value", (self.kv_heads, self.value_depth), value_shape)
        outputs = self.outputs or (known(self, query_shape),)
        shape = (*query_shape[:-1], self.heads, self.value_depth)
        self.output_dense = self._projection("attention_output", outputs, shape, 2)
        self._made = True

    def _projection(
        self, name: str, outputs: Sequence[int], shape: Shape, bound: int = 1
    ) -> Projection:
        layer = Projection(
            outputs, bound, self.use_bias, self._kernel, self._bias, name=name, dtype=self.dtype,
            activity_regularizer=self._activity_regularizer, trainable=self.trainable,
        )  # fmt: skip
        self.adopt([layer])
        layer.build(shape)
        layer.built = True
        return layer

    def compute_output_shape(
        self, input_shape: Any, value_shape: Any = None, key_shape: Any = None
    ) -> tuple[int | None, ...]:
        """Shape of the result for these shapes of query, value (default the query's) and key."""
        self.build(input_shape, input_shape if value_shape is None else value_shape, key_shape)
        return (*input_shape[:-1], *(self.outputs or (input_shape[-1],)))

    # ------------------------------------------------------------------------------------- call
    def call(
        self,
        query,
        value,
        key=None,
        query_mask=None,
        value_mask=None,
        key_mask=None,
        attention_mask=None,
        return_attention_scores=False,
        training=False,
        use_causal_mask=False,
    ):
        key = value if key is None else key
        shapes = [tuple(d if isinstance(d, int) else None for d in x.shape)
                  for x in (query, value, key)]  # fmt: skip
        self._check(query, value, key, return_attention_scores)
        self.build(*shapes)
        masks = [query_mask, value_mask, key_mask, attention_mask]
        visible = self._mask(query, value, *masks)
        gate = self.gate_dense(query) if self.gate_dense is not None else None
        q, k, v = self.query_dense(query), self.key_dense(key), self.value_dense(value)
        out, scores = self._attend(
            q, k, v, visible, query_mask, use_causal_mask, return_attention_scores, training
        )
        if gate is not None:
            out = out * ops.sigmoid(gate)
        y = masked(self.output_dense(out), query_mask)
        return (y, scores) if return_attention_scores else y

    def _check(self, query: Node, value: Node, key: Node, scores: bool) -> None:
        if self.flash_attention and scores:
            raise ArgumentError(
                f"{self.path}: return_attention_scores=True with flash_attention=True: no scores "
                "are kept then"
            )
        if query.rank < 3 or not query.rank == value.rank == key.rank:
            shapes = ", ".join(shape_text(x.shape) for x in (query, value, key))
            raise ShapeError(
                f"{self.path}: query, value and key of shape (batch, time, features) expected, "
                f"got {shapes}"
            )

    def _mask(
        self, query: Node, value: Node, query_mask: Any, value_mask: Any, key_mask: Any,
        attention_mask: Any,
    ) -> Node | None:  # fmt: skip
        """Which keys a query may see, (batch or 1, heads or 1, queries or 1, keys)."""
        found = []
        given = {"query_mask": query_mask, "value_mask": value_mask, "key_mask": key_mask,
                 "attention_mask": attention_mask,
                 "sliding_window": self.sliding_window}  # fmt: skip
        names = [name for name, m in given.items() if m is not None]
        if names and query.rank != 3:
            raise ShapeError(
                f"{self.path}: {names[0]}: masks need inputs of shape (batch, time, features), "
                f"got {shape_text(query.shape)}"
            )
        for m in (value_mask, key_mask):
            if m is not None:
                m = as_bool(m)
                found.append(ops.reshape(m, (m.shape[0], 1, 1, m.shape[1])))
        if attention_mask is not None:
            m = as_bool(attention_mask)
            if m.rank not in (2, 3, 4):
                raise ShapeError(
                    f"{self.path}: attention_mask of shape (batch, queries, keys) expected, got "
                    f"{shape_text(m.shape)}"
                )
            where = {2: (1, 1, *m.shape), 3: (m.shape[0], 1, *m.shape[1:]), 4: m.shape}[m.rank]
            found.append(ops.reshape(m, where))
        if self.sliding_window is not None:
            shape = (1, 1, query.shape[1], value.shape[1])
            apart = ops.iota(shape, axis=2) - ops.iota(shape, axis=3)
            found.append(ops.abs(apart) < self.sliding_window)
        if not found:
            return None
        visible = found[0]
        for m in found[1:]:
            visible = ops.logical_and(visible, m)
        return visible

    def _attend(
        self, q: Node, k: Node, v: Node, visible: Node | None, query_mask: Any, causal: bool,
        return_scores: bool, training: bool,
    ) -> tuple[Node, Node | None]:  # fmt: skip
        """The heads' results in the shape of the query, and scores if asked for."""
        fold = Fold.of(self, q)
        shapes = q.shape, k.shape, v.shape
        q, k, v = fold.to(q), fold.to(k), fold.to(v)
        scale = 1.0 / math.sqrt(self.depth)
        dropping = training and self.dropout > 0
        scores: Node | None = None
        if dropping or return_scores:
            weights, _ = plain_weights(q, k, visible, scale, causal)
            used = weights
            if dropping:
                used = ops.dropout(weights, self.dropout, stream=stream(self.seed))
            out = combined(used, v)
            scores = fold.scores(weights, shapes[0], shapes[1]) if return_scores else None
        else:
            out = ops.dot_product_attention(q, k, v, visible, scale, causal)
        if query_mask is not None:
            m = as_bool(query_mask)
            batch, time = m.shape
            out = ops.where(ops.reshape(m, (batch, time, 1, 1)), out, 0)
            if scores is not None:
                scores = ops.where(ops.reshape(m, (batch, 1, time, 1)), scores, 0)
        return fold.back(out, shapes[0]), scores


def as_bool(mask: Any) -> Node:
    """A mask as a bool Node: numbers are True where they are not 0."""
    node = ops.as_node(mask)
    return node if node.dtype == "bool" else ops.cast(node, "bool")


class Fold:
    """(batch, *axes, heads, depth) as (batch and other axes, attended axes, heads, depth)."""

    def __init__(self, others: list[int], axes: list[int]):
        self.others, self.axes = others, axes
        self.order = (0, *others, *axes, len(others) + len(axes) + 1, len(others) + len(axes) + 2)

    @classmethod
    def of(cls, layer: HeadsAttention, q: Node) -> Fold:
        """The axes that a layer attends over in a projected value."""
        rank = q.rank - 1
        every = list(range(1, rank - 1))
        axes = every if layer.axes is None else [a if a >= 0 else rank + a for a in layer.axes]
        if not axes or any(a not in every for a in axes) or len(set(axes)) != len(axes):
            raise ArgumentError(
                f"{layer.path}: attention_axes={layer.axes}: expected axes of {every}, which lie "
                "between batch and features"
            )
        return cls([a for a in every if a not in axes], axes)

    def to(self, x: Node) -> Node:
        x = ops.transpose(x, self.order) if self.order != tuple(range(x.rank)) else x
        batch = product([x.shape[i] for i in range(1 + len(self.others))])
        time = product([x.shape[1 + len(self.others) + i] for i in range(len(self.axes))])
        return ops.reshape(x, (batch, time, *x.shape[-2:]))

    def back(self, x: Node, shape: Sequence) -> Node:
        """The opposite of `to`, for a query of this shape."""
        x = ops.reshape(x, (*(shape[a] for a in self.order[:-2]), *x.shape[-2:]))
        inverse = tuple(self.order.index(a) for a in range(x.rank))
        return ops.transpose(x, inverse) if inverse != tuple(range(x.rank)) else x

    def scores(self, weights: Node, query: Sequence, key: Sequence) -> Node:
        """(batch, other axes, heads, axes of queries, axes of keys)."""
        lead = [query[a] for a in (0, *self.others)]
        times = [shape[a] for shape in (query, key) for a in self.axes]
        return ops.reshape(weights, (*lead, weights.shape[1], *times))
