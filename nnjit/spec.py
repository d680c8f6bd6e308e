"""Spec: the shape and dtype of a value. A shape entry is an int or an extent.

An extent is a whole number times named run-time symbols (`batch`, `26*batch`, `batch*time`).
Everything else about a graph is known when it is compiled; symbols get their values at each bind,
so a new batch size compiles nothing.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nnjit.errors import DTypeError, ShapeError, nearest

DTYPES = {
    "float32": 4, "float64": 8, "int32": 4, "int64": 8,
    "uint8": 1, "uint32": 4, "uint64": 8, "bool": 1, "bfloat16": 2,
}  # fmt: skip
FLOATS = ("float32", "float64")  # what is computed with; bfloat16 is for storage and products


def computed_as(dtype: str) -> str:
    """The NumPy dtype of a value in the interpreter: bfloat16 is a rounded float32 there."""
    return "float32" if dtype == "bfloat16" else dtype


@dataclass(frozen=True)
class Extent:
    """factor * symbols[0] * symbols[1] …, symbols sorted; at least one symbol."""

    factor: int
    symbols: tuple[str, ...]

    def __mul__(self, other: Dim) -> Extent:
        if isinstance(other, Extent):
            return Extent(self.factor * other.factor, tuple(sorted(self.symbols + other.symbols)))
        return Extent(self.factor * other, self.symbols)

    __rmul__ = __mul__

    def __str__(self) -> str:
        head = [] if self.factor == 1 else [str(self.factor)]
        return "*".join([*head, *self.symbols])

    __repr__ = __str__


Dim = int | Extent


def symbol(name: str) -> Extent:
    """The extent that is one symbol."""
    return Extent(1, (name,))


def product(dims: Sequence[Dim]) -> Dim:
    """The product of dims; 0 if any is 0."""
    if any(d == 0 for d in dims):
        return 0
    out: Dim = 1
    for d in dims:
        out = out * d
    return out


def divide(a: Dim, b: Dim) -> Dim | None:
    """a / b where that is an int or an extent, else None."""
    fa, sa = (a.factor, list(a.symbols)) if isinstance(a, Extent) else (a, [])
    fb, sb = (b.factor, list(b.symbols)) if isinstance(b, Extent) else (b, [])
    if fb == 0 or fa % fb:
        return None
    for s in sb:
        if s not in sa:
            return None
        sa.remove(s)
    return Extent(fa // fb, tuple(sa)) if sa else fa // fb


def add(a: Dim, b: Dim) -> Dim | None:
    """a + b where that is an int or an extent (equal symbols), else None."""
    if isinstance(a, int) and isinstance(b, int):
        return a + b
    if isinstance(a, Extent) and isinstance(b, Extent) and a.symbols == b.symbols:
        return Extent(a.factor + b.factor, a.symbols)
    if a == 0 or b == 0:
        return b if a == 0 else a
    return None


def evaluate(dim: Dim, extents: Mapping[str, int]) -> int:
    """The number that a dim has when the symbols have these values."""
    if isinstance(dim, int):
        return dim
    return dim.factor * math.prod(extents[s] for s in dim.symbols)


def symbols_of(dims: Sequence[Dim]) -> tuple[str, ...]:
    """The symbols in dims, sorted, each once."""
    return tuple(sorted({s for d in dims if isinstance(d, Extent) for s in d.symbols}))


def check_dtype(dtype: str) -> str:
    """The name of a dtype that nnjit computes with, or DTypeError."""
    name = getattr(dtype, "name", None) or getattr(dtype, "__name__", None) or str(dtype)
    if name == "bool_":
        name = "bool"
    if name not in DTYPES:
        raise DTypeError(f"unknown dtype {name!r}{nearest(name, DTYPES)}")
    return name


@dataclass(frozen=True)
class Spec:
    """Shape and dtype. None in a shape is "open" until a symbol takes its place (`named`)."""

    shape: tuple[Dim | None, ...]
    dtype: str = "float32"

    def __post_init__(self) -> None:
        plain = type(self.shape) is tuple and type(self.dtype) is str and self.dtype in DTYPES
        if plain and all(type(d) is Extent or (type(d) is int and d >= 0) for d in self.shape):
            return  # as nearly all are
        object.__setattr__(self, "shape", tuple(
            symbol(d) if isinstance(d, str) else d if d is None or isinstance(d, Extent) else int(d)
            for d in self.shape))  # fmt: skip
        object.__setattr__(self, "dtype", check_dtype(self.dtype))
        if any(isinstance(d, int) and d < 0 for d in self.shape):
            raise ShapeError(f"negative extent in shape {self.shape}")

    @property
    def rank(self) -> int:
        return len(self.shape)

    @functools.cached_property
    def size(self) -> Dim:
        """Number of elements."""
        return product(self.dims)

    @functools.cached_property
    def nbytes(self) -> Dim:
        """Bytes of a contiguous buffer."""
        return self.size * DTYPES[self.dtype]

    @functools.cached_property
    def dims(self) -> tuple[Dim, ...]:
        """The shape, sure to hold no None."""
        if None in self.shape:
            raise ShapeError(f"shape {self.shape} has an open extent without a name")
        return self.shape  # type: ignore[return-value]

    def with_shape(self, shape: Sequence[Dim]) -> Spec:
        return Spec(tuple(shape), self.dtype)

    def with_dtype(self, dtype: str) -> Spec:
        return Spec(self.shape, dtype)

    def named(self, prefix: str) -> Spec:
        """Every None replaced by a symbol: `batch` on axis 0, `<prefix>_<axis>` elsewhere."""
        return self.with_shape([
            d if d is not None else symbol("batch" if i == 0 else f"{prefix}_{i}")
            for i, d in enumerate(self.shape)])  # fmt: skip

    def __str__(self) -> str:
        return f"{self.dtype}{shape_text(self.shape)}"


def shape_text(shape: Sequence[Dim | None]) -> str:
    """'(batch, 28, 28, 1)'."""
    inner = ", ".join(map(str, shape))
    return f"({inner},)" if len(shape) == 1 else f"({inner})"


def broadcast(shapes: Sequence[tuple[Dim, ...]], where: str) -> tuple[Dim, ...]:
    """The shape that NumPy's rules give, with extents; ShapeError names `where` and all shapes."""
    longer = [s for s in shapes if s]
    if all(s == longer[0] for s in longer):  # most are
        return longer[0] if longer else ()
    rank = max(map(len, longer))
    out: list[Dim] = []
    for axis in range(rank):
        at = axis - rank
        dims = {s[at] for s in shapes if len(s) >= -at} - {1}
        if len(dims) > 1:
            raise ShapeError(
                f"{where}: shapes {' and '.join(shape_text(s) for s in shapes)} do not broadcast: "
                f"axis {at} has {' and '.join(sorted(map(str, dims)))}"
            )
        out.append(dims.pop() if dims else 1)
    return tuple(out)


def normal_axes(axes: int | Sequence[int] | None, rank: int, where: str) -> tuple[int, ...]:
    """Axes counted from 0, sorted, each once; None means all of them."""
    if axes is None:
        return tuple(range(rank))
    given = (axes,) if isinstance(axes, int) else tuple(axes)
    out = tuple(sorted(a + rank if a < 0 else a for a in given))
    if any(not 0 <= a < rank for a in out):
        raise ShapeError(f"{where}: axis {axes} does not exist in a value of rank {rank}")
    if len(set(out)) != len(out):
        raise ShapeError(f"{where}: axis given twice in {axes}")
    return out
