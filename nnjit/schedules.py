"""Learning rates that change with the step; Keras' names, defaults and formulas.

A schedule is a function of the number of steps done so far (a float64 scalar Node), so it is part
of the compiled step.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from nnjit import ops
from nnjit.errors import ArgumentError
from nnjit.graph import Graph, Node, constant, interpret
from nnjit.registry import Configurable, Registry

REGISTRY = Registry("schedule")
get = REGISTRY.get


class LearningRateSchedule(Configurable):
    """Base class: override `__call__(step) -> Node`."""

    kind = "schedule"

    def __call__(self, step: Node) -> Node:
        raise NotImplementedError(f"{type(self).__name__} does not define __call__(step)")

    def value(self, step: int) -> float:
        """The learning rate after this many steps, as a number."""
        rate = ops.as_node(self(constant(float(step), "float64")))
        return float(interpret(Graph("schedule", {"rate": rate}), {})[0]["rate"])

    def _positive(self, **values: float) -> None:
        for name, value in values.items():
            if not value > 0:
                raise ArgumentError(f"{type(self).__name__}: {name}={value!r}: expected above 0")


def _share(step: Node, decay_steps: float, staircase: bool) -> Node:
    share = step / float(decay_steps)
    return ops.floor(share) if staircase else share


@REGISTRY.named()
class ExponentialDecay(LearningRateSchedule):
    """initial_learning_rate * decay_rate ** (step / decay_steps); staircase: whole powers only."""

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: int,
        decay_rate: float,
        staircase: bool = False,
        name: str = "ExponentialDecay",
    ):
        self._positive(decay_steps=decay_steps, decay_rate=decay_rate)
        self.initial_learning_rate, self.decay_steps = initial_learning_rate, decay_steps
        self.decay_rate, self.staircase = decay_rate, staircase

    def __call__(self, step):
        share = _share(step, self.decay_steps, self.staircase)
        return self.initial_learning_rate * ops.exp(share * math.log(self.decay_rate))


@REGISTRY.named()
class InverseTimeDecay(LearningRateSchedule):
    """initial_learning_rate / (1 + decay_rate * step / decay_steps)."""

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: int,
        decay_rate: float,
        staircase: bool = False,
        name: str = "InverseTimeDecay",
    ):
        self._positive(decay_steps=decay_steps)
        self.initial_learning_rate, self.decay_steps = initial_learning_rate, decay_steps
        self.decay_rate, self.staircase = decay_rate, staircase

    def __call__(self, step):
        share = _share(step, self.decay_steps, self.staircase)
        return self.initial_learning_rate / (1 + self.decay_rate * share)


@REGISTRY.named()
class PiecewiseConstantDecay(LearningRateSchedule):
    """values[i] up to and including step boundaries[i], the last value after that."""

    def __init__(
        self,
        boundaries: Sequence[float],
        values: Sequence[float],
        name: str = "PiecewiseConstant",
    ):
        self.boundaries, self.values = list(boundaries), list(values)
        if len(self.values) != len(self.boundaries) + 1:
            raise ArgumentError(
                f"PiecewiseConstantDecay: {len(self.boundaries)} boundaries need "
                f"{len(self.boundaries) + 1} values, got {len(self.values)}"
            )
        if self.boundaries != sorted(self.boundaries):
            raise ArgumentError(f"PiecewiseConstantDecay: boundaries={boundaries!r} must ascend")

    def __call__(self, step):
        rate = constant(float(self.values[-1]), "float64")
        for boundary, value in zip(self.boundaries[::-1], self.values[-2::-1], strict=True):
            rate = ops.where(step <= float(boundary), constant(float(value), "float64"), rate)
        return rate


@REGISTRY.named()
class PolynomialDecay(LearningRateSchedule):
    """From initial_learning_rate to end_learning_rate within decay_steps, by (1 - share) ** power.

    cycle: begin again, each time over one more multiple of decay_steps.
    """

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: int,
        end_learning_rate: float = 0.0001,
        power: float = 1.0,
        cycle: bool = False,
        name: str = "PolynomialDecay",
    ):
        self._positive(decay_steps=decay_steps)
        self.initial_learning_rate, self.decay_steps = initial_learning_rate, decay_steps
        self.end_learning_rate, self.power, self.cycle = end_learning_rate, power, cycle

    def __call__(self, step):
        steps: Any = float(self.decay_steps)
        if self.cycle:
            steps = steps * ops.maximum(ops.ceil(step / steps), 1.0)
        else:
            step = ops.minimum(step, steps)
        left = ops.power(1 - step / steps, float(self.power))
        return (self.initial_learning_rate - self.end_learning_rate) * left + self.end_learning_rate


def _cosine(share: Node, alpha: float) -> Node:
    return (1 - alpha) * 0.5 * (1 + ops.cos(math.pi * share)) + alpha


@REGISTRY.named()
class CosineDecay(LearningRateSchedule):
    """Half a cosine from initial_learning_rate down to alpha times it within decay_steps.

    warmup_target, warmup_steps: first a straight line from initial_learning_rate to warmup_target,
    from which the cosine then falls.
    """

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: int,
        alpha: float = 0.0,
        name: str = "CosineDecay",
        warmup_target: float | None = None,
        warmup_steps: int = 0,
    ):
        self._positive(decay_steps=decay_steps)
        self.initial_learning_rate, self.decay_steps = initial_learning_rate, decay_steps
        self.alpha, self.warmup_target, self.warmup_steps = alpha, warmup_target, warmup_steps

    def __call__(self, step):
        steps, warm = float(self.decay_steps), float(self.warmup_steps)
        first = self.initial_learning_rate
        if self.warmup_target is None:
            return first * _cosine(ops.minimum(step, steps) / steps, self.alpha)
        step = ops.minimum(step, steps + warm)
        falling = self.warmup_target * _cosine((step - warm) / steps, self.alpha)
        if not self.warmup_steps:
            return falling
        rising = (self.warmup_target - first) * (step / warm) + first
        return ops.where(step < warm, rising, falling)


@REGISTRY.named()
class CosineDecayRestarts(LearningRateSchedule):
    """Cosines one after another: each t_mul times as long and m_mul times as high as the one
    before.
    """

    def __init__(
        self,
        initial_learning_rate: float,
        first_decay_steps: int,
        t_mul: float = 2.0,
        m_mul: float = 1.0,
        alpha: float = 0.0,
        name: str = "SGDRDecay",
    ):
        self._positive(first_decay_steps=first_decay_steps, t_mul=t_mul, m_mul=m_mul)
        self.initial_learning_rate = initial_learning_rate
        self.first_decay_steps = first_decay_steps
        self.t_mul, self.m_mul, self.alpha = t_mul, m_mul, alpha

    def __call__(self, step):
        done = step / float(self.first_decay_steps)
        if self.t_mul == 1:
            cycle = ops.floor(done)
            share = done - cycle
        else:
            # cycles 0 … n-1 take (t_mul ** n - 1) / (t_mul - 1) first cycles
            cycles = ops.log(1 - done * (1 - self.t_mul)) / math.log(self.t_mul)
            cycle = ops.floor(cycles + 1e-9)  # a restart that rounding puts just before its step
            length = ops.exp(cycle * math.log(self.t_mul))
            share = (done - (1 - length) / (1 - self.t_mul)) / length
        height = ops.exp(cycle * math.log(self.m_mul))
        cosine = 0.5 * height * (1 + ops.cos(math.pi * share))
        return self.initial_learning_rate * ((1 - self.alpha) * cosine + self.alpha)
