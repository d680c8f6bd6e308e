"""Model: layers put together, and the verbs that train, test and apply them.

A model is a layer, so it can be part of another one. `step` builds what a step computes, `session`
keeps memory and compiled steps, `training` walks through the data: here is structure, and one short
method per verb.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Iterable
from typing import Any

import numpy as np

from nnjit import config
from nnjit.errors import ArgumentError, GraphError, ShapeError, nearest
from nnjit.graph import Node, Scope, current_scope, enter, state_node, walk
from nnjit.layers.base import REGISTRY, Layer, Variable, in_scope
from nnjit.layers.calls import called_layers, leaves, masked, trace, tree_map
from nnjit.layers.inputs import Input, plain_shape
from nnjit.ops.base import as_node
from nnjit.registry import snake_case
from nnjit.session import Session
from nnjit.spec import Spec, shape_text
from nnjit.verbs import Verbs

_counts: dict[str, itertools.count] = {}


def _new_name(cls: type) -> str:
    base = snake_case(cls.__name__)
    i = next(_counts.setdefault(base, itertools.count()))
    return f"{base}_{i}" if i else base


def distinct(names: Iterable[str]) -> list[str]:
    """Names with _1, _2, … behind those that occur again."""
    out: list[str] = []
    for name in names:
        tries = itertools.chain([name], (f"{name}_{i}" for i in itertools.count(1)))
        out.append(next(t for t in tries if t not in out))
    return out


@REGISTRY.named()
class Model(Verbs, Layer):
    """Model(inputs, outputs): symbolic inputs, and what layers made of them; lists or dicts of
    either.

    A subclass may instead make its layers in __init__ and define call(self, x).
    """

    is_model = True

    def __init__(
        self,
        inputs: Any = None,
        outputs: Any = None,
        *,
        name: str | None = None,
        trainable: bool = True,
        dtype: str | None = None,
    ):
        super().__init__(name=name, trainable=trainable, dtype=dtype)
        if name is None:
            self.name = _new_name(type(self))
        self.seed = config.seed()
        self.session = Session(self.seed)
        self.stop_training = False
        self._symbolic: tuple[Any, Any] | None = None
        self._entrance: Any = None  # what one batch looks like, for this structure
        if inputs is not None or outputs is not None:
            self._connect(inputs, outputs)
        elif type(self).call is Model.call and type(self) is Model:
            raise ArgumentError("Model: expected inputs and outputs, or a subclass with call()")

    def _connect(self, inputs: Any, outputs: Any) -> None:
        given, results = leaves(inputs), leaves(outputs)
        for what, nodes in (("inputs", given), ("outputs", results)):
            if not nodes:
                raise ArgumentError(f"Model: {what} hold no symbolic value; use Input(shape=…)")
        for n in walk(results, dict.fromkeys(given)):
            if n.op.name == "input" and n not in given:
                raise GraphError(f"Model: the outputs depend on {n!r}, which is not among inputs")
        self.adopt(called_layers(results, given))
        self._symbolic, self.built = (inputs, outputs), True

    # ---------------------------------------------------------------------------------- structure
    @property
    def layers(self) -> list[Layer]:
        """The layers, in the order of the computation."""
        return self.sublayers

    @property
    def input(self) -> Any:
        """The symbolic input(s)."""
        return self._structure()[0]

    @property
    def output(self) -> Any:
        """The symbolic output(s)."""
        return self._structure()[1]

    @property
    def inputs(self) -> list[Node]:
        return leaves(self.input)

    @property
    def outputs(self) -> list[Node]:
        return leaves(self.output)

    @property
    def input_shape(self) -> Any:
        return tree_map(lambda n: plain_shape(n.shape), self.input)

    @property
    def output_shape(self) -> Any:
        return tree_map(lambda n: plain_shape(n.shape), self.output)

    @property
    def input_names(self) -> list[str]:
        """Names of the inputs, each once: 'input_layer', 'input_layer_1', …"""
        return distinct(n.name for n in self.inputs)

    @property
    def output_names(self) -> list[str]:
        """The keys of a dict of outputs, else names of the layers that the outputs come from."""
        if isinstance(self.output, dict):
            return list(self.output)

        def of(n):
            return n.attrs["layer"].name if n.op.kind == "call" else n.name or n.op.name

        return distinct(map(of, self.outputs))

    def _structure(self) -> tuple[Any, Any]:
        if self._symbolic is None:
            raise GraphError(
                f"{self.name}: the shape of its input is not known yet; give the first layer "
                "input_shape=, or call fit, predict or build first"
            )
        return self._symbolic

    def build(self, input_shape: Any) -> None:
        """Make the weights for inputs of this shape, batch axis included (None where open)."""
        if self._symbolic is None:
            self.build_from(_tree_of_specs(input_shape, self.input_dtype))

    def build_from(self, specs: Any) -> None:
        """Give a model without declared inputs its structure: called on inputs of these Specs."""
        inputs = tree_map(lambda s: Input(batch_shape=s.shape, dtype=s.dtype), specs)
        outputs = self._apply(inputs)
        self._symbolic, self.built = (inputs, outputs), True

    def _apply(self, inputs: Any) -> Any:
        """`call` of a subclass, on inputs: it makes its layers' weights on the way."""
        with enter(Scope(random=state_node("random", Spec((2,), "int64")))):
            return self.call(inputs)

    def get_layer(self, name: str | None = None, index: int | None = None) -> Layer:
        """A layer by name or by index."""
        layers = self.layers
        if (name is None) == (index is None):
            raise ArgumentError("get_layer: expected either name= or index=")
        if index is not None:
            if not -len(layers) <= index < len(layers):
                raise ArgumentError(f"get_layer: index={index}: there are {len(layers)} layers")
            return layers[index]
        for layer in layers:
            if layer.name == name:
                return layer
        names = [x.name for x in layers]
        raise ArgumentError(f"{self.name}: no layer {name!r}{nearest(str(name), names)}")

    # -------------------------------------------------------------------------------- computation
    def call(self, x: Any, mask: Any = None) -> Any:
        """The outputs for these Nodes, in the current scope; with masks for the inputs if given."""
        inputs, outputs = self._structure()
        nodes, given = leaves(inputs), leaves(x)
        if len(nodes) != len(given):
            raise ArgumentError(f"{self.name}: expected {len(nodes)} inputs, got {len(given)}")
        for n, g in zip(nodes, given, strict=True):
            fits = n.rank == g.rank and all(
                a == b or not isinstance(a, int) for a, b in zip(n.shape, g.shape, strict=True)
            )
            if not fits:
                raise ShapeError(
                    f"{self.name}: expected input {shape_text(n.shape)}, got {shape_text(g.shape)}"
                )
        if mask is not None:
            masks: list[Any] = []
            tree_map(masks.append, mask)
            given = [masked(g, m) for g, m in zip(given, masks, strict=True)]
        found = iter(trace(leaves(outputs), dict(zip(nodes, given, strict=True)), current_scope()))
        return tree_map(lambda v: next(found) if isinstance(v, Node) else v, outputs)

    def _cast(self, value: Any) -> Any:
        # layers cast for themselves; a model passes on what it gets
        return as_node(value) if isinstance(value, np.ndarray | Variable) else value

    def forward(self, inputs: Any, scope: Scope) -> list[Node]:
        """The outputs' Nodes for a step; scopes are named by the layers, without the model."""
        with enter(scope):
            options = {}
            if "training" in inspect.signature(self.call).parameters:
                options["training"] = scope.training
            outputs = leaves(self.call(tree_map(self._cast, inputs), **options))
        scope.losses.extend(v.penalty for v in self._variables if v.trainable and v.penalty)
        return outputs

    def __call__(self, x: Any, **kwargs: Any) -> Any:
        """Symbolic values in, symbolic values out; arrays in, what `predict_on_batch` gives out."""
        if type(x) is np.ndarray and not kwargs and not in_scope():
            return self.predict_on_batch(x)
        flat: list[Any] = []
        tree_map(flat.append, x)
        if in_scope() or not flat or any(isinstance(v, Node | Variable) for v in flat):
            return super().__call__(x, **kwargs)
        if kwargs.pop("training", False):
            raise ArgumentError(f"{self.name}: training=True takes symbolic values, not arrays")
        if any(v is not None for v in kwargs.values()):
            raise ArgumentError(f"{self.name}: {sorted(kwargs)} take symbolic values, not arrays")
        return self.predict_on_batch(x)

    # ------------------------------------------------------------------------------ configuration
    def get_config(self) -> dict[str, Any]:
        """The architecture as JSON-able values: layers, and how they are connected."""
        from nnjit.architecture import functional_config

        if type(self) is Model:
            return functional_config(self)
        return {k: v for k, v in super().get_config().items() if k not in ("inputs", "outputs")}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        """A model of the same architecture with new weights."""
        from nnjit.architecture import functional_from_config

        return functional_from_config(config) if cls is Model else super().from_config(config)


def _tree_of_specs(shape: Any, dtype: str) -> Any:
    """Specs in the place of shapes: a tuple of numbers and None is a shape."""
    if isinstance(shape, dict):
        return {k: _tree_of_specs(v, dtype) for k, v in shape.items()}
    if isinstance(shape, list | tuple) and any(isinstance(d, list | tuple) for d in shape):
        return [_tree_of_specs(v, dtype) for v in shape]
    return Spec((None, *tuple(shape)[1:]), dtype)
