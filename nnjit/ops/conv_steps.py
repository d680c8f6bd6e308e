"""Convolutions over a number of steps that is known at run time only: products over moved copies.

An extent has no sum, so what keeps the number of steps works: stride 1 and 'same', 'causal' or
equal padding. Channels are few enough to copy: the window's steps stand side by side in memory and
one matrix product reads them.
"""

from __future__ import annotations

from functools import reduce

from nnjit.errors import ShapeError
from nnjit.graph import Node
from nnjit.ops.base import fixed
from nnjit.ops.contraction import matmul
from nnjit.ops.elementwise import add
from nnjit.ops.join import concatenate, split
from nnjit.ops.view import pad, reshape
from nnjit.ops.window import Pair
from nnjit.spec import shape_text


def conv_steps(
    x: Node, kernel: Node, stride: int, padding: Pair | None, dilation: int, groups: int
) -> Node:
    """x (batch, steps, channels) with a kernel (window, channels / groups, outputs).

    padding: (before, behind), together as long as the window less one; None: 'same'.
    """
    window = fixed("conv", "the kernel", kernel.shape[0])
    reach = (window - 1) * dilation
    before, behind = padding or (reach // 2, reach - reach // 2)
    if stride != 1 or before + behind != reach:
        raise ShapeError(
            f"conv: {shape_text(x.shape)} has an open number of steps: a stride of 1 and 'same' or "
            f"'causal' padding expected, got stride {stride} and padding {(before, behind)} for a "
            f"window of {reach + 1}"
        )
    channels = fixed(f"conv: {shape_text(x.shape)}", "the number of channels", x.shape[-1])
    moved = [_moved(x, before - k * dilation) for k in range(window)]
    inside, outputs = kernel.shape[1:]
    if groups == channels and inside == 1:
        return _depthwise(moved, kernel)
    if channels != inside * groups:
        raise ShapeError(
            f"conv: {shape_text(x.shape)} has {channels} channels, the kernel "
            f"{shape_text(kernel.shape)} in {groups} group(s) takes {inside * groups}"
        )
    if fixed("conv", "the kernel", outputs) % groups:
        raise ShapeError(f"conv: {outputs} outputs do not divide into {groups} groups")
    parts = zip(
        zip(*(split(m, groups) for m in moved), strict=True), split(kernel, groups), strict=True
    )
    return concatenate(
        [matmul(concatenate(m), reshape(w, (window * inside, w.shape[2]))) for m, w in parts]
    )


def _moved(x: Node, by: int) -> Node:
    """Steps later by so many, zeros where none comes from."""
    return pad(x, [(0, 0), (by, -by), (0, 0)])


def _depthwise(moved: list[Node], kernel: Node) -> Node:
    """Output channel c * multiplier + m is channel c with its filter m: sums without a product."""
    batch, steps, channels = moved[0].shape
    filters = reshape(kernel, (kernel.shape[0], channels, -1))
    terms = [reshape(m, (batch, steps, channels, 1)) * filters[k] for k, m in enumerate(moved)]
    return reshape(reduce(add, terms), (batch, steps, kernel.shape[2]))
