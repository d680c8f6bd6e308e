"""Scan: a step repeated over time, the state of each handed to the next.

    last, stacked = scan(lambda carries, inputs, constants: ([h := …], [h]), [h0], [x])

All values of a scan are results of one family of Nodes: ("all", i) is Node i of the step's body
stacked over time, ("last", i) carry i after the last step. Sequences and stacked results are
time-major: (time, batch, features).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from nnjit.errors import ArgumentError, DTypeError, ShapeError
from nnjit.graph import CONSTANT, Meaning, Node, Scope, current_scope, enter, walk
from nnjit.ops.base import OPS, as_node, family_member, flops_of
from nnjit.ops.scan_grad import scan_grad
from nnjit.ops.step import Step, leaf_like, make_step, plain
from nnjit.ops.view import broadcast_to
from nnjit.spec import FLOATS, Dim, Spec, add, evaluate

Result = tuple[str, int]
StepFunction = Callable[[list[Node], list[Node], list[Node]], tuple[Sequence[Any], Sequence[Any]]]


# -------------------------------------------------------------------------------------------- rule
def _rule(*specs: Spec, step: Step, reverse: bool, result: Result) -> Spec:
    if len(specs) != len(step.leaves):
        raise ShapeError(f"scan: {len(step.leaves)} values expected, got {len(specs)}")
    carries, sequences, constants = step.split(specs)
    for kind, given, leaves in (("carry", carries, step.carries),
                                ("constant", constants, step.constants)):  # fmt: skip
        for i, (spec, leaf) in enumerate(zip(given, leaves, strict=True)):
            if spec != leaf.spec:
                raise ShapeError(f"scan: {kind} {i} is {spec}, its step takes {leaf.spec}")
    time = sequences[0].dims[0]
    for i, (spec, leaf) in enumerate(zip(sequences, step.inputs, strict=True)):
        want = Spec((time, *leaf.shape), leaf.dtype)
        if spec != want:
            raise ShapeError(f"scan: sequence {i} is {spec}, {want} expected")
    kind, i = result
    if kind == "last":
        return step.next[i].spec
    node = step.nodes()[i]
    return Spec((time, *node.shape), node.dtype)


def _flops(node: Node) -> Dim:
    """Those of all Nodes of the body, once per time step."""
    step = node.attrs["step"]
    total: Dim = 0
    for n in step.nodes():
        if n.rank == 2 and n.shape[0] == step.batch:
            total = add(total, flops_of(n)) or total
    return node.inputs[len(step.carries)].shape[0] * total


# ----------------------------------------------------------------------------------- NumPy meaning
def _numpy(m: Meaning, *arrays: np.ndarray, step: Step, reverse: bool, result: Result) -> Any:
    carries, sequences, constants = step.split(arrays)
    kind, i = result
    wanted = step.nodes()[i] if kind == "all" else step.next[i]
    wide = carries[0].dtype.name
    run = _program(step, wanted, None if wide == step.carries[0].dtype else wide, m.extents)
    out = np.empty(m.shape if kind == "all" else (), m.dtype)
    times = range(len(sequences[0]))
    for t in reversed(times) if reverse else times:
        *carries, value = run([*carries, *(s[t] for s in sequences), *constants])
        if kind == "all":
            out[t] = value
    return out if kind == "all" else carries[i]


def _program(
    step: Step, wanted: Node, wide: str | None, extents: Mapping[str, int]
) -> Callable[[Sequence[np.ndarray]], list[np.ndarray]]:
    """Values of the leaves -> [next carries, the wanted Node], floats in the dtype `wide`."""
    roots = plain([*step.next, wanted])
    fixed: dict[Node, np.ndarray] = {}
    todo: list[tuple[Node, Meaning]] = []
    for n in walk(roots):
        dtype = wide if wide and n.dtype in FLOATS else n.dtype
        if n.op is CONSTANT:
            fixed[n] = n.attrs["value"].astype(dtype)
        elif not n.is_leaf:
            todo.append((n, Meaning(tuple(evaluate(d, extents) for d in n.shape), dtype, extents)))

    def run(values: Sequence[np.ndarray]) -> list[np.ndarray]:
        env = {**fixed, **dict(zip(step.leaves, values, strict=True))}
        for n, meaning in todo:
            assert n.op.numpy is not None
            found = n.op.numpy(meaning, *(env[x] for x in n.inputs), **n.attrs)
            env[n] = np.asarray(found).astype(meaning.dtype, copy=False)
        return [env[r] for r in roots]

    return run


family_member(
    "scan", "scan", _rule, _numpy, scan_grad, _flops,
    "a step repeated over time: a Node of its body stacked, or a carry after the last step",
)  # fmt: skip


# ------------------------------------------------------------------------------------------ public
def scan(
    step_function: StepFunction,
    carries: Sequence[Any],
    sequences: Sequence[Any],
    constants: Sequence[Any] = (),
    reverse: bool = False,
) -> tuple[list[Node], list[Node]]:
    """(carries after the last step, stacked results).

    step_function(carries, inputs, constants) -> (next carries, results): lists of values at one
    time, each (batch, features). carries: their values before the first step. sequences: (time,
    batch, features), floats or bools. constants: handed to the function as they are; values that it
    closes over are as good. What depends on neither carries nor inputs is computed once. reverse:
    from the last time to the first; results stand at their own time.
    """
    first = [as_node(c) for c in carries]
    over = [as_node(s) for s in sequences]
    if not first or not over:
        raise ArgumentError("scan: at least one carry and one sequence expected")
    for i, c in enumerate(first):
        if c.dtype not in FLOATS:
            raise DTypeError(f"scan: carry {i} is {c.dtype}, floating point expected")
    for i, s in enumerate(over):
        if s.rank != 3 or s.dtype not in (*FLOATS, "bool"):
            raise ShapeError(
                f"scan: sequence {i}: floats or bools (time, batch, features) expected, got "
                f"{s.spec}"
            )
    olds = [leaf_like(f"carry{i}", c.spec) for i, c in enumerate(first)]
    inputs = [leaf_like(f"input{i}", Spec(s.shape[1:], s.dtype)) for i, s in enumerate(over)]
    news, results = _traced(step_function, olds, inputs, [as_node(c) for c in constants])
    step, outer = make_step(olds, inputs, news, results)
    operands = (*first, *over, *outer)

    def result(kind: str, i: int) -> Node:
        return OPS["scan"](*operands, step=step, reverse=bool(reverse), result=(kind, i))

    last = [result("last", i) for i in range(len(first))]
    return last, [result("all", step.place(r)) for r in step.results]


def _traced(
    function: StepFunction, carries: list[Node], inputs: list[Node], constants: list[Node]
) -> tuple[list[Node], list[Node]]:
    """What the function gives for these leaves, checked: (next carries, results)."""
    outer = current_scope()
    updates, losses = dict(outer.updates), len(outer.losses)
    with enter(replace(outer)) as scope:
        found = function(list(carries), list(inputs), list(constants))
    if not isinstance(found, tuple | list) or len(found) != 2:
        raise ArgumentError("scan: the step must give (next carries, results)")
    news, results = [as_node(c) for c in found[0]], [as_node(r) for r in found[1]]
    if len(news) != len(carries):
        raise ShapeError(f"scan: {len(carries)} carries, the step gives {len(news)}")
    _no_effects(scope, updates, losses, set(carries + inputs))
    batch = carries[0].shape[0]
    wide = [r.shape[-1] if r.rank else 1 for r in results]
    return news, [broadcast_to(r, (batch, k)) for r, k in zip(results, wide, strict=True)]


def _no_effects(scope: Scope, updates: Mapping, losses: int, leaves: set[Node]) -> None:
    """ArgumentError if the step leaves an update, or a loss that depends on the time."""
    changed = [leaf.name for leaf, v in scope.updates.items() if updates.get(leaf) is not v]
    if changed:
        raise ArgumentError(f"scan: the step updates {changed[0]!r}; make it a carry instead")
    if any(n in leaves for n in walk(scope.losses[losses:])):
        raise ArgumentError("scan: the step adds a loss that differs in time; stack it instead")
