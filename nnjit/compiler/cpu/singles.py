"""Groups that have a template of their own: pooling, gather, scatter, concatenation, families."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from nnjit.compiler.cpu.naming import wrapped
from nnjit.compiler.cpu.text import dim_text, int_of, sum_text, text_of, times, used_symbols
from nnjit.compiler.groups import Buffer, Group
from nnjit.compiler.walks import walk_of
from nnjit.graph import Node
from nnjit.kernels.target import CODES
from nnjit.kernels.template import Template
from nnjit.spec import Dim, product, shape_text

if TYPE_CHECKING:
    from nnjit.compiler.cpu.lower import Lowering


def launch(low: Lowering, group: Group) -> None:
    """Emit the launches of a single-Node group, or of a family."""
    n, *others = group.nodes
    if n.op.family:
        module, name = FAMILIES[n.op.family]
        emit = getattr(importlib.import_module(f"nnjit.compiler.cpu.{module}"), name)
        emit(low, [n, *others])
        return
    if n in low.done:
        return
    if n.op.name in ("max_pool", "max_pool_index"):
        max_pool(low, n)
    elif n.op.name in POOLS:
        pool(low, n)
    elif n.op.name == "concatenate":
        concatenate(low, n)
    elif n.op.name == "take_rows":
        from nnjit.kernels import scatter

        table, indices = n.inputs
        t = scatter.gather_rows(
            text_of(indices.spec.size), text_of(table.shape[0]), text_of(table.shape[1]),
            CODES[table.dtype], CODES[indices.dtype],
        )  # fmt: skip
        by_name(low, n, t, {"table": table, "index": indices, "y": n})
    elif n.op.name == "scatter_rows":
        from nnjit.kernels import scatter

        indices, dy = n.inputs
        t = scatter.scatter_add_rows(
            text_of(indices.spec.size), text_of(n.shape[0]), text_of(n.shape[1]),
            CODES[dy.dtype], CODES[indices.dtype],
        )  # fmt: skip
        by_name(low, n, t, {"index": indices, "dy": dy, "dtable": n})
    else:
        raise AssertionError(f"no kernel for {n!r}")


# family -> module and function that emit its one kernel for those results that are wanted; both
# are large, and most graphs have neither
FAMILIES = {
    "attention": ("attention", "forward"),
    "attention_grad": ("attention", "gradient"),
    "scan": ("scan", "launch"),
}


def by_name(low: Lowering, n: Node, t: Template, roles: dict[str, Node], ops: str = "") -> None:
    """Launch a template whose params have these names; what is not an input is written."""
    buffers: list[Buffer] = []
    writes: list[int] = []
    for k, (name, _) in enumerate(t.params):
        if name == "scratch":
            buffers.append(low.scratch(t.scratch, "uint8"))
            continue
        if roles[name] not in n.inputs:
            writes.append(k)
        buffers.append(low.buffer(roles[name]))
    flops = [n.op.flops(n)] if n.op.flops else [n.spec.size]
    low.emit(t, buffers, writes, [n], ops or n.op.name, flops,
             walk=walk_of(t, buffers, writes, [n]))  # fmt: skip


def geometry(n: Node, image: Node) -> dict[str, Any]:
    """The arguments that all pooling templates take; image is what the window slides over."""
    batch, h, w, c = image.shape
    floats = n if n.dtype.startswith("float") else n.inputs[0]
    names = ("n", "h", "w", "c", "window", "strides", "padding", "dtype")
    values = (text_of(batch), int_of(h), int_of(w), int_of(c), n.attrs["window"],
              n.attrs["strides"], n.attrs["padding"], CODES[floats.dtype])  # fmt: skip
    return dict(zip(names, values, strict=True))


def max_pool(low: Lowering, n: Node) -> None:
    """Values and positions of the maxima, in one kernel where both are wanted."""
    x = n.inputs[0]
    same = [
        u
        for u in low.users[x]
        if u.op.name.startswith("max_pool") and u.attrs == n.attrs and x in u.inputs
    ]
    value = next((u for u in same if u.op.name == "max_pool"), None)
    index = next((u for u in same if u.op.name == "max_pool_index"), None)
    from nnjit.kernels import window  # like scatter, for graphs that need it

    t = window.max_pool(**geometry(n, x), with_index=index is not None)
    roles = {"x": x, "y": n if value is None else value, "index": n if index is None else index}
    low.done |= {u for u in (value, index) if u is not None}
    buffers, writes = [], []
    for k, (name, code) in enumerate(t.params):
        if (
            name == "y" and value is None
        ):  # positions alone: the values go to memory that nobody reads
            b = low.work("maxima", n.spec.size, x.dtype)
        else:
            b = low.buffer(roles[name])
        if name != "x":
            writes.append(k)
        assert CODES[b.spec.dtype] == code, (name, b.spec, code)
        buffers.append(b)
    low.emit(t, buffers, writes, [n], "max_pool", [n.op.flops(n)] if n.op.flops else [x.spec.size],
             walk=walk_of(t, buffers, writes, [n]))  # fmt: skip


def pool(low: Lowering, n: Node) -> None:
    """Average pooling and the gradients."""
    from nnjit.kernels import window

    make, names = getattr(window, n.op.name), POOLS[n.op.name]
    options = {}
    if "count_include_pad" in n.attrs:
        options["count_include_pad"] = n.attrs["count_include_pad"]
    image = n if n.op.name.endswith("_grad") else n.inputs[0]
    t = make(**geometry(n, image), **options)
    by_name(low, n, t, dict(zip(names, (*n.inputs, n), strict=True)))


# op, which is the name of its template too -> names of its buffers
POOLS = {
    "avg_pool": ("x", "y"),
    "avg_pool_grad": ("dy", "dx"),
    "max_pool_grad": ("dy", "index", "dx"),
}


def concatenate(low: Lowering, n: Node) -> None:
    """Copy each input to its place: the trip runs over what lies before the axis."""
    axis, code = n.attrs["axis"], CODES[n.dtype]
    outer, total = product(n.shape[:axis]), product(n.shape[axis:])
    sources = list(dict.fromkeys(low.fusion.base(x) for x in n.inputs))
    names = {x: f"x{k}" for k, x in enumerate(sources)}
    body = ["for i in range(lo, hi):"]
    offset: list[tuple[str, Dim]] = []
    for x in n.inputs:
        size = product(x.shape[axis:])
        target = sum_text([("i", total), *offset, ("j", 1)])
        source = sum_text([("i", size), ("j", 1)])
        body += [
            f"    for j in range({dim_text(size)}):",
            f"        y0[{target}] = {names[low.fusion.base(x)]}[{source}]",
        ]
        offset.append(("", size))
    name = f"concatenate_{len(n.inputs)}_axis{axis}_{code}"
    shapes = [f"x{sources.index(low.fusion.base(x))} {shape_text(x.shape)}" for x in n.inputs]
    doc = [f"{name}: one after the other along axis {axis}", *wrapped(shapes, ", ")]
    doc.append(f"-> y0 {shape_text(n.shape)}")
    template = Template(
        name, "\n".join(doc), (), used_symbols(body, low.symbols),
        (*((v, code) for v in names.values()), ("y0", code)), tuple(body), text_of(outer),
    )  # fmt: skip
    buffers = [*(low.buffer(x) for x in sources), low.buffer(n)]
    writes = [len(buffers) - 1]
    low.emit(template, buffers, writes, [n], "concatenate", [times(0, 1)],
             walk=walk_of(template, buffers, writes, [n]))  # fmt: skip
