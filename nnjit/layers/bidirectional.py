"""Bidirectional: a recurrent layer forwards and one backwards; Keras' names and defaults."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nnjit import ops
from nnjit.errors import ArgumentError, nearest
from nnjit.graph import Node
from nnjit.layers.base import REGISTRY, Layer
from nnjit.layers.recurrent_base import RNN, tree_sizes

MERGES = ("sum", "mul", "ave", "concat")


@REGISTRY.named()
class Bidirectional(Layer):
    """A copy of `layer` over the sequence, and one over the reversed sequence.

    merge_mode: how the two outputs become one: 'concat' (last axis), 'sum', 'mul', 'ave'; None:
    both are results. backward_layer: what runs backwards, with go_backwards=True; default a copy of
    `layer`. weights: initial weights, those of the forward layer first. States, given and returned:
    forward, then backward. Sequences are 0 where the mask is False.
    """

    supports_masking = True

    def __init__(
        self,
        layer: RNN,
        merge_mode: str | None = "concat",
        weights: Sequence[Any] | None = None,
        backward_layer: RNN | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        for option, given in (("layer", layer), ("backward_layer", backward_layer)):
            if not isinstance(given, RNN) and (option == "layer" or given is not None):
                raise ArgumentError(f"{self.name}: {option}={given!r}: expected a recurrent layer")
        if merge_mode is not None and merge_mode not in MERGES:
            raise ArgumentError(
                f"{self.name}: merge_mode={merge_mode!r}{nearest(merge_mode, MERGES)}"
            )
        self.merge_mode, self._given_weights = merge_mode, weights
        self.forward_layer = copy_of(layer, "forward")
        if backward_layer is None:
            backward_layer = copy_of(layer, "backward", go_backwards=not layer.go_backwards)
        self.backward_layer = backward_layer
        self._compare()
        self.return_sequences, self.return_state = layer.return_sequences, layer.return_state
        for one in (self.forward_layer, self.backward_layer):
            one.zero_output_for_mask = self.return_sequences

    def _compare(self) -> None:
        """ArgumentError unless the two layers differ in their direction, and only there."""
        a, b = self.forward_layer, self.backward_layer
        if a.go_backwards == b.go_backwards:
            raise ArgumentError(
                f"{self.name}: layer and backward_layer both have go_backwards={a.go_backwards}"
            )
        for option in ("stateful", "return_sequences", "return_state"):
            if getattr(a, option) != getattr(b, option):
                raise ArgumentError(
                    f"{self.name}: layer has {option}={getattr(a, option)}, backward_layer has "
                    f"{option}={getattr(b, option)}"
                )

    def build(self, input_shape):
        for one in (self.forward_layer, self.backward_layer):
            if not one.built:
                one.build(input_shape)
                one.built = True
        if self._given_weights is not None:
            self.set_weights(self._given_weights)

    def reset_state(self) -> None:
        """Begin the next batch with zeros (stateful=True)."""
        self.forward_layer.reset_state()
        self.backward_layer.reset_state()

    reset_states = reset_state

    def compute_mask(self, inputs, previous_mask=None):
        mask = previous_mask if self.return_sequences else None
        outputs = [mask] if self.merge_mode else [mask, mask]
        if not self.return_state:
            return outputs[0] if self.merge_mode else outputs
        return [*outputs, *[None] * (2 * len(tree_sizes(self.forward_layer.state_size)))]

    def call(self, sequences, initial_state=None, mask=None, training=False):
        first = second = None
        if initial_state is not None:
            half = len(initial_state) // 2
            first, second = initial_state[:half], initial_state[half:]
        options = {"mask": mask, "training": training}
        forward = self.forward_layer(sequences, initial_state=first, **options)
        backward = self.backward_layer(sequences, initial_state=second, **options)
        states: tuple = ()
        if self.return_state:
            states = (*forward[1:], *backward[1:])
            forward, backward = forward[0], backward[0]
        if self.return_sequences:
            backward = ops.flip(backward, 1)
        merged = self._merged(forward, backward)
        if self.return_state:
            return (*merged, *states)
        return merged[0] if self.merge_mode else merged

    def _merged(self, y: Node, z: Node) -> tuple[Node, ...]:
        if self.merge_mode is None:
            return y, z
        if self.merge_mode == "concat":
            return (ops.concatenate([y, z], -1),)
        if self.merge_mode == "mul":
            return (y * z,)
        return (y + z if self.merge_mode == "sum" else (y + z) / 2,)


def copy_of(layer: RNN, prefix: str, **changes: Any) -> RNN:
    """A layer of the same configuration with weights of its own, named '<prefix>_<name>'."""
    name = f"{prefix}_{layer.name.removeprefix(prefix + '_')}"
    return type(layer).from_config({**layer.get_config(), "name": name, **changes})
