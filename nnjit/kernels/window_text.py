"""What the pooling templates share: the geometry of a window, and the loops around the channel
loops.
"""

from __future__ import annotations

from dataclasses import dataclass

from nnjit.kernels.blocks import Dim, check_symbols, product, symbols_of, total
from nnjit.kernels.template import indent

#: the largest window whose positions are written out; larger ones are loops
UNROLL = 16
#: elements of the result that are worth a chunk
GRAIN = 4096
#: names of pointers, which a run-time symbol must not have
LOCALS = "lo hi tid x y index dy dx"

Pair = tuple[int, int]
Padding = tuple[Pair, Pair]


@dataclass(frozen=True)
class Window:
    """The geometry of one pooling: image rows, columns, channels; window, stride; padding above,
    below, left, right.
    """

    h: int
    w: int
    c: int
    kh: int
    kw: int
    sh: int
    sw: int
    top: int
    bottom: int
    left: int
    right: int

    def __post_init__(self) -> None:
        if min(self.h, self.w, self.c, self.kh, self.kw, self.sh, self.sw) < 1:
            raise ValueError(f"pooling: sizes, window and strides must be at least 1, got {self}")
        pads = (
            (self.top, self.kh),
            (self.bottom, self.kh),
            (self.left, self.kw),
            (self.right, self.kw),
        )
        if any(not 0 <= pad < size for pad, size in pads):
            raise ValueError(
                f"pooling: padding must be at least 0 and less than the window, got padding "
                f"{self.padding} for window {(self.kh, self.kw)}"
            )
        if self.ho < 1 or self.wo < 1:
            raise ValueError(
                f"pooling: window {(self.kh, self.kw)} is larger than the padded image "
                f"{(self.h + self.top + self.bottom, self.w + self.left + self.right)}"
            )

    @property
    def ho(self) -> int:
        """Rows of the result."""
        return (self.h + self.top + self.bottom - self.kh) // self.sh + 1

    @property
    def wo(self) -> int:
        """Columns of the result."""
        return (self.w + self.left + self.right - self.kw) // self.sw + 1

    @property
    def padding(self) -> Padding:
        return (self.top, self.bottom), (self.left, self.right)

    @property
    def padded(self) -> bool:
        return any((self.top, self.bottom, self.left, self.right))

    @property
    def clipped(self) -> bool:
        """Whether some window reaches over the border."""
        over_h = (self.ho - 1) * self.sh - self.top + self.kh > self.h
        over_w = (self.wo - 1) * self.sw - self.left + self.kw > self.w
        return self.top > 0 or self.left > 0 or over_h or over_w

    @property
    def tiles(self) -> bool:
        """Whether the windows lie side by side: each input position is in one window or in the
        remainder.
        """
        return (self.kh, self.kw) == (self.sh, self.sw) and not self.padded

    @property
    def index_code(self) -> str:
        """dtype of a position inside the window."""
        return "u1" if self.kh * self.kw <= 256 else "i4"

    @property
    def label(self) -> str:
        pads = f"_p{self.top}_{self.bottom}_{self.left}_{self.right}" if self.padded else ""
        return f"{self.h}x{self.w}x{self.c}_k{self.kh}x{self.kw}_s{self.sh}x{self.sw}{pads}"

    @property
    def words(self) -> str:
        pads = f", padding {self.padding}" if self.padded else ""
        return f"window {self.kh} x {self.kw}, stride {self.sh} x {self.sw}{pads}"


def window_of(
    h: int, w: int, c: int, window: Pair, strides: Pair | None, padding: Padding
) -> Window:
    return Window(h, w, c, *window, *(strides or window), *padding[0], *padding[1])


def pooled_rows(n: Dim, rows: int, elements: int) -> dict:
    """symbols, trip count and grain of a kernel over `rows` rows an image, each of `elements`."""
    symbols = check_symbols("pooling", symbols_of(n), LOCALS)
    return {
        "symbols": symbols,
        "trip": product(n, rows),
        "grain": max(1, GRAIN // elements),
    }


def forward_body(
    g: Window, whole: list[str], first: list[str], tap: list[str], last: list[str]
) -> list[str]:
    """Loops over the result's pixels; `whole` is the channel loop for a window inside of the image.

    A clipped or large window does `first`, then `tap` for each position p, q (input at a), then
    `last`. The result's pixel is at b.
    """
    row, pixel = g.w * g.c, g.c
    unrolled = bool(whole)
    lines = [
        "for row in range(lo, hi):",
        f"    image = row // {g.ho}",
        total(f"    top = row % {g.ho} * {g.sh}", -g.top),
        f"    p0, p1 = max(0, -top), min({g.kh}, {g.h} - top)" if g.clipped else "",
        f"    for j in range({g.wo}):",
        total(f"        left = j * {g.sw}", -g.left),
        f"        a = (image * {g.h} + top) * {row} + left * {pixel}",
        f"        b = (row * {g.wo} + j) * {g.c}",
    ]
    if not g.clipped and unrolled:
        return [line for line in lines if line] + indent(whole, 2)
    if g.clipped:
        lines += [f"        q0, q1 = max(0, -left), min({g.kw}, {g.w} - left)"]
    else:
        lines += [f"        p0, p1, q0, q1 = 0, {g.kh}, 0, {g.kw}"]
    general = [
        *first,
        "for p in range(p0, p1):",
        "    for q in range(q0, q1):",
        f"        e = a + p * {row} + q * {pixel}",
        *indent(tap, 2),
        *last,
    ]
    if unrolled:
        inside = f"if p1 - p0 == {g.kh} and q1 - q0 == {g.kw}:"
        lines += indent([inside, *indent(whole), "else:", *indent(general)], 2)
    else:
        lines += indent(general, 2)
    return [line for line in lines if line]


def at(base: str, offset: int) -> str:
    return total(f"{base} + c", offset)


def tiled_grad(g: Window, dtype: str, load: list[str], store: str) -> list[str]:
    """dx of windows side by side: each band of kh rows is written once, then what the windows leave
    over.

    load gives the window's gradient at b + c; store, with {k}, is what position k receives.
    """
    lines = [
        "for row in range(lo, hi):",
        f"    image, i = row // {g.ho}, row % {g.ho}",
        f"    band = (image * {g.h} + i * {g.kh}) * {g.w * g.c}",
        f"    for j in range({g.wo}):",
        f"        a = band + j * {g.kw * g.c}",
        f"        b = (row * {g.wo} + j) * {g.c}",
        f"        for c in range({g.c}):",
        *indent(load, 3),
    ]
    for k in range(g.kh * g.kw):
        target = at("a", (k // g.kw * g.w + k % g.kw) * g.c)
        lines.append(f"            dx[{target}] = {store.format(k=k)}")
    rest = g.w - g.wo * g.kw
    if rest:
        lines += [
            f"    for p in range({g.kh}):",
            f"        a = band + p * {g.w * g.c} + {g.wo * g.kw * g.c}",
            f"        for c in range({rest * g.c}):",
            f"            dx[a + c] = {dtype}(0)",
        ]
    below = g.h - g.ho * g.kh
    if below:
        lines += [
            f"    if i == {g.ho - 1}:",
            f"        a = band + {g.kh * g.w * g.c}",
            f"        for c in range({below * g.w * g.c}):",
            f"            dx[a + c] = {dtype}(0)",
        ]
    return lines


def covered_grad(
    g: Window, dtype: str, before: list[str], load: list[str], value: str
) -> list[str]:
    """dx pixel by pixel: the sum over the windows (i, j) that cover it, in order; position k inside
    the window.

    before runs once a window, load for each channel at b + c; value is what is added.
    """
    return [
        "for row in range(lo, hi):",
        total(f"    image, r = row // {g.h}, row % {g.h}", g.top),
        f"    i0 = max(0, ({total('r', g.sh - g.kh)}) // {g.sh})",
        f"    i1 = min({g.ho}, r // {g.sh} + 1)",
        f"    for w in range({g.left}, {g.w + g.left}):",
        f"        j0 = max(0, ({total('w', g.sw - g.kw)}) // {g.sw})",
        f"        j1 = min({g.wo}, w // {g.sw} + 1)",
        total(f"        a = row * {g.w * g.c} + w * {g.c}", -g.left * g.c),
        f"        for c in range({g.c}):",
        f"            dx[a + c] = {dtype}(0)",
        "        for i in range(i0, i1):",
        "            for j in range(j0, j1):",
        f"                b = ((image * {g.ho} + i) * {g.wo} + j) * {g.c}",
        *indent(before, 4),
        f"                for c in range({g.c}):",
        *indent(load, 5),
        f"                    dx[a + c] += {value}",
    ]
