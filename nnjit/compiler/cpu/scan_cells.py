"""An elementwise pass of a scan as text: what one row's columns become.

What is written is cut where a pad or a part of a concatenation begins, so that inside a cut every
column does the same; cuts of equal length share one loop over j.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise

from nnjit.compiler.cpu.scan_views import Key, operands, resolve, unfit, width
from nnjit.compiler.cpu.text import cast, dim_text, literal, stored, sum_text
from nnjit.compiler.cpu.values import ALONE, INLINE, Lines, bare, is_atom, is_number
from nnjit.graph import EXTENT, Node
from nnjit.kernels.target import CODES


@dataclass(frozen=True, eq=False)
class Segment:
    """Columns start.. of a Node that is written, `length` of them."""

    node: Node
    start: int
    length: int

    @property
    def key(self) -> Key:
        return Key(self.node, self.start, int(self.length > 1))


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
        fresh: set[Node], columns: Callable[[int], tuple[str, str]],
    ) -> None:  # fmt: skip
        """The text for the row at hand. load: the text of an element in memory. targets(n): texts
        of (name, first index of the row) to store n to. fresh: what is overwritten here.
        columns(length): texts of the first of so many columns that are done, and of their end.
        """
        self.names.clear()
        self.count = 0
        groups = self.groups
        rows = [k for k in self.keys(self.pieces) if not k.step]
        self.bind(rows, lines, load, fresh, force=True)
        for length, pieces in groups.items():
            level = lines.level
            if length > 1:
                lines.loop("j", *columns(length))
                keys = [k for k in self.keys(pieces) if k.step]
                ends = [resolve(s.key, self.known) for s in pieces for _ in targets(s.node)]
                self.bind(keys, lines, load, fresh, ends)
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
