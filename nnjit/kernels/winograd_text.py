"""What Winograd's kernels share: the matrices, the transforms of a kernel file, points of weights,
and how an image is cut into blocks of 2 x 2.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from nnjit.kernels import target
from nnjit.kernels.amx_tile import SIDE
from nnjit.kernels.blocks import call, total
from nnjit.kernels.sandwich import Matrix
from nnjit.kernels.template import Template, folded, indent

POINTS = 16
# Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", 2016
MATRICES: dict[str, Matrix] = {
    "INPUT": ((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1)),
    "WEIGHT": ((1, 0, 0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0, 0, 1)),
    "RESULT": ((1, 1, 1, 0), (0, 1, -1, -1)),
    # the weight gradient: 2 x 2 of dy take the place of the kernel, 3 x 3 of dw that of the result
    "RESULT_GRAD": ((1, 0), (0.5, 0.5), (0.5, -0.5), (0, 1)),
    "WEIGHT_GRAD": ((1, 1, 1, 0), (0, 1, -1, 0), (0, 1, 1, -1)),
}


@dataclass
class Transforms:
    """The transforms of one kernel file: equal ones get one definition and one name."""

    dtype: str
    names: dict[str, str] = field(default_factory=dict)

    def get(self, stem: str, matrix: str, **options: object) -> str:
        """The name of a transform; options as in `sandwich`."""
        given = {k: v for k, v in options.items() if v not in (0, None, "store")}
        parts = [f"matrix={matrix}", *(f"{k}={v!r}".replace("'", '"') for k, v in given.items())]
        parts += [f"lanes={target.lanes(self.dtype)}", f'dtype="{self.dtype}"']
        text = "\n".join(["sandwich(", *folded(parts), ")"])
        if text not in self.names:
            same = sum(name.rstrip("_0123456789") == stem for name in self.names.values())
            self.names[text] = f"{stem}_{same}" if same else stem
        return self.names[text]

    def imports(self) -> tuple[str, ...]:
        """The module-level lines that define matrices and transforms."""
        lines = ["from nnjit.kernels.sandwich import sandwich", ""]
        used = dict.fromkeys(text.split("matrix=")[1].split(",")[0] for text in self.names)
        lines += [f"{name} = {MATRICES[name]!r}" for name in used]
        for text, name in self.names.items():
            lines += f"{name} = {text}".split("\n")
        return tuple(lines)

    def channels(
        self, stem: str, matrix: str, count: int, options: dict[str, object], args: list[str],
        given: Callable[[str], list[str]] = lambda c: [],
    ) -> list[str]:  # fmt: skip
        """Calls for `count` channels, a vector at a time, from args[1] to args[3]; given(c): what
        else the call for channel c takes.
        """
        lanes = target.lanes(self.dtype)
        whole = count - count % lanes

        def line(c: str, tail: int) -> list[str]:
            name = self.get(stem, matrix, tail=tail, **options)
            places = [args[0], total(args[1], c), args[2], total(args[3], c)]
            return call(name, [*places, *args[4:], *given(c)])

        lines = []
        if whole:
            lines = [f"for c in range(0, {whole}, {lanes}):", *indent(line("c", 0))]
        return lines + (line(str(whole), count % lanes) if count % lanes else [])

    def vectors(
        self, stem: str, matrix: str, size: int, options: dict[str, object], pointers: list[str]
    ) -> tuple[list[str], tuple[tuple[str, int], ...]]:
        """Calls for the vectors lo..hi-1 of `size` elements, from pointers[0] to pointers[1], and
        the kernel's sizes: `size` where it is all vectors. options: reads and writes count sizes.
        """
        lanes, (source, to) = target.lanes(self.dtype), pointers
        whole, rest = divmod(size, lanes)
        options = {**options, "stepped": True}
        at = f"t * {lanes}"
        name = self.get(stem, matrix, **options)
        if not rest:
            loop = ["for t in range(lo, hi):", f"    {name}({source}, {at}, {to}, {at}, size)"]
            return loop, (("size", size),)
        lines = [
            f"for t in range(lo, min(hi, {whole})):",
            f"    {name}({source}, {at}, {to}, {at}, {size})",
        ]
        name = self.get(stem, matrix, tail=rest, **options)
        last = f"    {name}({source}, {whole * lanes}, {to}, {whole * lanes}, {size})"
        return [*lines, f"if lo < hi and hi > {whole}:", last], ()


@dataclass(frozen=True)
class Blocks:
    """How an image is cut: `high` x `wide` blocks of 2 x 2 pixels, `rows` x `columns` of them a
    pass.
    """

    high: int
    wide: int
    rows: int
    columns: int

    @property
    def many(self) -> int:
        return self.rows * self.columns

    @property
    def passes(self) -> int:
        """Passes of an image."""
        return self.high // self.rows * (self.wide // self.columns)

    @property
    def column(self) -> str:
        """The block at j of the pass, counted from the image's border."""
        return "j" if self.columns == self.wide else "(g + j)"

    @property
    def place(self) -> str:
        """The block at j of row i of the pass, counted from its first."""
        return "j" if self.rows == 1 else f"(i * {self.columns} + j)"

    def start(self, t: str) -> list[str]:
        """Lines that set h, and g, for pass t of an image."""
        along = self.wide // self.columns
        if along == 1:
            return [f"h = {t}"]
        return [f"h = {t}", f"g = h % {along} * {self.columns}", f"h = h // {along}"]

    def over_rows(self, body: list[str]) -> list[str]:
        """The rows r of blocks of a pass."""
        if self.rows == 1:
            return ["r = h", *body]
        return [f"for i in range({self.rows}):", f"    r = h * {self.rows} + i", *indent(body)]

    def between(self, first: int, last: int) -> str:
        """The j of those blocks of the pass that are first..last-1 of the image."""
        if self.columns < self.wide:
            return f"range(max(0, {first} - g), min({self.columns}, {last} - g))"
        return f"range({first}, {last})"


def plane(many: int, channels: int) -> int:
    """Elements between the points of a pass in scratch: an odd number of cache lines, for those of
    a block would else fall into few sets of the L1.
    """
    return (-(-many * channels // 16) | 1) * 16


def unit_plane(many: int, channels: int, kind: str) -> int:
    """`plane` of points as `taken` lays them out, in units of 32 bits where they are bfloat16."""
    if kind == "b2":
        return plane(many, channels // 2)
    return plane(pair_count(many) if kind == "pairs" else many, channels)


def pair_count(many: int) -> int:
    """Pairs of blocks, filled up to whole registers where they are multiplied in those."""
    pairs = -(-many // 2)
    return -(-pairs // SIDE) * SIDE if target.multiplies_blocks() else pairs


def cut(HO: int, WO: int, most: int) -> Blocks:
    """The blocks of an image of results: passes divide it evenly and have at most `most` blocks,
    unless thin strips would be left.
    """
    high, wide = -(-HO // 2), -(-WO // 2)
    if wide > most:
        fits = [c for c in range(1, wide + 1) if wide % c == 0 and c <= most and 2 * c >= most]
        return Blocks(high, wide, 1, max(fits, default=wide))
    rows = max(r for r in range(1, high + 1) if high % r == 0 and r * wide <= most)
    return Blocks(high, wide, rows, wide)


def taken(
    t: Transforms, stem: str, matrix: str, b: Blocks, source: str, to: str,
    shape: tuple[int, int, int], before: tuple[int, int], kind: str = "",
) -> list[str]:  # fmt: skip
    """Row r of blocks of image n of `source` (n, H, W, C) -> scratch[to..], point by point.

    A block begins `before` its 2 x 2 pixels; what is outside of the image is zero. kind: "" where
    all is of the transforms' dtype; of bfloat16, "b2" are points of bfloat16, "pairs" points of two
    neighbouring blocks together. `to` counts 32 bits in either case.
    """
    (H, W, C), (top, left), size = shape, before, len(MATRICES[matrix][0])
    step, column = unit_plane(b.many, C, kind), b.column
    steps: dict[str, object] = {"reads": (W * C, C), "writes": (4 * step, step)}
    place, odd = f"{b.place} * {C}", []
    if kind:
        steps |= {"source": "b2", "to": kind, "quick": target.multiplies_pairs()}
    if kind == "b2":
        steps["writes"], to = (8 * step, 2 * step), f"{to} * 2"
    elif kind == "pairs":
        place, odd = f"{b.place} // 2 * {C}", [f"{b.place} % 2"]
    at = total("image", f"{column} * {2 * C}", -left * C)
    args = [source, at, "scratch", total(to, place), *odd]
    inner = t.channels(stem, matrix, C, steps, args)
    image = f"image = (n * {H} + {total('r * 2', -top)}) * {W * C}"
    loop = f"for j in range({b.columns}):"
    if top == left == 0 and 2 * b.high + size - 2 <= H and 2 * b.wide + size - 2 <= W:
        return [image, loop, *indent(inner)]
    limits = [
        "r0",
        "r1",
        f"max(0, {left} - {column} * 2)",
        f"min({size}, {W + left} - {column} * 2)",
    ]
    edge = t.channels(f"{stem}_edge", matrix, C, {**steps, "edge": True}, [*args, *limits])
    first, end = -(-left // 2), (W + left - size) // 2 + 1
    return [
        f"r0, r1 = max(0, {top} - r * 2), min({size}, {H + top} - r * 2)",
        image,
        loop,
        f"    if r1 - r0 == {size} and {first} <= {column.strip('()')} < {end}:",
        *indent(inner, 2),
        "    else:",
        *indent(edge, 2),
    ]


def weight_points(depth: int, columns: int, dtype: str, source: str = "") -> Template:
    """src (3, 3, depth, columns) -> dst (16, depth, columns). Trip: vectors of depth * columns."""
    t, size = Transforms(dtype), depth * columns
    steps: dict[str, object] = {"reads": (3, 1), "writes": (4, 1)}
    source = source or dtype
    if source != dtype:
        steps["source"] = source
    body, sizes = t.vectors("points", "WEIGHT", size, steps, ["src", "dst"])
    given = "" if sizes else f"_{size}"
    size_text = "size" if sizes else size
    return Template(
        name=f"pack_points{given}_{source}",
        doc=f"dst[k] = point k of G src G^T: src (3, 3, {size_text}) -> dst (16, {size_text});\n"
        "lo..hi: vectors.",
        body=tuple(body),
        imports=t.imports(),
        symbols=(),
        params=(("src", source), ("dst", dtype)),
        trip=-(-size // target.lanes(dtype)),
        grain=64,
        sizes=sizes,
    )


def pairs_of_rows(rows: int, columns: int) -> Template:
    """src (2 * rows, columns) float32 -> dst (rows, columns) pairs of bfloat16. Trip: rows."""
    return Template(
        name=f"pack_pairs_{rows}_{columns}_b2",
        doc=f"dst[k, j] = the pair src[2 k, j], src[2 k + 1, j], rounded: src ({2 * rows}, "
        f"{columns});\nlo..hi: rows of pairs.",
        body=(
            "for k in range(lo, hi):",
            f"    for j in range({columns}):",
            f"        at = k * {columns} + j",
            f"        dst[at * 2] = bf16_round(src[k * {2 * columns} + j])",
            f"        dst[at * 2 + 1] = bf16_round(src[k * {2 * columns} + {columns} + j])",
        ),
        imports=("from nnjit.kernels.bf16 import bf16_round",),
        symbols=(),
        params=(("src", "f4"), ("dst", "b2")),
        trip=rows,
        grain=max(1, 4096 // columns),
    )


def ends(size: int) -> list[tuple[int, int, int]]:
    """(first, end, how many of its two results exist) for runs of blocks along an axis."""
    whole = size // 2
    out = [(0, whole, 2)] if whole else []
    return [*out, (whole, whole + 1, 1)] if size % 2 else out
