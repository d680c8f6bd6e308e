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
from nnjit.kernels import amx_tile, target
from nnjit.kernels.amx_tile import SIDE
from nnjit.kernels.blocks import (
    Tiles,
    call,
    check_symbols,
    choose,
    filled,
    grain,
    lanes_of,
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
from nnjit.kernels.widened import converted
from nnjit.kernels.winograd_text import (
    POINTS,
    Transforms,
    cut,
    ends,
    pairs_of_rows,
    plane,
    taken,
    weight_points,
)

L1_BYTES, L2_BYTES = 32_000, 512_000  # what a pass, and the weights, should take
LEAST, MOST = 8, 32  # blocks of results of a pass
# variables of these kernels, which no symbol may be called
NAMES = "lo hi tid a b bias mask residual y scratch t n h i j k o c q r taken sums out image top m"


def fits(conv: Conv, dtype: str) -> bool:
    """Is it such a convolution, with channels enough to pay for the transforms?"""
    if not config.winograd():
        return False
    plain = (conv.KH, conv.KW, conv.stride, conv.dilation, conv.groups) == (3, 3, (1, 1), (1, 1), 1)
    pairs = dtype == "b2"
    lanes = lanes_of(dtype)
    if pairs and conv.C % 2 + conv.O % 2:
        return False
    if not plain or max(map(max, conv.padding)) > 2 or min(conv.HO, conv.WO) < 2:
        return False
    inputs, results = -(-conv.C // lanes), -(-conv.O // lanes)
    blocks = -(-conv.HO // 2) * -(-conv.WO // 2)
    moves = 50 * inputs + 80 * results  # loads, sums and stores of a block
    depth = conv.C // 2 if pairs else conv.C
    return (
        blocks * (POINTS * depth * results + moves) * 1.1 < conv.HO * conv.WO * 9 * depth * results
    )


def forward(
    name: str, conv: Conv, dtype: str, epilogue: Epilogue, doc: str, weights: str, out: str
) -> Recipe:
    """y = conv(a, b) with a = x and b = w, whose dtype is `weights`; roles as in
    `convolution.conv2d`.
    """
    (top, _), (left, _) = conv.padding
    k = Kernel(conv.batch, conv.H, conv.W, conv.C, conv.HO, conv.WO, conv.O, top, left, conv.O,
               dtype, epilogue, out)  # fmt: skip
    main, args = k.template(name, f"{doc}")
    points = weight_points(conv.C, conv.O, k.number, weights)
    return k.recipe([Step(points, ("b", "points"))], Step(main, args))


def backward(
    name: str, conv: Conv, dtype: str, epilogue: Epilogue, doc: str, weights: str, out: str
) -> Recipe:
    """dx with a = dy and b = w: the same with the kernel turned around."""
    (top, _), (left, _) = conv.padding
    lanes = lanes_of(dtype)
    unit = padded(conv.C, lanes)
    assert isinstance(unit, int)
    k = Kernel(conv.batch, conv.HO, conv.WO, conv.O, conv.H, conv.W, conv.C, 2 - top, 2 - left,
               unit, dtype, epilogue, out)  # fmt: skip
    main, args = k.template(name, f"{doc}")
    turned = pack_transposed(
        conv.O, conv.C, unit // lanes, k.number,
        planes=9, plane_stride=conv.C * conv.O, leading=conv.O,
    )  # fmt: skip
    points = weight_points(conv.O, unit, k.number)
    first = None
    if weights == "b2":
        first = converted("pack_wide", 9 * conv.O * conv.C, "b2", "f4", ("b", "wide_b"))
    steps = [
        *([first] if first else []),
        Step(turned, (first.args[1] if first else "b", "turned_b")),
        Step(points, ("turned_b", "points")),
    ]
    return k.recipe(steps, Step(main, args))


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
    out: str

    def __post_init__(self) -> None:
        self.kind = "b2" if self.dtype == "b2" else ""
        self.number = "f4" if self.kind else self.dtype
        self.depth = self.C // 2 if self.kind else self.C  # of the products
        self.amx = bool(self.kind) and self.unit % SIDE == 0 and target.multiplies_blocks()
        self.tiles = Tiles(self.dtype, "amx_tile" if self.amx else "tile")
        self.transforms = Transforms(self.number)
        self.blocks = cut(self.HO, self.WO, self.most_blocks())

    def most_blocks(self) -> int:
        """Blocks of a pass: their points fit L1, but large weights, and registers of AMX, are read
        for many at once.
        """
        size = target.itemsize(self.number) * POINTS
        if self.amx or size * self.depth * self.unit > L2_BYTES:
            return MOST
        return min(MOST, max(LEAST, L1_BYTES // (size * (self.depth + self.O))))

    def recipe(self, before: list[Step], main: Step) -> Recipe:
        """All steps: `before` ends with the points of the weights, of which bfloat16 are paired."""
        size = POINTS * self.C * self.unit
        temps: dict[str, tuple[int | str, str]]
        sizes = {"wide_b": size * 9 // POINTS, "turned_b": size * 9 // POINTS, "points": size}
        temps = {t: (sizes[t], self.number) for step in before for t in step.args if t in sizes}
        if not self.kind:
            return Recipe((*before, main), temps)
        pairs = pairs_of_rows(POINTS * self.depth, self.unit)
        last = Step(main.template, tuple("pairs" if a == "points" else a for a in main.args))
        steps = (*before, Step(pairs, ("points", "pairs")), last)
        return Recipe(steps, temps | {"pairs": (size, "b2")})

    def template(self, name: str, doc: str) -> tuple[Template, tuple[str, ...]]:
        """The kernel and the roles that it takes. Trip: passes over all images."""
        ep, b = self.epilogue, self.blocks
        first = POINTS * plane(b.many, self.depth)
        size = first + POINTS * plane(b.many, self.O)
        points = taken(
            self.transforms, "take", "INPUT", b, "a", "taken", (self.H, self.W, self.C),
            (self.top, self.left), self.kind,
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
        operands = (("a", self.dtype), ("b", self.dtype), *ep.params(self.out), ("y", self.out))
        how = f"b holds the points of w; lo..hi: {b.rows} x {b.columns} blocks of 2 x 2 each."
        template = Template(
            name=name,
            doc=filled(f"{name}: {doc};\n{how}"),
            imports=(*ep.imports, *self.tiles.imports(), *self.transforms.imports()),
            symbols=check_symbols(name, symbols_of(self.batch), NAMES, ep.extra_params),
            params=(*operands, *ep.extra_params, ("scratch", self.number)),
            body=tuple(body),
            trip=product(self.batch, b.passes),
            scratch=size * target.itemsize(self.number),
            grain=grain(2 * POINTS * b.many * self.O * self.C),
        )
        extra = (n for n, _ in ep.extra_params)
        return template, ("a", "points", *ep.inputs(), "out", *extra, "scratch")

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
                    **self.stored(),
                }
                body = self.transforms.channels("give", "RESULT", self.O, options, args, given)
                lines += [f"for j in {b.between(start, last)}:", *indent(body)]
            rows.append((first, below, lines))
        lines = rows[0][2]
        if len(rows) > 1:
            lines = [f"if r < {rows[0][1]}:", *indent(lines), "else:", *indent(rows[1][2])]
        return [f"out = (n * {self.HO} + r * 2) * {self.WO * self.O}", *lines]

    def stored(self) -> dict[str, object]:
        """The transform's options for results, masks and residuals of bfloat16."""
        ep = self.epilogue
        options: dict[str, object] = {}
        if self.out != self.number:
            options |= {"to": self.out, "quick": target.multiplies_pairs()}
        beside = ep.beside or self.out
        if ep.operand and beside != self.number:
            options["operand"] = beside
        return options

    def products(self) -> list[str]:
        """scratch[sums..] = point by point, blocks x channels times channels x results."""
        many = self.blocks.many
        depth = self.depth
        most, vectors = choose(many, self.O, self.number, exact=True)
        if self.amx:
            most, vectors = amx_tile.choose(many, self.O)
        sizes: dict[int, list[int]] = {}
        for start, size in split(many, most):
            sizes.setdefault(size, []).append(start)
        lines: list[str] = []
        for panel in panels(self.O, vectors, target.lanes(self.number)):
            inner: list[str] = []
            for size, starts in sizes.items():
                name = self.tiles.get(
                    size, panel,
                    rows_a=tuple(i * depth for i in range(size)),
                    rows_c=tuple(i * self.O for i in range(size)),
                    step_b=self.unit,
                )  # fmt: skip
                args = [
                    "1", str(depth),
                    "scratch", f"taken + k * {plane(many, depth)} + j * {depth}", "0",
                    "b", f"k * {depth * self.unit} + o", "0",
                    "scratch", f"sums + k * {plane(many, self.O)} + j * {self.O} + o",
                ]  # fmt: skip
                loop = f"for j in range({starts[0]}, {starts[-1] + 1}, {size}):"
                inner += [loop, *indent(call(name, args))]
            lines += [panel.loop(), *indent(inner)]
        return [f"for k in range({POINTS}):", *indent(lines)]
