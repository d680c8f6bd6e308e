"""Session: the memory and the compiled steps of one model.

Each model has a Store of its own. A variable that lies in another model's memory already (a shared
layer) stays where it is: both stores refer to the same bytes, so training one model is seen by the
other.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nnjit import config
from nnjit.graph import Graph
from nnjit.layers.variable import Variable
from nnjit.runtime.executable import build, no_collection
from nnjit.runtime.store import Store

# where each variable lies: (block, byte offset)
_places: weakref.WeakKeyDictionary[Variable, tuple[np.ndarray, int]] = weakref.WeakKeyDictionary()


class _Named:
    """The owner of a model's own counters."""

    trainable = False
    path = "model"


@dataclass
class Step:
    """A compiled step and where its variables lay. moves: `Variable.moves` when they lay there."""

    executable: Any
    places: list[tuple[Variable, np.ndarray]]
    moves: int

    def moved(self) -> bool:
        """Whether a variable of it got another array."""
        if any(v._value is not a for v, a in self.places):
            return True
        self.moves = Variable.moves
        return False


class Session:
    """What a model keeps besides its structure."""

    def __init__(self, seed: int):
        self._device: str | None = None
        self._used: str | None = None  # what device came to
        self.batch_slices: int | str = 1
        self.first_seed = seed
        self.random = Variable("random", (2,), "int64", "zeros", False, owner=_Named())
        self.random.assign(np.array([seed, 0], np.int64))
        self._store = Store()
        self._steps: dict[Hashable, Step] = {}

    @property
    def device(self) -> str | None:
        """The device of the steps; None: NNJIT_DEVICE, as it is when one is first needed."""
        return self._device

    @device.setter
    def device(self, name: str | None) -> None:
        self._device, self._used = name, None

    def _use(self) -> str:
        self._used = self._device or config.device()
        return self._used

    def forget(self) -> None:
        """Drop the compiled steps: after compile, or a change of structure."""
        self._steps.clear()
        self._used = None

    def executable(
        self, key: Hashable, graph: Callable[[], Graph], variables: Callable[[], Sequence[Variable]]
    ) -> Any:
        """The compiled step `key`, made from `graph()` at its first use. variables: its leaves."""
        device = self._used or self._use()
        found = self._steps.get((key, device))
        # a step refers to memory: it is good as long as every variable lies where it lay
        if found is None or (found.moves != Variable.moves and found.moved()):
            self.hold(variables())
            with no_collection():
                made = graph()
            slices = self.batch_slices if made.name == "train" else 1
            step = build(made, self._store, device, slices)
            found = Step(step, [(v, v._array) for v in variables()], Variable.moves)
            self._steps[key, device] = found
        return found.executable

    def found(self, key: Hashable) -> Any:
        """The compiled step `key` if there is one and nothing has moved, at a glance; else None."""
        step = self._steps.get((key, self._used or self._use()))
        return step.executable if step is not None and step.moves == Variable.moves else None

    def hold(self, variables: Sequence[Variable]) -> None:
        """Have these variables in this model's memory, with the initial values of its seed."""
        arrays = self._store.arrays
        new = [
            v for v in variables
            if not v.initialized or arrays.get(v.node.name) is not v._array
        ]  # fmt: skip
        if not new:
            return
        if any(v.node.name in arrays for v in new):
            # a layer was renamed or replaced: what is compiled refers to other variables
            self.forget()
            self._store, new = Store(), list(variables)
        for v in new:
            if v in _places and v.initialized and np.may_share_memory(_places[v][0], v._array):
                self._store.place(v, *_places[v])
        rest = [v for v in new if v.node.name not in self._store.arrays]
        # parameters that are trained lie together, so that one launch can update all of them
        for group in ([v for v in rest if v.trainable], [v for v in rest if not v.trainable]):
            self._store.add(group, self.first_seed)
        for v in rest:
            block, at = self._store.layout[v.node.name]
            _places[v] = (self._store.blocks[block], at)
