"""What layers over spatial axes share: arguments, checks of inputs, weights of convolutions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from nnjit import activations
from nnjit.errors import ArgumentError, ShapeError, nearest
from nnjit.graph import Node
from nnjit.layers.base import Layer
from nnjit.layers.core import channels_last, known, last_axis, settings
from nnjit.layers.variable import Variable
from nnjit.spec import Extent, shape_text

Numbers = int | Sequence[int]
Padding = str | Sequence[Sequence[int]]

LAYOUT = {1: "(batch, steps, channels)", 2: "(batch, height, width, channels)"}
PAIRS = {1: "((before, behind),)", 2: "((top, bottom), (left, right))"}


def whole(layer: Layer, option: str, value: Any, low: int) -> int:
    """value as an int of at least `low`; ArgumentError names layer and option."""
    if isinstance(value, bool) or not hasattr(value, "__index__") or int(value) < low:
        raise ArgumentError(
            f"{layer.name}: {option}={value!r}: expected a whole number of at least {low}"
        )
    return int(value)


def numbers(layer: Layer, option: str, value: Any, n: int, low: int = 1) -> tuple[int, ...]:
    """A number for all n axes, or one per axis; ArgumentError names layer and option."""
    values = (value,) * n if not isinstance(value, list | tuple) else tuple(value)
    if len(values) != n:
        wanted = f"a number or {n} numbers" if n > 1 else "a number"
        raise ArgumentError(f"{layer.name}: {option}={value!r}: expected {wanted}")
    return tuple(whole(layer, option, v, low) for v in values)


def pairs(layer: Layer, option: str, value: Any, n: int) -> tuple[tuple[int, int], ...]:
    """(low, high) per axis from a number, n numbers (both ends alike) or n pairs; for one axis two
    numbers are a pair.
    """
    if not isinstance(value, list | tuple):
        each: Sequence[Any] = [value] * n
    else:
        each = [value] if n == 1 and len(value) == 2 else value
    if len(each) != n:
        raise ArgumentError(
            f"{layer.name}: {option}={value!r}: expected a number, {n} numbers or {PAIRS[n]}"
        )
    both = [numbers(layer, option, v, 2, 0) for v in each]
    return tuple((low, high) for low, high in both)


def check_padding(
    layer: Layer,
    padding: Any,
    n: int,
    names: Sequence[str] = ("valid", "same"),
    explicit: bool = False,
) -> Any:
    """One of these names in lower case, or, if `explicit`, (low, high) per axis as a tuple."""
    if isinstance(padding, str):
        if padding.lower() not in names:
            raise ArgumentError(f"{layer.name}: padding={padding!r}{nearest(padding, names)}")
        return padding.lower()
    try:
        given = tuple((int(low), int(high)) for low, high in padding)
        if explicit and len(given) == n and min(map(min, given)) >= 0:
            return given
    except (TypeError, ValueError):
        pass
    wanted = " or ".join(map(repr, names)) + (f" or {PAIRS[n]}" if explicit else "")
    raise ArgumentError(f"{layer.name}: padding={padding!r}: expected {wanted}")


def check_rank(layer: Layer, shape: Sequence[Any], n: int) -> None:
    """ShapeError unless there are n axes between batch and channels."""
    if len(shape) != n + 2:
        raise ShapeError(f"{layer.path}: expected {LAYOUT[n]}, got {shape_text(shape)}")


def check_known(layer: Layer, x: Node, axes: Sequence[int], why: str = "") -> None:
    """ShapeError if one of these axes has an extent that is known at run time only."""
    for axis in axes:
        if isinstance(x.shape[axis], Extent):
            raise ShapeError(
                f"{layer.path}: axis {axis} of {shape_text(x.shape)} is open; "
                f"a number is needed there{why}"
            )


class Convolution(Layer):
    """The settings, weights, bias and activation of the convolutions over `spatial` axes."""

    spatial: ClassVar[int]
    paddings: ClassVar[tuple[str, ...]] = ("valid", "same")
    explicit: ClassVar[bool] = True  # whether padding may be pairs of numbers

    activation: Callable[[Node], Node]
    use_bias: bool
    channels: int
    bias: Variable | None

    def _settle(
        self,
        kernel_size: Any,
        strides: Any,
        padding: Any,
        data_format: str | None,
        dilation_rate: Any,
        activation: Any,
        use_bias: bool,
        bias: tuple,
    ) -> None:
        """Check and keep what all of them have; bias: initializer, regularizer, constraint."""
        n = self.spatial
        self.kernel_size = numbers(self, "kernel_size", kernel_size, n)
        self.strides = numbers(self, "strides", strides, n)
        self.dilation_rate = numbers(self, "dilation_rate", dilation_rate, n)
        self.padding = check_padding(self, padding, n, self.paddings, self.explicit)
        channels_last(self, data_format)
        if max(self.strides) > 1 and max(self.dilation_rate) > 1:
            raise ArgumentError(
                f"{self.name}: strides={self.strides} and dilation_rate={self.dilation_rate}: "
                "only one of them may be more than 1"
            )
        self.activation, self.use_bias = activations.get(activation), use_bias
        self._bias = settings(*bias)

    def _channels(self, input_shape: Sequence[int | None]) -> int:
        check_rank(self, input_shape, self.spatial)
        self.channels = known(self, input_shape)
        return self.channels

    def _weight(self, name: str, shape: tuple[int, ...], how: tuple) -> Variable:
        initializer, regularizer, constraint = how
        return self.add_weight(
            shape, initializer, name, regularizer=regularizer, constraint=constraint
        )

    def _add_bias(self, outputs: int) -> None:
        self.bias = self._weight("bias", (outputs,), self._bias) if self.use_bias else None

    def _check(self, x: Node, same_extent: bool = False) -> None:
        """same_extent: a single axis may be open if this convolution gives one as long."""
        last_axis(self, x, self.channels, rank=self.spatial + 2)
        if same_extent and self.spatial == 1:
            if self.strides == (1,) and (self.padding in ("same", "causal") or self._fits()):
                return
            why = " (or strides=1 and padding='same' or 'causal')"
            check_known(self, x, (1,), why)
        check_known(self, x, range(1, self.spatial + 1))

    def _fits(self) -> bool:
        """Whether a padding by numbers, or 'valid' with a window of 1, keeps the extent."""
        ((size,), (rate,)) = self.kernel_size, self.dilation_rate
        around = 0 if isinstance(self.padding, str) else sum(self.padding[0])
        return around == (size - 1) * rate

    def _finish(self, y: Node) -> Node:
        return self.activation(y if self.bias is None else y + self.bias)
