"""Variable: a named array that lives from step to step: a weight, a running statistic, an optimizer
slot, a counter.

In a graph it is one leaf Node. The array is made when it is first needed; a Store may move it to
its own memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nnjit import config, initializers
from nnjit.changes import parameters_changed
from nnjit.errors import ArgumentError, DTypeError, ShapeError
from nnjit.graph import Node, current_scope, parameter_node, state_node
from nnjit.spec import Spec, shape_text


class Variable:
    """name: the part after the owner's path. parameter: an optimizer may change it (else the leaf
    is `state`).

    like: the parameter that this slot belongs to and has the layout of. regularizer and constraint:
    Node -> Node. The full name is '<owner.path>/<name>'; it is final once the model has named its
    layers.
    """

    __array_ufunc__ = None  # ndarray * Variable goes to Variable.__rmul__
    moves = 0  # of any variable: how often one got another array

    def __init__(
        self,
        name: str,
        shape: Sequence[int] = (),
        dtype: str = "float32",
        initializer: Any = "zeros",
        trainable: bool = True,
        *,
        owner: Any = None,
        like: Variable | None = None,
        regularizer: Callable[[Node], Node] | None = None,
        constraint: Callable[[Node], Node] | None = None,
    ):
        self.key, self.owner, self.like = name, owner, like
        self.parameter = bool(trainable)
        self.regularizer, self.constraint = regularizer, constraint
        self.initializer = initializers.get(initializer)
        if self.initializer is None:
            raise ArgumentError(
                f"variable {self.name!r}: initializer=None; expected one, or a name"
            )
        if any(not isinstance(d, int | np.integer) for d in shape):
            raise ShapeError(f"variable {self.name!r}: shape {tuple(shape)} must be whole numbers")
        self.spec = Spec(tuple(int(d) for d in shape), dtype)
        self._value: np.ndarray | None = None
        self._node: Node | None = None
        self._penalty: Node | None = None

    @property
    def name(self) -> str:
        path = self.owner.path if self.owner is not None else ""
        return f"{path}/{self.key}" if path else self.key

    @property
    def shape(self) -> tuple[int, ...]:
        return self.spec.shape  # type: ignore[return-value]

    @property
    def dtype(self) -> str:
        return self.spec.dtype

    @property
    def size(self) -> int:
        """Number of elements."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def trainable(self) -> bool:
        """A parameter whose layer is not frozen."""
        return self.parameter and getattr(self.owner, "trainable", True)

    @property
    def node(self) -> Node:
        """The leaf. One Node as long as the name stays the same."""
        if self._node is None or self._node.name != self.name:
            make = parameter_node if self.parameter else state_node
            self._node, self._penalty = make(self.name, self.spec), None
        return self._node

    @property
    def penalty(self) -> Node | None:
        """The regularizer's scalar for this variable, one Node as long as `node` is."""
        node = self.node
        if self._penalty is None and self.regularizer is not None:
            self._penalty = self.regularizer(node)
        return self._penalty

    @property
    def current(self) -> Node:
        """What this variable becomes at the end of the step, as far as the graph has been built."""
        return current_scope().updates.get(self.node, self.node)

    def update(self, value: Node) -> None:
        """At the end of the step this variable becomes value."""
        current_scope().update(self.node, value)

    # ---------------------------------------------------------------------------------- the array
    @property
    def _array(self) -> np.ndarray:
        if self._value is None:
            self.initialize(config.seed())
        assert self._value is not None
        return self._value

    @_array.setter
    def _array(self, array: np.ndarray) -> None:
        if array.shape != self.shape or array.dtype.name != self.dtype:
            raise ShapeError(
                f"variable {self.name!r}: expected {self.spec}, got {array.dtype.name}{array.shape}"
            )
        self._value = array
        Variable.moves += 1

    @property
    def initialized(self) -> bool:
        """Whether it has an array yet."""
        return self._value is not None

    def initialize(self, seed: int) -> None:
        """Give it the initializer's values for (seed, name)."""
        if isinstance(self.initializer, initializers.Initializer):
            drawn = self.initializer.draws
            rng = initializers.generator(seed, self.name) if drawn else None
            value = self.initializer(self.shape, self.dtype, rng)
        else:
            value = np.array(self.initializer(self.shape, self.dtype), dtype=self.dtype)
        if self._value is None:
            self._array = value
        else:
            self._write(value)

    def numpy(self) -> np.ndarray:
        """A copy of the value."""
        return self._array.copy()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self._array, dtype=dtype)

    def assign(self, value: Any) -> None:
        """Set the value, in place. Shapes must be equal; floats may be narrowed, but not made whole
        numbers.
        """
        array = np.asarray(value)
        if array.shape != self.shape:
            raise ShapeError(
                f"{self.name}: expected shape {shape_text(self.shape)}, "
                f"got {shape_text(array.shape)}"
            )
        if array.dtype == object or not np.can_cast(array.dtype, self.dtype, "same_kind"):
            raise DTypeError(f"{self.name}: cannot assign {array.dtype.name} to {self.dtype}")
        self._write(array)

    def _write(self, value: np.ndarray) -> None:
        """Put a value into the array, and say so."""
        try:
            self._array[...] = value
        finally:
            if self.parameter:
                parameters_changed()

    def __repr__(self) -> str:
        return f"<Variable {self.name!r} {self.spec}>"


def _forward(name: str) -> Callable[..., Node]:
    def method(self: Variable, *args: Any) -> Node:
        return getattr(self.node, name)(*args)

    method.__name__ = name
    return method


_OPERATORS = ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul")
for _name in [
    *(f"__{o}__" for o in _OPERATORS),
    *(f"__r{o}__" for o in _OPERATORS),
    "__neg__",
    "__abs__",
    "__lt__",
    "__le__",
    "__gt__",
    "__ge__",
    "__getitem__",
]:
    setattr(Variable, _name, _forward(_name))
