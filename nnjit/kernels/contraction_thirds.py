"""Products of float32 in AMX's registers: y = a @ b, each number split into three bfloat16.

Some hundred rows of y at a time: all threads together lay out their rows of a (`rows`), then share
the columns of y; who takes a panel of columns lays out its part of b (`panel`), so both stay in L2
and neither is kept. A long reduction is cut; y holds the sums in between, or `scratch` where what
follows does not find room in y. See `thirds` for what such a product is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from nnjit import config
from nnjit.kernels import target
from nnjit.kernels.amx_tile import SIDE
from nnjit.kernels.blocks import (
    Dim,
    Panel,
    call,
    check_symbols,
    filled,
    panels,
    parts,
    product,
    progression,
    symbols_of,
    text,
)
from nnjit.kernels.recipe import Epilogue, Recipe, Step
from nnjit.kernels.template import Template, indent
from nnjit.kernels.thirds import DEEP, ROWS, block_size

LEAST = 256  # rows and columns of y and steps of the reduction, for which splitting pays
DEPTH = 512  # of a part of the reduction
GROUP_BYTES = 1280 * 1024  # of the thirds of a group's rows
MOST_ROWS = 1024  # of a group
SHARES = 8  # to aim for: panels, or panels times parts of a group's rows

EARLY = ("store", "add")  # finals that may come before the last part of a reduction

# variables of this kernel, which no symbol may be called
NAMES = (
    "lo hi tid a b bias mask residual y scratch rows panel stage left right group k0 depth first "
    "last t u i o r q j count at_sums at_b at_c width low high reductions configure"
)


def thirds_apply(M: Dim, N: Dim, K: Dim, dtype: str, transpose_a: bool, epilogue: Epilogue) -> bool:
    """Is this the better template? All sizes are large."""
    if dtype != "f4" or not target.splits_floats() or not isinstance(N, int):
        return False
    if isinstance(K, str) or epilogue.apart:
        known = transpose_a and epilogue.final in EARLY
    else:
        known = True
    # a batch alone may be few
    many = (n >= LEAST if isinstance(n, int) else "*" in n for n in (M, N, K))
    return known and all(many)


@dataclass(frozen=True)
class Product:
    """The sizes of one kernel. group: rows of y; depth: of a part of the reduction."""

    M: Dim
    N: int
    K: Dim
    transpose_a: bool
    transpose_b: bool
    epilogue: Epilogue

    @property
    def depth(self) -> int:
        """Steps of a part of the reduction; parts are of about the same size."""
        if isinstance(self.K, str):
            return DEPTH
        count = -(-self.K // DEPTH)
        return -(-self.K // (count * DEEP)) * DEEP

    @property
    def reductions(self) -> Dim:
        """Parts of the reduction; an empty one is one, too."""
        if isinstance(self.K, str):
            return f"({parts(self.K, self.depth)} or 1)"
        return -(-self.K // self.depth)

    @property
    def group(self) -> int:
        """Rows of a group: blocks of 32."""
        most = min(MOST_ROWS, GROUP_BYTES // (6 * self.depth)) // ROWS * ROWS
        if isinstance(self.M, int):  # groups of about the same size
            count = -(-self.M // most)
            return -(-self.M // (count * ROWS)) * ROWS
        return 1 << (most.bit_length() - 1)  # batches are mostly multiples of powers of two

    @property
    def blocks(self) -> int:
        return self.group // ROWS

    @property
    def panels(self) -> list[Panel]:
        return panels(self.N, 2, SIDE)

    @property
    def count(self) -> int:
        """Panels of columns."""
        return sum(panel_count(p) for p in self.panels)

    @property
    def shares(self) -> int:
        """Parts of a group's rows that are given out with a panel."""
        return min(self.blocks, -(-SHARES // self.count))

    @property
    def indices(self) -> int:
        """Of a stage."""
        return self.count * self.shares

    @property
    def block(self) -> int:
        """Pairs of a block of rows."""
        return self.depth // DEEP * block_size(ROWS)

    @property
    def stages(self) -> Dim:
        groups = parts(self.M, self.group)
        return product(
            2, self.reductions, groups if isinstance(groups, int) else f"({groups} or 1)"
        )

    @property
    def apart(self) -> bool:
        """Whether sums lie in scratch."""
        return self.epilogue.apart and self.epilogue.tail is not None


def panel_count(p: Panel) -> int:
    assert isinstance(p.first, int)
    assert isinstance(p.end, int)
    return -(-(p.end - p.first) // p.width)


def thirds_template(
    name: str, M: Dim, N: int, K: Dim, transpose_a: bool, transpose_b: bool, epilogue: Epilogue,
    formula: str,
) -> Recipe:  # fmt: skip
    """The kernel; roles and operands as in `contraction.matmul_template`."""
    p = Product(M, N, K, transpose_a, transpose_b, epilogue)
    made = Functions()
    size, several = p.indices, p.reductions
    body = [
        "configure()",
        *([f"reductions = max(1, {parts(K, p.depth)})"] if isinstance(K, str) else []),
        f"for stage in range(lo // {size}, (hi + {size - 1}) // {size}):",
        f"    left, right = max(0, lo - stage * {size}), min({size}, hi - stage * {size})",
        *indent(limits(p)),
        "    if stage % 2 == 0:",
        *indent(split_rows(p, made), 2),
        "        continue",
        *indent(multiply(p, made)),
    ]
    across = f"{p.count} panels of columns" + f" x {p.shares} parts of rows" * (p.shares > 1)
    doc = (
        f"{name}: y = {formula}\na {shape(K, M, transpose_a)}, b {shape(N, K, transpose_b)} -> "
        f"y ({M}, {N}); products of thirds in AMX. Stages, for each {p.group} rows of y"
        + f" and each {p.depth} of k" * (several != 1)
        + f": their rows of a are split, and multiplied; lo..hi: of each stage {across}."
    )
    ep = epilogue
    template = Template(
        name=name,
        doc=filled(doc),
        imports=(*ep.imports, *made.imports()),
        symbols=check_symbols(name, symbols_of(M, N, K), NAMES, ep.extra_params),
        params=(("a", "f4"), ("b", "f4"), *ep.params("f4"), ("y", "f4"), *ep.extra_params,
                *[("scratch", "f4")] * p.apart, ("rows", "u4"), ("panel", "u4")),
        body=tuple(body),
        trip=product(p.stages, size),
        stages=p.stages,
        scratch=4 * p.depth // DEEP * block_size(2 * SIDE),
    )  # fmt: skip
    roles = ("a", "b", *ep.inputs(), "out", *(n for n, _ in ep.extra_params),
             *["sums"] * p.apart, "split_a", "scratch")  # fmt: skip
    temps: dict[str, tuple[Dim, str]] = {"split_a": (p.blocks * p.block, "u4")}
    if p.apart:
        temps["sums"] = (max(p.group * N, config.MAX_THREADS * ROWS * ROWS), "f4")
    return Recipe((Step(template, roles),), temps)


def shape(first: Dim, second: Dim, transposed: bool) -> str:
    return f"({first}, {second})" if transposed else f"({second}, {first})"


class Functions:
    """The functions that one kernel is made of: definitions with their names."""

    def __init__(self) -> None:
        self.names: dict[str, str] = {}

    def get(self, kind: str, stem: str, **options: object) -> str:
        """The name of what `thirds.<kind>` makes with these options; equal ones have one name."""
        given = ", ".join(f"{k}={progression(v)}" for k, v in options.items())
        definition = f"{kind}({given})"
        if definition not in self.names:
            same = sum(re.fullmatch(rf"{stem}(_\d)?", n) is not None for n in self.names.values())
            self.names[definition] = f"{stem}_{same}" if same else stem
        return self.names[definition]

    def imports(self) -> tuple[str, ...]:
        """The module-level lines that define them."""
        defined = (f"{name} = {definition}" for definition, name in self.names.items())
        return (
            "from nnjit.kernels.thirds import product_tile, split_thirds, whole_registers",
            "",
            "configure = whole_registers()",
            *defined,
        )


def limits(p: Product) -> list[str]:
    """Rows and steps of the reduction that a stage is about."""
    several = p.reductions
    lines = [f"group = stage // {product(2, several)}"]
    if isinstance(several, str):
        lines = ["group = stage // (2 * reductions)"]
    if several == 1:
        lines += [f"k0, depth = 0, {p.K}"]
    else:
        count = "reductions" if isinstance(several, str) else several
        lines += [f"k0 = stage // 2 % {count} * {p.depth}",
                  f"depth = min({p.depth}, {p.K} - k0)"]  # fmt: skip
    return [*lines, f"first = group * {p.group}", f"last = min(first + {p.group}, {p.M})"]


def split_rows(p: Product, made: Functions) -> list[str]:
    """A share of the blocks of rows of a group."""
    at = f"k0 * {text(p.M)} + i" if p.transpose_a else f"i * {text(p.K)} + k0"
    ld = p.M if p.transpose_a else p.K
    split = made.get("split_thirds", "split_a", side="a", along=not p.transpose_a, lines=ROWS)
    args = ["a", at, str(ld), f"min({ROWS}, last - i)", "depth", "rows", f"u * {p.block}"]
    return [
        f"for u in range(left * {p.blocks} // {p.indices}, right * {p.blocks} // {p.indices}):",
        f"    i = first + u * {ROWS}",
        "    if i < last:",
        *indent(call(split, args), 2),
    ]


def multiply(p: Product, made: Functions) -> list[str]:
    """A share of a group's panels, or of the rows of a panel."""
    lines: list[str] = []
    scratch = p.depth // DEEP * block_size(2 * SIDE)
    before = 0
    shares = p.shares
    left, right = "left", "right"
    if shares > 1:
        left, right = f"left // {shares}", f"(right + {shares - 1}) // {shares}"
    for panel in p.panels:
        assert isinstance(panel.first, int)
        many = panel_count(panel)
        low = left if before == 0 else f"max({left}, {before})"
        high = right if before + many == p.count else f"min({right}, {before + many})"
        column = f"t * {panel.width}"
        if panel.first != before * panel.width:
            column += f" + {panel.first - before * panel.width}"
        along = p.transpose_b
        at = f"o * {text(p.K)} + k0" if along else f"k0 * {p.N} + o"
        split = made.get("split_thirds", "split_b", side="b", along=along, lines=panel.width)
        args = ["b", at, str(p.K if along else p.N), str(panel.columns), "depth", "panel", "at_b"]
        rows = ["low, high = first, last"]
        if shares > 1:
            of = -(-p.blocks // shares) * ROWS
            rows = [
                f"low = first + max(left - t * {shares}, 0) * {of}",
                f"high = min(last, first + min(right - t * {shares}, {shares}) * {of})",
            ]
        lines += [
            f"for t in range({low}, {high}):",
            f"    o = {column}",
            *indent(call(split, args)),
            *indent(rows),
            f"    for i in range(low, high, {ROWS}):",
            f"        count = min({ROWS}, high - i)",
            *indent(tile_lines(p, made, panel), 2),
        ]
        before += many
    return [f"at_b = tid * {scratch}", *lines]


def tile_lines(p: Product, made: Functions, panel: Panel) -> list[str]:
    """The products of a block of rows with a panel, and what follows their last part."""
    ep = p.epilogue
    init, final = ep.tile_options()["init"], ep.final
    only, early = p.reductions == 1, final in EARLY
    asks = ep.asked("f4")
    if only:
        lines = tile_call(p, made, panel, init, final, asks)
    elif early:  # what is added is added first: then it may be y itself
        lines = by_part("k0 == 0", tile_call(p, made, panel, init, final, asks),
                        tile_call(p, made, panel, "load", "store", asks))  # fmt: skip
    else:
        last = tile_call(p, made, panel, "load", final, asks)
        if final != "store" and p.reductions > 2:  # type: ignore[operator]
            middle = tile_call(p, made, panel, "load", "store")
            last = by_part(f"k0 + depth < {p.K}", middle, last)
        lines = by_part("k0 == 0", tile_call(p, made, panel, init, "store"), last)
    sums = "at_c + (r - i) * width" if p.apart else ""
    tail = ep.lines(f"r * {p.N} + o", "o", panel.columns, sums)
    if p.apart:  # sums of one part stay in L1
        one = [f"at_c, width = tid * {ROWS * ROWS}, {ROWS}"]
        several = [f"at_c, width = (i - first) * {p.N} + o, {p.N}"]
        known = one if only else several
        lines[:0] = known if isinstance(p.K, int) else by_part("reductions > 1", several, one)
    if not tail:
        return lines
    after = ["for r in range(i, i + count):", *indent(tail)]
    return lines + (after if only else [f"if k0 + depth >= {p.K}:", *indent(after)])


def by_part(condition: str, yes: list[str], no: list[str]) -> list[str]:
    return [f"if {condition}:", *indent(yes), "else:", *indent(no)]


def tile_call(
    p: Product, made: Functions, panel: Panel, init: str, final: str, asks: tuple[str, ...] = ()
) -> list[str]:
    """One block of rows times one panel. asks: what the tail reads and writes beside y."""
    ep, at_y = p.epilogue, f"i * {p.N} + o"
    asks = tuple(n for n in asks if p.apart or n != "y")
    options = {"tail": panel.tail, "init": init, "final": final, "asks": len(asks)}
    given = {k: v for k, v in options.items() if v not in (0, "zero", "store")}
    name = made.get("product_tile", "tile", vectors=panel.vectors, **given)
    y = ["scratch", "at_c", "width"] if p.apart else ["y", at_y, str(p.N)]
    args = ["depth", "rows", f"(i - first) // {ROWS} * {p.block}", "panel", "at_b", *y,
            "count"]  # fmt: skip
    args += ["bias", "o"] if init == "bias" else []
    args += [ep.operand, at_y] if ep.operand and final == ep.final else []
    return call(name, args + ([*asks, at_y, str(p.N)] if asks else []))
