"""Initial values of weights, with Keras' names, defaults and fan rule.

The numbers come from NumPy's Philox generator keyed by (seed, name of the weight): they depend on
nothing else, so adding a layer changes no other layer's values. An initializer with a seed of its
own ignores both.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from nnjit.errors import ArgumentError, ShapeError, nearest
from nnjit.registry import Configurable, Registry

REGISTRY = Registry("initializer")
get = REGISTRY.get

# Standard deviation of a normal cut off at two standard deviations.
TRUNCATED_STD = 0.87962566103423978


def generator(seed: int, name: str) -> np.random.Generator:
    """The generator of one weight: same seed and name, same numbers."""
    key = hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(key, "little")))


def fans(shape: Sequence[int]) -> tuple[float, float]:
    """(fan in, fan out): a kernel is (…window, in, out); a vector has its length as both."""
    if not shape:
        return 1, 1
    if len(shape) == 1:
        return shape[0], shape[0]
    window = math.prod(shape[:-2])
    return shape[-2] * window, shape[-1] * window


class Initializer(Configurable):
    """Base class: override `values(shape, rng)`; the array is cast to the weight's dtype."""

    kind = "initializer"
    seed: int | None = None
    draws = True  # whether `values` uses rng: to make one takes longer than to fill a small weight

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "values" in vars(cls):
            cls.draws = vars(cls).get("draws", True)

    def values(self, shape: tuple[int, ...], rng: np.random.Generator) -> Any:
        raise NotImplementedError(f"{type(self).__name__} does not define values(shape, rng)")

    def __call__(
        self,
        shape: Sequence[int],
        dtype: str = "float32",
        rng: np.random.Generator | None = None,
    ) -> np.ndarray:
        """An array of this shape and dtype. rng: where the numbers come from if there is no own
        seed.
        """
        if self.draws and (self.seed is not None or rng is None):
            rng = generator(self.seed or 0, "")
        shape = tuple(shape)
        values = self.values(shape, rng)  # type: ignore[arg-type]  # None where nothing is drawn
        out = np.broadcast_to(np.asarray(values), shape)
        return np.array(out, dtype=dtype, order="C")


def _truncated(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    out = rng.standard_normal(shape)
    while (far := np.abs(out) > 2).any():
        out[far] = rng.standard_normal(int(far.sum()))
    return out


@REGISTRY.named("zero")
class Zeros(Initializer):
    """All 0."""

    draws = False

    def values(self, shape, rng):
        return 0


@REGISTRY.named("one")
class Ones(Initializer):
    """All 1."""

    draws = False

    def values(self, shape, rng):
        return 1


@REGISTRY.named()
class Constant(Initializer):
    """All `value`: a number, or an array that broadcasts to the weight's shape."""

    draws = False

    def __init__(self, value: float = 0.0):
        self.value = value

    def values(self, shape, rng):
        try:
            return np.broadcast_to(np.asarray(self.value), shape)
        except ValueError:
            raise ShapeError(
                f"Constant: value of shape {np.shape(self.value)} for a weight of shape {shape}"
            ) from None


@REGISTRY.named("uniform")
class RandomUniform(Initializer):
    """Uniform in [minval, maxval)."""

    def __init__(self, minval: float = -0.05, maxval: float = 0.05, seed: int | None = None):
        self.minval, self.maxval, self.seed = minval, maxval, seed

    def values(self, shape, rng):
        return rng.uniform(self.minval, self.maxval, shape)


@REGISTRY.named("normal")
class RandomNormal(Initializer):
    """Normal."""

    def __init__(self, mean: float = 0.0, stddev: float = 0.05, seed: int | None = None):
        self.mean, self.stddev, self.seed = mean, stddev, seed

    def values(self, shape, rng):
        return self.mean + self.stddev * rng.standard_normal(shape)


@REGISTRY.named()
class TruncatedNormal(Initializer):
    """Normal, values beyond two standard deviations drawn anew."""

    def __init__(self, mean: float = 0.0, stddev: float = 0.05, seed: int | None = None):
        self.mean, self.stddev, self.seed = mean, stddev, seed

    def values(self, shape, rng):
        return self.mean + self.stddev * _truncated(rng, shape)


@REGISTRY.named()
class VarianceScaling(Initializer):
    """Variance scale / fan. mode: fan_in, fan_out, fan_avg. distribution: truncated_normal,
    untruncated_normal, uniform ('normal' means truncated_normal).
    """

    MODES = ("fan_in", "fan_out", "fan_avg")
    DISTRIBUTIONS = ("truncated_normal", "untruncated_normal", "uniform", "normal")

    def __init__(
        self,
        scale: float = 1.0,
        mode: str = "fan_in",
        distribution: str = "truncated_normal",
        seed: int | None = None,
    ):
        if scale <= 0:
            raise ArgumentError(f"{type(self).__name__}: scale={scale}: expected more than 0")
        if mode not in self.MODES:
            raise ArgumentError(f"{type(self).__name__}: mode={mode!r}{nearest(mode, self.MODES)}")
        if distribution not in self.DISTRIBUTIONS:
            raise ArgumentError(
                f"{type(self).__name__}: distribution={distribution!r}"
                f"{nearest(distribution, self.DISTRIBUTIONS)}"
            )
        self.scale, self.mode, self.distribution, self.seed = scale, mode, distribution, seed

    def values(self, shape, rng):
        fan_in, fan_out = fans(shape)
        fan = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}[self.mode]
        std = math.sqrt(self.scale / max(1.0, fan))
        if self.distribution == "uniform":
            return rng.uniform(-math.sqrt(3) * std, math.sqrt(3) * std, shape)
        if self.distribution == "untruncated_normal":
            return std * rng.standard_normal(shape)
        return std / TRUNCATED_STD * _truncated(rng, shape)


class _Scaled(VarianceScaling):
    """A VarianceScaling with fixed arguments; takes a seed alone."""

    ARGS: tuple[float, str, str] = (1.0, "fan_in", "truncated_normal")

    def __init__(self, seed: int | None = None):
        super().__init__(*self.ARGS, seed=seed)


@REGISTRY.named()
class GlorotUniform(_Scaled):
    """Uniform in ±sqrt(6 / (fan in + fan out)) (Glorot and Bengio, 2010)."""

    ARGS = (1.0, "fan_avg", "uniform")


@REGISTRY.named()
class GlorotNormal(_Scaled):
    """Truncated normal of variance 2 / (fan in + fan out)."""

    ARGS = (1.0, "fan_avg", "truncated_normal")


@REGISTRY.named()
class HeUniform(_Scaled):
    """Uniform in ±sqrt(6 / fan in) (He et al., 2015)."""

    ARGS = (2.0, "fan_in", "uniform")


@REGISTRY.named()
class HeNormal(_Scaled):
    """Truncated normal of variance 2 / fan in."""

    ARGS = (2.0, "fan_in", "truncated_normal")


@REGISTRY.named()
class LecunUniform(_Scaled):
    """Uniform in ±sqrt(3 / fan in)."""

    ARGS = (1.0, "fan_in", "uniform")


@REGISTRY.named()
class LecunNormal(_Scaled):
    """Truncated normal of variance 1 / fan in."""

    ARGS = (1.0, "fan_in", "truncated_normal")


@REGISTRY.named()
class Orthogonal(Initializer):
    """Orthogonal rows or columns of the weight seen as a (…, out) matrix, times gain (Saxe et al.,
    2014).
    """

    def __init__(self, gain: float = 1.0, seed: int | None = None):
        self.gain, self.seed = gain, seed

    def values(self, shape, rng):
        if len(shape) < 2:
            raise ShapeError(f"Orthogonal: expected a weight of at least 2 axes, got shape {shape}")
        rows, cols = math.prod(shape[:-1]), shape[-1]
        q, r = np.linalg.qr(rng.standard_normal((max(rows, cols), min(rows, cols))))
        q = q * np.sign(np.diag(r))  # makes the decomposition, and so the result, unique
        return self.gain * (q if rows >= cols else q.T).reshape(shape)


@REGISTRY.named("identity")
class Identity(Initializer):
    """The identity matrix times gain."""

    draws = False

    def __init__(self, gain: float = 1.0):
        self.gain = gain

    def values(self, shape, rng):
        if len(shape) != 2:
            raise ShapeError(f"Identity: expected a weight of 2 axes, got shape {shape}")
        return self.gain * np.eye(*shape)
