"""Calls of layers on symbolic values: the Nodes of a functional model, and `trace`, which puts the
layers' real Nodes in their place for training or inference.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nnjit.errors import ArgumentError, GraphError
from nnjit.graph import EXTENT, Node, Op, Scope, current_scope, enter, extent_node, walk
from nnjit.ops.base import OPS, as_node, cast_to
from nnjit.spec import Dim, Extent, Spec

if TYPE_CHECKING:
    from nnjit.layers.base import Layer


@dataclass(frozen=True, eq=False)
class Call:
    """One use of a layer: its arguments (Nodes in any nesting of lists, tuples and dicts) and its
    results' specs.
    """

    layer: Layer
    args: tuple
    kwargs: Mapping[str, Any]
    specs: tuple[Spec, ...]


def tree_map(f: Callable[[Any], Any], tree: Any) -> Any:
    """f of every value in nested lists, tuples and dicts."""
    if isinstance(tree, list | tuple):
        values = [tree_map(f, v) for v in tree]
        if hasattr(tree, "_fields"):
            return type(tree)(*values)
        return type(tree)(values)
    if isinstance(tree, dict):
        return {k: tree_map(f, v) for k, v in tree.items()}
    return f(tree)


def leaves(tree: Any) -> list[Node]:
    """The Nodes in a tree, in order."""
    found: list[Node] = []
    tree_map(lambda v: found.append(v) if isinstance(v, Node) else None, tree)
    return found


def swap(tree: Any, new: Mapping[Node, Node]) -> Any:
    """The tree with its Nodes replaced."""
    return tree_map(lambda v: new[v] if isinstance(v, Node) else v, tree)


def call_nodes(layer: Layer, args: tuple, kwargs: dict[str, Any], result: Any) -> Any:
    """`result`, which the layer gave for these arguments, with each Node replaced by a call Node of
    its spec.
    """
    call = Call(layer, args, kwargs, tuple(n.spec for n in leaves(result)))
    op = Op(
        f"call:{layer.name}",
        "call",
        rule=lambda *_, call, index, **__: call.specs[index],
        doc="A use of a layer in a functional model.",
    )
    inputs = tuple(leaves((args, kwargs)))
    index = iter(range(len(call.specs)))
    return tree_map(
        lambda v: (
            op(*inputs, layer=layer, call=call, index=next(index)) if isinstance(v, Node) else v
        ),
        result,
    )


# ------------------------------------------------------------------------- training and masks
def masks_of(tree: Any) -> Any:
    """The tree with each Node replaced by its mask in this scope, None where it has none."""
    masks = current_scope().masks
    return tree_map(lambda v: masks.get(v) if isinstance(v, Node) else None, tree)


def masked(value: Node, mask: Node | None) -> Node:
    """value with this mask: another Node where it had none or another one, since all other readers
    of a value see the mask that it has.
    """
    masks = current_scope().masks
    if mask is None or masks.get(value) is mask:
        return value
    value = _bare(value)
    masks[value] = mask
    return value


def _bare(value: Node) -> Node:
    """The same value as a Node of its own, which has no mask."""
    return OPS["reshape"](value, shape=value.shape)


def completed(layer: Layer, args: tuple, kwargs: Mapping[str, Any], training: bool) -> dict:
    """kwargs with what the layer's `call` has parameters for and was not given: `training`; `mask`,
    the mask of the first argument (a list of masks for a list); `query_mask`, that of `query`.
    """
    signature = inspect.signature(layer.call)
    kwargs, parameters = dict(kwargs), signature.parameters
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    if kwargs.get("training") is None or not ("training" in parameters or takes_any):
        kwargs.pop("training", None)
    if kwargs.get("mask") is not None and not ("mask" in parameters or takes_any):
        raise ArgumentError(f"{layer.path}: mask=…: {type(layer).__name__} takes no mask")
    if "mask" in kwargs:
        kwargs["mask"] = tree_map(_as_mask, kwargs["mask"])
    given = signature.bind_partial(*args, **kwargs).arguments
    if "training" in parameters and given.get("training") is None:
        kwargs["training"] = training
    for name in parameters:
        if name == "mask" and given.get(name) is None:
            kwargs[name] = masks_of(args[0])
        elif name.endswith("_mask") and given.get(name) is None:
            kwargs[name] = masks_of(given.get(name.removesuffix("_mask")))
    return kwargs


def _as_mask(value: Any) -> Any:
    return None if value is None else cast_to(as_node(value), "bool")


def with_masks(layer: Layer, inputs: Any, previous: Any, result: Any) -> Any:
    """`result`, after its Nodes got the masks that the layer computes for them.

    Masks that layers inside have given stay; where a layer knows of no masks, those of its inputs
    end. previous: the masks of the inputs.
    """
    masks, given = current_scope().masks, set(leaves(inputs))
    if not layer.supports_masking and not layer.is_model:
        return tree_map(lambda v: _bare(v) if v in given and v in masks else v, result)
    if not layer.supports_masking or all(n in masks for n in leaves(result)):
        return result
    found: list[Any] = []
    computed = layer.compute_mask(inputs, previous)
    if isinstance(result, dict) and isinstance(computed, dict):
        computed = {k: computed.get(k) for k in result}
    tree_map(found.append, computed)
    rest = iter(found)

    def marked(value: Any) -> Any:
        mask = next(rest, None)
        if mask is None or not isinstance(value, Node) or value in masks:
            return value
        if value in given:
            return masked(value, mask)
        masks[value] = mask
        return value

    return tree_map(marked, result)


def called_layers(outputs: Sequence[Node], stop: Sequence[Node] = ()) -> list[Layer]:
    """The layers that a functional model uses, each once, in the order of the computation."""
    nodes = walk(outputs, dict.fromkeys(stop))
    return list(dict.fromkeys(n.attrs["layer"] for n in nodes if n.op.kind == "call"))


def trace(outputs: Sequence[Node], feeds: Mapping[Node, Node], scope: Scope) -> list[Node]:
    """outputs with each Node of feeds replaced, and each call by what its layer makes in this
    scope.

    Symbols of a replaced Node's shape become the new Node's dims. A shared layer is traced once per
    call.
    """
    new: dict[Node, Node] = dict(feeds)
    dims = _symbol_values(feeds)
    results: dict[Call, list[Node]] = {}
    with enter(scope):
        for n in walk(outputs, feeds):
            if n in new:
                continue
            if n.op.kind == "call":
                call = n.attrs["call"]
                if call not in results:
                    args, kwargs = swap((call.args, call.kwargs), new)
                    results[call] = leaves(call.layer(*args, **kwargs))
                if len(results[call]) != len(call.specs):
                    raise GraphError(
                        f"{call.layer.path}: gave {len(results[call])} results in training, "
                        f"{len(call.specs)} when it was called on symbolic values"
                    )
                new[n] = results[call][n.attrs["index"]]
            elif n.op is EXTENT and dims:
                new[n] = extent_node(_substitute(n.attrs["dim"], dims), n.dtype)
            elif n.is_leaf or (not dims and all(new[x] is x for x in n.inputs)):
                new[n] = n
            else:
                attrs = {k: _substitute(v, dims) for k, v in n.attrs.items()}
                new[n] = n.op(*(new[x] for x in n.inputs), **attrs)
    return [new[n] for n in outputs]


def _symbol_values(feeds: Mapping[Node, Node]) -> dict[str, Dim]:
    """Which dim stands for which symbol of the replaced Nodes, where the two differ."""
    found: dict[str, Dim] = {}
    for old, node in feeds.items():
        for a, b in zip(old.shape, node.shape, strict=False):
            if isinstance(a, Extent) and a.factor == 1 and len(a.symbols) == 1 and a != b:
                found[a.symbols[0]] = b
    return found


def _substitute(value: Any, dims: Mapping[str, Dim]) -> Any:
    """An attr with these symbols replaced."""
    if isinstance(value, tuple):
        return tuple(_substitute(v, dims) for v in value)
    if not isinstance(value, Extent):
        return value
    out: Dim = value.factor
    for s in value.symbols:
        out = dims.get(s, Extent(1, (s,))) * out
    return out
