"""Architectures as JSON-able values: the layers of a Sequential, the Nodes and layers of a
functional model.

A functional model may hold any op between its layers. Arrays among its constants are written as
lists.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from nnjit.errors import ArgumentError, lookup
from nnjit.graph import CONSTANT, LEAVES, Node, constant, extent_node, input_node, walk
from nnjit.layers.base import REGISTRY as LAYERS
from nnjit.layers.calls import leaves
from nnjit.ops.base import OPS
from nnjit.registry import serialize
from nnjit.spec import Extent, Spec


def sequential_config(model: Any) -> dict[str, Any]:
    """Layers, and the Spec of the input once it is known."""
    spec = model.inputs[0].spec if model._symbolic is not None else None
    return {
        "name": model.name,
        "trainable": model.trainable,
        "input": None if spec is None else [[_dim(d) for d in spec.shape], spec.dtype],
        "input_name": model.inputs[0].name if spec is not None else None,
        "layers": [serialize(layer) for layer in model.layers],
    }


def sequential_from_config(cls: type, config: Mapping[str, Any]) -> Any:
    """The opposite."""
    layers = [LAYERS.get(c) for c in config["layers"]]
    if config["input"] is not None:
        layers.insert(0, input_node(config["input_name"], _spec(config["input"])))
    model = cls(layers, name=config["name"])
    _freeze(model, config)
    return model


def _freeze(model: Any, config: Mapping[str, Any]) -> None:
    """A frozen model has frozen layers, but thawing it would thaw those frozen one by one."""
    if not config["trainable"]:
        model.trainable = False


def functional_config(model: Any) -> dict[str, Any]:
    """Layers, and every Node from the inputs to the outputs with the numbers of its operands."""
    inputs, outputs = model.input, model.output
    nodes = walk(leaves(outputs), dict.fromkeys(leaves(inputs)))
    nodes += [n for n in leaves(inputs) if n not in nodes]
    number = {n: i for i, n in enumerate(nodes)}
    layers = {layer: i for i, layer in enumerate(model.layers)}

    uses = dict.fromkeys(n.attrs["call"] for n in nodes if n.op.kind == "call")
    calls = {call: i for i, call in enumerate(uses)}

    def refer(tree: Any) -> Any:
        return _tree(tree, number)

    return {
        "name": model.name,
        "trainable": model.trainable,
        "layers": [serialize(layer) for layer in layers],
        "nodes": [_node_config(n, layers, calls, refer) for n in nodes],
        "inputs": refer(inputs),
        "outputs": refer(outputs),
    }


def _node_config(n: Node, layers: Mapping, calls: Mapping, refer: Any) -> dict[str, Any]:
    if n.op.kind == "call":
        call = n.attrs["call"]
        return {
            "op": "call",
            "layer": layers[call.layer],
            "args": refer(list(call.args)),
            "kwargs": refer(dict(call.kwargs)),
            "index": n.attrs["index"],
            "call": calls[call],  # a call with several results has a Node for each
        }
    if n.op is CONSTANT:
        value = n.attrs["value"]
        return {"op": "constant", "value": value.tolist(), "dtype": value.dtype.name}
    if n.op.name in LEAVES and n.op.name not in ("input", "extent"):
        raise ArgumentError(f"{n!r} is used outside of its layer: such a model cannot be saved")
    attrs = {k: _attr(v) for k, v in n.attrs.items()}
    return {"op": n.op.name, "attrs": attrs, "inputs": refer(list(n.inputs))}


def functional_from_config(config: Mapping[str, Any]) -> Any:
    """The opposite of `functional_config`."""
    from nnjit.models import Model

    layers = [LAYERS.get(c) for c in config["layers"]]
    nodes: list[Node] = []
    calls: dict[int, list[Node]] = {}
    for c in config["nodes"]:

        def back(tree):
            return _untree(tree, nodes)

        if c["op"] == "call":
            if c["call"] not in calls:
                made = layers[c["layer"]](*back(c["args"]), **back(c["kwargs"]))
                calls[c["call"]] = leaves(made)
            nodes.append(calls[c["call"]][c["index"]])
        elif c["op"] == "constant":
            nodes.append(constant(np.array(c["value"], c["dtype"])))
        elif c["op"] == "input":
            attrs = {k: _unattr(v) for k, v in c["attrs"].items()}
            nodes.append(input_node(attrs["name"], attrs["spec"]))
        elif c["op"] == "extent":
            attrs = {k: _unattr(v) for k, v in c["attrs"].items()}
            nodes.append(extent_node(attrs["dim"], attrs["spec"].dtype))
        else:
            op = lookup("op", c["op"], OPS)
            nodes.append(op(*back(c["inputs"]), **{k: _unattr(v) for k, v in c["attrs"].items()}))
    inputs, outputs = _untree(config["inputs"], nodes), _untree(config["outputs"], nodes)
    model = Model(inputs, outputs, name=config["name"])
    _freeze(model, config)
    return model


# ------------------------------------------------------------------------------- values as JSON
def _tree(tree: Any, number: Mapping[Node, int]) -> Any:
    """Nested lists, tuples and dicts of Nodes and plain values, marked so that they come back as
    they were.
    """
    if isinstance(tree, Node):
        return {"node": number[tree]}
    if isinstance(tree, tuple):
        return {"tuple": [_tree(v, number) for v in tree]}
    if isinstance(tree, list):
        return {"list": [_tree(v, number) for v in tree]}
    if isinstance(tree, dict):
        return {"dict": {k: _tree(v, number) for k, v in tree.items()}}
    return {"value": _attr(tree)}


def _untree(tree: Mapping[str, Any], nodes: list[Node]) -> Any:
    kind, value = next(iter(tree.items()))
    if kind == "node":
        return nodes[value]
    if kind in ("tuple", "list"):
        values = [_untree(v, nodes) for v in value]
        return tuple(values) if kind == "tuple" else values
    if kind == "dict":
        return {k: _untree(v, nodes) for k, v in value.items()}
    return _unattr(value)


def _dim(dim: Any) -> Any:
    return {"extent": [dim.factor, list(dim.symbols)]} if isinstance(dim, Extent) else dim


def _attr(value: Any) -> Any:
    """An op's attribute: numbers, text, tuples, extents, Specs."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Extent):
        return _dim(value)
    if isinstance(value, Spec):
        return {"spec": [[_dim(d) for d in value.shape], value.dtype]}
    if isinstance(value, list | tuple):
        return [_attr(v) for v in value]
    raise ArgumentError(f"{value!r} cannot be saved as part of a model")


def _unattr(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_unattr(v) for v in value)
    if isinstance(value, dict):
        if "spec" in value:
            return _spec(value["spec"])
        factor, symbols = value["extent"]
        return Extent(int(factor), tuple(symbols))
    return value


def _spec(pair: Any) -> Spec:
    return Spec(tuple(_unattr(d) for d in pair[0]), pair[1])
