"""Sequential: a model of layers one after the other."""

from __future__ import annotations

import contextvars
from collections.abc import Sequence
from typing import Any

from nnjit.errors import ArgumentError
from nnjit.graph import Node
from nnjit.layers.base import REGISTRY, Layer
from nnjit.layers.inputs import Input
from nnjit.models.base import Model
from nnjit.spec import Spec


@REGISTRY.named()
class Sequential(Model):
    """Layers one after the other. The first may be an Input, or have input_shape; else the first
    data decides.
    """

    def __init__(
        self,
        layers: Sequence[Any] | None = None,
        *,
        name: str | None = None,
        trainable: bool = True,
        dtype: str | None = None,
    ):
        super().__init__(name=name, trainable=trainable, dtype=dtype)
        self._declared: Node | None = None
        for layer in layers or ():
            self._append(layer)
        self._build_if_known()

    def add(self, layer: Any) -> None:
        """Put a layer (or, at first, an Input) behind the others."""
        self._append(layer)
        self._restart()

    def pop(self) -> Layer:
        """Take the last layer away."""
        if not self._sublayers:
            raise ArgumentError(f"{self.name}: there is no layer to pop")
        layer = self._sublayers.pop()
        if layer._parent is self:
            layer._parent = None
        self._restart()
        return layer

    def _append(self, layer: Any) -> None:
        if isinstance(layer, Node) and layer.op.name == "input":
            if self._sublayers or self._declared is not None:
                raise ArgumentError(f"{self.name}: an Input must be the first, and the only one")
            self._declared = layer
        elif not isinstance(layer, Layer):
            hint = "; call it: " + layer.__name__ + "(…)" if isinstance(layer, type) else ""
            raise ArgumentError(f"{self.name}: expected a layer, got {layer!r}{hint}")
        elif layer in self._sublayers:
            raise ArgumentError(f"{self.name}: the layer {layer.name!r} is in it already")
        else:
            self.adopt([layer])

    def _restart(self) -> None:
        self._symbolic, self.built = None, False
        self.session.forget()
        self._build_if_known()

    def _build_if_known(self) -> None:
        if self._declared is not None and self._sublayers:
            self._connect_chain(self._declared)
        elif self._sublayers:
            spec = self._first_spec()
            if spec is not None:
                self.build_from(spec)

    def _first_spec(self) -> Spec | None:
        first = self._sublayers[0]
        if first.declared_shape is not None:
            return Spec((None, *first.declared_shape), first.input_dtype)
        if isinstance(first, Model) and first._symbolic is not None and len(first.inputs) == 1:
            return Spec((None, *first.input_shape[1:]), first.inputs[0].dtype)
        return None

    @property
    def input_dtype(self) -> str:
        return self._sublayers[0].input_dtype if self._sublayers else self.dtype

    def build_from(self, specs: Any) -> None:
        self._connect_chain(Input(batch_shape=specs.shape, dtype=specs.dtype))

    def _connect_chain(self, x: Node) -> None:
        if not self._sublayers:
            raise ArgumentError(f"{self.name}: it has no layers")
        first = x

        def chain() -> Any:
            out: Any = first
            for layer in self._sublayers:
                out = layer(out)
            return out

        # an empty context is outside of any scope, so that calls stay calls even when a model
        # around this one is being traced
        self._symbolic, self.built = (first, contextvars.Context().run(chain)), True

    def get_config(self) -> dict[str, Any]:
        from nnjit.architecture import sequential_config

        return sequential_config(self)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        from nnjit.architecture import sequential_from_config

        return sequential_from_config(cls, config)
