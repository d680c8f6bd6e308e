"""Graphs as text, for people."""

from __future__ import annotations

from typing import Any

import numpy as np

from nnjit.graph import Graph, Node
from nnjit.spec import Extent, shape_text

LONG = 200  # letters of an attribute that still stand beside its Node


def show(graph: Graph) -> str:
    """The graph as text, one Node a line: %3 = relu(%2)  float32(batch, 128)  [dense].

    Long attributes, the steps of scans, stand at the end, once each.
    """
    names: dict[Node, str] = {}
    long: dict[str, str] = {}
    lines = [f"graph {graph.name}:"]
    for i, n in enumerate(graph.nodes()):
        names[n] = f"%{i}"
        args = [names[x] for x in n.inputs]
        args += [f"{k}={_short(k, _text(v), long)}" for k, v in n.attrs.items() if k != "spec"]
        scope = f"  [{n.scope}]" if n.scope else ""
        lines.append(f"  %{i} = {n.op.name}({', '.join(args)})  {n.spec}{scope}")
    lines += [f"  output {k} = {names[v]}" for k, v in graph.outputs.items()]
    lines += [f"  update {leaf.name} = {names[v]}" for leaf, v in graph.updates.items()]
    for text, name in long.items():
        lines += [f"  {name}:", *(f"    {part}" for part in text.split("; "))]
    return "\n".join(lines)


def _short(key: str, text: str, long: dict[str, str]) -> str:
    """The text, or a name that stands for it if it is long."""
    return text if len(text) <= LONG else long.setdefault(text, f"{key} {len(long) + 1}")


def _text(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return repr(value.item()) if value.ndim == 0 else f"array{shape_text(value.shape)}"
    return str(value) if isinstance(value, Extent) else repr(value)
