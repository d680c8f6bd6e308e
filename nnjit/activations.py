"""Activation functions by name: Node -> Node. The functions themselves are ops."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nnjit import ops
from nnjit.graph import Node
from nnjit.registry import Registry

REGISTRY = Registry("activation")


@REGISTRY.named()
def linear(x: Node) -> Node:
    """x"""
    return x


@REGISTRY.named()
def exponential(x: Node) -> Node:
    """e ** x"""
    return ops.exp(x)


REGISTRY.items |= {
    "celu": ops.celu, "elu": ops.elu, "gelu": ops.gelu, "glu": ops.glu,
    "hard_shrink": ops.hard_shrink, "hard_sigmoid": ops.hard_sigmoid, "hard_silu": ops.hard_silu,
    "hard_swish": ops.hard_silu, "hard_tanh": ops.hard_tanh, "leaky_relu": ops.leaky_relu,
    "log_sigmoid": ops.log_sigmoid, "log_softmax": ops.log_softmax, "mish": ops.mish,
    "relu": ops.relu, "relu6": ops.relu6, "selu": ops.selu, "sigmoid": ops.sigmoid,
    "silu": ops.silu, "soft_shrink": ops.soft_shrink, "softmax": ops.softmax,
    "softplus": ops.softplus, "softsign": ops.softsign, "sparse_plus": ops.sparse_plus,
    "squareplus": ops.squareplus, "swish": ops.silu, "tanh": ops.tanh,
    "tanh_shrink": ops.tanh_shrink,
}  # fmt: skip


def get(given: Any) -> Callable[[Node], Node]:
    """The function that a name, a configuration or a callable stands for; None is linear."""
    return linear if given is None else REGISTRY.get(given)
