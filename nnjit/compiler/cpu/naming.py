"""Names and docstrings of kernels: what they compute and the shapes, never a layer's name."""

from __future__ import annotations

import functools
import re
import textwrap
from collections.abc import Callable, Sequence

from nnjit.compiler.cpu.access import Loop
from nnjit.compiler.cpu.values import Values, is_number
from nnjit.compiler.groups import Group
from nnjit.graph import Node
from nnjit.kernels.target import CODES
from nnjit.spec import Dim, Extent, shape_text

#: words for what several ops are together: (word, ops that must be there, ops that may be)
PATTERNS: list[tuple[str, set[str], set[str]]] = [
    ("softmax", {"max", "exp", "sum", "divide"}, {"subtract"}),
    ("logsumexp", {"max", "exp", "sum", "log"}, {"subtract", "add"}),
    ("dropout", {"random_uniform", "where"}, {"greater_equal", "less", "multiply"}),
    ("mask", {"greater", "where"}, set()),
    ("pick", {"iota", "equal", "where"}, set()),
    ("one_hot", {"iota", "equal"}, {"cast"}),
]
#: ops that say little where others stand beside them
DULL = {
    "add", "multiply", "subtract", "divide", "cast", "broadcast_to", "reshape", "where", "negative",
    "iota", "square", "equal", "not_equal", "less", "less_equal", "greater", "greater_equal",
    "logical_and", "logical_or", "logical_not",
}  # fmt: skip
SHORT = {"multiply": "mul", "subtract": "sub", "divide": "div", "random_uniform": "uniform",
         "random_normal": "normal", "broadcast_to": "repeat"}  # fmt: skip
REDUCES = ("sum", "prod", "max", "min")
WORDS = 3
WIDTH = 96  # of a docstring's lines


def words_of(nodes: Sequence[Node]) -> list[str]:
    """Up to three telling words for some ops, in their order: 'dropout', 'erf', 'sum'."""
    names = list(dict.fromkeys(n.op.name for n in nodes))
    at = {name: k for k, name in enumerate(names)}
    for word, needed, allowed in PATTERNS:
        if needed <= set(names):
            gone = needed | allowed
            at[word] = max(at[name] for name in needed)
            names = [name for name in names if name not in gone] + [word]
    names.sort(key=lambda name: at[name])
    telling = [name for name in names if name not in DULL] or names
    if len(telling) == 1 and telling[0] in REDUCES:
        telling = names[: names.index(telling[0]) + 1][-2:]  # square_sum, mul_sum
    return [SHORT.get(name, name) for name in telling[-WORDS:]]


def update_scope(values: Values) -> str | None:
    """Where a parameter's next value, computed here, was asked for: the optimizer's scope."""
    known = values.fusion.parameter_updates
    for value in (known[n] for n in values.nodes if n in known):
        return re.sub(r"\W", "_", value.scope.rsplit("/")[-1])
    return None


def kernel_name(group: Group, values: Values, flat: bool) -> str:
    """What is computed, the extents unless flat, the dtype: 'softmax_batch_10_f4'.

    The optimizer's step is 'adam_update_f4'; an op alone over any number of elements 'map_exp_f4'.
    """
    scope = update_scope(values)
    if scope is not None:
        words = [scope, "update"] if scope else ["update"]
    else:
        words = words_of(values.nodes)
        if flat and len(words) == 1 and values.nodes[-1].op.kind == "elementwise":
            words = ["map", *words]
    if not flat:
        words += [dim_word(d) for d in group.domain if d != 1] or ["scalar"]
    floats = [n for n in values.nodes if n.dtype.startswith("float")]
    return "_".join([*words, CODES[(floats or values.nodes)[-1].dtype]])


def dim_word(d: Dim) -> str:
    """'10', 'batch', '26xbatch'."""
    return "x".join(str(d).split("*")) if isinstance(d, Extent) else str(d)


def describe(name: str, flat: bool, values: Values, kernel, params: dict[Node, str]) -> str:
    """The docstring: what the loops run over, then one formula per Node."""
    label: dict[Node, str] = {}
    lines = []
    extent = functools.partial(values.extent, text=str)
    for n in values.nodes:
        args = []
        for x in n.inputs:
            base = values.fusion.base(x)
            if x in label:
                args.append(label[x])
            elif is_number(x):
                args.append(number(x, extent))
            else:
                args.append(params.get(base, "y"))
        for key in ("axes", "axis", "perm", "starts", "stops", "steps", "widths", "stream"):
            if key in n.attrs:
                args.append(f"{key}={n.attrs[key]}")
        label[n] = params.get(n) or f"t{len(label)}"
        lines.append(f"{label[n]} = {n.op.name}({', '.join(args)})")
    shape = "flat" if flat else f"over {shape_text(values.group.domain)}"
    loops = loops_text(kernel.loops)
    over = f"{shape}, {loops}" if values.group.domain else loops
    return "\n".join([f"{name}: {over}", *wrapped(lines)])


def number(x: Node, extent: Callable[[Dim], str] = str) -> str:
    """A scalar as it was written: 0.999, not what float32 makes of it."""
    if "dim" in x.attrs:
        return extent(x.attrs["dim"])
    return str(x.attrs["value"].reshape(-1)[0])


def loops_text(loops: Sequence[Loop]) -> str:
    """'loops i, j, reduced over k'."""
    rows = [loop.name for loop in loops if not loop.reduced]
    inner = [loop.name for loop in loops if loop.reduced]
    text = (
        f"loops {', '.join(rows)}" if len(rows) > 1 else f"loop {rows[0]}" if rows else "one value"
    )
    return text + (f", reduced over {', '.join(inner)}" if inner else "")


def wrapped(lines: Sequence[str], joint: str = "; ") -> list[str]:
    """Formulas joined by '; ' in lines of less than 100 columns."""
    out = [""]
    for formula in lines:
        short = len(formula) <= WIDTH
        for line in [formula] if short else textwrap.wrap(formula, WIDTH, subsequent_indent="    "):
            if not out[-1]:
                out[-1] = line
            elif line == formula and len(out[-1]) + len(line) + 2 <= WIDTH:
                out[-1] += joint + line
            else:
                out.append(line)
    return out
