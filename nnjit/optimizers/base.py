"""Optimizers with Keras' names, defaults and formulas.

An optimizer is two pure functions. `scalars` gives what is the same for all parameters (the
learning rate, bias corrections), computed once per step in float64. `step` gives the new value of
one parameter and its slots. Every parameter gets the same expression over the same scalars, so that
the compiler can make one launch of all updates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any, ClassVar

import numpy as np

from nnjit import ops, schedules
from nnjit.errors import ArgumentError
from nnjit.graph import Node
from nnjit.layers.variable import Variable
from nnjit.registry import Configurable, Registry, to_config

REGISTRY = Registry("optimizer")
get = REGISTRY.get

Nodes = Mapping[str, Node]


class Slot(Variable):
    """An array that an optimizer keeps for one parameter: 'adam/m/dense/kernel'."""

    @property
    def name(self) -> str:
        assert self.like is not None
        return f"{self.owner.path}/{self.key}/{self.like.name}"


class Optimizer(Configurable):
    """Base class: set SLOTS (names to initial values), override `scalars` and `step`.

    learning_rate: a number (kept as state, so it may be changed between steps) or a schedule.
    weight_decay: each step first takes learning_rate * weight_decay of every parameter away from
    it. clipnorm: the norm of each gradient at most this. clipvalue: each element. global_clipnorm:
    the norm of all gradients together. At most one of the three. gradient_accumulation_steps: n
    steps gather gradients, the n-th changes the parameters with their mean.
    """

    kind = "optimizer"
    SLOTS: ClassVar[Mapping[str, float]] = {}
    STATE: ClassVar[Mapping[str, float]] = {}  # scalars of the whole optimizer

    def __init__(
        self,
        learning_rate: Any = 0.001,
        *,
        weight_decay: float | None = None,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        use_ema: bool = False,
        loss_scale_factor: float | None = None,
        gradient_accumulation_steps: int | None = None,
        name: str | None = None,
    ):
        self.name = name or type(self).__name__.lower()
        clips = {"clipnorm": clipnorm, "clipvalue": clipvalue, "global_clipnorm": global_clipnorm}
        given = [f"{k}={v!r}" for k, v in clips.items() if v is not None]
        if len(given) > 1:
            raise ArgumentError(f"{self.name}: only one of {' and '.join(given)} can be used")
        self._check(weight_decay=weight_decay, **clips)
        if use_ema:
            raise ArgumentError(f"{self.name}: use_ema=True is not supported")
        if loss_scale_factor is not None:
            raise ArgumentError(f"{self.name}: loss_scale_factor is not supported: no float16 here")
        n = gradient_accumulation_steps
        if n is not None and (not isinstance(n, int) or n < 2):
            raise ArgumentError(
                f"{self.name}: gradient_accumulation_steps={n!r}: expected at least 2"
            )
        self.accumulation, self.weight_decay = n, weight_decay
        self.clipnorm, self.clipvalue, self.global_clipnorm = clipnorm, clipvalue, global_clipnorm
        self._excluded: set[Variable] = set()
        self._excluded_names: tuple[str, ...] = ()
        self._slots: dict[tuple[str, Variable], Slot] = {}
        self.iterations = self._state("iterations", 0, "int64")
        self._scalars = {k: self._state(k, v) for k, v in self.STATE.items()}
        self._rate(learning_rate)

    def _check(self, **values: float | None) -> None:
        for option, value in values.items():
            if value is not None and (not isinstance(value, int | float) or value < 0):
                raise ArgumentError(f"{self.name}: {option}={value!r}: expected a number from 0")

    def _state(self, name: str, value: float, dtype: str = "float64") -> Variable:
        initial = {"class_name": "Constant", "config": {"value": value}}
        return Variable(name, (), dtype, initial, trainable=False, owner=self)

    def _rate(self, rate: Any) -> None:
        self.schedule: schedules.LearningRateSchedule | None = None
        self._learning_rate: Variable | None = None
        if isinstance(rate, dict | schedules.LearningRateSchedule):
            self.schedule = schedules.get(rate)
        elif isinstance(rate, int | float) and not isinstance(rate, bool):
            self._check(learning_rate=rate)
            self._learning_rate = self._state("learning_rate", float(rate))
        else:
            raise ArgumentError(
                f"{self.name}: learning_rate={rate!r}: expected a number or a schedule"
            )

    @property
    def path(self) -> str:
        """What the names of the variables begin with."""
        return self.name

    @property
    def learning_rate(self) -> float:
        """The learning rate of the next step."""
        if self.schedule is not None:
            return self.schedule.value(self._done(int(self.iterations.numpy())))
        assert self._learning_rate is not None
        return float(self._learning_rate.numpy())

    @learning_rate.setter
    def learning_rate(self, value: Any) -> None:
        if self._learning_rate is None:
            raise ArgumentError(f"{self.name}: its learning rate is a schedule and cannot be set")
        if not isinstance(value, int | float | np.number) or isinstance(value, bool):
            raise ArgumentError(f"{self.name}: learning_rate={value!r}: expected a number")
        self._check(learning_rate=float(value))
        self._learning_rate.assign(float(value))

    def _done(self, iterations: Any) -> Any:
        """Updates done after so many iterations."""
        return iterations if self.accumulation is None else iterations // self.accumulation

    def exclude_from_weight_decay(
        self, var_list: Sequence[Variable] = (), var_names: Sequence[str] = ()
    ) -> None:
        """No weight decay for these variables, and those whose name holds one of these texts."""
        self._excluded |= set(var_list)
        self._excluded_names += tuple(var_names)

    # ------------------------------------------------------------------------------------- state
    def slot_values(self) -> Mapping[str, float]:
        """The names of the slots of each parameter, and what they begin with."""
        return self.SLOTS

    def slots(self, variables: Sequence[Variable]) -> list[Variable]:
        """All state for training these parameters: scalars, then slot by slot in the parameters'
        order.
        """
        names = dict(self.slot_values())
        if self.accumulation is not None:
            names["gradient"] = 0.0
        found: list[Variable] = [self.iterations, *self._scalars.values()]
        if self._learning_rate is not None:
            found.append(self._learning_rate)
        for name, value in names.items():
            for v in variables:
                if (name, v) not in self._slots:
                    initial = {"class_name": "Constant", "config": {"value": value}}
                    self._slots[name, v] = Slot(
                        name, v.shape, v.dtype, initial, trainable=False, owner=self, like=v
                    )
                found.append(self._slots[name, v])
        return found

    # -------------------------------------------------------------------------------------- step
    def scalars(self, rate: Node, t: Node, state: Nodes) -> tuple[dict[str, Node], Nodes]:
        """(scalars that `step` gets, new values of STATE). rate, t (1 in the first step), state:
        float64.
        """
        return {"rate": rate}, {}

    def step(self, w: Node, g: Node, s: Nodes, k: Nodes) -> tuple[Node, Nodes]:
        """(new w, new slots) from a parameter, its gradient, its slots and the scalars."""
        raise NotImplementedError(f"{type(self).__name__} does not define step(w, g, s, k)")

    def updates(self, variables: Sequence[Variable], gradients: Sequence[Node]) -> None:
        """Put the next values of parameters and slots into the current scope's updates."""
        self.slots(variables)
        done = self._done(self.iterations.node)
        gradients, now = self._gathered(variables, list(gradients))
        step = ops.cast(done, "float64")
        rate = self.schedule(step) if self.schedule else ops.as_node(self._learning_rate)
        state = {k: v.node for k, v in self._scalars.items()}
        wide, new_state = self.scalars(ops.as_node(rate), step + 1, state)
        if self.weight_decay:
            wide = {**wide, "decay": rate * self.weight_decay}
        narrow = {d: {k: ops.cast(x, d) for k, x in wide.items()}
                  for d in dict.fromkeys(v.dtype for v in variables)}  # fmt: skip

        def keep(new: Node, old: Node) -> Node:
            return new if now is None else ops.where(now, new, old)

        for v, g in zip(variables, self._clipped(gradients), strict=True):
            k = narrow[v.dtype]
            w = v.node - v.node * k["decay"] if self._decays(v) else v.node
            slots = {n: self._slots[n, v] for n in self.slot_values()}
            new, new_slots = self.step(w, g, {n: x.node for n, x in slots.items()}, k)
            v.update(keep(new if v.constraint is None else v.constraint(new), v.node))
            for name, value in new_slots.items():
                slots[name].update(keep(value, slots[name].node))
        for name, value in new_state.items():
            self._scalars[name].update(keep(value, state[name]))
        self.iterations.update(self.iterations.node + 1)

    def _decays(self, v: Variable) -> bool:
        return bool(self.weight_decay) and not (
            v in self._excluded or any(n in v.name for n in self._excluded_names)
        )

    def _gathered(
        self, variables: Sequence[Variable], gradients: list[Node]
    ) -> tuple[list[Node], Node | None]:
        """(gradients, None); accumulating: (their mean so far, whether this step uses it)."""
        n = self.accumulation
        if n is None:
            return gradients, None
        now = ops.equal((self.iterations.node + 1) % n, 0)
        means = []
        for v, g in zip(variables, gradients, strict=True):
            slot = self._slots["gradient", v]
            total = slot.node + g
            slot.update(ops.where(now, 0.0 * total, total))
            means.append(total * (1 / n))
        return means, now

    def _clipped(self, gradients: list[Node]) -> list[Node]:
        if self.clipvalue is not None:
            return [ops.clip(g, -self.clipvalue, self.clipvalue) for g in gradients]
        if self.clipnorm is not None:
            c = self.clipnorm
            return [g * (c / ops.maximum(_norm([g]), c)) for g in gradients]
        if self.global_clipnorm is not None and gradients:
            c = self.global_clipnorm
            scale = c / ops.maximum(_norm(gradients), c)
            return [g * ops.cast(scale, g.dtype) for g in gradients]
        return gradients

    def get_config(self) -> dict[str, Any]:
        """The arguments, with the current learning rate."""
        rate = to_config(self.schedule) if self.schedule else self.learning_rate
        return {**super().get_config(), "learning_rate": rate, "name": self.name}


def _norm(values: Sequence[Node]) -> Node:
    """The Euclidean norm of all elements of all values."""
    return ops.sqrt(reduce(lambda a, b: a + b, [ops.sum(x * x) for x in values]))
