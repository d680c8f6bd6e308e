"""Symbolic inputs of models, and shapes with open axes."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from nnjit.errors import ArgumentError
from nnjit.graph import Node, input_node
from nnjit.spec import Dim, Spec, symbol

Shape = tuple[int | None, ...]
NamedShape = tuple[Dim | None, ...]

_inputs = itertools.count()


def Input(
    shape: Sequence[int | str | None] | None = None,
    batch_size: int | None = None,
    dtype: str = "float32",
    name: str | None = None,
    batch_shape: Sequence[int | None] | None = None,
) -> Node:
    """A symbolic input of a model: `shape` without the batch axis; None is an axis of any length, a
    name one that has the same length wherever it occurs: Input(("time", 8)), Input(("time",)).

    Unnamed inputs are called 'input_layer'; a model numbers them.
    """
    if (shape is None) == (batch_shape is None):
        raise ArgumentError("Input: expected either shape= or batch_shape=")
    if dtype == "bfloat16":
        raise ArgumentError(
            "Input: dtype='bfloat16': inputs are float32; see compile's dtype_policy"
        )
    full = tuple(batch_shape) if batch_shape is not None else (batch_size, *dims(shape, "Input"))
    # The symbols of unnamed inputs differ, so that their open axes are not taken to be equal.
    return input_node(
        name or "input_layer", Spec(full, dtype).named(name or f"input_{next(_inputs)}")
    )


def dims(shape: Any, where: str) -> NamedShape:
    """shape as a tuple of ints, None and names, or ArgumentError; a number is one axis."""
    given = (shape,) if isinstance(shape, int | np.integer) else tuple(shape)
    for d in given:
        name = isinstance(d, str) and d.isidentifier() and d != "batch"
        if d is not None and not name and (not isinstance(d, int | np.integer) or d < 0):
            raise ArgumentError(
                f"{where}: shape={shape!r}: expected whole numbers, names of axes and None"
            )
    return tuple(d if d is None else symbol(d) if isinstance(d, str) else int(d) for d in given)


def plain_shape(shape: Iterable[Dim | None]) -> Shape:
    """A shape as `build` gets it: None where an extent is only known at run time."""
    return tuple(d if isinstance(d, int) else None for d in shape)
