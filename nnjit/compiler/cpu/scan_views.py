"""Where a column of a value comes from: views along the columns as index arithmetic.

A value is asked for at column `first + step * j` of a Node. Slices, flips, pads, concatenations and
broadcasts pass the question on to one of their inputs, so they cost nothing.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from nnjit.compiler.cpu.text import int_of
from nnjit.errors import GraphError
from nnjit.graph import CONSTANT, Node, constant


class Key(NamedTuple):
    """A Node at column first + step * j of a row; step 0 is one column."""

    node: Node
    first: int
    step: int


def width(n: Node) -> int:
    """Columns of a Node."""
    if n.rank and not isinstance(n.shape[-1], int):
        raise GraphError(f"scan: {n!r} in the body has an open last axis; its extent must be known")
    return int_of(n.shape[-1]) if n.rank else 1


def resolve(key: Key, known: set[Node]) -> Key:
    """The key of what is computed or loaded for it: views are passed through, sums with padding are
    the other operand.
    """
    while True:
        n = key.node
        if n.is_leaf or n in known:
            return Key(n, 0, 0) if width(n) == 1 else key
        if width(n) == 1:
            key = Key(n, 0, 0)
        found = through(key, known)
        if found is None:
            return key
        key = found


def through(key: Key, known: set[Node]) -> Key | None:
    """One step of `resolve`; None where the Node computes something itself."""
    n = key.node
    if n.op.name in VIEWS:
        return VIEWS[n.op.name](key)
    if n.op.name == "add":
        left, right = (resolve(k, known) for k in operands(key))
        for a, b in ((left, right), (right, left)):
            if a.node.op is CONSTANT and not np.any(a.node.attrs["value"]):
                return b
    return None


def beside(x: Node, key: Key) -> Key:
    """An operand at the same column, by NumPy's rule of broadcasting."""
    return Key(x, 0, 0) if width(x) == 1 else Key(x, key.first, key.step)


def operands(key: Key) -> list[Key]:
    """The keys of a Node's inputs, for what is no view."""
    return [beside(x, key) for x in key.node.inputs]


def sliced(key: Key) -> Key:
    n, x = key.node, key.node.inputs[0]
    a = n.attrs
    cuts = list(zip(a["starts"], a["stops"], a["steps"], x.shape, strict=True))
    if any(start != 0 or stop != d or step != 1 for start, stop, step, d in cuts[:-1]):
        raise unfit(n, "slices along the last axis")
    start, _, step, _ = cuts[-1]
    return Key(x, start + step * key.first, step * key.step)


def flipped(key: Key) -> Key:
    n, x = key.node, key.node.inputs[0]
    if set(n.attrs["axes"]) - {n.rank - 1}:
        raise unfit(n, "flips of the last axis")
    last = width(x) - 1 if n.attrs["axes"] else 0
    return Key(x, last - key.first, -key.step)


def padded(key: Key) -> Key:
    n, x = key.node, key.node.inputs[0]
    *others, (low, _, interior) = n.attrs["widths"]
    if interior or any(map(any, others)):
        raise unfit(n, "padding of the last axis, none between elements")
    if low <= key.first < low + width(x):
        return beside(x, Key(n, key.first - low, key.step))
    return Key(filler(n.attrs["value"], n.dtype), 0, 0)


@functools.lru_cache(maxsize=64)
def filler(value: float, dtype: str) -> Node:
    """What a pad puts beside: one Node for equal values."""
    return constant(value, dtype)


def part(key: Key) -> Key:
    n, first = key.node, key.first
    if n.attrs["axis"] != n.rank - 1:
        raise unfit(n, "concatenation along the last axis")
    for x in n.inputs:
        if first < width(x):
            return beside(x, Key(n, first, key.step))
        first -= width(x)
    raise AssertionError(key)


def renamed(key: Key) -> Key:
    n, x = key.node, key.node.inputs[0]
    if without_ones(n.shape) != without_ones(x.shape):
        raise unfit(n, "reshapes that only add leading axes of extent 1")
    return beside(x, key)


def without_ones(shape: tuple) -> tuple:
    while len(shape) > 1 and shape[0] == 1:
        shape = shape[1:]
    return shape or (1,)


def unfit(n: Node, expected: str) -> GraphError:
    return GraphError(f"scan: the body has {n!r} {dict(n.attrs)}; {expected} can be in a body")


VIEWS: dict[str, Callable[[Key], Key]] = {
    "slice": sliced,
    "flip": flipped,
    "pad": padded,
    "concatenate": part,
    "reshape": renamed,
    "broadcast_to": lambda key: beside(key.node.inputs[0], key),
}
