"""An elementwise pass of a scan as text: what one row's columns become.

Slices, pads and concatenations along the columns are index arithmetic: a value is asked for at
column `first + step * j` of a Node, and views pass the question on. What is written is cut where a
pad or a part of a concatenation begins, so that inside a cut every column does the same; cuts of
equal length share one loop over j.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from nnjit.compiler.cpu.text import cast, dim_text, int_of, literal, stored, sum_text
from nnjit.compiler.cpu.values import ALONE, INLINE, Lines, bare, is_atom, is_number
from nnjit.errors import GraphError
from nnjit.graph import CONSTANT, EXTENT, Node, constant
from nnjit.kernels.target import CODES


class Key(NamedTuple):
    """A Node at column first + step * j of a row; step 0 is one column."""

    node: Node
    first: int
    step: int


@dataclass(frozen=True, eq=False)
class Segment:
    """Columns start.. of a Node that is written, `length` of them."""

    node: Node
    start: int
    length: int

    @property
    def key(self) -> Key:
        return Key(self.node, self.start, int(self.length > 1))


def width(n: Node) -> int:
    """Columns of a Node."""
    if n.rank and not isinstance(n.shape[-1], int):
        raise GraphError(f"scan: {n!r} in the body has an open last axis; its extent must be known")
    return int_of(n.shape[-1]) if n.rank else 1


# ------------------------------------------------------------------------------ views as questions
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


# -------------------------------------------------------------------------------------------- cuts
def cuts(n: Node, known: set[Node], memo: dict[Node, set[int]]) -> set[int]:
    """Columns inside of a Node where what it does changes."""
    if n.is_leaf or n in known or width(n) == 1:
        return set()
    if n not in memo:
        found: set[int] = set()
        end = 0
        for x in n.inputs:
            inner = cuts(x, known, memo)
            if n.op.name == "concatenate":
                found |= {c + end for c in inner | {0, width(x)}}
                end += width(x)
            elif n.op.name == "pad":
                low = n.attrs["widths"][-1][0]
                found |= {c + low for c in inner | {0, width(x)}}
            elif n.op.name == "slice":
                start, step = n.attrs["starts"][-1], n.attrs["steps"][-1]
                found |= {-(-(c - start) // step) for c in inner}
            elif n.op.name == "flip":
                found |= {width(x) - c for c in inner}
            elif width(x) == width(n):
                found |= inner
        memo[n] = {c for c in found if 0 < c < width(n)}
    return memo[n]


def segments(outputs: list[Node], known: set[Node]) -> list[Segment]:
    """What is written, cut; also where another output reads it in equal pieces, so that both are
    computed in one loop.
    """
    memo: dict[Node, set[int]] = {}
    every = {n: {0, width(n), *cuts(n, known, memo)} for n in outputs}
    while True:
        found = [Segment(n, a, b - a) for n in outputs for a, b in pairwise(sorted(every[n]))]
        asked: dict[Node, set[tuple[int, int]]] = {n: set() for n in outputs}
        for s in found:
            for key in below([s.key], known):
                if key.node in asked and key.step == 1 and not key.node.is_leaf:
                    asked[key.node].add((key.first, s.length))
        before = sum(map(len, every.values()))
        for n, pieces in asked.items():
            sizes = {length for _, length in pieces}
            if len(sizes) == 1 and all(a % size == 0 for a, size in pieces for size in sizes):
                every[n] |= {a + b for a, size in pieces for b in (0, size)}
        if sum(map(len, every.values())) == before:
            return found


def below(keys: Iterable[Key], known: set[Node]) -> Iterator[Key]:
    """All that is needed for these keys, operands first, each once."""
    done: set[Key] = set()
    stack = [(resolve(k, known), False) for k in keys][::-1]
    while stack:
        key, ready = stack.pop()
        if ready:
            yield key
        elif key not in done:
            done.add(key)
            stack.append((key, True))
            if not (key.node.is_leaf or key.node in known):
                stack += [(resolve(k, known), False) for k in reversed(operands(key))]


# -------------------------------------------------------------------------------------------- text
@dataclass(eq=False)
class Cells:
    """One pass: the Nodes that it writes, what it may load, and how it is cut."""

    outputs: list[Node]
    known: set[Node]
    pieces: list[Segment]
    names: dict[Key, str] = field(default_factory=dict)
    count: int = 0

    @property
    def groups(self) -> dict[int, list[Segment]]:
        """Pieces of equal length; what is one column comes first."""
        out: dict[int, list[Segment]] = {}
        for s in sorted(self.pieces, key=lambda s: s.length):
            out.setdefault(s.length, []).append(s)
        return out

    def keys(self, pieces: Iterable[Segment]) -> list[Key]:
        return list(below([s.key for s in pieces], self.known))

    def loads(self) -> dict[Node, None]:
        """The Nodes that are read from memory."""
        found = [k.node for k in self.keys(self.pieces)]
        return dict.fromkeys(n for n in found if self.is_load(n))

    def is_load(self, n: Node) -> bool:
        return not is_number(n) and (n.is_leaf or n in self.known)

    def safe_over(self, carry: Node, n: Node) -> bool:
        """May n be written over the carry? Each element is read before, in the same place of the
        same loop; single columns are read before all loops.
        """
        for pieces in self.groups.values():
            mine = {s.key[1:] for s in pieces if s.node is n}
            for key in self.keys(pieces):
                if key.node is carry and key.step and key[1:] not in mine:
                    return False
        return True

    def write(
        self, lines: Lines, load: Callable[[Key], str], targets: Callable[[Node], list],
        fresh: set[Node],
    ) -> None:  # fmt: skip
        """The text for the row at hand. load: the text of an element in memory. targets(n): texts
        of (name, first index of the row) to store n to. fresh: what is overwritten here.
        """
        self.names.clear()
        self.count = 0
        groups = self.groups
        rows = [k for k in self.keys(self.pieces) if not k.step]
        self.bind(rows, lines, load, fresh, force=True)
        for length, pieces in groups.items():
            level = lines.level
            if length > 1:
                lines.loop("j", "0", str(length))
                keys = [k for k in self.keys(pieces) if k.step]
                self.bind(keys, lines, load, fresh, [resolve(s.key, self.known) for s in pieces])
            for s in pieces:
                value = self.names[resolve(s.key, self.known)]
                for name, row in targets(s.node):
                    index = column(row, s.key)
                    lines.add(f"{name}[{index}] = {stored(bare(value), s.node.dtype)}")
            lines.level = level

    def bind(
        self, keys: list[Key], lines: Lines, load: Callable[[Key], str], fresh: set[Node],
        ends: Iterable[Key] = (), force: bool = False,
    ) -> None:  # fmt: skip
        """Name values in order: their own text where it is short and used once, else a local."""
        uses: dict[Key, int] = {}
        branching: set[Key] = set()
        for key in keys:
            if not self.is_load(key.node) and not key.node.is_leaf:
                expr = key.node.op.expr or ""
                for position, k in enumerate(operands(key)):
                    k = resolve(k, self.known)
                    uses[k] = uses.get(k, 0) + max(1, expr.count(f"{{{position}}}"))
                    if " if " in expr:
                        branching.add(k)
        for key in ends:
            uses[key] = uses.get(key, 0) + 1
        final = set(ends)
        for key in keys:
            if is_number(key.node):
                self.names[key] = number(key.node)
                continue
            text = load(key) if self.is_load(key.node) else self.expression(key)
            bound = force or key.node in fresh or uses.get(key, 0) > 1 or key in branching
            longest = ALONE if key in final else INLINE // 2 if " if " in text else INLINE
            if not bound and len(text) <= longest:
                self.names[key] = text if is_atom(text) else f"({text})"
                continue
            self.names[key] = f"v{self.count}"
            self.count += 1
            lines.add(f"{self.names[key]} = {bare(text)}")

    def expression(self, key: Key) -> str:
        """The text of an elementwise Node over the names of its operands."""
        n = key.node
        if n.op.kind == "index":
            axis = n.attrs["axis"]
            at = column("0", key) if axis == n.rank - 1 else "i"
            return f"{CODES[n.dtype]}({at})"
        if n.op.expr is None and n.op.name != "cast":
            raise unfit(n, "elementwise ops, views of the last axis and products")
        args = [self.names[resolve(k, self.known)] for k in operands(key)]
        if n.op.name == "cast":
            return cast(args[0], n.inputs[0].dtype, n.dtype)
        assert n.op.expr is not None
        code = CODES[n.dtype if n.op.name == "where" else n.inputs[0].dtype]
        return n.op.expr.format(*args, t=code)


def number(x: Node) -> str:
    """A scalar as it stands in the text."""
    if x.op is EXTENT:
        return f"{CODES[x.dtype]}({dim_text(x.attrs['dim'])})"
    return literal(x.attrs["value"].item(), x.dtype)


def column(row: str, key: Key) -> str:
    """The index of a key's column in a row that starts at the index `row`."""
    terms = [] if row == "0" else [(row, 1)]
    return sum_text([*terms, ("j", key.step), ("", key.first)])
