"""The registry of ops and one factory per family.

An op is one declaration: name, expression or NumPy meaning, gradient, doc. A factory supplies what
the family shares (shape rule, promotion, cost) and returns the public function; the Op itself is
`OPS[name]`. Gradients are written `grad(dy, y, *inputs)`: Nodes in, Nodes out, one per input (a
single Node for ops of one input), None where there is none. Nothing is computed here.
"""

from __future__ import annotations

import functools
import string
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nnjit.bfloat16 import rounded
from nnjit.errors import ArgumentError, DTypeError, GraphError, ShapeError
from nnjit.graph import (
    Graph,
    Node,
    Op,
    Scope,
    constant,
    enter,
    extent_node,
    input_node,
    interpret,
)
from nnjit.spec import FLOATS, Dim, Extent, Spec, broadcast, check_dtype, computed_as

OPS: dict[str, Op] = {}

# Promotion: the result of mixing two dtypes is the one that stands later.
ORDER = ("bool", "uint8", "int32", "uint32", "int64", "uint64", "float32", "float64")
# What an op takes: the lowest dtype that operands are cast to.
TAKES = {"any": "bool", "number": "int32", "float": "float32"}

Gradient = Callable[..., Any]
Function = Callable[..., Node]


def register(op: Op) -> Op:
    """Put the op on record; a name is given once."""
    if op.name in OPS:
        raise GraphError(f"op {op.name!r} is declared twice")
    OPS[op.name] = op
    return op


def flops_of(node: Node) -> Dim:
    """Operations of a Node: what its op says, else one per element of the result; 0 for leaves."""
    if node.is_leaf:
        return 0
    return node.op.flops(node) if node.op.flops else node.spec.size


def no_gradient(dy: Node, y: Node, *inputs: Node) -> list[None]:
    """The gradient of a function that is flat almost everywhere, or that stops gradients."""
    return [None] * len(inputs)


def by_operands(grad: Gradient | None) -> Callable[[Node, Node], Sequence[Node | None]] | None:
    """grad(dy, y, *inputs) as Op.grad wants it: (node, dy) -> one entry per input."""
    if grad is None:
        return None

    def call(node: Node, dy: Node) -> Sequence[Node | None]:
        out = grad(dy, node, *node.inputs)
        return out if isinstance(out, list | tuple) else (out,)

    return call


# ---------------------------------------------------------------------------------------- operands
WEAK = (bool, int, float, Extent)


def is_weak(value: Any) -> bool:
    """Python numbers, and extents (x.shape[0]), take the dtype of what they meet."""
    return isinstance(value, WEAK)


def as_node(value: Any, dtype: str | None = None) -> Node:
    """A Node: as it is, the `.node` of a variable, or a constant of `dtype` (default: its own)."""
    if isinstance(value, Node):
        return value
    if isinstance(getattr(value, "node", None), Node):
        return value.node
    if isinstance(value, Extent):
        return extent_node(value, dtype or "int32")
    if value is None or isinstance(value, str):
        raise ArgumentError(f"expected a symbolic value, an array or a number, got {value!r}")
    try:
        return constant(value, dtype or ("int32" if type(value) is int else None))
    except OverflowError:
        raise ArgumentError(f"{value!r} does not fit into {dtype or 'int32'}") from None


def common_dtype(values: Sequence[Any], takes: str = "any") -> str:
    """The dtype that these operands meet in: Python numbers only lift the kind, as in JAX."""
    return _meeting(tuple([_kind(v) for v in values]), takes)


def _kind(value: Any) -> str:
    """A dtype; of a number "weak" and what it lifts to."""
    if isinstance(value, Node):
        return computed_as(value.dtype)
    if not is_weak(value):
        return value.dtype
    kind = "bool" if isinstance(value, bool) else "float32" if isinstance(value, float) else "int32"
    return f"weak {kind}"


@functools.lru_cache(maxsize=1024)
def _meeting(dtypes: tuple[str, ...], takes: str) -> str:
    kinds = [TAKES[takes], *(d.removeprefix("weak ") for d in dtypes if d.startswith("weak "))]
    strong = [d for d in dtypes if not d.startswith("weak ")]
    top = max(strong, key=ORDER.index) if strong else "bool"
    lift = max(kinds, key=ORDER.index)
    family = lambda d: 0 if d == "bool" else 2 if d in FLOATS else 1  # noqa: E731
    return top if strong and family(top) >= family(lift) else max(top, lift, key=ORDER.index)


def promote(*values: Any, takes: str = "any") -> tuple[Node, ...]:
    """Operands as Nodes of one dtype; see `common_dtype`."""
    if all(type(v) is Node for v in values):
        dtypes = {v.spec.dtype for v in values}
        if len(dtypes) == 1 and _meeting((*map(computed_as, dtypes),), takes) in dtypes:
            return values  # as most are
    parts = [v if is_weak(v) else as_node(v) for v in values]
    dtype = common_dtype(parts, takes)
    return tuple(as_node(v, dtype) if is_weak(v) else cast_to(v, dtype) for v in parts)


def cast_to(x: Node, dtype: str) -> Node:
    """x in `dtype`; x itself where it already is."""
    return x if x.dtype == dtype else OPS["cast"](x, dtype=dtype)


def _cast_numpy(m: Any, x: np.ndarray, dtype: str) -> np.ndarray:
    return (rounded(x) if dtype == "bfloat16" else x).astype(m.dtype)


def _cast_rule(x: Spec, *, dtype: str) -> Spec:
    return x.with_dtype(check_dtype(dtype))


def _cast_grad(dy: Node, y: Node, x: Node) -> Node | None:
    dtype = computed_as(x.dtype)
    return cast_to(dy, dtype) if dtype in FLOATS else None


# Declared here because promotion needs it; the emitter writes the conversion itself.
register(
    Op(
        "cast",
        "elementwise",
        rule=_cast_rule,
        numpy=_cast_numpy,
        grad=by_operands(_cast_grad),
        doc="x in another dtype; to bool: x != 0; floats to integers truncate; bfloat16 rounds to "
        "the nearest, ties to even",
    )
)


# ---------------------------------------------------------------------------------------- families
def same_dtype(name: str, specs: Sequence[Spec]) -> str:
    """The dtype that all specs have, or DTypeError."""
    dtypes = list(dict.fromkeys(s.dtype for s in specs))
    if len(dtypes) != 1:
        raise DTypeError(f"{name}: operands of one dtype expected, got {' and '.join(dtypes)}")
    return dtypes[0]


def number_dtype(name: str, specs: Sequence[Spec]) -> str:
    """The dtype that all specs have, or DTypeError; bfloat16 is none to calculate with."""
    dtype = same_dtype(name, specs)
    if dtype == "bfloat16":
        raise DTypeError(f"{name}: bfloat16 is for storage and products: cast it to float32")
    return dtype


def product_dtype(name: str, specs: Sequence[Spec]) -> str:
    """The dtype of a contraction's result: that of its operands; products of bfloat16 are added up,
    and kept, in float32.
    """
    return computed_as(same_dtype(name, specs))


def elementwise(
    name: str,
    expr: str,
    numpy: Callable[..., Any],
    grad: Gradient | None = no_gradient,
    *,
    takes: str = "number",
    result: str | None = None,
    doc: str,
) -> Callable[..., Node]:
    """A scalar function of operands that broadcast.

    expr: its text for the emitter; {0}, {1}.. operands, {t} the float type (f4, f8).
    takes: 'any', 'number' (bool becomes int32) or 'float' (integers become float32).
    result: the dtype of the result where it is not that of the operands.
    """
    arity = len({f for _, f, _, _ in string.Formatter().parse(expr) if f and f.isdigit()})

    def rule(*specs: Spec) -> Spec:
        dtype = number_dtype(name, specs)
        return Spec(broadcast([s.dims for s in specs], name), result or dtype)

    op = Op(name, "elementwise", rule, lambda m, *a: numpy(*a), by_operands(grad), None, None, expr)
    return _public(op, arity, takes, doc)


def _public(op: Op, arity: int, takes: str, doc: str) -> Callable[..., Node]:
    """The op's function for users: operands are converted and promoted."""
    object.__setattr__(op, "doc", doc)
    register(op)

    def call(*values: Any) -> Node:
        if len(values) != arity:
            raise TypeError(f"{op.name} takes {arity} operand(s), {len(values)} given")
        return op(*promote(*values, takes=takes))

    call.__name__ = call.__qualname__ = op.name
    call.__doc__ = doc
    return call


def view(name: str, rule: Callable, numpy: Callable, grad: Gradient, doc: str) -> Op:
    """An op that only says where elements stand; it costs nothing."""
    return register(Op(name, "view", rule, numpy, by_operands(grad), flops=lambda node: 0, doc=doc))


def computed(
    name: str,
    kind: str,
    rule: Callable,
    numpy: Callable,
    grad: Gradient | None,
    flops: Callable[[Node], Dim],
    doc: str,
) -> Op:
    """An op of another family (reduce, index, contraction, window, gather, random)."""
    return register(Op(name, kind, rule, numpy, by_operands(grad), None, flops, None, doc))


def family_member(
    name: str,
    family: str,
    rule: Callable,
    numpy: Callable,
    grad: Callable[[Sequence[Node], Sequence[Node]], Sequence[Node | None]] | None,
    flops: Callable[[Node], Dim],
    doc: str,
) -> Op:
    """An op with several results: attrs `result` says which one a Node is; see `Op.family`.

    grad(nodes, dys): the results that have a gradient, and these; one entry per input.
    """
    return register(Op(name, "family", rule, numpy, None, None, flops, None, doc, family, grad))


def composite(
    name: str, expand: Callable[..., Node], grad: Gradient | None = None, *, doc: str
) -> Op:
    """An op written with other ops; kept whole until after `grad`, which may have a closed form.

    Its shape rule and its NumPy meaning are those of the expansion.
    """

    def rule(*specs: Spec, **attrs: Any) -> Spec:
        try:
            with enter(Scope()):
                leaves = (input_node(f"x{i}", s) for i, s in enumerate(specs))
                return expand(*leaves, **attrs).spec
        except (ShapeError, DTypeError) as e:
            raise type(e)(f"{name}: {e}") from None

    def numpy(m: Any, *arrays: np.ndarray, **attrs: Any) -> np.ndarray:
        named = {f"x{i}": a for i, a in enumerate(arrays)}
        leaves = [input_node(k, Spec(a.shape, a.dtype.name)) for k, a in named.items()]
        graph = Graph(name, {"y": expand(*leaves, **attrs)})
        return interpret(graph, named)[0]["y"]

    return register(Op(name, "composite", rule, numpy, by_operands(grad), expand, None, None, doc))


# ------------------------------------------------------------------------------------------ checks
def whole_number(where: str, option: str, value: Any, low: int) -> int:
    """value as an int of at least `low`, or ArgumentError naming op and option."""
    if isinstance(value, bool | float) or not hasattr(value, "__index__") or int(value) < low:
        raise ArgumentError(f"{where}: {option}={value!r}: expected a whole number from {low}")
    return int(value)


def fixed(where: str, what: str, dim: Dim) -> int:
    """dim as an int; ShapeError where it is only known at run time."""
    if isinstance(dim, Extent):
        raise ShapeError(f"{where}: {what} must be known when the graph is built, got {dim}")
    return dim
