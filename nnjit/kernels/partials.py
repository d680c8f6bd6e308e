"""Sums over images that several threads share: parts fixed by the shape, then one ordered sum of
the parts.
"""

from __future__ import annotations

from nnjit.kernels.blocks import text
from nnjit.kernels.geometry import Conv
from nnjit.kernels.recipe import Step
from nnjit.kernels.target import itemsize
from nnjit.kernels.template import Template

PARTS, MOST_PARTS = 8, 32
#: weight gradients up to this size are cheap to sum, so there may be more parts
PART_BYTES = 16 * 1024


def partial_count(conv: Conv, dtype: str) -> int:
    """Parts of the images: 8; 32 where the gradient is small, so that many threads share large
    images.
    """
    small = conv.KH * conv.KW * conv.CG * conv.O * itemsize(dtype) <= PART_BYTES
    parts = MOST_PARTS if small else PARTS
    return min(parts, conv.batch) if isinstance(conv.batch, int) and conv.batch > 0 else parts


def images_of(batch: int | str, count: int) -> list[str]:
    """The loop over the images of part p; parts differ by one image at most, and may be empty."""
    return [f"for n in range(p * {text(batch)} // {count}, (p + 1) * {text(batch)} // {count}):"]


def zero_partial(size: int, dtype: str) -> list[str]:
    return [f"for i in range({size}):", f"    y[part + i] = {dtype}(0)"]


def reduce_step(size: int, count: int, dtype: str) -> Step:
    """out = the sum of `count` partial results of `size` elements in `parts`, in order."""
    body = (
        "for i in range(lo, hi):",
        "    y[i] = parts[i]",
        "for p in range(1, count):",
        "    for i in range(lo, hi):",
        "        y[i] += parts[p * size + i]",
    )
    template = Template(
        name=f"sum_parts_{dtype}",
        doc="y[i] = sum over p < count of parts[p * size + i], in order.",
        imports=(),
        symbols=(),
        params=(("parts", dtype), ("y", dtype)),
        body=body,
        trip=size,
        grain=max(64, 16384 // count),
        sizes=(("size", size), ("count", count)),
    )
    return Step(template, ("parts", "out"))
