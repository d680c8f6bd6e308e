"""SGD, RMSprop, Adagrad, Adadelta and Lion, with Keras' names, defaults and formulas."""

from __future__ import annotations

from typing import Any

from nnjit import ops
from nnjit.errors import ArgumentError
from nnjit.optimizers.base import REGISTRY, Optimizer


@REGISTRY.named()
class SGD(Optimizer):
    """w - rate * g; with momentum: m = momentum * m - rate * g, w + m (nesterov: w + momentum * m -
    rate * g).
    """

    def __init__(
        self,
        learning_rate: Any = 0.01,
        momentum: float = 0.0,
        nesterov: bool = False,
        **kwargs: Any,
    ):
        super().__init__(learning_rate, **kwargs)
        if not isinstance(momentum, int | float) or not 0 <= momentum <= 1:
            raise ArgumentError(f"{self.name}: momentum={momentum!r}: expected 0 to 1")
        self.momentum, self.nesterov = float(momentum), nesterov

    def slot_values(self):
        return {"momentum": 0.0} if self.momentum else {}

    def step(self, w, g, s, k):
        if not self.momentum:
            return w - g * k["rate"], {}
        m = self.momentum * s["momentum"] - g * k["rate"]
        new = w + self.momentum * m - g * k["rate"] if self.nesterov else w + m
        return new, {"momentum": m}


@REGISTRY.named("rmsprop")
class RMSprop(Optimizer):
    """w - rate * g / sqrt(v + epsilon), v the moving mean of g * g; centered: less the square of
    that of g.
    """

    def __init__(
        self,
        learning_rate: Any = 0.001,
        rho: float = 0.9,
        momentum: float = 0.0,
        epsilon: float = 1e-7,
        centered: bool = False,
        **kwargs: Any,
    ):
        super().__init__(learning_rate, **kwargs)
        self.rho, self.momentum, self.epsilon = rho, momentum, epsilon
        self.centered = centered

    def slot_values(self):
        names = ["v", *(["momentum"] if self.momentum else []), *(["g"] if self.centered else [])]
        return dict.fromkeys(names, 0.0)

    def step(self, w, g, s, k):
        v = self.rho * s["v"] + (1 - self.rho) * (g * g)
        new = {"v": v}
        below = v + self.epsilon
        if self.centered:
            mean = new["g"] = self.rho * s["g"] + (1 - self.rho) * g
            below = v - mean * mean + self.epsilon
        change = k["rate"] * g / ops.sqrt(below)
        if self.momentum:
            change = new["momentum"] = self.momentum * s["momentum"] + change
        return w - change, new


@REGISTRY.named()
class Adagrad(Optimizer):
    """w - rate * g / sqrt(a + epsilon), a the sum of g * g so far."""

    def __init__(
        self,
        learning_rate: Any = 0.001,
        initial_accumulator_value: float = 0.1,
        epsilon: float = 1e-7,
        **kwargs: Any,
    ):
        super().__init__(learning_rate, **kwargs)
        self._check(initial_accumulator_value=initial_accumulator_value)
        self.initial, self.epsilon = float(initial_accumulator_value), epsilon

    def slot_values(self):
        return {"a": self.initial}

    def step(self, w, g, s, k):
        a = s["a"] + g * g
        return w - k["rate"] * g / ops.sqrt(a + self.epsilon), {"a": a}


@REGISTRY.named()
class Adadelta(Optimizer):
    """Steps as long as the moving size of past steps over that of past gradients (Zeiler, 2012)."""

    SLOTS = {"g": 0.0, "d": 0.0}

    def __init__(
        self, learning_rate: Any = 0.001, rho: float = 0.95, epsilon: float = 1e-7, **kwargs: Any
    ):
        super().__init__(learning_rate, **kwargs)
        self.rho, self.epsilon = rho, epsilon

    def step(self, w, g, s, k):
        mean = self.rho * s["g"] + (1 - self.rho) * (g * g)
        change = -ops.sqrt((s["d"] + self.epsilon) / (mean + self.epsilon)) * g
        moved = self.rho * s["d"] + (1 - self.rho) * (change * change)
        return w + k["rate"] * change, {"g": mean, "d": moved}


@REGISTRY.named()
class Lion(Optimizer):
    """w - rate * sign(b1 * m + (1 - b1) * g) (Chen et al., 2023)."""

    SLOTS = {"m": 0.0}

    def __init__(
        self,
        learning_rate: Any = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.99,
        **kwargs: Any,
    ):
        super().__init__(learning_rate, **kwargs)
        self.beta_1, self.beta_2 = beta_1, beta_2

    def step(self, w, g, s, k):
        m = s["m"]
        direction = ops.sign(self.beta_1 * m + (1 - self.beta_1) * g)
        return w - k["rate"] * direction, {"m": self.beta_2 * m + (1 - self.beta_2) * g}
