"""Adam and its relatives, with Keras' names, defaults and formulas."""

from __future__ import annotations

from typing import Any

from nnjit import ops
from nnjit.errors import ArgumentError
from nnjit.graph import Node
from nnjit.optimizers.base import REGISTRY, Optimizer


def bias_corrections(t: Node, *betas: float) -> list[Node]:
    """1 - beta ** t for each beta."""
    return [1 - ops.power(beta, t) for beta in betas]


@REGISTRY.named()
class Adam(Optimizer):
    """Moving means of g and g * g, corrected for their start at 0 (Kingma and Ba, 2015).

    w - rate * sqrt(1 - b2 ** t) / (1 - b1 ** t) * m / (sqrt(v) + epsilon): epsilon stands where
    Keras has it, before the correction of v. amsgrad: the largest v so far.
    """

    def __init__(
        self,
        learning_rate: Any = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        amsgrad: bool = False,
        **kwargs: Any,
    ):
        super().__init__(learning_rate, **kwargs)
        self.beta_1, self.beta_2, self.epsilon = beta_1, beta_2, epsilon
        self.amsgrad = amsgrad

    def slot_values(self):
        return {"m": 0.0, "v": 0.0, **({"v_hat": 0.0} if self.amsgrad else {})}

    def scalars(self, rate, t, state):
        one, two = bias_corrections(t, self.beta_1, self.beta_2)
        return {"rate": rate * ops.sqrt(two) / one}, {}

    def step(self, w, g, s, k):
        m = s["m"] + (g - s["m"]) * (1 - self.beta_1)
        v = s["v"] + (g * g - s["v"]) * (1 - self.beta_2)
        new = {"m": m, "v": v}
        if self.amsgrad:
            v = new["v_hat"] = ops.maximum(s["v_hat"], v)
        return w - m * k["rate"] / (ops.sqrt(v) + self.epsilon), new


@REGISTRY.named("adamw")
class AdamW(Adam):
    """Adam with weight decay (Loshchilov and Hutter, 2019)."""

    def __init__(
        self,
        learning_rate: Any = 0.001,
        weight_decay: float = 0.004,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        amsgrad: bool = False,
        **kwargs: Any,
    ):
        if weight_decay is None:
            raise ArgumentError("adamw: weight_decay=None: expected a number, or take Adam")
        super().__init__(
            learning_rate, beta_1, beta_2, epsilon, amsgrad, weight_decay=weight_decay, **kwargs
        )


@REGISTRY.named()
class Adamax(Optimizer):
    """w - rate / (1 - b1 ** t) * m / (u + epsilon), u the largest |g|, fading by b2 a step."""

    SLOTS = {"m": 0.0, "u": 0.0}

    def __init__(
        self,
        learning_rate: Any = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        **kwargs: Any,
    ):
        super().__init__(learning_rate, **kwargs)
        self.beta_1, self.beta_2, self.epsilon = beta_1, beta_2, epsilon

    def scalars(self, rate, t, state):
        (one,) = bias_corrections(t, self.beta_1)
        return {"rate": rate / one}, {}

    def step(self, w, g, s, k):
        m = s["m"] + (g - s["m"]) * (1 - self.beta_1)
        u = ops.maximum(self.beta_2 * s["u"], ops.abs(g))
        return w - k["rate"] * m / (u + self.epsilon), {"m": m, "u": u}


@REGISTRY.named()
class Nadam(Optimizer):
    """Adam with Nesterov momentum, whose strength b1 * (1 - 0.96 ** t / 2) grows (Dozat, 2015)."""

    SLOTS = {"m": 0.0, "v": 0.0}
    STATE = {"u_product": 1.0}

    def __init__(
        self,
        learning_rate: Any = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        **kwargs: Any,
    ):
        super().__init__(learning_rate, **kwargs)
        self.beta_1, self.beta_2, self.epsilon = beta_1, beta_2, epsilon

    def scalars(self, rate, t, state):
        u, u_next = (self.beta_1 * (1 - 0.5 * ops.power(0.96, at)) for at in (t, t + 1))
        product = state["u_product"] * u
        (two,) = bias_corrections(t, self.beta_2)
        return {
            "rate": rate,
            "from_m": u_next / (1 - product * u_next),
            "from_g": (1 - u) / (1 - product),
            "correct": 1 / two,
        }, {"u_product": product}

    def step(self, w, g, s, k):
        m = s["m"] + (g - s["m"]) * (1 - self.beta_1)
        v = s["v"] + (g * g - s["v"]) * (1 - self.beta_2)
        ahead = m * k["from_m"] + g * k["from_g"]
        below = ops.sqrt(v * k["correct"]) + self.epsilon
        return w - ahead * k["rate"] / below, {"m": m, "v": v}
