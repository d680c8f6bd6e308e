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


for _name in (
    "relu relu6 leaky_relu elu selu gelu silu sigmoid hard_sigmoid tanh softmax log_softmax softplus softsign mish"
).split():
    REGISTRY.items[_name] = getattr(ops, _name)
REGISTRY.items["swish"] = ops.silu
REGISTRY.items["hard_silu"] = REGISTRY.items["hard_swish"] = ops.hard_silu


def get(given: Any) -> Callable[[Node], Node]:
    """The function that a name, a configuration or a callable stands for; None is linear."""
    return linear if given is None else REGISTRY.get(given)
