"""The table that `model.summary()` prints: what each layer gives, holds, computes and moves, per
sample.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from nnjit.compiler.passes import expand
from nnjit.graph import Node, siblings, walk
from nnjit.layers.base import Layer
from nnjit.layers.calls import leaves
from nnjit.layers.inputs import plain_shape
from nnjit.ops.base import flops_of
from nnjit.spec import DTYPES, Dim, evaluate, shape_text, symbols_of
from nnjit.step import predict_step

HEAD = ("Layer (type)", "Output shape", "Parameters", "FLOPs", "Bytes")


def summary_text(model: Any, line_length: int | None = None) -> str:
    """One line per layer, then totals.

    FLOPs and bytes are those of inference for one sample (open axes other than the batch count 1).
    Bytes are the least that must be moved: inputs and weights read, outputs written.
    """
    title = f'Model: "{model.name}"'
    if model._symbolic is None:
        names = [f"  {layer.name} ({type(layer).__name__})" for layer in model.layers]
        return "\n".join([title, *names, "  (not built yet: its input shape is not known)"])
    flops = _flops_by_layer(model)
    specs = _specs_by_layer(model)
    rows = []
    for layer in model.layers:
        inputs, outputs = specs.get(layer, ([], []))
        shape = ", ".join(shape_text(plain_shape(n.shape)) for n in outputs) or "?"
        moved = sum(_bytes(n) for n in (*inputs, *outputs)) + _weight_bytes(layer)
        rows.append((
            f"{layer.name} ({type(layer).__name__})", shape, f"{layer.count_params():,}",
            f"{flops[layer.name]:,}", f"{moved:,}",
        ))  # fmt: skip
    return "\n".join([title, *_table(rows, line_length), *_totals(model, sum(flops.values()))])


def _flops_by_layer(model: Any) -> dict[str, int]:
    """FLOPs of one sample by the layer at the top of each Node's scope."""
    found: dict[str, int] = defaultdict(int)
    nodes = expand(predict_step(model)).nodes()
    families = siblings(nodes)
    for n in nodes:
        if families.get(n, [n])[0] is n:  # the results of a family are computed at once
            found[n.scope.split("/")[0]] += _number(flops_of(n))
    return found


def _number(dim: Dim) -> int:
    return evaluate(dim, dict.fromkeys(symbols_of([dim]), 1))


def _specs_by_layer(model: Any) -> dict[Layer, tuple[list[Node], list[Node]]]:
    """The inputs and outputs of each layer's first use."""
    found: dict[Layer, tuple[list[Node], list[Node]]] = {}
    first: dict[Layer, Any] = {}
    for n in walk(leaves(model.output), dict.fromkeys(leaves(model.input))):
        if n.op.kind == "call":
            call = n.attrs["call"]
            if first.setdefault(call.layer, call) is call:
                found.setdefault(call.layer, (list(n.inputs), []))[1].append(n)
    return found


def _bytes(n: Node) -> int:
    return _number(n.spec.nbytes)


def _weight_bytes(layer: Layer) -> int:
    return sum(v.size * DTYPES[v.dtype] for v in layer.weights)


def _table(rows: Sequence[tuple[str, ...]], line_length: int | None) -> list[str]:
    widths = [max(len(r[i]) for r in [HEAD, *rows]) for i in range(len(HEAD))]
    spare = (line_length or 0) - sum(widths) - 2 * (len(widths) - 1)
    widths[0] += max(spare, 0)

    def line(row: tuple[str, ...]) -> str:
        cells = [c.ljust(w) if i < 2 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths))]  # noqa: B905
        return "  ".join(cells).rstrip()

    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    return [line(HEAD), rule, *map(line, rows), rule]


def _totals(model: Any, flops: int) -> list[str]:
    def count(variables):
        return sum(v.size for v in variables)

    size = sum(v.size * DTYPES[v.dtype] for v in model.weights)
    return [
        f"Parameters: {count(model.weights):,} ({size:,} bytes), "
        f"trainable {count(model.trainable_weights):,}, "
        f"not trainable {count(model.non_trainable_weights):,}",
        f"FLOPs of inference per sample: {flops:,}",
    ]
