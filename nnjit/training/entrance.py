"""Arrays that fit at a glance: a batch like the last one is not asked again what it is."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nnjit.compiled import Compiled, Output
from nnjit.data.check import warn_nonfinite
from nnjit.spec import Dim, Spec
from nnjit.step import input_keys
from nnjit.training.feeds import Feed, check_values, feed
from nnjit.verbs import step_key


@dataclass(frozen=True)
class Entrance:
    """What a model with this structure takes as one batch: keys of the graph's inputs, their dtypes
    and shapes without the batch axis.
    """

    structure: Any
    keys: tuple[str, ...]
    dtypes: tuple[np.dtype, ...]
    shapes: tuple[tuple[Dim | None, ...], ...]

    @classmethod
    def of(cls, model: Any) -> Entrance:
        nodes = model.inputs
        dtypes = tuple(np.dtype(n.dtype) for n in nodes)
        shapes = tuple(n.spec.shape[1:] for n in nodes)
        return cls(model._symbolic, tuple(input_keys(model)), dtypes, shapes)

    def take(self, x: Any) -> dict[str, np.ndarray] | None:
        """x as the step's inputs if it is arrays, in order, with nothing to convert or complain
        about; else None.
        """
        given = x if isinstance(x, list | tuple) else (x,)
        if len(given) != len(self.keys):
            return None
        found, rows = {}, 0
        for a, key, dtype, shape in zip(given, self.keys, self.dtypes, self.shapes, strict=True):
            if type(a) is not np.ndarray or a.dtype != dtype or a.ndim != len(shape) + 1:
                return None
            if a.shape[1:] != shape and not _fits(a.shape[1:], shape):
                return None
            if not len(a) or (rows and len(a) != rows) or not a.flags.c_contiguous:
                return None
            rows, found[key] = len(a), a
        return found


def _fits(shape: tuple[int, ...], wanted: tuple[Dim | None, ...]) -> bool:
    return all(g == w or not isinstance(w, int) for g, w in zip(shape, wanted, strict=True))


def entrance_of(model: Any) -> Entrance | None:
    """The Entrance of the model as it is; None where its structure is still open."""
    known = model._entrance
    if known is None or known.structure is not model._symbolic:
        known = model._entrance = Entrance.of(model) if model._symbolic is not None else None
    return known


def one_batch(model: Any, x: Any) -> dict[str, np.ndarray]:
    """x as the inputs of one step, checked as `feed` does, not looked through for NaN; what fits as
    it is needs a glance only.
    """
    known = entrance_of(model)
    found = known.take(x) if known is not None else None
    return feed(model, x, training=False, warn=False).whole() if found is None else found


@dataclass(frozen=True)
class Labels:
    """What the labels of a batch were, of a model with one output: dtype and shape without the
    batch axis. specs: as `Feed.labels`. keys: what the session knows the steps by.
    """

    output: Output
    dtype: np.dtype
    shape: tuple[int, ...]
    specs: dict[str, Spec]
    keys: dict[str, tuple] = field(default_factory=dict)

    @classmethod
    def of(cls, compiled: Compiled, y: Any, data: Feed) -> Labels | None:
        """None unless y is an array that the step reads as it is."""
        if len(compiled.outputs) != 1 or type(y) is not np.ndarray:
            return None
        (output,) = compiled.outputs
        if data.arrays.get(output.key) is not y or data.dtypes[output.key] != y.dtype.name:
            return None
        return cls(output, y.dtype, y.shape[1:], data.labels)

    def fit(self, y: Any, rows: int) -> bool:
        """Whether y is an array like those, with this many rows."""
        if type(y) is not np.ndarray or y.dtype != self.dtype or not y.flags.c_contiguous:
            return False
        return bool(y.shape[1:] == self.shape and y.ndim and len(y) == rows)

    def executable(self, model: Any, step: str) -> Any:
        """The compiled step for such labels."""
        found = model.session.found(self.keys[step]) if step in self.keys else None
        if found is None:
            found = model.executable(step, self.specs, None)
            self.keys[step] = step_key(step, self.specs, None)
        return found


def same(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two arrays without gaps are the same memory, as an autoencoder's x and y are."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    return a is b or a.__array_interface__["data"] == b.__array_interface__["data"]


def labelled_batch(
    model: Any, compiled: Compiled, step: str, x: Any, y: Any
) -> tuple[Any, dict[str, np.ndarray]]:
    """The compiled step for x and y, and them as its inputs.

    All values are looked at; what the arrays are is only asked where they differ from the last.
    """
    known, last = entrance_of(model), compiled.last_labels
    found = known.take(x) if known is not None and last is not None else None
    if found is not None and last.fit(y, len(next(iter(found.values())))):
        check_values(last.output, y, last.output.key)
        for name, a in found.items():
            if last.output.classes is not None or not same(a, y):
                warn_nonfinite(a, name)
        found[last.output.key] = y
        return last.executable(model, step), found
    data = feed(model, x, y)
    compiled.last_labels = Labels.of(compiled, y, data)
    return model.executable(step, data.labels, data.weight), data.whole()
