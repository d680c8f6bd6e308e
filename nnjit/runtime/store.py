"""Store: the memory of a model's parameters and state.

Variables that are added together lie one behind the other, each on a 64-byte boundary, so the
optimizer's update of all of them can be one launch: a slot lies where its parameter lies, in a
block of its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from nnjit.compiler.plan import align
from nnjit.errors import GraphError
from nnjit.runtime.buffers import ALIGNMENT, aligned, give_back

MOVED = 16 << 20  # bytes of values that were moved, from which their old memory is given back


class Store:
    """Blocks of variables. A variable has .name, .spec and ._array; adding one moves its value into
    the block.
    """

    def __init__(self, variables: Iterable[Any] = ()):
        self.blocks: list[np.ndarray] = []
        self.layout: dict[str, tuple[int, int]] = {}  # leaf name -> (block, byte offset)
        self.arrays: dict[str, np.ndarray] = {}
        self.add(variables)

    def add(self, variables: Iterable[Any], seed: int | None = None) -> None:
        """Lay these variables out in a new block, in order; those already there stay where they
        are. seed: variables without a value get the initial one of this seed, in their place: no
        second copy of a large model is made on the way.
        """
        new = [v for v in variables if v.node.name not in self.layout]
        if not new:
            return
        offsets, size = [], 0
        for v in new:
            offsets.append(size)
            size = align(size + v.spec.nbytes)
        block, moved = aligned(max(size, ALIGNMENT)), 0
        for v, at in zip(new, offsets, strict=True):
            name = v.node.name
            if name in self.layout:
                raise GraphError(f"two variables are named {name!r}")
            view = block[at : at + v.spec.nbytes].view(v.spec.dtype).reshape(v.spec.shape)
            fresh = seed is not None and not v.initialized
            if not fresh:
                view[...] = v._array
                moved += v.spec.nbytes
            v._array = view
            if fresh:
                v.initialize(seed)
            self.layout[name] = (len(self.blocks), at)
            self.arrays[name] = view
        self.blocks.append(block)
        if moved >= MOVED:
            give_back()

    def place(self, variable: Any, block: np.ndarray, at: int) -> None:
        """Take in a variable that lies in a block of another store; both then share its memory."""
        index = next((i for i, b in enumerate(self.blocks) if b is block), len(self.blocks))
        if index == len(self.blocks):
            self.blocks.append(block)
        self.layout[variable.node.name] = (index, at)
        self.arrays[variable.node.name] = variable._array

    def copy(self) -> Store:
        """A store of the same memory; what is added to it is not added here."""
        found = Store()
        found.blocks, found.layout = list(self.blocks), dict(self.layout)
        found.arrays = dict(self.arrays)
        return found

    @property
    def nbytes(self) -> int:
        """Bytes of all blocks."""
        return sum(b.nbytes for b in self.blocks)
