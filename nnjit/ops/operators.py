"""Python's operators on Nodes. == stays identity (Nodes are keys of dicts): use `ops.equal`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nnjit.graph import Node
from nnjit.ops import contraction, elementwise, indexing, reduce, view


def _swapped(function: Callable[..., Node]) -> Callable[..., Node]:
    return lambda a, b: function(b, a)


BINARY = {
    "add": elementwise.add,
    "sub": elementwise.subtract,
    "mul": elementwise.multiply,
    "truediv": elementwise.divide,
    "floordiv": elementwise.floor_divide,
    "mod": elementwise.mod,
    "pow": elementwise.power,
    "matmul": contraction.matmul,
    "and": elementwise.logical_and,
    "or": elementwise.logical_or,
    "xor": elementwise.logical_xor,
}
COMPARISONS = {
    "lt": elementwise.less,
    "le": elementwise.less_equal,
    "gt": elementwise.greater,
    "ge": elementwise.greater_equal,
}


def _reshape(x: Node, *shape: Any) -> Node:
    """x.reshape(2, -1) or x.reshape((2, -1))."""
    return view.reshape(x, shape[0] if len(shape) == 1 and not isinstance(shape[0], int) else shape)


def install() -> None:
    """Give Node its operators and the few methods that arrays have."""
    for name, function in BINARY.items():
        setattr(Node, f"__{name}__", lambda a, b, f=function: f(a, b))
        setattr(Node, f"__r{name}__", _swapped(function))
    for name, function in COMPARISONS.items():
        setattr(Node, f"__{name}__", lambda a, b, f=function: f(a, b))
    members: dict[str, Any] = {
        "__neg__": lambda x: elementwise.negative(x),
        "__abs__": lambda x: elementwise.absolute(x),
        "__invert__": lambda x: elementwise.logical_not(x),
        "__getitem__": indexing.index,
        "reshape": _reshape,
        "astype": elementwise.cast,
        "sum": reduce.sum,
        "mean": reduce.mean,
        "max": reduce.max,
        "min": reduce.min,
        "T": property(lambda x: view.transpose(x)),
    }
    for name, member in members.items():
        setattr(Node, name, member)
