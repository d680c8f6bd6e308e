"""3 x 3 convolutions with stride 1 by Winograd's F(2 x 2, 3 x 3): 16 products where a sum has 36.

Every 2 x 2 block of results is A (G w G^T * B^T x B) A^T, elementwise in 16 points, each of which
is a matrix product over the channels. The weights' points are made once; a few rows of blocks are
transformed into scratch, multiplied by the register tile, transformed back and stored with bias and
final in registers. Only inputs that a result depends on enter it, so NaN spreads as in the sum
written out; differences of infinite values are NaN.
"""

from __future__ import annotations

from dataclasses import dataclass

from nnjit import config
from nnjit.kernels import target
from nnjit.kernels.blocks import (
    Tiles,
    call,
    check_symbols,
    choose,
    filled,
    grain,
    panels,
    product,
    split,
    symbols_of,
    total,
)
from nnjit.kernels.geometry import Conv
from nnjit.kernels.packing import pack_transposed, padded
from nnjit.kernels.recipe import Epilogue, Recipe, Step
from nnjit.kernels.template import Template, indent
from nnjit.kernels.winograd_text import POINTS, Transforms, cut, ends, plane, taken, weight_points

L1_BYTES, L2_BYTES = 32_000, 512_000  # what a pass, and the weights, should take
LEAST, MOST = 8, 32  # blocks of results of a pass
# variables of these kernels, which no symbol may be called
NAMES = "lo hi tid a b bias mask residual y scratch t n h i j k o c q r taken sums out image top m"


def fits(conv: Conv, dtype: str) -> bool:
    """Is it such a convolution, with channels enough to pay for the transforms?"""
    if not config.winograd():
        return False
    plain = (conv.KH, conv.KW, conv.stride, conv.dilation, conv.groups) == (3, 3, (1, 1), (1, 1), 1)
    lanes = target.lanes(dtype)
    if not plain or max(map(max, conv.padding)) > 2 or min(conv.HO, conv.WO) < 2:
        return False
    inputs, results = -(-conv.C // lanes), -(-conv.O // lanes)
    blocks = -(-conv.HO // 2) * -(-conv.WO // 2)
    moves = 50 * inputs + 80 * results  # loads, sums and stores of a block
    return (
        blocks * (POINTS * conv.C * results + moves) * 1.1
        < conv.HO * conv.WO * 9 * conv.C * results
    )


def forward(name: str, conv: Conv, dtype: str, epilogue: Epilogue, doc: str) -> Recipe:
    """y = conv(a, b) with a = x and b = w; roles as in `convolution.conv2d`."""
    (top, _), (left, _) = conv.padding
    k = Kernel(conv.batch, conv.H, conv.W, conv.C, conv.HO, conv.WO, conv.O, top, left, conv.O,
               dtype, epilogue)  # fmt: skip
    main, args = k.template(name, f"{doc}")
    points = weight_points(conv.C, conv.O, dtype)
    size = POINTS * conv.C * conv.O
    return Recipe((Step(points, ("b", "points_b")), Step(main, args)), {"points_b": (size, dtype)})


def backward(name: str, conv: Conv, dtype: str, epilogue: Epilogue, doc: str) -> Recipe:
    """dx with a = dy and b = w: the same with the kernel turned around."""
    (top, _), (left, _) = conv.padding
    lanes = target.lanes(dtype)
    unit = padded(conv.C, lanes)
    assert isinstance(unit, int)
    k = Kernel(conv.batch, conv.HO, conv.WO, conv.O, conv.H, conv.W, conv.C, 2 - top, 2 - left,
               unit, dtype, epilogue)  # fmt: skip
    main, args = k.template(name, f"{doc}")
    turned = pack_transposed(
        conv.O, conv.C, unit // lanes, dtype, planes=9, plane_stride=conv.C * conv.O, leading=conv.O
    )
    points = weight_points(conv.O, unit, dtype)
    size = conv.O * unit
    return Recipe(
        (
            Step(turned, ("b", "packed_b")),
            Step(points, ("packed_b", "points_b")),
            Step(main, args),
        ),
        {"packed_b": (9 * size, dtype), "points_b": (POINTS * size, dtype)},
    )


@dataclass
class Kernel:
    """a (batch, H, W, C) -> y (batch, HO, WO, O), padded `top` and `left`; rows of b are `unit`
    apart.
    """

    batch: int | str
    H: int
    W: int
    C: int
    HO: int
    WO: int
    O: int  # noqa: E741
    top: int
    left: int
    unit: int
    dtype: str
    epilogue: Epilogue

    def __post_init__(self) -> None:
        self.tiles, self.transforms = Tiles(self.dtype), Transforms(self.dtype)
        self.blocks = cut(self.HO, self.WO, self.most_blocks())

    def most_blocks(self) -> int:
        """Blocks of a pass: their points fit L1, but large weights are read for many at once."""
        size = target.itemsize(self.dtype) * POINTS
        if size * self.C * self.unit > L2_BYTES:
            return MOST
        return min(MOST, max(LEAST, L1_BYTES // (size * (self.C + self.O))))

    def template(self, name: str, doc: str) -> tuple[Template, tuple[str, ...]]:
        """The kernel and the roles that it takes. Trip: passes over all images."""
        ep, b = self.epilogue, self.blocks
        first = POINTS * plane(b.many, self.C)
        size = first + POINTS * plane(b.many, self.O)
        points = taken(
            self.transforms, "take", "INPUT", b, "a", "taken", (self.H, self.W, self.C),
            (self.top, self.left),
        )  # fmt: skip
        body = [
            f"taken = tid * {size}",
            f"sums = taken + {first}",
            "for t in range(lo, hi):",
            f"    n = t // {b.passes}",
            *indent(b.start(f"t - n * {b.passes}")),
            *indent(b.over_rows(points)),
            *indent(self.products()),
            *indent(b.over_rows(self.results())),
            *indent(self.tail()),
        ]
        inputs = ((n, self.dtype) for n in ("a", "b", *ep.inputs(), "y"))
        how = f"b holds the points of w; lo..hi: {b.rows} x {b.columns} blocks of 2 x 2 each."
        template = Template(
            name=name,
            doc=filled(f"{name}: {doc};\n{how}"),
            imports=(*ep.imports, *self.tiles.imports(), *self.transforms.imports()),
            symbols=check_symbols(name, symbols_of(self.batch), NAMES, ep.extra_params),
            params=(*inputs, *ep.extra_params, ("scratch", self.dtype)),
            body=tuple(body),
            trip=product(self.batch, b.passes),
            scratch=size * target.itemsize(self.dtype),
            grain=grain(2 * POINTS * b.many * self.O * self.C),
        )
        extra = (n for n, _ in ep.extra_params)
        return template, ("a", "points_b", *ep.inputs(), "out", *extra, "scratch")

    def tail(self) -> list[str]:
        """The epilogue's tail over what this pass has stored."""
        b, first = self.blocks, "g * 2"
        at, count = f"(n * {self.HO} + r) * {self.WO * self.O}", str(self.WO)
        if b.columns < b.wide:
            at = f"{at} + {first} * {self.O}"
            count = f"min({self.WO} - {first}, {2 * b.columns})"
        lines = self.epilogue.pixels(at, int(count) if count.isdigit() else count, self.O)
        if not lines:
            return []
        high = 2 * b.rows
        return [
            f"for r in range(h * {high}, min({self.HO}, (h + 1) * {high})):",
            *indent(lines),
        ]

    def results(self) -> list[str]:
        """scratch[sums..] -> y, with bias and final: the blocks of row r."""
        ep, b = self.epilogue, self.blocks
        step = plane(b.many, self.O)
        args = [
            "scratch", total("sums", f"{b.place} * {self.O}"),
            "y", f"out + {b.column} * {2 * self.O}",
        ]  # fmt: skip

        def given(c: str) -> list[str]:
            return ep.tile_arguments(c, total(args[3], c))

        rows = []
        for first, below, high in ends(self.HO):
            lines = []
            for start, last, wide in ends(self.WO):
                options: dict[str, object] = {
                    "reads": (4 * step, step),
                    "writes": (self.WO * self.O, self.O),
                    "stored": None if (high, wide) == (2, 2) else (high, wide),
                    "bias": ep.bias,
                    "final": ep.final,
                }
                body = self.transforms.channels("give", "RESULT", self.O, options, args, given)
                lines += [f"for j in {b.between(start, last)}:", *indent(body)]
            rows.append((first, below, lines))
        lines = rows[0][2]
        if len(rows) > 1:
            lines = [f"if r < {rows[0][1]}:", *indent(lines), "else:", *indent(rows[1][2])]
        return [f"out = (n * {self.HO} + r * 2) * {self.WO * self.O}", *lines]

    def products(self) -> list[str]:
        """scratch[sums..] = point by point, blocks x channels times channels x results."""
        many = self.blocks.many
        most, vectors = choose(many, self.O, self.dtype, exact=True)
        sizes: dict[int, list[int]] = {}
        for start, size in split(many, most):
            sizes.setdefault(size, []).append(start)
        lines: list[str] = []
        for panel in panels(self.O, vectors, target.lanes(self.dtype)):
            inner: list[str] = []
            for size, starts in sizes.items():
                name = self.tiles.get(
                    size, panel,
                    rows_a=tuple(i * self.C for i in range(size)),
                    rows_c=tuple(i * self.O for i in range(size)),
                    step_b=self.unit,
                )  # fmt: skip
                args = [
                    "1", str(self.C),
                    "scratch", f"taken + k * {plane(many, self.C)} + j * {self.C}", "0",
                    "b", f"k * {self.C * self.unit} + o", "0",
                    "scratch", f"sums + k * {plane(many, self.O)} + j * {self.O} + o",
                ]  # fmt: skip
                loop = f"for j in range({starts[0]}, {starts[-1] + 1}, {size}):"
                inner += [loop, *indent(call(name, args))]
            lines += [panel.loop(), *indent(inner)]
        return [f"for k in range({POINTS}):", *indent(lines)]
