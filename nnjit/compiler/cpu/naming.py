"""Names and docstrings of loop kernels: what they compute and the shapes, never a layer's name."""

from __future__ import annotations

from collections.abc import Sequence

from nnjit.compiler.cpu.access import Loop
from nnjit.compiler.cpu.text import mangle
from nnjit.compiler.cpu.values import Values, is_number
from nnjit.compiler.groups import Group
from nnjit.graph import Node
from nnjit.kernels.target import CODES
from nnjit.spec import Dim, Extent, shape_text

DULL = (
    "add",
    "multiply",
    "subtract",
    "divide",
    "cast",
    "broadcast_to",
    "reshape",
    "where",
    "negative",
    "iota",
)
SHORT = {
    "multiply": "mul",
    "subtract": "sub",
    "divide": "div",
    "random_uniform": "uniform",
    "random_normal": "normal",
}


def kernel_name(group: Group, values: Values, flat: bool) -> str:
    """Up to three telling ops, the extents unless flat, the dtype: softmax-like 'max_exp_sum_batch_10_f4'."""
    names = list(dict.fromkeys(n.op.name for n in values.nodes))
    telling = [n for n in names if n not in DULL][-3:] or names[-3:]
    words = [SHORT.get(n, n) for n in telling]
    if len(values.nodes) > 3:
        words.append(str(len(values.nodes)))
    if not flat:
        words += [dim_word(d) for d in group.domain if d != 1]
    last = values.nodes[-1]
    return "_".join([*words, CODES[last.dtype]])


def dim_word(d: Dim) -> str:
    if isinstance(d, Extent):
        return "x".join([*([str(d.factor)] if d.factor != 1 else []), *map(mangle, d.symbols)])
    return str(d)


def describe(group: Group, values: Values, kernel, names: Sequence[tuple[str, str]]) -> str:
    """The docstring: one formula per Node, then the loops."""
    label: dict[Node, str] = {}
    lines = []
    for n in values.nodes:
        args = []
        for x in n.inputs:
            base = values.fusion.base(x)
            if x in label:
                args.append(label[x])
            elif is_number(x):
                args.append(number(x))
            else:
                args.append(values.params.get(base, "?"))
        for key in ("axes", "axis", "perm", "starts", "widths", "stream"):
            if key in n.attrs:
                args.append(f"{key}={n.attrs[key]}")
        label[n] = values.params.get(n) or f"t{len(label)}"
        lines.append(f"{label[n]} = {n.op.name}({', '.join(args)})")
    flat = len(kernel.loops) == 1 and not group.inner and group.kind == "loop"
    shape = "flat" if flat else f"over {shape_text(group.domain)}"
    head = f"{kernel_name(group, values, flat)}: {shape}, {loops_text(kernel.loops)}"
    return "\n".join([head, *wrapped(lines)])


def number(x: Node) -> str:
    return str(x.attrs["dim"]) if "dim" in x.attrs else repr(x.attrs["value"].item())


def loops_text(loops: Sequence[Loop]) -> str:
    rows = [loop for loop in loops if not loop.reduced]
    inner = [loop for loop in loops if loop.reduced]
    text = f"loops {', '.join(loop.name for loop in rows)}" if rows else "one value"
    return text + (f", reduced over {', '.join(loop.name for loop in inner)}" if inner else "")


def wrapped(lines: Sequence[str]) -> list[str]:
    """Formulas joined by '; ' up to 100 columns a line."""
    out = [""]
    for line in lines:
        if out[-1] and len(out[-1]) + len(line) + 2 > 98:
            out.append("")
        out[-1] += ("; " if out[-1] else "") + line
    return out
