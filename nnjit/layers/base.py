"""Layer: what all layers share: arguments, names, weights, building, calling.

A layer called on symbolic values outside of any scope (functional style) gives call Nodes; within a
scope, so inside of `trace` or of another layer's `call`, it makes its Nodes right there. Nothing is
computed here.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from nnjit import constraints, graph, ops, regularizers
from nnjit.errors import ArgumentError, ShapeError
from nnjit.graph import Node, Scope, current_scope, enter, extent_node, scoped, state_node
from nnjit.layers.calls import (
    call_nodes,
    called_layers,
    completed,
    leaves,
    masks_of,
    trace,
    tree_map,
    with_masks,
)
from nnjit.layers.inputs import Input, dims, plain_shape
from nnjit.layers.names import name_layers
from nnjit.layers.variable import Variable
from nnjit.registry import Configurable, Registry, keywords, snake_case
from nnjit.spec import FLOATS, Dim, Spec, check_dtype, shape_text

__all__ = ["Input", "Layer", "Variable", "called_layers", "get", "name_layers", "trace"]

REGISTRY = Registry("layer")
get = REGISTRY.get


def in_scope() -> bool:
    """Whether Nodes are being built for a step, and not for a functional model."""
    return graph._scope.get(None) is not None


class Layer(Configurable):
    """Base class. Override `build(input_shape)` (make weights with `add_weight`) and `call(x)`.

    `call` gets `training` (bool) and `mask` (of its first argument) if its signature has them.
    supports_masking: the result has the mask of the input, or what `compute_mask` says. Layers kept
    as attributes, also in lists and dicts, are part of this one. input_shape: the shape of the
    first layer's input, without the batch axis.
    """

    kind = "layer"
    is_model = False  # a model at the top adds nothing to the path of its layers
    supports_masking = False

    name: str
    dtype: str
    built: bool
    activity_regularizer: Any
    declared_shape: tuple[Dim | None, ...] | None
    _variables: list[Variable]
    _sublayers: list[Layer]
    _parent: Layer | None
    _named: str
    _trainable: bool

    def __new__(cls, *args: Any, **kwargs: Any):
        self = super().__new__(cls, *args, **kwargs)
        fields: dict[str, Any] = {
            "_variables": [], "_sublayers": [], "_parent": None, "_trainable": True,
            "_named": "", "name": snake_case(cls.__name__), "dtype": "float32", "built": False,
            "activity_regularizer": None, "declared_shape": None,
            "supports_masking": cls.supports_masking or cls.compute_mask is not Layer.compute_mask,
        }  # fmt: skip
        for key, value in fields.items():
            object.__setattr__(self, key, value)
        return self

    def __init__(
        self,
        *,
        name: str | None = None,
        dtype: str | None = None,
        trainable: bool = True,
        activity_regularizer: Any = None,
        input_shape: Sequence[int | None] | None = None,
    ):
        if name is not None:
            if not isinstance(name, str) or not name or "/" in name:
                raise ArgumentError(f"name={name!r}: expected a text without '/'")
            self.name, self._named = name, "user"
        self.dtype = check_dtype(dtype or "float32")
        if self.dtype not in FLOATS:
            raise ArgumentError(f"{self.name}: dtype={dtype!r}: expected float32 or float64")
        self._trainable = bool(trainable)
        self.activity_regularizer = regularizers.get(activity_regularizer)
        if input_shape is not None:
            self.declared_shape = dims(input_shape, self.name)

    # ---------------------------------------------------------------------------------- structure
    def __setattr__(self, key: str, value: Any) -> None:
        if not key.startswith("_") or (isinstance(value, Layer) and key != "_parent"):
            self._track(value)
        object.__setattr__(self, key, value)

    def _track(self, value: Any) -> None:
        if isinstance(value, Layer):
            self.adopt([value])
        elif isinstance(value, Variable) and value not in self._variables:
            if value.owner is None:
                value.owner = self
            self._variables.append(value)
        elif isinstance(value, list | tuple):
            for v in value:
                self._track(v)
        elif isinstance(value, dict):
            for v in value.values():
                self._track(v)

    def adopt(self, layers: Iterable[Layer]) -> None:
        """Make layers part of this one, and name those that have no name yet."""
        for layer in layers:
            if layer is self:
                raise ArgumentError(f"{self.name}: a layer cannot be part of itself")
            if layer not in self._sublayers:
                self._sublayers.append(layer)
            if layer._parent is None:
                layer._parent = self
        name_layers(self._sublayers)

    @property
    def path(self) -> str:
        """The name with those of the layers around it: 'block/dense_1'."""
        if self._parent is None:
            return "" if self.is_model else self.name
        outer = self._parent.path
        return f"{outer}/{self.name}" if outer else self.name

    @property
    def sublayers(self) -> list[Layer]:
        """The layers inside of this one, in the order in which they were attached."""
        return list(self._sublayers)

    @property
    def trainable(self) -> bool:
        return self._trainable

    @trainable.setter
    def trainable(self, value: bool) -> None:
        """Freeze or thaw this layer and those inside. A compiled model must be compiled anew, as in
        Keras.
        """
        self._trainable = bool(value)
        for layer in self._sublayers:
            layer.trainable = value

    # ------------------------------------------------------------------------------------ weights
    def add_weight(
        self,
        shape: Sequence[int] = (),
        initializer: Any = None,
        name: str | None = None,
        trainable: bool = True,
        dtype: str | None = None,
        regularizer: Any = None,
        constraint: Any = None,
    ) -> Variable:
        """A new weight; glorot_uniform if no initializer is given. Assign it to an attribute in
        `build`.
        """
        taken = {v.key for v in self._variables}
        base = name or "variable"
        tries = itertools.chain([base], (f"{base}_{i}" for i in itertools.count(1)))
        variable = Variable(
            next(t for t in tries if t not in taken),
            shape,
            dtype or self.dtype,
            "glorot_uniform" if initializer is None else initializer,
            trainable,
            owner=self,
            regularizer=regularizers.get(regularizer),
            constraint=constraints.get(constraint),
        )
        self._variables.append(variable)
        return variable

    @property
    def weights(self) -> list[Variable]:
        """All variables: own parameters, own state, then those of the layers inside, each once."""
        own = [v for v in self._variables if v.parameter]
        own += [v for v in self._variables if not v.parameter]
        inner = [v for layer in self._sublayers for v in layer.weights]
        return list(dict.fromkeys(own + inner))

    variables = weights

    @property
    def trainable_weights(self) -> list[Variable]:
        return [v for v in self.weights if v.trainable] if self.trainable else []

    @property
    def non_trainable_weights(self) -> list[Variable]:
        trainable = set(self.trainable_weights)
        return [v for v in self.weights if v not in trainable]

    def count_params(self) -> int:
        """Number of elements of all weights."""
        return sum(v.size for v in self.weights)

    def get_weights(self) -> list[np.ndarray]:
        """Copies of the values of `weights`, in that order."""
        return [v.numpy() for v in self.weights]

    def set_weights(self, values: Sequence[Any]) -> None:
        """Set `weights` from arrays in the same order; nothing is changed if one does not fit."""
        weights = self.weights
        if len(values) != len(weights):
            raise ShapeError(
                f"{self.name}: set_weights got {len(values)} arrays for {len(weights)} weights: "
                + ", ".join(f"{v.name} {shape_text(v.shape)}" for v in weights)
            )
        for v, value in zip(weights, values, strict=True):
            if np.shape(value) != v.shape:
                raise ShapeError(
                    f"{v.name}: expected shape {shape_text(v.shape)}, "
                    f"got {shape_text(np.shape(value))}"
                )
        for v, value in zip(weights, values, strict=True):
            v.assign(value)

    # ------------------------------------------------------------------------- building, calling
    def build(self, input_shape: Any) -> None:
        """Make the weights for inputs of this shape (None: known at run time; a list of shapes for
        several inputs).
        """

    def call(self, *args: Any, **kwargs: Any) -> Any:
        """The layer's results as Nodes."""
        raise NotImplementedError(f"{type(self).__name__} does not define call(self, x)")

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> Any:
        """The mask(s) of the results. previous_mask: those of the inputs, in their structure."""
        return previous_mask if self.supports_masking else None

    def add_loss(self, loss: Node) -> None:
        """Within `call`: add a scalar to the loss of the model."""
        current_scope().losses.append(loss)

    def _ensure_built(self, x: Any) -> None:
        if self.built:
            return
        shape = tree_map(lambda v: plain_shape(v.shape) if isinstance(v, Node) else None, x)
        self.build(shape)
        self.built = True

    def _cast(self, value: Any) -> Any:
        """Arrays become Nodes; floats get the layer's dtype, and keep their masks."""
        if isinstance(value, np.ndarray | Variable):
            value = ops.as_node(value)
        if isinstance(value, Node) and value.dtype in FLOATS and value.dtype != self.dtype:
            masks, given = current_scope().masks, value
            value = ops.cast(value, self.dtype)
            if given in masks:
                masks[value] = masks[given]
        return value

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call Nodes on symbolic values; the layer's own Nodes within a scope, or on arrays."""
        if not args:
            raise ArgumentError(f"{self.name}: expected a value to be called on")
        if in_scope():
            return self._inline(args, kwargs)
        rng = state_node("random", Spec((2,), "int64"))
        with enter(Scope(training=False, random=rng)):
            result = self._inline(args, kwargs)
        return call_nodes(self, args, kwargs, result) if leaves((args, kwargs)) else result

    def _inline(self, args: tuple, kwargs: dict[str, Any]) -> Any:
        args, kwargs = tree_map(self._cast, args), tree_map(self._cast, kwargs)
        self._ensure_built(args[0])
        scope, explicit = current_scope(), kwargs.get("training")
        training = scope.training if explicit is None else bool(explicit)
        kwargs = completed(self, args, kwargs, training)
        mask = kwargs.get("mask")
        mask = masks_of(args[0]) if mask is None else mask
        with scoped(self.name) as inner:
            inner.training = training
            result = with_masks(self, args[0], mask, self.call(*args, **kwargs))
            if self.activity_regularizer is not None:
                results = [(n, n.shape[0] if n.rank else 1) for n in leaves(result)]
                penalties = [(self.activity_regularizer(n), batch) for n, batch in results]
                scope.losses.extend(p / extent_node(batch, p.dtype) for p, batch in penalties)
        for v in self._variables:
            # a layer that is called twice is penalised once
            if not v.trainable or v.penalty is None:
                continue
            if not any(p is v.penalty for p in scope.losses):
                scope.losses.append(v.penalty)
        return result

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Shape of the results for inputs of this shape, batch axis included, None where open.
        Builds the layer.
        """
        is_shape = isinstance(input_shape, tuple) and not any(
            isinstance(d, tuple | list) for d in input_shape
        )
        shapes = [input_shape] if is_shape else list(input_shape)
        nodes = [Input(batch_shape=s, dtype=self.input_dtype) for s in shapes]
        with enter(Scope(random=state_node("random", Spec((2,), "int64")))):
            result = self._inline((nodes[0] if is_shape else nodes,), {})
        return tree_map(lambda n: plain_shape(n.shape), result)

    @property
    def input_dtype(self) -> str:
        """The dtype of an Input made for this layer."""
        return self.dtype

    # ----------------------------------------------------------------------------- configuration
    def get_config(self) -> dict[str, Any]:
        """The arguments, with the current name and trainable."""
        given = super().get_config()
        return {**given, "name": self.name, "trainable": self.trainable, "dtype": self.dtype}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        """A layer with the arguments that `get_config` gave, also where __init__ takes neither name
        nor trainable.
        """
        kept = {k: v for k, v in config.items() if k in keywords(cls)}
        others = {k: v for k, v in config.items() if k not in kept}
        name, trainable = others.pop("name", None), others.pop("trainable", True)
        others.pop("dtype", None)
        layer = super().from_config({**kept, **others})
        if name is not None:
            layer.name, layer._named = name, "user"
        if not trainable:
            layer.trainable = False
        return layer

    def build_from_config(self, config: Mapping[str, Any]) -> None:
        """Build for config["input_shape"]."""
        self._ensure_built(Input(batch_shape=config["input_shape"], dtype=self.input_dtype))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}>"
