"""Step: what a scan does at one time step, as Nodes.

A step is made from roots (the next carries and the values to stack) over leaves (the carries and
inputs at one time). What does not depend on those leaves is the same at all times: it is computed
outside, once, and becomes a constant of the step. Inside are left functions of elements, products
with a matrix, and slices and concatenations along the last axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

from nnjit.errors import ArgumentError, ShapeError
from nnjit.graph import CONSTANT, Node, input_node, rebuilt, walk
from nnjit.ops.contraction import matmul
from nnjit.ops.join import concatenate, full
from nnjit.ops.view import reshape
from nnjit.spec import FLOATS, Dim, Spec, shape_text

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Step:
    """The body of a scan. Its leaves stand for values at one time:

    carries: the state before this step, each (batch, k). inputs: the slices of the sequences, each
    (batch, k), floats or bools. constants: the same at all times: matrices (k, n) of products,
    vectors (n,), values per sample (batch, n).
    next: the carries after this step. results: what else may be stacked.
    """

    carries: tuple[Node, ...]
    inputs: tuple[Node, ...]
    constants: tuple[Node, ...]
    next: tuple[Node, ...]
    results: tuple[Node, ...] = ()

    @property
    def leaves(self) -> tuple[Node, ...]:
        return (*self.carries, *self.inputs, *self.constants)

    @property
    def batch(self) -> Dim:
        return self.carries[0].shape[0]

    def nodes(self) -> list[Node]:
        """Every Node of the body that next and results need, inputs before users."""
        return list(self._places)

    def place(self, node: Node) -> int:
        """The number of a Node in `nodes()`."""
        return self._places[node]

    def split(self, values: Sequence[T]) -> tuple[list[T], list[T], list[T]]:
        """One value per leaf as (those of carries, of inputs, of constants)."""
        a = len(self.carries)
        b = a + len(self.inputs)
        return list(values[:a]), list(values[a:b]), list(values[b:])

    @cached_property
    def _places(self) -> dict[Node, int]:
        return {n: i for i, n in enumerate(walk([*self.next, *self.results]))}

    @cached_property
    def _text(self) -> str:
        names: dict[Node, str] = {}
        for kind in ("carries", "inputs", "constants"):
            names |= {n: f"{kind}[{i}]" for i, n in enumerate(getattr(self, kind))}
        lines = [f"{name} {n.spec}" for n, name in names.items()]
        for i, n in enumerate(self.nodes()):
            if n in names:
                lines.append(f"%{i} = {names[n]}")
            else:
                text = [names[x] for x in n.inputs]
                text += [_attr(k, v) for k, v in n.attrs.items() if k != "spec"]
                lines.append(f"%{i} = {n.op.name}({', '.join(text)}) {n.spec}")
            names[n] = f"%{i}"
        for kind in ("next", "results"):
            roots = getattr(self, kind)
            lines += [f"{kind} {' '.join(names[n] for n in roots)}"] if roots else []
        return "; ".join(lines)

    def __repr__(self) -> str:
        """The whole body as text: steps of equal text compute the same."""
        return self._text


def _attr(key: str, value: Any) -> str:
    if key == "value" and hasattr(value, "tolist"):
        return f"value={value.tolist()!r}"
    return f"{key}={value!r}"


def make_step(
    carries: Sequence[Node], inputs: Sequence[Node], next: Sequence[Node], results: Sequence[Node]
) -> tuple[Step, list[Node]]:
    """The Step of these roots, and the outer values of its constants.

    carries, inputs: input leaves. The roots may read any other Nodes as well.
    """
    roots = _normal([*next, *results])
    roots, constants = _lifted(roots, [*carries, *inputs])
    step = Step(
        tuple(carries), tuple(inputs), tuple(constants), tuple(roots[: len(next)]),
        tuple(roots[len(next) :]),
    )  # fmt: skip
    _check(step)
    return step, list(constants.values())


# -------------------------------------------------------------------------------------- normal form
def _normal(roots: Sequence[Node]) -> list[Node]:
    """Sums over the last axis as products with ones, pads along it as concatenations."""
    new: dict[Node, Node] = {}
    parts: dict[Node, list[tuple[int, Node]]] = {}  # a concatenation of zeros and these
    for n in walk(roots):
        inputs = tuple(new[x] for x in n.inputs)
        if n.is_leaf:
            new[n] = n
        elif n.op.name == "sum" and n.inputs[0].rank == 2 and n.attrs["axes"] == (1,):
            ones = full((inputs[0].shape[1], 1), 1, n.dtype)
            new[n] = matmul(inputs[0], ones)
        elif n.op.name == "reshape" and n.shape == inputs[0].shape:
            new[n] = inputs[0]
        elif any(a.spec != b.spec for a, b in zip(inputs, n.inputs, strict=True)):
            raise ArgumentError("scan: a sum in the step needs keepdims=True")
        else:
            pieces = _pieces(n, inputs, parts)
            new[n] = _joined(n, pieces) if pieces else rebuilt(n, inputs)
            if pieces:
                parts[new[n]] = pieces
    return [new[r] for r in roots]


def _pieces(
    n: Node, inputs: Sequence[Node], parts: dict[Node, list[tuple[int, Node]]]
) -> list[tuple[int, Node]]:
    """(first column, Node) of what n consists of besides zeros, if it is a pad or a sum of such
    that do not overlap.
    """
    if n.op.name == "pad" and n.rank == 2 and n.attrs["value"] == 0:
        (top, (low, _, interior)) = n.attrs["widths"]
        return [(low, inputs[0])] if top == (0, 0, 0) and interior == 0 else []
    if n.op.name == "add" and all(x in parts and x.shape == n.shape for x in inputs):
        found = sorted((p for x in inputs for p in parts[x]), key=lambda p: p[0])
        ends = [start + _width(x) for start, x in found]
        if all(end <= start for end, (start, _) in zip(ends, found[1:], strict=False)):
            return found
    return []


def _width(x: Node) -> int:
    width = x.shape[-1]
    if not isinstance(width, int):
        raise ShapeError(f"scan: the last axis of {shape_text(x.shape)} must be a known number")
    return width


def _joined(n: Node, pieces: Sequence[tuple[int, Node]]) -> Node:
    """The pieces side by side, zeros between them."""
    columns: list[Node] = []
    at = 0
    for start, x in [*pieces, (_width(n), None)]:
        if start > at:
            columns.append(full((n.shape[0], start - at), 0, n.dtype))
        if x is not None:
            columns.append(x)
            at = start + _width(x)
    return concatenate(columns, 1)


# ------------------------------------------------------------------- what is the same at all times
def _lifted(roots: Sequence[Node], leaves: Sequence[Node]) -> tuple[list[Node], dict[Node, Node]]:
    """The roots with leaves in place of what depends on none of `leaves`, and {new leaf: what it
    stands for}. Numbers stay.
    """
    order = walk(roots)
    varying = set(leaves)
    for n in order:
        if any(x in varying for x in n.inputs):
            varying.add(n)
    literal: set[Node] = set()
    for n in order:
        if (n.op is CONSTANT and n.spec.size == 1) or (
            n.inputs and n.op.kind in ("elementwise", "view") and literal.issuperset(n.inputs)
        ):
            literal.add(n)
    known: dict[Node, Node] = {}

    def leaf(x: Node, user: Node | None) -> Node:
        if x in varying:
            return new[x]
        if x in literal and not (user is not None and user.op.name == "matmul"):
            return x
        if user is not None and user.op.kind == "elementwise" and (x.rank == 0 or _is_row(x)):
            shape = (x.shape[-1],) if x.rank else (1,)
            x = rows.setdefault(x, reshape(x, shape))
        return known.setdefault(x, input_node(f"constant{len(known)}", x.spec))

    new: dict[Node, Node] = {x: x for x in leaves}
    rows: dict[Node, Node] = {}
    for n in order:
        if n in varying and n not in new:
            inputs = tuple(leaf(x, n) for x in n.inputs)
            same = all(a.spec == b.spec for a, b in zip(inputs, n.inputs, strict=True))
            new[n] = rebuilt(n, inputs) if same else n.op(*inputs, **n.attrs)
    found = [leaf(r, None) for r in roots]
    return found, {leaf: x for x, leaf in known.items()}


def _is_row(x: Node) -> bool:
    return x.rank == 2 and x.shape[0] == 1


# ------------------------------------------------------------------------------------------ checks
def plain(roots: Sequence[Node]) -> list[Node]:
    """The roots with composites written out."""
    found = list(roots)
    while any(n.op.expand is not None for n in walk(found)):
        new: dict[Node, Node] = {}
        for n in walk(found):
            inputs = tuple(new[x] for x in n.inputs)
            if n.is_leaf:
                new[n] = n
            elif n.op.expand is not None:
                new[n] = n.op.expand(*inputs, **n.attrs)
            else:
                new[n] = rebuilt(n, inputs)
        found = [new[r] for r in found]
    return found


def _check(step: Step) -> None:
    """Errors for people where the body holds what a scan cannot do."""
    for i, (old, new) in enumerate(zip(step.carries, step.next, strict=True)):
        if old.spec != new.spec:
            raise ShapeError(f"scan: carry {i} is {old.spec}, the step makes it {new.spec}")
    varying = set(step.carries + step.inputs)
    constants = set(step.constants)
    for n in walk(plain([*step.next, *step.results])):
        if not any(x in varying for x in n.inputs):
            continue
        varying.add(n)
        problem = _problem(n, step.batch, constants)
        if problem:
            where = f"{n.scope}: " if n.scope else ""
            raise ArgumentError(
                f"{where}scan: the step holds {n.op.name} {n.spec} of "
                f"{', '.join(str(x.spec) for x in n.inputs)}: {problem}"
            )


def _problem(n: Node, batch: Dim, constants: set[Node]) -> str:
    """Why a Node cannot be part of a step; '' if it can."""
    a = n.attrs
    if n.rank != 2 or n.shape[0] != batch:
        return f"its values must have the shape ({batch}, features)"
    if n.op.name == "matmul":
        if a["transpose_a"] or n.inputs[1] not in constants:
            return "a product needs a value of this time on the left, a constant on the right"
        return ""
    if n.op.name == "slice":
        whole = (a["starts"][0], a["stops"][0], a["steps"]) == (0, batch, (1, 1))
        return "" if whole else "only slices of neighbours along the last axis are possible"
    if n.op.name == "concatenate":
        return "" if a["axis"] == 1 else "only the last axis can be joined"
    if n.op.kind == "elementwise" or n.op.name == "broadcast_to":
        return "" if n.dtype in (*FLOATS, "bool") else "floats and bools expected"
    return (
        "a step may hold functions of elements, products with constant matrices, sums over the "
        "last axis, and slices and concatenations along it"
    )


def leaf_like(name: str, spec: Spec) -> Node:
    """An input leaf of a step, or ShapeError."""
    if spec.rank != 2:
        raise ShapeError(f"scan: {name}: shape (batch, features) expected, got {spec}")
    return input_node(name, spec)
