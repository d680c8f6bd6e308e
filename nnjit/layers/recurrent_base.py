"""RNN: a cell at every time step; StackedRNNCells: several as one. Keras' names and defaults.

Inside, sequences are time-major. What a cell of nnjit does with the inputs alone is one product
over all times before the scan.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nnjit import ops
from nnjit.errors import ArgumentError, ShapeError
from nnjit.graph import Node
from nnjit.layers.base import REGISTRY, Layer
from nnjit.layers.calls import leaves, tree_map
from nnjit.layers.recurrent_cells import RecurrentCell
from nnjit.spec import shape_text


@REGISTRY.named()
class StackedRNNCells(Layer):
    """Cells one on top of the other: the output of each is the input of the next."""

    def __init__(self, cells: Sequence[Layer], **kwargs: Any):
        super().__init__(**kwargs)
        if not cells:
            raise ArgumentError(f"{self.name}: cells={cells!r}: expected at least one cell")
        self.cells: list[Any] = [check_cell(self, c) for c in cells]

    @property
    def state_size(self) -> list:
        return [c.state_size for c in self.cells]

    def build(self, input_shape):
        for cell in self.cells:
            if not cell.built:
                cell.build(input_shape)
                cell.built = True
            size = tree_sizes(cell.state_size)
            input_shape = (input_shape[0], getattr(cell, "output_size", None) or size[0])

    def call(self, inputs, states, training=False):
        new: list[Node] = []
        for cell, own in zip(self.cells, states, strict=True):
            state = own if isinstance(own, list | tuple) else [own]
            inputs, given = cell(inputs, list(state), training=training)
            new += leaves(given)
        rest = iter(new)
        return inputs, tree_map(lambda _: next(rest), states)


def check_cell(layer: Layer, cell: Any) -> Layer:
    """cell, or ArgumentError if it cannot be one."""
    if not isinstance(cell, Layer) or not hasattr(cell, "state_size"):
        raise ArgumentError(
            f"{layer.name}: cell={cell!r}: expected a layer with state_size and "
            "call(inputs, states) -> (output, new states)"
        )
    sizes = tree_sizes(cell.state_size)
    if not sizes or any(isinstance(k, bool) or not isinstance(k, int) or k < 1 for k in sizes):
        raise ArgumentError(
            f"{layer.name}: {cell.name}.state_size={cell.state_size!r}: expected whole numbers"
        )
    return cell


def tree_sizes(sizes: Any) -> list[Any]:
    """The numbers in a nested state_size."""
    found: list[Any] = []
    tree_map(found.append, sizes)
    return found


@REGISTRY.named()
class RNN(Layer):
    """A cell over (batch, time, features), each state handed to the next step.

    return_sequences: the output of every step (batch, time, units), else of the last (batch,
    units). return_state: the last states too. go_backwards: from the last step to the first; the
    outputs stand in that order. stateful: a batch begins with the states that the one before left.
    zero_output_for_mask: 0 where the mask is False, else the output before. unroll: only False.
    call takes initial_state, a list of (batch, size). A mask (batch, time): steps with False leave
    the states as they are.
    """

    supports_masking = True
    cell: Any

    def __init__(
        self,
        cell: Any,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        unroll: bool = False,
        zero_output_for_mask: bool = False,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if unroll:
            raise ArgumentError(
                f"{self.name}: unroll={unroll!r}: only False; one kernel runs all time steps"
            )
        if isinstance(cell, list | tuple):
            cell = StackedRNNCells(cell)
        self.cell = check_cell(self, cell)
        self.return_sequences, self.return_state = bool(return_sequences), bool(return_state)
        self.go_backwards, self.stateful = bool(go_backwards), bool(stateful)
        self.zero_output_for_mask = bool(zero_output_for_mask)
        self.states: list = []

    @property
    def state_size(self) -> list:
        """The extents of the states, in a list."""
        size = self.cell.state_size
        return list(size) if isinstance(size, list | tuple) else [size]

    def build(self, input_shape):
        if input_shape is None or len(input_shape) != 3:
            given = "no value" if input_shape is None else shape_text(input_shape)
            raise ShapeError(f"{self.path}: expected (batch, time, features), got {given}")
        if not self.cell.built:
            self.cell.build((input_shape[0], *input_shape[2:]))
            self.cell.built = True
        if not self.stateful:
            return
        if input_shape[0] is None:
            raise ShapeError(
                f"{self.path}: stateful=True needs a fixed batch size, got "
                f"{shape_text(input_shape)}; give Input(batch_size=…)"
            )
        self.states = [
            self.add_weight((input_shape[0], k), "zeros", "state", trainable=False)
            for k in tree_sizes(self.state_size)
        ]

    def reset_state(self) -> None:
        """Begin the next batch with zeros (stateful=True)."""
        for v in self.states:
            v.assign(np.zeros(v.shape, v.dtype))

    reset_states = reset_state

    def compute_mask(self, inputs, previous_mask=None):
        mask = previous_mask if self.return_sequences else None
        return [mask, *[None] * len(tree_sizes(self.state_size))] if self.return_state else mask

    # ----------------------------------------------------------------------------------- calling
    def call(self, sequences, initial_state=None, mask=None, training=False):
        x = self._checked(sequences)
        zero = initial_state is None and not self.stateful
        states = self._initial(x, initial_state)
        over = [ops.transpose(x, (1, 0, 2))]
        own = isinstance(self.cell, RecurrentCell)
        if own:
            over[0] = self.cell.project(over[0], training)
        if mask is not None:
            over.append(self._steps_mask(x, mask))
        holds = mask is not None and not self.zero_output_for_mask
        # The output of an own cell is its first state, but 0 instead of an initial state where the
        # mask leaves out the first steps.
        same = own and (mask is None or (holds and zero))
        held = not same and (holds or not self.return_sequences)
        if held:
            states = [*states, ops.full((x.shape[0], self._output_size()), 0, self.dtype)]

        def step(carries, inputs, _):
            before = carries[-1] if held else None
            new, output = self._step(carries[: len(carries) - held], inputs, before, training)
            output = new[0] if same else output
            return ([*new, output] if held else new), ([output] if self.return_sequences else [])

        last, stacked = ops.scan(step, states, over, reverse=self.go_backwards)
        output = last[-1] if held else last[0]
        if self.return_sequences:
            output = ops.transpose(stacked[0], (1, 0, 2))
            output = ops.flip(output, 1) if self.go_backwards else output
        last = last[:-1] if held else last
        if self.stateful:
            for v, value in zip(self.states, last, strict=True):
                v.update(value)
        if not self.return_state:
            return output
        rest = iter(last)
        return (output, *tree_map(lambda _: next(rest), self.state_size))

    def _step(
        self, old: list[Node], inputs: list[Node], before: Node | None, training: bool
    ) -> tuple[list[Node], Node]:
        """(states, output) of one time step; before: the output of the step before."""
        rest = iter(old)
        states = tree_map(lambda _: next(rest), self.state_size)
        options = {"projected": True} if isinstance(self.cell, RecurrentCell) else {}
        output, given = self.cell(inputs[0], states, training=training, **options)
        new = [ops.cast(s, self.dtype) for s in leaves(given)]
        if len(new) != len(old):
            raise ShapeError(
                f"{self.path}: {self.cell.name} gave {len(new)} states for state_size "
                f"{self.cell.state_size}"
            )
        output = ops.cast(output, self.dtype)
        if len(inputs) > 1:
            mask = inputs[1]
            new = [ops.where(mask, a, b) for a, b in zip(new, old, strict=True)]
            skipped = 0 if self.zero_output_for_mask or before is None else before
            output = ops.where(mask, output, skipped)
        return new, output

    def _checked(self, x: Any) -> Node:
        if not isinstance(x, Node) or x.rank != 3:
            given = shape_text(x.shape) if isinstance(x, Node) else repr(x)
            raise ShapeError(f"{self.path}: expected (batch, time, features), got {given}")
        return ops.cast(x, self.dtype)

    def _initial(self, x: Node, given: Any) -> list[Node]:
        """The states before the first step."""
        sizes = tree_sizes(self.state_size)
        if given is None and self.stateful:
            return [v.current for v in self.states]
        if given is None and hasattr(self.cell, "get_initial_state"):
            given = self.cell.get_initial_state(batch_size=x.shape[0])
        if given is None:
            return [ops.full((x.shape[0], k), 0, self.dtype) for k in sizes]
        states: list[Any] = []
        tree_map(lambda v: states.append(ops.cast(v, self.dtype)), given)
        shapes = [s.shape for s in states]
        if shapes != [(x.shape[0], k) for k in sizes]:
            raise ShapeError(
                f"{self.path}: initial_state: expected "
                f"{' and '.join(shape_text((x.shape[0], k)) for k in sizes)}, "
                f"got {' and '.join(map(shape_text, shapes)) or 'nothing'}"
            )
        return states

    def _steps_mask(self, x: Node, mask: Any) -> Node:
        """(batch, time) as the scan takes it: bool (time, batch, 1)."""
        mask = leaves(mask)[0] if isinstance(mask, list | tuple) else ops.as_node(mask)
        batch, time = x.shape[:2]
        if mask.shape not in ((batch, time), (batch, time, 1)):
            raise ShapeError(
                f"{self.path}: expected a mask {shape_text((batch, time))}, "
                f"got {shape_text(mask.shape)}"
            )
        rows = ops.transpose(ops.reshape(mask, (batch, time)))
        return ops.reshape(ops.cast(rows, "bool"), (time, batch, 1))

    def _output_size(self) -> int:
        cell = self.cell
        while isinstance(cell, StackedRNNCells):
            cell = cell.cells[-1]
        return getattr(cell, "output_size", None) or tree_sizes(cell.state_size)[0]
