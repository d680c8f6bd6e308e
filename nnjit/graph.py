"""The graph: Op, Node, Graph, Scope; building, walking, verifying and interpreting them.

A Node is immutable and compared by identity. Operators (+, *, @, …) build Nodes; `nnjit.ops`
installs them. A Graph is one whole step: named outputs, and updates that give leaves (parameters,
state) their next values. Leaves are inputs, parameters, state, constants and extents.
"""

from __future__ import annotations

import contextvars
import functools
from collections.abc import Callable, Container, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from nnjit.errors import DTypeError, GraphError, ShapeError
from nnjit.spec import Dim, Spec, computed_as, evaluate, shape_text, symbols_of

LEAVES = ("input", "parameter", "state", "constant", "extent")


@dataclass(frozen=True)
class Meaning:
    """What a NumPy meaning may need besides operands: the result's shape and dtype, symbols."""

    shape: tuple[int, ...]
    dtype: str
    extents: Mapping[str, int]


@dataclass(frozen=True, eq=False)
class Op:
    """One operation. `nnjit.ops` has a decorator per family that fills the fields in.

    kind: leaf, elementwise, index, reduce, view, contraction, window, gather, random, family,
    composite or call.
    rule(*specs, **attrs) -> Spec. numpy(meaning, *arrays, **attrs) -> array.
    grad(node, dy) -> one gradient Node (or None) per input; `nnjit.autodiff` undoes broadcasting.
    expand(*inputs, **attrs) -> Node, composites only.
    flops(node) -> Dim, multiply and add counted apart.
    expr: elementwise only, the scalar expression that the emitter writes: "{0} + {1}".
    family: what has several results is a family of Nodes: the same family, inputs and attrs but for
    `result`. One kernel computes them all, and family_grad(nodes, dys) is asked once for all of
    those that have a gradient.
    """

    name: str
    kind: str
    rule: Callable[..., Spec]
    numpy: Callable[..., Any] | None = None
    grad: Callable[[Node, Node], Sequence[Node | None]] | None = None
    expand: Callable[..., Node] | None = None
    flops: Callable[[Node], Dim] | None = None
    expr: str | None = None
    doc: str = ""
    family: str = ""
    family_grad: Callable[[Sequence[Node], Sequence[Node]], Sequence[Node | None]] | None = None

    def __repr__(self) -> str:
        return self.name

    def __call__(self, *inputs: Node, **attrs: Any) -> Node:
        """A Node of this op; its shape rule is checked: a ShapeError names scope, op and shapes."""
        try:
            spec = self.rule(*(x.spec for x in inputs), **attrs)
        except (ShapeError, TypeError) as e:
            where = f"{current_scope().name}: " if current_scope().name else ""
            if where and not str(e).startswith(where):
                raise type(e)(f"{where}{e}") from None
            raise
        return Node(self, tuple(inputs), attrs, spec, current_scope().name)


class Node:
    """One value: op, inputs, attrs, spec, and the scope (layer) that asked for it. Immutable."""

    __slots__ = ("__weakref__", "attrs", "inputs", "op", "scope", "spec")
    __array_ufunc__ = None  # ndarray + Node goes to Node.__radd__

    def __init__(
        self, op: Op, inputs: tuple[Node, ...], attrs: Mapping, spec: Spec, scope: str = ""
    ):
        self.op, self.inputs, self.attrs, self.spec, self.scope = op, inputs, attrs, spec, scope

    @property
    def shape(self) -> tuple[Dim, ...]:
        return self.spec.dims

    @property
    def dtype(self) -> str:
        return self.spec.dtype

    @property
    def rank(self) -> int:
        return self.spec.rank

    @property
    def ndim(self) -> int:
        return self.spec.rank

    @property
    def name(self) -> str:
        """A leaf's name; '' for anything else."""
        return self.attrs.get("name", "")

    @property
    def is_leaf(self) -> bool:
        return self.op.kind == "leaf"

    def __repr__(self) -> str:
        label = f" {self.name!r}" if self.name else ""
        return f"<{self.op.name}{label} {self.spec}>"

    def __bool__(self) -> bool:
        raise TypeError(
            "a symbolic value has no truth value: use nnjit.ops.where, or compare its .shape"
        )

    def __iter__(self) -> Iterator[Node]:
        raise TypeError("a symbolic value cannot be iterated: slice it, x[i]")

    if TYPE_CHECKING:  # installed by nnjit.ops.operators
        T: Node

        def _operator(self, *operands: Any, **options: Any) -> Node: ...

        __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = _operator
        __truediv__ = __rtruediv__ = __floordiv__ = __rfloordiv__ = _operator
        __mod__ = __rmod__ = __pow__ = __rpow__ = __matmul__ = __rmatmul__ = _operator
        __and__ = __rand__ = __or__ = __ror__ = __xor__ = __rxor__ = _operator
        __lt__ = __le__ = __gt__ = __ge__ = __getitem__ = _operator
        __neg__ = __abs__ = __invert__ = reshape = astype = sum = mean = max = min = _operator


def _leaf(name: str) -> Op:
    return Op(name, "leaf", rule=lambda *, spec, **_: spec)


INPUT, PARAMETER, STATE, CONSTANT, EXTENT = map(_leaf, LEAVES)


def input_node(name: str, spec: Spec) -> Node:
    """A leaf that is given anew at each run."""
    return INPUT(name=name, spec=spec)


def parameter_node(name: str, spec: Spec) -> Node:
    """A leaf that the optimizer updates."""
    return PARAMETER(name=name, spec=spec)


def state_node(name: str, spec: Spec) -> Node:
    """A leaf that keeps its value between runs: optimizer slots, running statistics, counters."""
    return STATE(name=name, spec=spec)


def constant(value: Any, dtype: str | None = None) -> Node:
    """A leaf with a value: a number (shape ()) or an array, kept as a read-only array."""
    if dtype == "bfloat16":
        raise DTypeError("no constant is bfloat16: cast a float32 one")
    array = np.array(value, dtype=dtype)
    if (
        dtype is None
        and array.dtype == np.float64
        and not isinstance(value, np.ndarray | np.float64)
    ):
        array = array.astype(np.float32)
    array.flags.writeable = False
    return CONSTANT(value=array, spec=Spec(array.shape, array.dtype.name))


def extent_node(dim: Dim, dtype: str = "float32") -> Node:
    """A scalar with the value of a dim: `mean` divides by it."""
    return constant(dim, dtype) if isinstance(dim, int) else EXTENT(dim=dim, spec=Spec((), dtype))


# ------------------------------------------------------------------------------------------ scope
@dataclass
class Scope:
    """Where Nodes are built: the layer's name, training or not, updates and losses it leaves.

    masks: which samples and time steps of a value are meant, where a layer said so: bool Nodes.
    """

    name: str = ""
    training: bool = False
    updates: dict[Node, Node] = field(default_factory=dict)
    losses: list[Node] = field(default_factory=list)
    random: Node | None = None
    streams: list[int] = field(default_factory=lambda: [0])
    masks: dict[Node, Node] = field(default_factory=dict)

    def update(self, leaf: Node, value: Node) -> None:
        """At the end of the step `leaf` becomes `value`."""
        if leaf.op not in (PARAMETER, STATE):
            raise GraphError(f"{leaf!r} cannot be updated: only parameters and state can")
        if leaf.spec != value.spec:
            raise ShapeError(f"update of {leaf.name!r}: {leaf.spec} becomes {value.spec}")
        self.updates[leaf] = value

    def stream(self) -> int:
        """A number that no other random op of this graph has."""
        self.streams[0] += 1
        return self.streams[0]


_scope: contextvars.ContextVar[Scope] = contextvars.ContextVar("nnjit_scope")


def current_scope() -> Scope:
    """The innermost scope; outside of any, a plain one that keeps nothing."""
    return _scope.get(None) or Scope()


@contextmanager
def enter(scope: Scope) -> Iterator[Scope]:
    """Build Nodes in this scope."""
    token = _scope.set(scope)
    try:
        yield scope
    finally:
        _scope.reset(token)


@contextmanager
def scoped(name: str) -> Iterator[Scope]:
    """A named scope inside of the current one; it shares updates, losses, streams and masks."""
    outer = current_scope()
    full = f"{outer.name}/{name}" if outer.name else name
    with enter(replace(outer, name=full)) as inner:
        yield inner


# ------------------------------------------------------------------------------------------ graph
@dataclass(frozen=True, eq=False)
class Graph:
    """One whole step: named outputs, and the next values of leaves."""

    name: str
    outputs: Mapping[str, Node]
    updates: Mapping[Node, Node] = field(default_factory=dict)

    @property
    def roots(self) -> list[Node]:
        return [*self.outputs.values(), *self.updates.values()]

    def nodes(self) -> list[Node]:
        """Every Node that a root needs, inputs before users."""
        return [*self._walked]

    _walked = functools.cached_property(lambda self: walk(self.roots))  # a start asks seven times

    def leaves(self, *names: str) -> list[Node]:
        """Leaves of these op names (default: all), updated ones too, in order of first use."""
        found = [n for n in self.nodes() if n.is_leaf]
        seen = set(found)
        found += [n for n in self.updates if n not in seen]
        return [n for n in found if not names or n.op.name in names]

    @property
    def symbols(self) -> tuple[str, ...]:
        """The run-time symbols of the inputs, sorted."""
        return symbols_of([d for n in self.leaves("input") for d in n.shape])


def walk(roots: Iterable[Node], stop: Container[Node] = ()) -> list[Node]:
    """Nodes below roots in topological order, not looking below `stop`; no recursion."""
    order: list[Node] = []
    done: set[Node] = set()
    stack: list[Node | None] = [*reversed([*roots])]
    while stack:
        node = stack.pop()
        if node is None:  # below the None is a Node whose inputs are all in order
            order.append(stack.pop())  # type: ignore[arg-type]
        elif node not in done:
            done.add(node)
            stack += (node, None)
            if node not in stop:
                stack += [x for x in node.inputs[::-1] if x not in done]
    return order


def siblings(nodes: Iterable[Node]) -> dict[Node, list[Node]]:
    """For each Node that belongs to a family, all Nodes of that family, in the order given."""
    families: dict[Hashable, list[Node]] = {}
    for n in nodes:
        if n.op.family:
            attrs = sorted((k, repr(v)) for k, v in n.attrs.items() if k != "result")
            families.setdefault((n.op.family, n.inputs, *attrs), []).append(n)
    return {n: group for group in families.values() for n in group}


def users(nodes: Iterable[Node]) -> dict[Node, list[Node]]:
    """For each Node, the Nodes that read it."""
    out: dict[Node, list[Node]] = {}
    for n in nodes:
        out.setdefault(n, [])
        for x in n.inputs:
            out.setdefault(x, []).append(n)
    return out


def rewrite(graph: Graph, rule: Callable[[Node, tuple[Node, ...]], Node]) -> Graph:
    """The graph with each non-leaf Node replaced by rule(node, new inputs), inputs first."""
    new: dict[Node, Node] = {}
    for n in graph.nodes():
        new[n] = n if n.is_leaf else rule(n, tuple(new[x] for x in n.inputs))
    outputs = {k: new[v] for k, v in graph.outputs.items()}
    return Graph(graph.name, outputs, {leaf: new[v] for leaf, v in graph.updates.items()})


def rebuilt(node: Node, inputs: tuple[Node, ...]) -> Node:
    """The Node with other inputs of the same specs; itself if they are the same."""
    if all(a is b for a, b in zip(inputs, node.inputs, strict=True)):
        return node
    return Node(node.op, inputs, node.attrs, node.spec, node.scope)


def verify(graph: Graph) -> None:
    """GraphError unless every spec is what its rule gives, symbols are bound and updates fit."""
    bound = set(graph.symbols)
    for n in graph.nodes():
        if n.is_leaf:
            continue
        spec = n.op.rule(*(x.spec for x in n.inputs), **n.attrs)
        if spec != n.spec:
            raise GraphError(f"{graph.name}: {n!r} in {n.scope!r}: its rule gives {spec}")
        free = set(symbols_of(n.shape)) - bound
        if free:
            raise GraphError(f"{graph.name}: {n!r} has {sorted(free)}, which no input has")
    for leaf, value in graph.updates.items():
        if leaf.op not in (PARAMETER, STATE) or leaf.spec != value.spec:
            raise GraphError(f"{graph.name}: update of {leaf!r} by {value!r}")


def bind_symbols(pairs: Iterable[tuple[str, Spec, tuple[int, ...]]]) -> dict[str, int]:
    """Values of the symbols, from (name, spec, actual shape); a ShapeError names the input."""
    values: dict[str, int] = {}
    for name, spec, shape in pairs:
        fits = len(shape) == spec.rank
        for want, got in zip(spec.dims, shape, strict=False):
            if isinstance(want, int):
                fits &= want == got
            elif len(want.symbols) == 1:
                value, rest = divmod(got, want.factor)
                fits &= rest == 0 and values.setdefault(want.symbols[0], value) == value
        if not fits:
            known = {s: v for s, v in values.items() if s in symbols_of(spec.dims)}
            hint = f" with {known}" if known else ""
            raise ShapeError(
                f"input {name!r}: expected shape {shape_text(spec.dims)}{hint}, "
                f"got {shape_text(shape)}"
            )
    return values


# ---------------------------------------------------------------------------------- interpretation
def interpret(
    graph: Graph, values: Mapping[str, Any], dtype: str | None = None, trace: dict | None = None
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Run each op's NumPy meaning: (outputs by name, updated leaves by name).

    values: arrays by leaf name. dtype: "float64" computes every float in float64.
    trace: filled with Node -> array.
    """
    leaves = graph.leaves("input", "parameter", "state")
    arrays = {n.name: np.asarray(values[n.name]) for n in leaves}
    extents = bind_symbols((n.name, n.spec, arrays[n.name].shape) for n in graph.leaves("input"))

    env: dict[Node, np.ndarray] = {} if trace is None else trace
    with np.errstate(all="ignore"):
        for n in graph.nodes():
            kind = dtype if dtype and "float" in n.dtype else computed_as(n.dtype)
            if n.op is CONSTANT:
                env[n] = n.attrs["value"].astype(kind)
            elif n.op is EXTENT:
                env[n] = np.asarray(evaluate(n.attrs["dim"], extents), kind)
            elif n.is_leaf:
                env[n] = arrays[n.name].astype(kind, copy=False)
            else:
                env[n] = value_of(n, [env[x] for x in n.inputs], extents, kind)
    outputs = {name: env[n] for name, n in graph.outputs.items()}
    return outputs, {leaf.name: env[n] for leaf, n in graph.updates.items()}


def value_of(
    n: Node, inputs: Sequence[np.ndarray], extents: Mapping[str, int], kind: str
) -> np.ndarray:
    """The NumPy meaning of one Node that is no leaf, in the dtype `kind`."""
    meaning = Meaning(tuple(evaluate(d, extents) for d in n.shape), kind, extents)
    if n.op.numpy is None:
        raise GraphError(f"{n!r} has no NumPy meaning: expand composites first")
    out = np.asarray(n.op.numpy(meaning, *inputs, **n.attrs))
    if out.shape != meaning.shape:
        raise GraphError(f"{n!r}: its NumPy meaning gave shape {out.shape}")
    return out.astype(kind, copy=False)
