"""One table of ops: how to build each, what it reads, samples, and an independent reference.

Tests and compiled devices run through `ROWS`. `torch` references are called with float64 tensors;
without PyTorch the rows keep everything else.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from nnjit.autodiff import gradients
from nnjit.graph import Graph, Node, input_node
from nnjit.spec import Spec, evaluate

try:
    import torch
except ImportError:
    torch = None  # type: ignore[assignment]


@dataclass(frozen=True)
class In:
    """One input: shape ("batch" stands for the run-time extent), dtype, and where values lie."""

    shape: tuple[Any, ...]
    dtype: str = "float"
    low: float = -2.0
    high: float = 2.0
    away: tuple[float, ...] = ()  # kinks that samples keep a distance of 0.01 from

    def spec(self, floats: str) -> Spec:
        return Spec(self.shape, floats if self.dtype == "float" else self.dtype)

    def sample(self, rng: np.random.Generator, shape: tuple[int, ...], floats: str) -> np.ndarray:
        if self.dtype == "bool":
            return rng.random(shape) < 0.5
        if self.dtype != "float":
            return rng.integers(int(self.low), int(self.high), shape).astype(self.dtype)
        values = rng.uniform(self.low, self.high, shape)
        for kink in self.away:
            values = np.where(np.abs(values - kink) < 0.01, kink + 0.02, values)
        return values.astype(np.float32).astype(floats)  # the same numbers in both dtypes


@dataclass(frozen=True)
class Row:
    """One case. build(*Nodes) -> Node; torch(*float64 tensors) -> tensor.

    rtol, atol: for float32 against float64. grad: False where there is none. second: the gradient's
    gradient exists too. empty: legal when batch is 0.
    """

    name: str
    build: Callable[..., Node]
    torch: Callable[..., Any] | None
    inputs: tuple[In, ...]
    rtol: float = 2e-6
    atol: float = 2e-6
    grad: bool = True
    second: bool = True
    empty: bool = True

    def specs(self, floats: str = "float32") -> list[Spec]:
        return [x.spec(floats) for x in self.inputs]

    def sample(
        self, extents: Mapping[str, int], floats: str = "float32", seed: int = 0
    ) -> list[np.ndarray]:
        """Arrays for these extents; the same values for both float dtypes."""
        rng = np.random.default_rng([seed, zlib.crc32(self.name.encode())])
        shapes = [tuple(evaluate(d, extents) for d in s.dims) for s in self.specs()]
        return [x.sample(rng, s, floats) for x, s in zip(self.inputs, shapes, strict=True)]

    def nodes(self, floats: str = "float32") -> list[Node]:
        """An input Node for each input: x0, x1, …"""
        return [input_node(f"x{i}", s) for i, s in enumerate(self.specs(floats))]

    def graph(self, floats: str = "float32", backward: bool = False) -> Graph:
        """y, and with `backward` dx0, dx1, … of sum(y * dy), where dy is one more input."""
        nodes = self.nodes(floats)
        y = self.build(*nodes)
        outputs = {"y": y}
        if backward:
            dy = input_node("dy", y.spec)
            wrt = {f"d{n.name}": n for n in nodes if n.dtype == floats}
            outputs |= zip(wrt, gradients(y, list(wrt.values()), dy), strict=True)
        return Graph(self.name, outputs)


def f(*shape: Any, low: float = -2.0, high: float = 2.0, away: tuple[float, ...] = ()) -> In:
    """A float input."""
    return In(shape, "float", low, high, away)


def i(*shape: Any, below: int, dtype: str = "int32", low: int = 0) -> In:
    """An integer input with values in low..below-1."""
    return In(shape, dtype, low, below)


def b(*shape: Any) -> In:
    """A bool input."""
    return In(shape, "bool")


def _all_rows() -> list[Row]:
    from tests.ops import rows_contraction, rows_elementwise, rows_normalization, rows_shape

    files = (rows_elementwise, rows_shape, rows_normalization, rows_contraction)
    rows = [row for file in files for row in file.ROWS]
    assert len({r.name for r in rows}) == len(rows), "row names must differ"
    return rows


def __getattr__(name: str) -> Any:
    """ROWS, put together when it is first asked for (the row files import this one)."""
    if name == "ROWS":
        globals()["ROWS"] = _all_rows()
        return globals()["ROWS"]
    raise AttributeError(name)
