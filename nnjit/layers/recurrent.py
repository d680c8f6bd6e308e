"""SimpleRNN, GRU and LSTM: RNN around a cell; Keras' names, defaults, weight order and shapes."""

from __future__ import annotations

from typing import Any

from nnjit.errors import ArgumentError
from nnjit.layers.base import REGISTRY
from nnjit.layers.recurrent_base import RNN
from nnjit.layers.recurrent_cells import GRUCell, LSTMCell, RecurrentCell, SimpleRNNCell


class BuiltIn(RNN):
    """Base of the layers around the cells of Keras; takes the arguments of both."""

    Cell: type[RecurrentCell]

    def __init__(
        self,
        options: dict[str, Any],
        /,
        *,
        kernel_regularizer: Any = None,
        recurrent_regularizer: Any = None,
        bias_regularizer: Any = None,
        kernel_constraint: Any = None,
        recurrent_constraint: Any = None,
        bias_constraint: Any = None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        seed: int | None = None,
        **kwargs: Any,
    ):
        shared = {k: kwargs[k] for k in ("dtype", "trainable") if k in kwargs}
        cell = self.Cell(
            **options,
            kernel_regularizer=kernel_regularizer,
            recurrent_regularizer=recurrent_regularizer,
            bias_regularizer=bias_regularizer,
            kernel_constraint=kernel_constraint,
            recurrent_constraint=recurrent_constraint,
            bias_constraint=bias_constraint,
            dropout=dropout,
            recurrent_dropout=recurrent_dropout,
            seed=seed,
            **shared,
        )
        super().__init__(cell, **kwargs)

    @property
    def units(self) -> int:
        return self.cell.units

    def without_cudnn(self, use_cudnn: Any) -> None:
        """ArgumentError unless use_cudnn is 'auto' or False."""
        if use_cudnn not in ("auto", False):
            raise ArgumentError(
                f"{self.name}: use_cudnn={use_cudnn!r}: expected 'auto' or False; there is no cuDNN"
            )


@REGISTRY.named()
class SimpleRNN(BuiltIn):
    """A fully connected recurrent layer; see SimpleRNNCell and RNN.

    Weights: kernel (in, units), recurrent_kernel (units, units), bias (units,).
    """

    Cell = SimpleRNNCell

    def __init__(
        self,
        units: int,
        activation: Any = "tanh",
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        recurrent_initializer: Any = "orthogonal",
        bias_initializer: Any = "zeros",
        **kwargs: Any,
    ):
        options = {
            "units": units, "activation": activation, "use_bias": use_bias,
            "kernel_initializer": kernel_initializer,
            "recurrent_initializer": recurrent_initializer, "bias_initializer": bias_initializer,
        }  # fmt: skip
        super().__init__(options, **kwargs)


@REGISTRY.named()
class GRU(BuiltIn):
    """Gated recurrent units; see GRUCell and RNN.

    Weights: kernel (in, 3 * units), recurrent_kernel (units, 3 * units), bias (2, 3 * units), or
    (3 * units,) with reset_after=False.
    """

    Cell = GRUCell

    def __init__(
        self,
        units: int,
        activation: Any = "tanh",
        recurrent_activation: Any = "sigmoid",
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        recurrent_initializer: Any = "orthogonal",
        bias_initializer: Any = "zeros",
        reset_after: bool = True,
        use_cudnn: Any = "auto",
        **kwargs: Any,
    ):
        options = {
            "units": units, "activation": activation, "recurrent_activation": recurrent_activation,
            "use_bias": use_bias, "kernel_initializer": kernel_initializer,
            "recurrent_initializer": recurrent_initializer, "bias_initializer": bias_initializer,
            "reset_after": reset_after,
        }  # fmt: skip
        super().__init__(options, **kwargs)
        self.without_cudnn(use_cudnn)


@REGISTRY.named()
class LSTM(BuiltIn):
    """Long short-term memory; see LSTMCell and RNN. States: h, c.

    Weights: kernel (in, 4 * units), recurrent_kernel (units, 4 * units), bias (4 * units,).
    """

    Cell = LSTMCell

    def __init__(
        self,
        units: int,
        activation: Any = "tanh",
        recurrent_activation: Any = "sigmoid",
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        recurrent_initializer: Any = "orthogonal",
        bias_initializer: Any = "zeros",
        unit_forget_bias: bool = True,
        use_cudnn: Any = "auto",
        **kwargs: Any,
    ):
        options = {
            "units": units, "activation": activation, "recurrent_activation": recurrent_activation,
            "use_bias": use_bias, "kernel_initializer": kernel_initializer,
            "recurrent_initializer": recurrent_initializer, "bias_initializer": bias_initializer,
            "unit_forget_bias": unit_forget_bias,
        }  # fmt: skip
        super().__init__(options, **kwargs)
        self.without_cudnn(use_cudnn)
