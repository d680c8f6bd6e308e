"""Names of layers: dense, dense_1, dense_2, … within the model or layer that they are part of."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import TYPE_CHECKING

from nnjit.errors import ArgumentError
from nnjit.registry import snake_case

if TYPE_CHECKING:
    from nnjit.layers.base import Layer


def name_layers(layers: Iterable[Layer]) -> None:
    """Give every layer without a final name one that no other has: dense, dense_1, dense_2, … in
    this order.

    Names given by the user stay; two layers with the same one are an error.
    """
    layers = list(dict.fromkeys(layers))
    used: set[str] = set()
    for layer in layers:
        if layer._named == "user":
            if layer.name in used:
                raise ArgumentError(f"two layers are named {layer.name!r}: names must differ")
            used.add(layer.name)
    for layer in layers:
        if layer._named == "user" or (layer._named == "model" and layer.name not in used):
            used.add(layer.name)
            continue
        base = snake_case(type(layer).__name__)
        tries = itertools.chain([base], (f"{base}_{i}" for i in itertools.count(1)))
        kept = {x.name for x in layers if x._named == "model" and x is not layer}
        layer.name = next(t for t in tries if t not in used and t not in kept)
        layer._named = "model"
        used.add(layer.name)
