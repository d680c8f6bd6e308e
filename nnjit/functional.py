"""Functions of arrays, compiled: `function`, `grad`, `value_and_grad`.

    f = nnjit.function(lambda x, w: nnjit.ops.sum(nnjit.ops.tanh(x @ w)))
    f(x, w); nnjit.grad(f, argnums=1)(x, w)

A function is traced once per shapes and dtypes of its arguments, or once for all with open Specs.
Called on symbolic values it stays symbolic, so functions may use each other, and gradients may be
taken of gradients.
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np

from nnjit import config
from nnjit.autodiff import gradients
from nnjit.data.check import as_array
from nnjit.errors import ArgumentError, GraphError, ShapeError, nearest
from nnjit.graph import Graph, Node, Scope, input_node, walk
from nnjit.layers.base import Layer
from nnjit.layers.calls import called_layers, leaves, trace, tree_map
from nnjit.ops.base import as_node
from nnjit.session import Session
from nnjit.spec import Spec, check_dtype, shape_text

# the layers that the function being traced calls: their variables must be in its memory
_layers: contextvars.ContextVar[list[Layer]] = contextvars.ContextVar("nnjit_layers")


class Function:
    """What `function` returns: call it on arrays."""

    def __init__(
        self,
        fn: Callable[..., Any],
        specs: Sequence[Spec] | None = None,
        device: str | None = None,
    ):
        if device is not None and device not in config.DEVICES:
            raise ArgumentError(f"device={device!r}{nearest(device, config.DEVICES)}")
        self.fn, self.device = fn, device
        self.specs = None if specs is None else [_named(i, s) for i, s in enumerate(specs)]
        self.__name__ = getattr(fn, "__name__", "function")
        self.__doc__ = getattr(fn, "__doc__", None)
        self._traced: dict[Hashable, tuple[Any, Any]] = {}
        self._session = Session(config.seed())

    def __call__(self, *args: Any) -> Any:
        """Arrays in, arrays out, in the structure that the function returns."""
        if any(isinstance(a, Node) for a in args):
            return self.fn(*args)
        arrays = [self._array(i, a) for i, a in enumerate(args)]
        executable, structure = self._compiled(arrays)
        found = executable.run({f"x{i}": a for i, a in enumerate(arrays)})
        outputs = iter([np.array(found[f"y{i}"]) for i in range(len(found))])
        return tree_map(lambda v: next(outputs) if isinstance(v, Node) else v, structure)

    def _array(self, i: int, value: Any) -> np.ndarray:
        if isinstance(value, bool | int | float):
            array = np.asarray(value, np.int32 if isinstance(value, int) else np.float32)
        elif getattr(value, "ndim", None) == 0:
            array = np.asarray(value)
        else:
            array = as_array(value, f"{self.__name__}: argument {i}")
        if self.specs is not None and i < len(self.specs):
            array = array.astype(self.specs[i].dtype, copy=False)
        check_dtype(array.dtype.name)
        return array

    def _compiled(self, arrays: Sequence[np.ndarray]) -> tuple[Any, Any]:
        specs = self.specs or [Spec(a.shape, a.dtype.name) for a in arrays]
        if len(specs) != len(arrays):
            raise ArgumentError(
                f"{self.__name__}: {len(arrays)} arguments given, {len(specs)} specs were declared"
            )
        key = (tuple(specs), self.device or config.device())
        if key not in self._traced:
            self._traced[key] = self._trace(specs)
        return self._traced[key]

    def _trace(self, specs: Sequence[Spec]) -> tuple[Any, Any]:
        inputs = [input_node(f"x{i}", s) for i, s in enumerate(specs)]
        layers: list[Layer] = []
        token = _layers.set(layers)
        try:
            structure = tree_map(self._result, self.fn(*inputs))
            outputs = _inlined(leaves(structure))
        finally:
            _layers.reset(token)
        variables = [v for layer in dict.fromkeys(layers) for v in layer.weights]
        names = [v.name for v in variables]
        if twice := next((n for n in names if names.count(n) > 1), None):
            raise ArgumentError(
                f"{self.__name__}: two layers hold a variable {twice!r}; give them name=…"
            )
        held = {v.node for v in variables}
        for n in walk(outputs):
            if n.op.name in ("parameter", "state") and n not in held:
                raise GraphError(
                    f"{self.__name__}: uses the variable {n.name!r} itself; call its layer, "
                    "or give its value as an argument"
                )
        named = {f"y{i}": n for i, n in enumerate(outputs)}
        self._session.device = self.device
        graph = Graph(self.__name__, named)
        executable = self._session.executable(tuple(specs), lambda: graph, lambda: variables)
        return executable, structure

    def _result(self, value: Any) -> Node:
        if isinstance(value, Node | bool | int | float | np.ndarray) or hasattr(value, "node"):
            return as_node(value)
        raise ArgumentError(f"{self.__name__}: returned {value!r}; expected symbolic values")

    def source(self, *args: Any) -> str:
        """The generated Python source for arguments like these."""
        return self._compiled([self._array(i, a) for i, a in enumerate(args)])[0].source()


def _named(i: int, spec: Any) -> Spec:
    if not isinstance(spec, Spec):
        raise ArgumentError(f"specs[{i}]={spec!r}: expected a Spec, like Spec((None, 8))")
    return spec.named(f"x{i}")


def _inlined(nodes: Sequence[Node]) -> list[Node]:
    """Nodes with calls of layers replaced by what the layers compute, in inference."""
    found = _layers.get(None)
    if found is not None:
        found.extend(called_layers(nodes))
    return trace(nodes, {}, Scope(training=False))


def function(
    fn: Callable[..., Any], specs: Sequence[Spec] | None = None, device: str | None = None
) -> Function:
    """fn, written with `nnjit.ops` and layers, as a compiled function of arrays.

    specs: one Spec per argument; None in a shape is an axis of any length (a leading None has one
    length for all arguments, "n" names a length), so that other lengths compile nothing.
    device: "cpu", "python" or "interpret"; default NNJIT_DEVICE.
    """
    return Function(fn, specs, device)


def value_and_grad(fn: Callable[..., Any], argnums: int | Sequence[int] = 0) -> Function:
    """A function that gives (fn's value, gradients): of one argument, or a tuple of several.

    fn must give a scalar, of floats.
    """
    several = not isinstance(argnums, int)
    numbers = (argnums,) if isinstance(argnums, int) else tuple(argnums)
    inner = fn.fn if isinstance(fn, Function) else fn
    name = getattr(fn, "__name__", "function")

    def both(*args: Any) -> Any:
        if any(not -len(args) <= i < len(args) for i in numbers):
            raise ArgumentError(f"argnums={argnums!r}: {name} was given {len(args)} argument(s)")
        nodes = [as_node(a) for a in args]
        value = as_node(inner(*nodes))
        if value.rank:
            raise ShapeError(
                f"grad: {name} must give a scalar, got shape {shape_text(value.shape)}"
            )
        value, *wrt = _inlined([value, *(nodes[i] for i in numbers)])
        found = tuple(gradients(value, wrt))
        return value, found if several else found[0]

    both.__name__ = f"value_and_grad_{name}"
    return Function(both, *_settings(fn))


def grad(fn: Callable[..., Any], argnums: int | Sequence[int] = 0) -> Function:
    """A function that gives the gradient of fn by one argument, or a tuple for several."""
    both = value_and_grad(fn, argnums)

    def only(*args: Any) -> Any:
        return both.fn(*args)[1]

    only.__name__ = f"grad_{getattr(fn, '__name__', 'function')}"
    return Function(only, *_settings(fn))


def _settings(fn: Any) -> tuple[Any, Any]:
    return (fn.specs, fn.device) if isinstance(fn, Function) else (None, None)
