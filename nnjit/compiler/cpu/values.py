"""The text of values inside a kernel: loads, expressions, locals.

A value is bound once per place: to a local, or, where it is short and used once, to its own text.
`Values` knows the parameters of the kernel under construction and what each key (a Node of the
group, or a use of something outside of it) is called at the moment.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from nnjit.compiler.cpu.access import (
    Access,
    Loop,
    depth,
    guard_text,
    index_text,
    plain,
    through_view,
)
from nnjit.compiler.cpu.text import cast, dim_text, literal, load, tidy
from nnjit.compiler.groups import Fusion, Group
from nnjit.compiler.maps import INDEX_VIEWS, input_maps
from nnjit.graph import CONSTANT, EXTENT, Node
from nnjit.kernels.target import CODES
from nnjit.spec import Dim, Extent

Use = tuple[Node, tuple[int, ...]]  # something outside of the group, seen through an axis map
Key = Node | Use
INLINE = 44  # longest text that stays where it is used
ALONE = 56  # the same where it is all that is stored
LINE = 50  # longest load and condition in one line
COSTLY = re.compile(
    r"\b(exp|expm1|log|log1p|tanh|sigmoid|softplus|erf|normal_[cp]df|sin|cos|pow)_|philox"
)


def is_atom(text: str) -> bool:
    """A name, number, call, load or parenthesis: can an operator stand beside it?"""
    head = re.match(r"\w*(\.\w+)?", text)
    rest = text[head.end() :] if head else text
    level = 0
    for k, c in enumerate(rest):
        level += (c in "([") - (c in ")]")
        if level == 0 and k < len(rest) - 1 and not (c == ")" and rest[k + 1] == "["):
            return False
    return level == 0


def bare(text: str) -> str:
    """Without parentheses around the whole."""
    return text[1:-1] if text.startswith("(") and is_atom(text) else text


class Lines:
    """Kernel text under construction: lines and the current indentation."""

    def __init__(self) -> None:
        self.text: list[str] = []
        self.level = 0

    def add(self, line: str) -> None:
        self.text.append("    " * self.level + tidy(line))

    def loop(self, name: str, first: str, last: str, step: str = "") -> None:
        """Open `for name in range(first, last)`."""
        bounds = ", ".join(s for s in (first if first != "0" or step else "", last, step) if s)
        self.add(f"for {name} in range({bounds}):")
        self.level += 1


def is_number(x: Node) -> bool:
    """A scalar that is written into the text."""
    return x.op is EXTENT or (x.op is CONSTANT and x.attrs["value"].size == 1)


class Values:
    """Names of values in one kernel of one group."""

    def __init__(self, fusion: Fusion, group: Group, nodes: list[Node]):
        self.fusion, self.group, self.nodes = fusion, group, nodes  # the group's, in graph order
        inner = range(len(group.domain) - group.inner, len(group.domain))
        self.inner = {a for a in inner if group.domain[a] != 1}
        self.keys: dict[Node, list[Key]] = {n: self.operands(n) for n in self.nodes}
        self.access: dict[Key, Access] = {}
        for n in self.nodes:
            if n.op.name in INDEX_VIEWS:
                self.access[n] = through_view(n, group.nodes[n])
            for key in self.keys[n]:
                if isinstance(key, tuple):
                    self.access[key] = plain(key[0].shape, key[1])
        # What a `where` chooses from is read before: a load behind a condition is a branch.
        self.chosen = {k for n in self.nodes if n.op.name == "where" for k in self.keys[n][1:]}
        self.params: dict[Node, str] = {}  # base Node of a buffer -> parameter
        self.fresh: set[Node] = set()  # buffers read and written: loads must come before stores
        self.names: dict[Key, str] = {}
        self.count = 0
        self.flat = False  # whether the kernel is for any extents, so that their factors are sizes
        self.factors: dict[int, str] = {}

    def operands(self, n: Node) -> list[Key]:
        """For each input: the Node if it is computed here (or a number), else its use."""
        if n.op.name in INDEX_VIEWS or n.op.kind == "random":
            return []
        if n.op.kind == "reduce" and self.group.kind == "sink":
            x = n.inputs[0]
            maps = [tuple(-1 if d == 1 else i for i, d in enumerate(x.shape))]
        else:
            maps = input_maps(n, self.group.nodes[n], sorted(self.inner))
        return [
            x if x in self.group.nodes or x is self.group.head or is_number(x) else (x, m)
            for x, m in zip(n.inputs, maps, strict=True)
        ]

    def buffers_read(self) -> list[Node]:
        """The base Nodes of all buffers that the group reads, in order of first use."""
        out: dict[Node, None] = {}
        for n in self.nodes:
            if n.op.name in INDEX_VIEWS or n.op.kind == "random":
                out[self.fusion.base(n.inputs[0])] = None
            for key in self.keys[n]:
                if isinstance(key, tuple):
                    out[self.fusion.base(key[0])] = None
        return list(out)

    def own_access(self, n: Node) -> Access:
        """Where n lies in its own buffer."""
        return plain(n.shape, self.group.nodes[n])

    def extent(self, d: Dim, text: Callable[[Dim], str] = dim_text) -> str:
        """An extent that is computed with: one flat kernel serves 64 * batch and 256 * batch."""
        if not self.flat or isinstance(d, int) or d.factor == 1:
            return text(d)
        more = len(self.factors)
        name = self.factors.setdefault(d.factor, f"factor{more + 1}" if more else "factor")
        return f"{name} * {text(Extent(1, d.symbols))}"

    def local(self) -> str:
        self.count += 1
        return f"v{self.count - 1}"

    # -- binding
    def bind(
        self, key: Key, text: str, uses: int, lines: Lines, force: bool = False, alone: bool = False
    ) -> None:
        """Name a value: its own text where short and used once, else a new local.

        alone: the text will stand in a line of its own, so that it may be longer.
        """
        longest = ALONE if alone else INLINE // 2 if " if " in text else INLINE
        force = force or (key in self.chosen and "[" in text)
        if not force and uses <= 1 and len(text) <= longest:
            self.names[key] = text if is_atom(text) else f"({text})"
            return
        if re.fullmatch(r"\w+|[a-z]\d\([-\w.]+\)", text):
            self.names[key] = text
            return
        self.names[key] = self.local()
        lines.add(f"{self.names[key]} = {bare(text)}")

    def load_text(self, key: Key, loops: list[Loop], lines: Lines) -> str:
        """The load of a use, or of a view's element, at the current place.

        Where the element may not exist, the condition is named first if it is long.
        """
        access = self.access[key]
        node = key[0] if isinstance(key, tuple) else key.inputs[0]
        name = self.params[self.fusion.base(node)]
        text = load(name, index_text(access, loops), node.dtype)
        guard = guard_text(access, loops)
        if guard:
            assert isinstance(key, Node)
            if len(text) + len(guard) > LINE:
                inside = self.local()
                lines.add(f"{inside} = {guard}")
                guard = inside
            text = f"{text} if {guard} else {literal(key.attrs['value'], key.dtype)}"
        return text

    def bind_use(self, key: Key, loops: list[Loop], uses: int, lines: Lines) -> None:
        node = key[0] if isinstance(key, tuple) else key.inputs[0]
        force = self.fusion.base(node) in self.fresh or depth(self.access[key], loops) < len(loops)
        self.bind(key, self.load_text(key, loops, lines), uses, lines, force)

    def name(self, key: Key) -> str:
        """The text of an operand at the current place."""
        if isinstance(key, Node) and is_number(key):
            if key.op is EXTENT:
                return f"{CODES[key.dtype]}({self.extent(key.attrs['dim'])})"
            return literal(key.attrs["value"].item(), key.dtype)
        return self.names[key]

    def expression(self, n: Node, loops: list[Loop]) -> str:
        """The text of a pointwise Node over the names of its operands."""
        args = [self.name(k) for k in self.keys[n]]
        if n.op.name == "cast":
            return cast(args[0], n.inputs[0].dtype, n.dtype)
        if n.op.kind == "index":
            axis = self.group.nodes[n][n.attrs["axis"]]
            index = next((loop.name for loop in loops if axis in loop.axes), "0")
            return f"{CODES[n.dtype]}({index})"
        if n.op.kind == "random":
            rng = self.params[self.fusion.base(n.inputs[0])]
            code = CODES[n.dtype]
            kind = n.op.name.removeprefix("random_")
            index = index_text(self.own_access(n), loops)
            if n.inputs[0].shape == (3,):
                index = f"{rng}_first + {index}"
            return f"philox_{kind}_{code}({rng}_seed, {n.attrs['stream']}, {rng}_step, {index})"
        if n.op.kind == "view":
            return args[0]
        assert n.op.expr is not None, n
        code = CODES[n.inputs[0].dtype] if n.inputs else CODES[n.dtype]
        if n.op.name == "where":
            code = CODES[n.dtype]
        return n.op.expr.format(*args, t=code)

    def occurrences(self, nodes: Iterable[Node]) -> dict[Key, int]:
        """How often the text of each key stands in the expressions of these Nodes."""
        out: dict[Key, int] = {}
        for n in nodes:
            for i, key in enumerate(self.keys[n]):
                times = n.op.expr.count(f"{{{i}}}") if n.op.expr else 1
                times = 3 if n.op.name.startswith("arg") else times
                out[key] = out.get(key, 0) + times
        return out


def is_costly(n: Node) -> bool:
    """Is recomputing n dearer than keeping it in scratch?"""
    return n.op.kind == "random" or bool(n.op.expr and COSTLY.search(n.op.expr))
