"""Contractions and what follows them, as recipes: bias and simple finals in registers, the rest
while y is in L1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from nnjit.compiler.cpu.follow import Follow, analyse, whole
from nnjit.compiler.cpu.naming import words_of
from nnjit.compiler.cpu.recipes import conv_of, recipe_of
from nnjit.compiler.cpu.text import math_imports, stored
from nnjit.compiler.cpu.values import Key, Lines, Values
from nnjit.compiler.groups import Buffer, Group, nominal_bytes
from nnjit.compiler.walks import walk_of
from nnjit.graph import PARAMETER, Node
from nnjit.kernels.recipe import SUMS, Epilogue, Recipe
from nnjit.kernels.target import CODES
from nnjit.spec import Dim, Extent

if TYPE_CHECKING:
    from nnjit.compiler.cpu.lower import Lowering

BEFORE = ("pack", "pair_", "round_")  # names of launches that only lay out or round an operand
STEADY_BYTES = 128 * 1024  # of an operand from which packing it once pays


def short_name(n: Node, follow: Follow, apart: bool) -> str:
    """'dense_relu_batch_784_512_f4': the op, what the tile does last, the extents."""
    words = [n.op.name]
    if follow.bias is not None:
        words.append("bias")
    if follow.final != "store":
        words.append(follow.final)
    words += ["update"] if apart else words_of(follow.rest) if follow.rest else []
    if n.op.name == "matmul":
        a = n.inputs[0]
        kind = "TN" if n.attrs["transpose_a"] else "NT" if n.attrs["transpose_b"] else ""
        if n.attrs["transpose_a"] and n.attrs["transpose_b"]:
            kind = "TT"
        depth = a.shape[-2] if n.attrs["transpose_a"] else a.shape[-1]
        words += [w for w in (kind,) if w]
        dims: Sequence[Dim] = (*n.shape[:-1], depth, n.shape[-1])
    else:
        conv = conv_of(n)
        dims = (conv.H, conv.W, conv.C, conv.O)
        words.append(f"k{conv.KH}x{conv.KW}")
        if conv.stride != (1, 1):
            words.append(f"s{conv.stride[0]}x{conv.stride[1]}")
    return "_".join([*words, *(word(d) for d in dims), CODES[n.inputs[0].dtype]])


def word(d: Dim) -> str:
    return str(d).replace("*", "x") if isinstance(d, Extent) else str(d)


class Tail:
    """The Nodes that are left, as lines over one element of y: `Epilogue.tail`."""

    def __init__(
        self,
        low: Lowering,
        group: Group,
        values: Values,
        follow: Follow,
        outputs: list[Node],
        out: Node,
    ):
        self.low, self.group, self.values, self.follow = low, group, values, follow
        self.outputs, self.out = outputs, out
        self.extra: list[tuple[str, str]] = []
        self.buffers: list[Buffer] = []
        self.written: list[str] = []
        apart = out.dtype == "bfloat16" or group.apart
        self.sums = SUMS if apart else "y[{index}]"
        reads: dict[Node, None] = {}
        for n in follow.rest:
            if n.op.kind == "random":
                reads[low.fusion.base(n.inputs[0])] = None
            for key in values.keys[n]:
                if isinstance(key, tuple):
                    reads[low.fusion.base(key[0])] = None
        own = {low.buffer(n): n for n in outputs} if group.apart else {}
        for x in reads:
            if low.buffer(x) not in own:
                values.params[x] = self.add("x", x)
        for n in outputs:
            values.params[n] = "y" if n is out else self.add("y", n)
            if n is not out:
                self.written.append(values.params[n])
        for x in reads:
            if x not in values.params:  # it is overwritten: all is read before anything is stored
                values.params[x] = values.params[own[low.buffer(x)]]
                values.fresh.add(x)

    def add(self, letter: str, n: Node) -> str:
        name = f"{letter}{sum(e[0].startswith(letter) for e in self.extra)}"
        b = self.low.buffer(n)
        self.extra.append((name, CODES[b.spec.dtype]))
        self.buffers.append(b)
        return name

    def place(self, key: Key, index: str, column: str) -> str:
        assert isinstance(key, tuple)
        if whole(key, self.group):
            return index
        return column if any(a >= 0 for a in key[1]) else "0"

    def lines(self, index: str, column: str) -> list[str]:
        """The text at one element."""
        v, out = self.values, Lines()
        uses = v.occurrences(self.follow.rest)
        v.names.clear()
        v.names[self.follow.current] = "v"
        out.add(f"v = {self.sums.format(index=index)}")
        for key in [k for n in self.follow.rest for k in v.keys[n]]:
            if isinstance(key, tuple) and key not in v.names:
                name = v.params[self.low.fusion.base(key[0])]
                text = f"{name}[{self.place(key, index, column)}]"
                text = f"({text} != 0)" if key[0].dtype == "bool" else text
                fresh = self.low.fusion.base(key[0]) in v.fresh
                v.bind(key, text, uses.get(key, 1), out, fresh)
        for n in self.follow.rest:
            v.bind(n, self.expression(n, index), uses.get(n, 0) + (n in self.outputs), out)
        if self.out is not self.follow.current:
            out.add(f"y[{index}] = {stored(v.name(self.out), self.out.dtype)}")
        for n in self.outputs:
            if n is not self.out and n is not self.follow.current:
                out.add(f"{v.params[n]}[{index}] = {stored(v.name(n), n.dtype)}")
        return out.text

    def expression(self, n: Node, index: str) -> str:
        if n.op.kind != "random":
            return self.values.expression(n, [])
        rng = self.values.params[self.low.fusion.base(n.inputs[0])]
        kind = n.op.name.removeprefix("random_")
        if n.inputs[0].shape == (3,):
            index = f"{rng}[2] + {index}"
        return f"philox_{kind}_{CODES[n.dtype]}({rng}[0], {n.attrs['stream']}, {rng}[1], {index})"


def contraction_launches(low: Lowering, group: Group) -> None:
    """Emit the launches of a contraction group."""
    head = next(iter(group.nodes)) if group.head is None else group.head
    inside = Group(
        group.index,
        "loop",
        group.domain,
        0,
        {n: m for n, m in group.nodes.items() if n is not head},
        head,
        apart=group.apart,
    )
    values = Values(low.fusion, inside, low.ordered(inside.nodes))
    # sums in scratch may be computed twice, so a tile need not end where its rows do
    follow = analyse(low, inside, head, values, beside=not group.apart)
    outputs = low.materialised(inside, [head])
    out = result(follow, outputs, head)
    if follow.rest and follow.operand and out.dtype == "bfloat16":
        values = Values(low.fusion, inside, low.ordered(inside.nodes))
        follow = analyse(low, inside, head, values, beside=False)
        out = result(follow, outputs, head)
    tail = Tail(low, inside, values, follow, outputs, out)
    needs_tail = bool(follow.rest)
    lines = tail.lines("q", "j") if needs_tail else []
    epilogue = Epilogue(
        follow.bias is not None, follow.final, tail.lines if needs_tail else None,
        tuple(tail.extra), tuple(math_imports(lines)),
        CODES[follow.operand[0].dtype] if isinstance(follow.operand, tuple) else "", group.apart,
    )  # fmt: skip
    y = low.buffer(out)
    a_code, b_code = (CODES[low.buffer(x).spec.dtype] for x in head.inputs)
    codes = (a_code, b_code, CODES[y.spec.dtype])
    steady = steady_operand(low, head)
    name = "_".join([short_name(head, follow, group.apart), *["to_b2"] * (codes[2] == "b2")])
    name += "_steady" * steady
    recipe = recipe_of(head, name, epilogue, codes, steady)
    emit_recipe(low, recipe, head, [head, *values.nodes], {
        "out": y,
        "bias": key_buffer(low, follow.bias),
        "mask": key_buffer(low, follow.operand),
        "residual": key_buffer(low, follow.operand),
        **{name: b for (name, _), b in zip(tail.extra, tail.buffers, strict=True)},
    }, {"out", *tail.written})  # fmt: skip


def result(follow: Follow, outputs: list[Node], head: Node) -> Node:
    """The Node whose buffer the tile writes: of the head's dtype if there is one, else bfloat16."""
    if follow.current in outputs:
        return follow.current
    same = [n for dtype in ("bfloat16", head.dtype) for n in outputs if n.dtype == dtype]
    return same[-1] if same else follow.current


def steady_operand(low: Lowering, head: Node) -> bool:
    """Whether the second operand of a product is a parameter that the step leaves as it is, and
    large: packed once, it is read in one go.
    """
    b = low.fusion.base(head.inputs[1])
    steady = head.op.name == "matmul" and b.op is PARAMETER and b not in low.graph.updates
    return steady and nominal_bytes(b) >= STEADY_BYTES


def key_buffer(low: Lowering, key: Key | None) -> Buffer | None:
    return low.buffer(key[0]) if isinstance(key, tuple) else None


def emit_recipe(
    low: Lowering, recipe: Recipe, head: Node, nodes: Sequence[Node],
    roles: dict[str, Buffer | None], written: set[str],
) -> None:  # fmt: skip
    """One launch per step; temporary buffers live between the steps."""
    from nnjit.compiler.cpu.lower import flops_of, ops_text

    by_role: dict[str, Buffer | None] = {"a": low.buffer(head.inputs[0]), **roles}
    if len(head.inputs) > 1:
        by_role["b"] = low.buffer(head.inputs[1])
    names = {code: name for name, code in CODES.items() if name != "bool"}
    for temp, (elements, code) in recipe.temps.items():
        by_role[temp] = low.work(temp, elements, names[code])
    seen: set[str] = set()
    for step in recipe.steps:
        buffers, writes = [], []
        for position, ((name, _), role) in enumerate(
            zip(step.template.params, step.args, strict=True)
        ):
            if role == "scratch":
                b: Buffer | None = low.scratch(step.template.scratch, "uint8")
            else:
                b = by_role[role]
            assert b is not None, (step.template.name, name, role)
            first = role in recipe.temps and role not in seen
            if role in written or (first and position == last_temp(step.args, recipe, seen)):
                writes.append(position)
            buffers.append(b)
        seen |= {r for r in step.args if r in recipe.temps}
        main = step is next(s for s in recipe.steps if not s.template.name.startswith(BEFORE))
        ops = ops_text(nodes) if main else step.template.name.split("_")[0] + " " + head.op.name
        low.emit(
            step.template,
            buffers,
            writes,
            nodes if main else [head],
            ops,
            flops_of(nodes) if main else (),
            walk=walk_of(step.template, buffers, writes, nodes) if main else "",
        )


def last_temp(args: Sequence[str], recipe: Recipe, seen: set[str]) -> int:
    """The position of the temporary that a step writes: one that no step before has named."""
    return max(i for i, r in enumerate(args) if r in recipe.temps and r not in seen)
