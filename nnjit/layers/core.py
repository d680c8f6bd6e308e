"""Dense, Embedding, and layers that reshape, activate or drop; Keras' names and defaults."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nnjit import activations, constraints, initializers, ops, regularizers
from nnjit.errors import ArgumentError, ShapeError
from nnjit.graph import Node, current_scope
from nnjit.layers.base import REGISTRY, Layer
from nnjit.spec import Dim, shape_text


def settings(initializer: Any, regularizer: Any, constraint: Any) -> tuple:
    """What `add_weight` wants, from names, configurations or objects."""
    if initializer is None:
        raise ArgumentError("an initializer is None: expected a name or an object")
    return (
        initializers.get(initializer),
        regularizers.get(regularizer),
        constraints.get(constraint),
    )


def positive(layer: Layer, option: str, value: Any) -> int:
    """value as an int of at least 1, or ArgumentError naming layer and option."""
    if isinstance(value, bool | float) or not hasattr(value, "__index__") or int(value) < 1:
        raise ArgumentError(
            f"{layer.name}: {option}={value!r}: expected a whole number of at least 1"
        )
    return int(value)


def last_axis(layer: Layer, x: Node, expected: int, rank: int | None = None) -> None:
    """ShapeError unless x has this last axis (and rank)."""
    if x.rank == 0 or x.shape[-1] != expected or (rank is not None and x.rank != rank):
        wanted = f"rank {rank} and " if rank is not None and x.rank != rank else ""
        raise ShapeError(
            f"{layer.path}: expected {wanted}last axis {expected}, got {shape_text(x.shape)}"
        )


def known(layer: Layer, shape: Sequence[int | None], axis: int = -1) -> int:
    """The extent of an axis that weights depend on, or ShapeError."""
    if not shape or shape[axis] is None:
        raise ShapeError(
            f"{layer.path}: axis {axis} of the input must be known when the weights are made, "
            f"got {shape_text(shape)}"
        )
    return shape[axis]  # type: ignore[return-value]


@REGISTRY.named()
class Dense(Layer):
    """activation(x @ kernel + bias), last axis. Weights: kernel (in, units), bias (units,)."""

    supports_masking = True

    def __init__(
        self,
        units: int,
        activation: Any = None,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        bias_constraint: Any = None,
        **kwargs: Any,
    ):
        super().__init__(activity_regularizer=activity_regularizer, **kwargs)
        self.units = positive(self, "units", units)
        self.activation, self.use_bias = activations.get(activation), use_bias
        self._kernel = settings(kernel_initializer, kernel_regularizer, kernel_constraint)
        self._bias = settings(bias_initializer, bias_regularizer, bias_constraint)

    def build(self, input_shape):
        shape = (known(self, input_shape), self.units)
        initializer, regularizer, constraint = self._kernel
        self.kernel = self.add_weight(
            shape, initializer, "kernel", regularizer=regularizer, constraint=constraint
        )
        self.bias = None
        if self.use_bias:
            initializer, regularizer, constraint = self._bias
            self.bias = self.add_weight(
                shape[1:], initializer, "bias", regularizer=regularizer, constraint=constraint
            )

    def call(self, x):
        last_axis(self, x, self.kernel.shape[0])
        y = ops.matmul(ops.cast(x, self.dtype), self.kernel)
        if self.bias is not None:
            y = y + self.bias
        return self.activation(y)


@REGISTRY.named()
class Embedding(Layer):
    """Row x of a table for whole numbers x. Weights: embeddings (input_dim, output_dim).

    mask_zero: 0 fills up short sequences; what follows is told by a mask to pass over it.
    """

    def __init__(
        self,
        input_dim: int,
        output_dim: int,
        embeddings_initializer: Any = "uniform",
        embeddings_regularizer: Any = None,
        embeddings_constraint: Any = None,
        mask_zero: bool = False,
        weights: Any = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.mask_zero = self.supports_masking = bool(mask_zero)
        self.input_dim = positive(self, "input_dim", input_dim)
        self.output_dim = positive(self, "output_dim", output_dim)
        self._table = settings(
            embeddings_initializer, embeddings_regularizer, embeddings_constraint
        )
        self._given_weights = weights[0] if isinstance(weights, list | tuple) else weights

    @property
    def input_dtype(self) -> str:
        return "int32"

    def build(self, input_shape):
        initializer, regularizer, constraint = self._table
        self.embeddings = self.add_weight(
            (self.input_dim, self.output_dim), initializer, "embeddings",
            regularizer=regularizer, constraint=constraint,
        )  # fmt: skip
        if self._given_weights is not None:
            self.embeddings.assign(self._given_weights)

    def compute_mask(self, inputs, previous_mask=None):
        return ops.not_equal(inputs, 0) if self.mask_zero else None

    def call(self, x):
        index = x if x.dtype in ("int32", "int64") else ops.cast(x, "int32")
        return ops.take(self.embeddings, index, axis=0)


@REGISTRY.named()
class Activation(Layer):
    """A function by name, or any function Node -> Node."""

    supports_masking = True

    def __init__(self, activation: Any, **kwargs: Any):
        super().__init__(**kwargs)
        self.activation = activations.get(activation)

    def call(self, x):
        return self.activation(x)


@REGISTRY.named()
class Flatten(Layer):
    """(batch, a, b, …) -> (batch, a*b*…)."""

    def __init__(self, data_format: str | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        channels_last(self, data_format)

    def call(self, x):
        inner: Dim = 1
        for d in x.shape[1:]:
            inner = inner * d
        return ops.reshape(x, (x.shape[0], inner))


def channels_last(layer: Layer, data_format: str | None) -> None:
    """ArgumentError unless data_format is None or 'channels_last'."""
    if data_format not in (None, "channels_last"):
        raise ArgumentError(
            f"{layer.name}: data_format={data_format!r}: only 'channels_last' is supported"
        )


@REGISTRY.named()
class Reshape(Layer):
    """(batch, …) -> (batch, *target_shape); one entry may be -1."""

    def __init__(self, target_shape: Sequence[int], **kwargs: Any):
        super().__init__(**kwargs)
        self.target_shape = tuple(int(d) for d in target_shape)
        if self.target_shape.count(-1) > 1 or any(d < -1 for d in self.target_shape):
            raise ArgumentError(
                f"{self.name}: target_shape={target_shape!r}: expected numbers, at most one -1"
            )

    def call(self, x):
        return ops.reshape(x, (x.shape[0], *self.target_shape))


@REGISTRY.named()
class Permute(Layer):
    """Axes in the order `dims`, counted from 1; the batch axis stays."""

    def __init__(self, dims: Sequence[int], **kwargs: Any):
        super().__init__(**kwargs)
        self.dims = tuple(int(d) for d in dims)
        if sorted(self.dims) != list(range(1, len(self.dims) + 1)):
            raise ArgumentError(
                f"{self.name}: dims={dims!r}: expected each of 1 to {len(self.dims)} once"
            )

    def call(self, x):
        if x.rank != len(self.dims) + 1:
            raise ShapeError(
                f"{self.path}: expected rank {len(self.dims) + 1}, got {shape_text(x.shape)}"
            )
        return ops.transpose(x, (0, *self.dims))


@REGISTRY.named()
class RepeatVector(Layer):
    """(batch, features) -> (batch, n, features)."""

    def __init__(self, n: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.n = positive(self, "n", n)

    def call(self, x):
        if x.rank != 2:
            raise ShapeError(f"{self.path}: expected rank 2, got {shape_text(x.shape)}")
        batch, features = x.shape
        return ops.broadcast_to(ops.reshape(x, (batch, 1, features)), (batch, self.n, features))


@REGISTRY.named()
class Rescaling(Layer):
    """x * scale + offset, in the layer's dtype."""

    supports_masking = True

    def __init__(self, scale: float, offset: float = 0.0, **kwargs: Any):
        super().__init__(**kwargs)
        self.scale, self.offset = scale, offset

    def call(self, x):
        return ops.cast(x, self.dtype) * self.scale + self.offset


def stream(seed: int | None) -> int:
    """The stream of one more use of random numbers: an own range of streams for each seed; within,
    the scope's next number keeps layers of one seed apart.
    """
    number = current_scope().stream()
    return number if seed is None else number + (seed * 2654435761 % 2**15 + 1) * 2**16


@REGISTRY.named()
class Dropout(Layer):
    """In training, a share `rate` of the values becomes 0 and the rest grows by 1 / (1 - rate).

    noise_shape: shape of the mask where it is to be shared, None (as in
    (None, 1, 8)) for the input's extent.
    """

    supports_masking = True

    def __init__(
        self,
        rate: float,
        noise_shape: Sequence[int | None] | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if not isinstance(rate, int | float) or not 0 <= rate < 1:
            raise ArgumentError(f"{self.name}: rate={rate!r}: expected at least 0 and less than 1")
        self.rate, self.seed = float(rate), seed
        self.noise_shape = None if noise_shape is None else tuple(noise_shape)

    def call(self, x, training=False):
        if not training or self.rate == 0:
            return x
        if self.noise_shape is not None and len(self.noise_shape) != x.rank:
            raise ShapeError(
                f"{self.path}: noise_shape {self.noise_shape} for an input of "
                f"{shape_text(x.shape)}: ranks differ"
            )
        return ops.dropout(x, self.rate, self.noise_shape, stream=stream(self.seed))
