"""The weight gradient of 3 x 3 convolutions with stride 1 by Winograd's F(3 x 3, 2 x 2): 16
products where a sum has 36.

Each 2 x 2 block of dy and the 4 x 4 of x that it meets are transformed; the sums over all blocks of
their products, point by point a matrix product channels x blocks x results, are transformed back
once. Threads share the images as in `convolution_grad`. Where x or dy is not finite, a channel's
gradient is not finite at all nine places.
"""

from __future__ import annotations

from nnjit.kernels import amx_tile, target
from nnjit.kernels.amx_tile import SIDE
from nnjit.kernels.blocks import (
    Tiles,
    call,
    check_symbols,
    choose,
    filled,
    panels,
    split,
    symbols_of,
)
from nnjit.kernels.geometry import Conv
from nnjit.kernels.partials import images_of, partial_count, reduce_step, zero_partial
from nnjit.kernels.recipe import Recipe, Step
from nnjit.kernels.template import Template, indent
from nnjit.kernels.winograd import fits
from nnjit.kernels.winograd_text import (
    POINTS,
    Transforms,
    cut,
    pair_count,
    plane,
    taken,
    unit_plane,
)

LARGE = 512 * 1024  # bytes of points from which their partial sums would leave the caches
MOST = 64  # blocks of a pass
# variables of these kernels, which no symbol may be called
NAMES = "lo hi tid a b y scratch t p part n h g i j k c o q r r0 r1 u v at image"


def fits_dw(conv: Conv, dtype: str) -> bool:
    """Is it such a convolution, with weights few enough for partial sums?"""
    size = 8 if dtype == "f8" else 4
    return POINTS * conv.C * conv.O * size <= LARGE and fits(conv, dtype)


def weight_gradient(name: str, conv: Conv, dtype: str) -> Recipe:
    """dw with a = x, b = dy, of which bfloat16 are multiplied in pairs of blocks; roles as in
    `convolution_grad.conv2d_dw`.
    """
    source, kind = dtype, "pairs" if dtype == "b2" else ""
    dtype = "f4" if kind else dtype
    size, count = POINTS * conv.C * conv.O, partial_count(conv, dtype)
    t, b = Transforms(dtype), cut(conv.HO, conv.WO, MOST)
    (top, _), (left, _) = conv.padding
    many = pair_count(b.many) if kind else b.many
    first = POINTS * unit_plane(b.many, conv.C, kind)
    second = first + POINTS * unit_plane(b.many, conv.O, kind)
    tiles = Tiles(source)
    if kind and conv.C % SIDE == conv.O % SIDE == 0 and target.multiplies_blocks():
        tiles = Tiles(source, "amx_tile")
    turned = tiles.kind == "amx_tile"
    room = second + POINTS * conv.C * many * turned
    x = taken(t, "take", "INPUT", b, "a", "v", (conv.H, conv.W, conv.C), (top, left), kind)
    dy = taken(t, "give", "RESULT_GRAD", b, "b", "q", (conv.HO, conv.WO, conv.O), (0, 0), kind)
    one_pass = [
        *b.start("t"),
        *b.over_rows([*x, *dy]),
        *(turn(conv.C, many) if turned else []),
        *products(conv, dtype, many, tiles),
    ]
    kernel = Template(
        name=name,
        doc=filled(
            f"{name}: dw of conv(x, w) with a = x, b = dy: {conv.describe()};\npoints of dw, "
            f"partial sums y over {count} parts of the images; lo..hi of them."
        ),
        imports=(*tiles.imports(), *t.imports(), *(TURN if turned else ())),
        symbols=check_symbols(name, symbols_of(conv.batch), NAMES),
        params=(("a", source), ("b", source), ("y", dtype), ("scratch", dtype)),
        body=(
            f"v = tid * {room}",
            f"q = v + {first}",
            *([f"u = v + {second}"] if turned else []),
            *(fill_up(conv, b.many, many) if kind else []),
            "for p in range(lo, hi):",
            f"    part = p * {size}",
            *indent(zero_partial(size, dtype)),
            *indent(images_of(conv.batch, count)),
            f"        for t in range({b.passes}):",
            *indent(one_pass, 3),
        ),
        trip=count,
        scratch=room * target.itemsize(dtype),
    )
    added = reduce_step(size, count, dtype).template
    return Recipe(
        (
            Step(kernel, ("a", "b", "parts", "scratch")),
            Step(added, ("parts", "sums")),
            Step(places(conv.C * conv.O, dtype), ("sums", "out")),
        ),
        {"parts": (count * size, dtype), "sums": (size, dtype)},
    )


def products(conv: Conv, dtype: str, many: int, tiles: Tiles) -> list[str]:
    """y[part..] += point by point, channels x blocks times blocks x results; many: blocks, or pairs
    of blocks.
    """
    C, O = conv.C, conv.O  # noqa: E741
    turned = tiles.kind == "amx_tile"
    most, vectors = choose(C, O, dtype, exact=True)
    if turned:
        most, vectors = amx_tile.choose(C, O)
    row_a, step_a = (many, 1) if turned else (1, C)
    of_a = f"u + (k * {C} + j) * {many}" if turned else f"v + k * {plane(many, C)} + j"
    sizes: dict[int, list[int]] = {}
    for start, size in split(C, most):
        sizes.setdefault(size, []).append(start)
    lines: list[str] = []
    for panel in panels(O, vectors, target.lanes(dtype)):
        inner: list[str] = []
        for size, starts in sizes.items():
            name = tiles.get(
                size, panel,
                rows_a=tuple(i * row_a for i in range(size)),
                rows_c=tuple(i * O for i in range(size)),
                step_a=step_a, step_b=O, init="load",
            )  # fmt: skip
            args = [
                "1", str(many),
                "scratch", of_a, "0",
                "scratch", f"q + k * {plane(many, O)} + o", "0",
                "y", f"part + (k * {C} + j) * {O} + o",
            ]  # fmt: skip
            loop = f"for j in range({starts[0]}, {starts[-1] + 1}, {size}):"
            inner += [loop, *indent(call(name, args))]
        lines += [panel.loop(), *indent(inner)]
    return [f"for k in range({POINTS}):", *indent(lines)]


TURN = (
    "from nnjit.kernels.tile import transpose_block",
    "",
    f'turn = transpose_block(lanes={SIDE}, dtype="f4")',
)


def turn(C: int, many: int) -> list[str]:
    """scratch[u..] = for each point its channels, each with all its pairs of blocks."""
    return [
        f"for k in range({POINTS}):",
        f"    for j in range(0, {C}, {SIDE}):",
        f"        for i in range(0, {many}, {SIDE}):",
        f"            at = v + k * {plane(many, C)} + i * {C} + j",
        f"            turn(scratch, at, {C}, scratch, u + (k * {C} + j) * {many} + i, {many})",
    ]


def fill_up(conv: Conv, blocks: int, many: int) -> list[str]:
    """Zeros for pairs that no block writes."""
    lines: list[str] = []
    pairs = -(-blocks // 2)
    for start, channels in (("v", conv.C), ("q", conv.O)) if pairs < many else ():
        lines += [
            f"for k in range({POINTS}):",
            f"    at = {start} + k * {plane(many, channels)}",
            f"    for i in range({pairs * channels}, {many * channels}):",
            "        scratch[at + i] = 0",
        ]
    return lines


def places(size: int, dtype: str) -> Template:
    """src (16, size) -> y (3, 3, size). Trip: vectors of size."""
    t, lanes = Transforms(dtype), target.lanes(dtype)
    steps: dict[str, object] = {"reads": (4, 1), "writes": (3, 1)}
    body, sizes = t.vectors("places", "WEIGHT_GRAD", size, steps, ["src", "y"])
    given = "" if sizes else f"_{size}"
    size_text = "size" if sizes else size
    return Template(
        name=f"weights_of_points{given}_{dtype}",
        doc=f"y (3, 3, {size_text}) from src (16, {size_text}), the points of its sums; lo..hi: "
        "vectors.",
        imports=t.imports(),
        symbols=(),
        params=(("src", dtype), ("y", dtype)),
        body=tuple(body),
        trip=-(-size // lanes),
        grain=64,
        sizes=sizes,
    )
