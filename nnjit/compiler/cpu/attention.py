"""Attention and its gradient: the results of a family that are wanted, from one kernel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from nnjit.compiler.cpu.text import int_of, text_of
from nnjit.graph import Node
from nnjit.kernels.attention import attention_forward
from nnjit.kernels.attention_grad import attention_gradient
from nnjit.kernels.attention_text import Attention
from nnjit.kernels.target import CODES
from nnjit.kernels.template import Template
from nnjit.ops.attention import GRADIENTS
from nnjit.spec import product

if TYPE_CHECKING:
    from nnjit.compiler.cpu.lower import Lowering


def sizes(n: Node, mask: Node | None) -> Attention:
    """The shapes of an attention as kernels want them."""
    q, k, v = n.inputs[:3]
    batch, queries, heads, d = q.shape
    dims = tuple(map(text_of, mask.shape)) if mask is not None else None
    return Attention(
        text_of(batch), text_of(queries), text_of(k.shape[1]), int_of(heads), int_of(k.shape[2]),
        int_of(d), int_of(v.shape[3]), n.attrs["scale"], n.attrs["causal"],
        dims, CODES[q.dtype],  # type: ignore[arg-type]
    )  # fmt: skip


def forward(low: Lowering, nodes: list[Node]) -> None:
    """The result, and the log-sum-exp where the gradient needs it."""
    n = nodes[0]
    q, k, v, *mask = n.inputs
    found = {m.attrs["result"]: m for m in nodes}
    template = attention_forward(sizes(n, mask[0] if mask else None), lse="lse" in found)
    roles = {"q": q, "k": k, "v": v, **found} | ({"mask": mask[0]} if mask else {})
    launch(low, template, roles, nodes)


def gradient(low: Lowering, nodes: list[Node]) -> None:
    """Those of dq, dk and dv that are there."""
    n = nodes[0]
    q, k, v, *mask, out, lse, dout = n.inputs
    found = {m.attrs["result"]: m for m in nodes}
    wanted = [r for r in GRADIENTS if r in found]
    template = attention_gradient(sizes(n, mask[0] if mask else None), wanted)
    roles = {"q": q, "k": k, "v": v, "out": out, "lse": lse, "dout": dout, **found}
    launch(low, template, roles | ({"mask": mask[0]} if mask else {}), nodes)


def launch(low: Lowering, t: Template, roles: dict[str, Node], nodes: Sequence[Node]) -> None:
    """Emit a template whose params have these names; results are written."""
    n = nodes[0]
    buffers, writes = [], []
    for place, (name, _) in enumerate(t.params):
        if name == "scratch":
            buffers.append(low.scratch(t.scratch, "uint8"))
        elif name in roles:
            buffers.append(low.buffer(roles[name]))
            writes += [place] if roles[name] in nodes else []
        else:  # the log-sum-exp alone is wanted: the result goes to memory that nobody reads
            size = product([*n.shape[:3], n.inputs[2].shape[3]])
            buffers.append(low.work(name, size, n.dtype))
            writes.append(place)
    flops = [m.op.flops(m) for m in nodes if m.op.flops]
    low.emit(t, buffers, writes, nodes, n.op.name, flops)
