"""Multi-head and grouped-query attention; Keras' names, defaults, weight order and shapes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nnjit.errors import ArgumentError
from nnjit.layers.attention_base import HeadsAttention
from nnjit.layers.base import REGISTRY
from nnjit.layers.core import positive

NOTES = """
    Call: layer(query, value, key=value, query_mask=, value_mask=, key_mask=, attention_mask=,
    return_attention_scores=False, use_causal_mask=False), each of shape (batch, time, features).
    Masks that layers before have given are used; attention_mask is True at the keys that a query
    sees, of shape (batch, queries, keys) or what broadcasts to (batch, heads, queries, keys). With
    use_causal_mask query i sees the keys j <= i. A query that is masked, or that sees no key, gets
    0 before the last projection.

    No value of queries x keys is made, whatever flash_attention is, except where the weights
    themselves are needed: while training with dropout, and with return_attention_scores. Then
    profile and plan show them as matrix products and a softmax; a sliding_window makes a mask of
    queries x keys. flash_attention=True makes the first two an error.
"""


@REGISTRY.named()
class MultiHeadAttention(HeadsAttention):
    """Attention of `num_heads` heads (Vaswani et al., 2017).

    Weights: query and key kernel (features, heads, key_dim), bias (heads, key_dim); value alike
    with value_dim; attention_output kernel (heads, value_dim, *output_shape) and bias.
    output_shape: default the query's features. attention_axes: the axes between batch and features
    to attend over, default all; masks need inputs of rank 3. use_gate: sigmoid of one more
    projection of the query multiplies the heads' results.
    """

    __doc__ += NOTES

    def __init__(
        self,
        num_heads: int,
        key_dim: int,
        value_dim: int | None = None,
        dropout: float = 0.0,
        use_bias: bool = True,
        output_shape: int | Sequence[int] | None = None,
        attention_axes: int | Sequence[int] | None = None,
        sliding_window: int | None = None,
        flash_attention: bool | None = None,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        bias_constraint: Any = None,
        use_gate: bool = False,
        seed: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.num_heads = self.heads = self.kv_heads = positive(self, "num_heads", num_heads)
        self.key_dim = self.depth = positive(self, "key_dim", key_dim)
        self.value_dim = key_dim if value_dim is None else positive(self, "value_dim", value_dim)
        self.value_depth = self.value_dim
        self.outputs = None
        if output_shape:
            given = [output_shape] if isinstance(output_shape, int) else list(output_shape)
            self.outputs = tuple(positive(self, "output_shape", d) for d in given)
        if isinstance(attention_axes, int):
            attention_axes = (attention_axes,)
        self.axes = None if attention_axes is None else tuple(attention_axes)
        self.settle(
            dropout, use_bias, sliding_window, flash_attention, use_gate, seed,
            (kernel_initializer, kernel_regularizer, kernel_constraint),
            (bias_initializer, bias_regularizer, bias_constraint), activity_regularizer,
        )  # fmt: skip


@REGISTRY.named("GroupQueryAttention")
class GroupedQueryAttention(HeadsAttention):
    """Attention where each key and value head serves several query heads (Ainslie et al., 2023).

    Weights: query kernel (features, num_query_heads, head_dim) and bias; key and value alike with
    num_key_value_heads; attention_output kernel (num_query_heads, head_dim, features) and bias.
    Keys and values are not repeated in memory. Keras exports it as GroupQueryAttention.
    """

    __doc__ += NOTES

    def __init__(
        self,
        head_dim: int,
        num_query_heads: int,
        num_key_value_heads: int,
        dropout: float = 0.0,
        use_bias: bool = True,
        sliding_window: int | None = None,
        flash_attention: bool | None = None,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        bias_constraint: Any = None,
        use_gate: bool = False,
        seed: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.head_dim = self.depth = self.value_depth = positive(self, "head_dim", head_dim)
        self.heads = positive(self, "num_query_heads", num_query_heads)
        self.kv_heads = positive(self, "num_key_value_heads", num_key_value_heads)
        if self.heads % self.kv_heads:
            raise ArgumentError(
                f"{self.name}: num_query_heads={num_query_heads} is no multiple of "
                f"num_key_value_heads={num_key_value_heads}"
            )
        self.outputs, self.axes = None, None
        self.settle(
            dropout, use_bias, sliding_window, flash_attention, use_gate, seed,
            (kernel_initializer, kernel_regularizer, kernel_constraint),
            (bias_initializer, bias_regularizer, bias_constraint), activity_regularizer,
        )  # fmt: skip
