"""Attention of one value to another, without projections; Keras' names, defaults and weights."""

from __future__ import annotations

import math
from typing import Any

from nnjit import ops
from nnjit.errors import ArgumentError, ShapeError
from nnjit.graph import Node
from nnjit.layers.attention_base import as_bool
from nnjit.layers.base import REGISTRY, Layer
from nnjit.layers.core import known, stream
from nnjit.ops.attention_plain import weights_of
from nnjit.spec import shape_text


@REGISTRY.named()
class Attention(Layer):
    """softmax(scores(query, key)) @ value, called on [query, value] or [query, value, key].

    Each of shape (batch, time, features). score_mode: "dot", query @ key.T, or "concat", the sum of
    tanh(query + key) over features, times the weight concat_score_weight (). use_scale: the weight
    scale () multiplies the dot product, or query + key. mask: [of the query, of the value]; a
    query that is masked, or that sees no key, gives 0. dropout: share of the weights that is
    dropped in training. With "dot", and neither dropout nor return_attention_scores, no value of
    queries x keys is made.
    """

    supports_masking = True

    def __init__(
        self,
        use_scale: bool = False,
        score_mode: str = "dot",
        dropout: float = 0.0,
        seed: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if score_mode not in ("dot", "concat"):
            raise ArgumentError(
                f"{self.name}: score_mode={score_mode!r}: expected 'dot' or 'concat'"
            )
        if not isinstance(dropout, int | float) or not 0 <= dropout < 1:
            raise ArgumentError(
                f"{self.name}: dropout={dropout!r}: expected at least 0 and less than 1"
            )
        self.use_scale, self.score_mode = bool(use_scale), score_mode
        self.dropout, self.seed = dropout, seed

    def build(self, input_shape):
        self.scale = self.add_weight((), "ones", "scale") if self.use_scale else None
        self.concat_score_weight = None
        if self.score_mode == "concat":
            self.concat_score_weight = self.add_weight((), "ones", "concat_score_weight")

    def call(
        self, inputs, mask=None, training=False, return_attention_scores=False,
        use_causal_mask=False,
    ):  # fmt: skip
        query, value, key = self._parts(inputs)
        masks = list(mask) if isinstance(mask, list | tuple) else [mask]
        query_mask, value_mask = [None if m is None else as_bool(m) for m in [*masks, None][:2]]
        dropping = training and self.dropout > 0
        scores = None
        if self.score_mode == "dot" and not dropping and not return_attention_scores:
            out = self._kernel(query, key, value, value_mask, use_causal_mask)
        else:
            scores = self._weights(query, key, value_mask, use_causal_mask)
            used = (
                ops.dropout(scores, self.dropout, stream=stream(self.seed)) if dropping else scores
            )
            out = ops.matmul(used, value)
        if query_mask is not None:
            out = ops.where(ops.expand_dims(query_mask, -1), out, 0)
        return (out, scores) if return_attention_scores else out

    def _parts(self, inputs: Any) -> tuple[Node, Node, Node]:
        if not isinstance(inputs, list | tuple) or len(inputs) not in (2, 3):
            raise ArgumentError(
                f"{self.path}: expected a list [query, value] or [query, value, key], got "
                + (f"{len(inputs)} values" if isinstance(inputs, list | tuple) else repr(inputs))
            )
        if any(x.rank != 3 for x in inputs):
            shapes = ", ".join(shape_text(x.shape) for x in inputs)
            raise ShapeError(f"{self.path}: shapes (batch, time, features) expected, got {shapes}")
        return inputs[0], inputs[1], inputs[-1]

    def _kernel(self, query: Node, key: Node, value: Node, mask: Node | None, causal: bool) -> Node:
        """The op, with one head."""
        query = query if self.scale is None else query * self.scale
        q, k, v = (ops.expand_dims(x, 2) for x in (query, key, value))
        if mask is not None:
            mask = ops.expand_dims(mask, (1, 2))
        return ops.squeeze(ops.dot_product_attention(q, k, v, mask, 1.0, causal), 2)

    def _weights(self, query: Node, key: Node, mask: Node | None, causal: bool) -> Node:
        """(batch, queries, keys); 0 in the row of a query that sees no key."""
        s = self._scores(query, key)
        if mask is not None:
            s = ops.where(ops.expand_dims(mask, 1), s, -math.inf)
        if causal:
            shape = s.shape[1:]
            s = ops.where(ops.iota(shape, axis=0) >= ops.iota(shape, axis=1), s, -math.inf)
        return weights_of(s, ops.logsumexp(s, -1, keepdims=True))

    def _scores(self, query: Node, key: Node) -> Node:
        if self.score_mode == "dot":
            s = ops.matmul(query, key, transpose_b=True)
            return s if self.scale is None else s * self.scale
        pairs = ops.expand_dims(query, 2) + ops.expand_dims(key, 1)
        pairs = pairs if self.scale is None else pairs * self.scale
        return ops.sum(ops.tanh(pairs), -1) * self.concat_score_weight

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> Any:
        """That of the query."""
        given = previous_mask if isinstance(previous_mask, list | tuple) else [previous_mask]
        return given[0] if given else None


@REGISTRY.named()
class AdditiveAttention(Attention):
    """softmax(sum(scale * tanh(query + key))) @ value (Bahdanau et al., 2015), over features.

    Called on [query, value] or [query, value, key], see `Attention`. Weight: scale (features), if
    use_scale. Inference makes no value of queries x keys x features; training keeps the tanh, which
    is one.
    """

    def __init__(self, use_scale: bool = True, dropout: float = 0.0, **kwargs: Any):
        super().__init__(use_scale=use_scale, score_mode="concat", dropout=dropout, **kwargs)

    def build(self, input_shape):
        self.scale = None
        if self.use_scale:
            self.scale = self.add_weight((known(self, input_shape[0]),), None, "scale")

    def _scores(self, query: Node, key: Node) -> Node:
        pairs = ops.tanh(ops.expand_dims(query, 2) + ops.expand_dims(key, 1))
        return ops.sum(pairs if self.scale is None else pairs * self.scale, -1)
