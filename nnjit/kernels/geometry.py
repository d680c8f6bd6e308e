"""Shapes of a 2-D convolution, and which input rows or columns each output position reads.

Both the forward pass and the input gradient are correlations: an output position m of a class reads
the input positions in_first + m * in_step + t * tap_step for its taps t. The forward pass has one
class an axis. The input gradient has one for each residue of the position modulo the stride, with
its own taps: no zeros are inserted, no product is wasted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from nnjit.kernels.blocks import Dim


@dataclass(frozen=True)
class Conv:
    """x (batch, H, W, C), w (KH, KW, C / groups, O) -> y (batch, HO, WO, O). padding: ((top,
    bottom), (left, right)); bottom and right are negative where the last pixels are not read.
    """

    batch: Dim
    H: int
    W: int
    C: int
    O: int  # noqa: E741
    KH: int
    KW: int
    stride: tuple[int, int] = (1, 1)
    padding: tuple[tuple[int, int], tuple[int, int]] = ((0, 0), (0, 0))
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    def __post_init__(self) -> None:
        if self.groups < 1 or self.C % self.groups or self.O % self.groups:
            raise ValueError(
                f"convolution: groups={self.groups} must divide the {self.C} input "
                f"and {self.O} output channels"
            )
        if (
            min(*self.stride, *self.dilation, self.KH, self.KW) < 1
            or min(low for low, _ in self.padding) < 0
        ):
            raise ValueError(
                f"convolution: kernel ({self.KH}, {self.KW}), stride={self.stride} "
                f"and dilation={self.dilation} must be "
                f"at least 1, padding={self.padding} before at least 0"
            )
        if self.HO < 1 or self.WO < 1:
            raise ValueError(
                f"convolution: a kernel of ({self.KH}, {self.KW}) with "
                f"dilation={self.dilation} does not fit an image of "
                f"({self.H}, {self.W}) with padding={self.padding}"
            )

    @property
    def HO(self) -> int:
        return output_size(self.H, self.KH, self.stride[0], self.padding[0], self.dilation[0])

    @property
    def WO(self) -> int:
        return output_size(self.W, self.KW, self.stride[1], self.padding[1], self.dilation[1])

    @property
    def CG(self) -> int:
        """Input channels of a group."""
        return self.C // self.groups

    @property
    def OG(self) -> int:
        """Output channels of a group."""
        return self.O // self.groups

    @property
    def pointwise(self) -> bool:
        """Whether it is a matrix product of pixels and channels."""
        return (
            self.KH == self.KW == self.groups == 1
            and self.stride == (1, 1)
            and not any(map(any, self.padding))
        )

    @property
    def padded(self) -> bool:
        """Whether some position of the kernel reaches over the border."""
        return any(max(pair) > 0 for pair in self.padding)

    def describe(self) -> str:
        """The shapes and the options that are not 1 or 0."""
        words = [
            f"x ({self.batch}, {self.H}, {self.W}, {self.C})",
            f"w ({self.KH}, {self.KW}, {self.CG}, {self.O})",
            f"y ({self.batch}, {self.HO}, {self.WO}, {self.O})",
        ]
        words += [f"stride {self.stride}"] * (self.stride != (1, 1)) + [
            f"padding {self.padding}"
        ] * any(map(any, self.padding))
        words += [f"dilation {self.dilation}"] * (self.dilation != (1, 1))
        return ", ".join(words + [f"{self.groups} groups"] * (self.groups > 1))


def output_size(
    size: int, kernel: int, stride: int, padding: tuple[int, int], dilation: int
) -> int:
    """Positions of a kernel on a padded axis."""
    return (size + sum(padding) - (kernel - 1) * dilation - 1) // stride + 1


@dataclass(frozen=True)
class Axis:
    """One class of output positions on an axis.

    Output position first + m * step, m in 0..count-1, reads in_first + m * in_step + t * tap_step,
    t in 0..taps-1, with the kernel index kernel_first + t * kernel_step.
    """

    first: int
    step: int
    count: int
    in_first: int
    in_step: int
    taps: int
    tap_step: int
    kernel_first: int
    kernel_step: int

    def inside(self, size: int) -> bool:
        """Whether no tap of any position falls outside of 0..size-1."""
        last = self.in_first + (self.count - 1) * self.in_step + (self.taps - 1) * self.tap_step
        return self.taps > 0 and self.in_first >= 0 and last < size

    def rows(self, size: int, start: int, count: int, tap: int) -> tuple[int, int]:
        """Of `count` positions from `start`, the range (relative) for which the tap falls inside
        0..size-1.
        """
        at = [
            self.in_first + (start + i) * self.in_step + tap * self.tap_step for i in range(count)
        ]
        ok = [i for i, p in enumerate(at) if 0 <= p < size]
        return (ok[0], ok[-1] + 1) if ok else (0, 0)


def forward_axis(count: int, kernel: int, stride: int, low: int, dilation: int) -> list[Axis]:
    """The one class of the forward pass."""
    return [Axis(0, 1, count, -low, stride, kernel, dilation, 0, 1)]


def gradient_axis(size: int, kernel: int, stride: int, low: int, dilation: int) -> list[Axis]:
    """The classes of positions of dx by residue; kernel indices count from the end (the weights are
    packed reversed).
    """
    common = math.gcd(dilation, stride)
    out = []
    for residue in range(stride):
        first = (residue - low) % stride
        count = len(range(first, size, stride))
        used = [k for k in range(kernel) if k * dilation % stride == residue]
        if not count:
            continue
        last = used[-1] if used else 0
        start = (first + low - last * dilation) // stride if used else 0
        out.append(
            Axis(
                first,
                stride,
                count,
                start,
                1,
                len(used),
                dilation // common,
                kernel - 1 - last,
                stride // common,
            )
        )
    return sorted(out, key=lambda axis: axis.first)
