"""The accumulator of a reduction, as text: how it starts, takes a value, and joins another."""

from __future__ import annotations

from dataclasses import dataclass

from nnjit.graph import Node
from nnjit.kernels.target import CODES

INTEGER_LIMITS = {
    "int32": (-(2**31), 2**31 - 1),
    "int64": (-(2**63), 2**63 - 1),
    "uint8": (0, 255),
    "uint32": (0, 2**32 - 1),
    "uint64": (0, 2**64 - 1),
    "bool": (0, 1),
}


@dataclass(frozen=True)
class Accumulator:
    """kind: sum, prod, max, min, argmax or argmin; dtype: of the values that come in."""

    kind: str
    dtype: str
    name: str

    @classmethod
    def of(cls, n: Node, name: str) -> Accumulator:
        return cls(n.op.name, n.inputs[0].dtype, name)

    @property
    def code(self) -> str:
        return CODES[self.dtype]

    @property
    def best(self) -> str:
        """argmax and argmin: the name of the best value so far."""
        return f"{self.name}_best"

    @property
    def result(self) -> str:
        return self.name

    def identity(self) -> str:
        """The value that changes nothing."""
        if self.kind in ("sum", "prod"):
            return f"{self.code}({int(self.kind == 'prod')})"
        low = self.kind in ("max", "argmax")
        if self.dtype in INTEGER_LIMITS:
            return f"{self.code}({INTEGER_LIMITS[self.dtype][0 if low else 1]})"
        return f"-{self.code}(inf)" if low else f"{self.code}(inf)"

    def start(self) -> str:
        if self.kind.startswith("arg"):
            return f"{self.name}, {self.best} = 0, {self.identity()}"
        return f"{self.name} = {self.identity()}"

    def join(self, old: str, value: str) -> str:
        """The accumulator `old` with one more value."""
        if self.kind == "sum":
            return f"{old} + {value}"
        if self.kind == "prod":
            return f"{old} * {value}"
        if self.dtype in INTEGER_LIMITS:
            sign = ">" if self.kind == "max" else "<"
            return f"{old} if {old} {sign} {value} else {value}"
        function = {"max": "maximum", "min": "minimum"}[self.kind]
        return f"{function}_{self.code}({old}, {value})"

    def add(self, value: str, index: str) -> list[str]:
        """Lines that take one value; `index` is its position along the reduced axis."""
        if not self.kind.startswith("arg"):
            return [f"{self.name} = {self.join(self.name, value)}"]
        sign = ">" if self.kind == "argmax" else "<"
        nan = f" or ({value} != {value} and {self.best} == {self.best})"
        wins = f"{value} {sign} {self.best}" + ("" if self.dtype in INTEGER_LIMITS else nan)
        return [
            f"better = {wins}",
            f"{self.name} = {index} if better else {self.name}",
            f"{self.best} = {value} if better else {self.best}",
        ]
