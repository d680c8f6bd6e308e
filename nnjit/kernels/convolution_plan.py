"""How a weight gradient is cut: what the rows of its tiles are, and how many rows of an image a
pass takes.
"""

from __future__ import annotations

from dataclasses import dataclass

from nnjit.kernels import target
from nnjit.kernels.blocks import Panel, choose, most_rows, panels, split
from nnjit.kernels.geometry import Conv

L1_BYTES, L2_BYTES = 40_000, 256_000  # what a pass may touch
PIXELS = 128  # the least it should reduce over


@dataclass(frozen=True)
class Plan:
    """How a weight gradient is cut. copied: the tile reads images in scratch, padded with zeros.
    H, W: of the image that it reads.

    wide: dy is bfloat16, and a pass copies its rows as float32 to scratch.
    kernel: which kernel positions are tile rows besides the channels: "all", "columns", or "none"
    (then clipped).
    """

    conv: Conv
    dtype: str
    copied: bool
    kernel: str
    H: int
    W: int
    offsets: tuple[int, ...]
    most: int
    vectors: int
    wide: bool = False

    @property
    def clipped(self) -> bool:
        return self.conv.padded and not self.copied

    @property
    def contiguous(self) -> bool:
        return self.offsets == tuple(range(len(self.offsets)))

    def panels(self) -> list[Panel]:
        return panels(self.conv.OG, self.vectors, target.lanes(self.dtype))


def plan(conv: Conv, dtype: str) -> Plan:
    """Few channels: padded images are copied to scratch, so that (kernel column, channel) can be
    tile rows.
    """
    c = conv
    wide = most_rows(1)
    single = c.groups == 1
    all_rows = single and wide >= c.KH * c.KW * c.C
    copied = c.padded and single and (all_rows or wide >= c.C * 2)
    (top, bottom), (left, right) = c.padding
    H, W = c.H, c.W
    if copied:
        H, W = H + top + max(bottom, 0), W + left + max(right, 0)
    free = single and (copied or not c.padded)
    columns = free and (c.dilation[1] == 1 or wide >= c.KW * c.C)
    kernel = "all" if all_rows else "columns" if columns else "none"
    kh = range(c.KH) if kernel == "all" else range(1)
    kw = range(c.KW) if kernel != "none" else range(1)
    offsets = tuple(
        (r * c.dilation[0] * W + s * c.dilation[1]) * c.C + i
        for r in kh
        for s in kw
        for i in range(c.CG)
    )
    most, vectors = choose(len(offsets), c.OG, dtype, exact=True)
    return Plan(c, dtype, copied, kernel, H, W, offsets, most, vectors)


def row_runs(p: Plan) -> list[tuple[int, int, tuple[int, ...]]]:
    """(first, last, offsets): blocks of tile rows; neighbours of one size are a run where the rows
    are contiguous.
    """
    out: list[tuple[int, int, tuple[int, ...]]] = []
    for start, size in split(len(p.offsets), p.most):
        offsets = tuple(o - p.offsets[start] for o in p.offsets[start : start + size])
        if out and p.contiguous and out[-1][2] == offsets:
            out[-1] = (out[-1][0], start, offsets)
        else:
            out.append((start, start, offsets))
    return out


def rows_per_pass(p: Plan) -> int:
    """Rows of dy a pass reduces over: 128 pixels or more, in L1 if they fit, else a part of L2."""
    c, bytes_ = p.conv, target.itemsize(p.dtype) * (1 + p.wide)
    for limit in (L1_BYTES, L2_BYTES):
        rows = (limit // bytes_ - c.KH * c.dilation[0] * p.W * c.C) // (
            c.stride[0] * p.W * c.C + c.WO * c.O
        )
        if rows * c.WO >= PIXELS:
            return min(rows, c.HO)
    return min(c.HO, -(-PIXELS // c.WO))


def panel_count(p: Panel) -> int:
    return -(-(int(p.end) - int(p.first)) // p.width)
