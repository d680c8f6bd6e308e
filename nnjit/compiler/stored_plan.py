"""A Plan as what a file can hold, and back: JSON for its structure, plain bytes for constants.

What comes back runs, lists and prints as the Plan did that was stored. Its graph after all passes
is not in it: who asks for that (checks, tests) has it compiled.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple
from typing import Any

import numpy as np

from nnjit.compiler.chains import Chain
from nnjit.compiler.groups import Buffer, Launch
from nnjit.compiler.plan import Plan, Strip, align
from nnjit.graph import CONSTANT, INPUT, PARAMETER, STATE, Graph, Node
from nnjit.kernels.template import Template
from nnjit.spec import Dim, Extent, Spec

VERSION = 3  # of what `encode` writes
LEAVES = {op.name: op for op in (INPUT, PARAMETER, STATE)}


def encode(plan: Plan) -> tuple[dict[str, Any], bytes]:
    """The Plan as JSON values and the bytes of its constants."""
    return _Encoder().plan(plan)


class _Encoder:
    """Numbers for what is shared: templates, buffers, constants."""

    def __init__(self) -> None:
        self.templates: dict[Template, int] = {}
        self.buffers: dict[Buffer, int] = {}
        self.rows: list[list[Any]] = []  # of the buffers
        self.constants: list[list[Any]] = []
        self.data = bytearray()

    def plan(self, plan: Plan) -> tuple[dict[str, Any], bytes]:
        meta: dict[str, Any] = {
            "version": VERSION,
            "name": plan.name,
            "symbols": plan.symbols,
            "launches": [self.launch(x) for x in plan.launches],
            "lives": [[self.buffer(b), *life] for b, life in plan.lives.items()],
            "strips": [
                [[[self.buffer(b), at] for b, at in s.offsets.items()], s.span]
                for s in plan.strips
            ],
            "outputs": [[name, self.buffer(b)] for name, b in plan.outputs.items()],
            "leaves": [[name, self.leaf(n)] for name, n in plan.leaves.items()],
            "chains": [[c.first, c.count] for c in plan.chains],
        }  # fmt: skip
        meta["templates"] = [astuple(t) for t in self.templates]
        meta["buffers"] = self.rows
        meta["constants"] = self.constants
        return meta, bytes(self.data)

    def launch(self, x: Launch) -> list[Any]:
        template = self.templates.setdefault(x.template, len(self.templates))
        buffers = [self.buffer(b) for b in x.buffers]
        flops = [_dim(f) for f in x.flops]
        members = [self.launch(m) for m in x.members]
        return [
            template, buffers, sorted(x.writes), x.scopes, x.ops, flops, x.flat, members,
            x.merged_trip, x.walk,
        ]  # fmt: skip

    def buffer(self, b: Buffer) -> int:
        if b not in self.buffers:
            self.buffers[b] = len(self.buffers)
            node = self.constant(b.node) if b.kind == "constant" and b.node is not None else None
            self.rows.append([b.name, b.kind, *_spec(b.spec), node, b.elements])
        return self.buffers[b]

    def leaf(self, n: Node) -> list[Any]:
        if n.op is CONSTANT:
            return [n.op.name, self.constant(n), *_spec(n.spec)]
        return [n.op.name, n.name, *_spec(n.spec)]

    def constant(self, n: Node) -> int:
        value = n.attrs["value"]
        self.data += bytes(align(len(self.data)) - len(self.data))
        self.constants.append([value.dtype.str, value.shape, len(self.data), *_spec(n.spec)])
        self.data += value.tobytes()
        return len(self.constants) - 1


def decode(
    meta: Mapping[str, Any], data: bytes, origin: Callable[[], tuple[Graph, Mapping]], key: str
) -> Plan:
    """The Plan that was encoded. ValueError, LookupError or TypeError where it is none."""
    if meta["version"] != VERSION:
        raise ValueError(f"version {meta['version']} of plans, expected {VERSION}")
    constants = [_constant(row, data) for row in meta["constants"]]
    templates = [_template(row) for row in meta["templates"]]
    buffers = [
        Buffer(
            name, kind, Spec(_dims(shape), dtype), None if node is None else constants[node],
            elements,
        )
        for name, kind, shape, dtype, node, elements in meta["buffers"]
    ]  # fmt: skip
    strips = [Strip({buffers[b]: at for b, at in s}, span) for s, span in meta["strips"]]
    return Plan(
        meta["name"],
        tuple(meta["symbols"]),
        tuple(_launch(row, templates, buffers) for row in meta["launches"]),
        {buffers[b]: (first, last) for b, first, last in meta["lives"]},
        tuple(strips),
        {name: buffers[b] for name, b in meta["outputs"]},
        {name: _leaf(row, constants) for name, row in meta["leaves"]},
        origin,
        key,
        tuple([Chain(first, count) for first, count in meta["chains"]]),
    )


def same_places(own: Sequence[Launch], other: Sequence[Launch]) -> dict[Buffer, Buffer]:
    """The buffers of `other` by those of `own`: launches of one graph, compiled twice."""
    found: dict[Buffer, Buffer] = {}
    for a, b in zip(own, other, strict=True):
        found |= zip(a.buffers, b.buffers, strict=True)
        found |= same_places(a.members, b.members)
    return found


def _launch(row: Sequence[Any], templates: list[Template], buffers: list[Buffer]) -> Launch:
    template, used, writes, scopes, ops, flops, flat, members, merged, walk = row
    return Launch(
        templates[template],
        tuple([buffers[b] for b in used]),
        frozenset(writes),
        tuple(scopes),
        ops,
        _dims(flops),  # type: ignore[arg-type]
        flat,
        tuple([_launch(m, templates, buffers) for m in members]),
        merged,
        walk,
    )


def _template(row: Sequence[Any]) -> Template:
    name, doc, imports, symbols, params, body, trip, scratch, grain, stages, sizes = row
    pairs, numbers = (tuple((name, x) for name, x in listed) for listed in (params, sizes))
    return Template(
        name, doc, tuple(imports), tuple(symbols), pairs, tuple(body), trip, scratch, grain, stages,
        numbers,
    )  # fmt: skip


def _constant(row: Sequence[Any], data: bytes) -> Node:
    kind, shape, at, *spec = row
    dtype = np.dtype(kind)
    count = int(np.prod(shape))
    value = np.frombuffer(data, dtype, count, at).reshape(shape)
    named = Spec(_dims(spec[0]), spec[1])
    return Node(CONSTANT, (), {"value": value, "spec": named}, named)


def _leaf(row: Sequence[Any], constants: list[Node]) -> Node:
    op, name, shape, dtype = row
    if op == CONSTANT.name:
        return constants[name]
    spec = Spec(_dims(shape), dtype)
    return Node(LEAVES[op], (), {"name": name, "spec": spec}, spec)


def _spec(spec: Spec) -> tuple[list[Any], str]:
    return [_dim(d) for d in spec.dims], spec.dtype


def _dim(d: Dim) -> int | list[Any]:
    """An int as it is, an extent as [factor, symbols]."""
    return [d.factor, d.symbols] if isinstance(d, Extent) else d


def _dims(rows: Sequence[Any]) -> tuple[Dim, ...]:
    return tuple([d if isinstance(d, int) else Extent(d[0], tuple(d[1])) for d in rows])
