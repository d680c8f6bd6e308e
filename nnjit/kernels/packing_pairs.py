"""Kernels that lay operands of a product out as pairs of bfloat16: two neighbours along k in 32
bits (code u4); an odd k gets a partner of zero.

Sources are bfloat16 (b2) or float32 (f4), which is rounded. Panels are those of `packing`, with
pairs for elements.
"""

from __future__ import annotations

from nnjit.kernels import target
from nnjit.kernels.amx_tile import MOST_ROWS, SIDE
from nnjit.kernels.blocks import (
    Dim,
    Panel,
    check_symbols,
    filled,
    halved,
    padded,
    panels,
    parts,
    product,
    symbols_of,
    text,
)
from nnjit.kernels.packing import panel_name
from nnjit.kernels.template import Template, indent

# variables of these kernels, which no symbol may be called
NAMES = "lo hi tid src dst t o j s d k i w r u at first last left right low most"
DEEP, WIDE = 128, 256  # pairs and columns that are transposed at a time: they stay in L2
FUNCTIONS = {"b2": ("bf16_pair",), "f4": ("bf16_pair", "bf16_round")}


def pair_lanes() -> int:
    """Pairs in a vector register."""
    return target.lanes("f4")


def packed_pairs(depth: Dim, columns: Dim) -> Dim:
    """Pairs of a packed operand."""
    return product(halved(depth), padded(columns, pair_lanes()))


def value(source: str, index: str, name: str = "src") -> str:
    """The bits of an element of src."""
    return f"{name}[{index}]" if source == "b2" else f"bf16_round({name}[{index}])"


def paired(source: str, first: str, second: str, name: str = "src") -> str:
    """The pair of two elements of src; '' for no second one."""
    partner = value(source, second, name) if second else "u2(0)"
    return f"bf16_pair({value(source, first, name)}, {partner})"


def imports(source: str) -> str:
    return f"from nnjit.kernels.bf16 import {', '.join(FUNCTIONS[source])}"


def by_parity(depth: Dim, last: str, even: list[str], odd: list[str]) -> list[str]:
    """Lines for a pair: `odd` for the last one of an odd depth; last: whether it is the last."""
    if isinstance(depth, int):
        if depth % 2 == 0:
            return even
        return [f"if {last}:", *indent(odd), "else:", *indent(even)]
    return [f"if {last} and {text(depth)} % 2:", *indent(odd), "else:", *indent(even)]


def pack_pairs(
    depth: Dim,
    columns: Dim,
    vectors: int,
    source: str,
    *,
    copies: Dim = 1,
    stem: str = "pack_pairs",
) -> Template:
    """src (copies, depth, columns) -> dst: rows 2k and 2k + 1 in pairs, in panels of columns; for
    vectors=0 the pairs of a row follow each other. Trip: the pairs of rows.
    """
    deep = halved(depth)
    parts: list[Panel] | list[None] = panels(columns, vectors, pair_lanes()) if vectors else [None]
    size = product(deep, padded(columns, pair_lanes()) if vectors else columns)
    many = copies != 1
    lines = ["for t in range(lo, hi):"]
    inner = [f"k = t % {text(deep)}"] if many else ["k = t"]
    s: Dim = f"k * {text(product(2, columns))}"
    if many:
        inner.append(f"s = t // {text(deep)} * {text(product(depth, columns))} + {s}")
        inner.append(f"d = t // {text(deep)} * {text(size)}")
    else:
        inner += [f"s = {s}", "d = 0"]
    for p in parts:
        loop = [p.loop()] if p else []
        place = f"d + o * {text(deep)} + k * {p.width} + j" if p else f"d + k * {text(columns)} + j"
        at = "s + o + j" if p else "s + j"
        bodies = [
            [
                f"for j in range({p.columns if p else columns}):",
                f"    dst[{place}] = {paired(source, at, second)}",
            ]
            for second in (f"{at} + {text(columns)}", "")
        ]
        body = by_parity(depth, f"k == {text(depth)} // 2", *bodies)
        inner += [*loop, *indent(body)] if p else body
    words = panel_name(*([copies] * many), depth, columns, vectors=vectors, dtype=source)
    kind = f"panels of at most {vectors} vectors" if vectors else "rows"
    return Template(
        name=f"{stem}_{words}",
        doc=filled(
            f"src {copies} x ({depth}, {columns}) -> dst: rows 2k and 2k + 1 as pairs of bfloat16, "
            f"in {kind}; lo..hi: pairs of rows."
        ),
        imports=(imports(source),),
        symbols=check_symbols(stem, symbols_of(copies, depth, columns), NAMES),
        params=(("src", source), ("dst", "u4")),
        body=(*lines, *indent(inner)),
        trip=product(copies, deep),
        grain=max(1, 4096 // columns) if isinstance(columns, int) and columns else 4,
    )


def pair_rows(rows: Dim, depth: Dim, source: str) -> Template:
    """src (rows, depth) -> dst (rows, pairs of depth), both bfloat16. Trip: the rows."""
    width = product(2, halved(depth))
    body = [
        "for t in range(lo, hi):",
        f"    s = t * {text(depth)}",
        f"    d = t * {text(width)}",
        f"    for k in range({depth}):",
        f"        dst[d + k] = {value(source, 's + k')}",
    ]
    last = [f"dst[d + {text(depth)}] = u2(0)"]
    if isinstance(depth, str):
        body += indent([f"if {text(depth)} % 2:", *indent(last)])
    elif depth % 2:
        body += indent(last)
    return Template(
        name=f"pair_rows_{panel_name(rows, depth, vectors=1, dtype=source)}",
        doc=filled(
            f"src ({rows}, {depth}) -> dst: rows of whole pairs of bfloat16; lo..hi: rows of src."
        ),
        imports=(imports(source).replace("bf16_pair, ", ""),) * (source == "f4"),
        symbols=check_symbols("pair_rows", symbols_of(rows, depth), NAMES),
        params=(("src", source), ("dst", "b2")),
        body=tuple(body),
        trip=rows,
        grain=max(1, 8192 // depth) if isinstance(depth, int) and depth else 8,
    )


def transposed_pairs(depth: Dim, columns: Dim) -> Dim:
    """Pairs of an operand that `pair_transposed` lays out."""
    return product(block_pairs(depth), parts(columns, MOST_ROWS))


def block_pairs(depth: Dim) -> Dim:
    """Pairs of a block of rows of `pair_transposed`."""
    return product(parts(halved(depth), SIDE), SIDE * MOST_ROWS)


def pair_transposed(depth: Dim, columns: Dim, source: str) -> Template:
    """src (depth, columns) -> dst, its transpose as tiles of AMX read it: blocks of 32 rows, in
    each 16 pairs of all rows, then the next 16. So what is written lies together: rows as long as a
    batch took four times as long.

    A block of lanes x lanes pairs goes through registers; what is left at the edges goes one by
    one. Trip: parts of `DEEP` pairs and `WIDE` columns.
    """
    lanes, deep, block = pair_lanes(), halved(depth), text(block_pairs(depth))
    across = text(parts(columns, WIDE))

    def place(j: str, k: str) -> str:
        inner = f"{k} // {SIDE} * {SIDE * MOST_ROWS} + {j} % {MOST_ROWS} * {SIDE}"
        return f"{j} // {MOST_ROWS} * {block} + {inner}"

    odd = [
        [f"dst[{place('j', 'k')} + k % {SIDE}] = {paired(source, 'at', second)}"]
        for second in (f"at + {text(columns)}", "")
    ]
    body = [
        f"first, left = t // {across} * {DEEP}, t % {across} * {WIDE}",
        f"last, right = min(first + {DEEP}, {deep}), min(left + {WIDE}, {columns})",
        "# whole blocks: pairs below `low`, columns below `most`",
        f"low = first + (min(last, {text(depth)} // 2) - first) // {lanes} * {lanes}",
        f"most = left + (right - left) // {lanes} * {lanes}",
        f"for k in range(first, low, {lanes}):",
        f"    for j in range(left, most, {lanes}):",
        f"        at = 2 * k * {text(columns)} + j",
        f"        block(src, at, {columns}, dst, {place('j', 'k')}, {SIDE})",
        "for k in range(first, last):",
        "    for j in range(most if k < low else left, right):",
        f"        at = 2 * k * {text(columns)} + j",
        *indent(by_parity(depth, f"k == {text(depth)} // 2", *odd), 2),
    ]
    return Template(
        name=f"pair_transposed_{panel_name(depth, columns, vectors=0, dtype=source)}",
        doc=filled(
            f"src ({depth}, {columns}) -> dst: its transpose, pairs along rows, in blocks of "
            f"{MOST_ROWS} rows by {SIDE} pairs; lo..hi: parts of {DEEP} pairs and {WIDE} columns."
        ),
        imports=(
            imports(source),
            "from nnjit.kernels.pairs import pair_block",
            "",
            f'block = pair_block(lanes={lanes}, source="{source}")',
        ),
        symbols=check_symbols("pair_transposed", symbols_of(columns, depth), NAMES),
        params=(("src", source), ("dst", "u4")),
        body=("for t in range(lo, hi):", *indent(body)),
        trip=product(parts(deep, DEEP), parts(columns, WIDE)),
    )


def pack_pairs_transposed(
    depth: Dim, columns: Dim, vectors: int, source: str, *, copies: Dim = 1
) -> Template:
    """src (copies, columns, depth) -> dst: dst[k, j] = elements 2k and 2k + 1 of row j, in panels.

    A block of lanes x lanes pairs goes through registers; what is left at the edges goes one by
    one. Trip: copies * vectors of columns.
    """
    lanes = pair_lanes()
    count: Dim = f"({text(columns)} + {lanes - 1}) // {lanes}" if isinstance(columns, str) else 0
    if isinstance(columns, int):
        count = -(-columns // lanes)
    deep, many = halved(depth), copies != 1
    size = product(deep, padded(columns, lanes))
    inner = [f"o = t % ({count}) * {lanes}" if many else f"o = t * {lanes}"]
    inner.append(f"w, j = {lanes}, 0")
    for p in panels(columns, vectors, lanes):
        at = f"(o - {text(p.first)}) % {p.width}" if p.first else f"o % {p.width}"
        inner += [f"if {p.first} <= o < {p.end}:", f"    w, j = {p.width}, {at}"]
    copy = f"t // ({count})" if many else ""
    inner += [
        f"s = {f'{copy} * {text(product(depth, columns))} + ' if many else ''}o * {text(depth)}",
        f"d = {f'{copy} * {text(size)} + ' if many else ''}(o - j) * {text(deep)} + j",
        f"r = min({lanes}, {columns} - o)",
        "u = 0",
        f"if r == {lanes}:",
        f"    u = {text(depth)} // {2 * lanes}",
        "    for k in range(u):",
        f"        block(src, s + k * {2 * lanes}, {depth}, dst, d + k * {lanes} * w, w)",
        f"for k in range(u * {lanes}, {text(depth)} // 2):",
        "    for i in range(r):",
        f"        at = s + i * {text(depth)} + 2 * k",
        f"        dst[d + k * w + i] = {paired(source, 'at', 'at + 1')}",
    ]
    last = [
        f"k = {text(depth)} // 2",
        "for i in range(r):",
        f"    at = s + i * {text(depth)} + 2 * k",
        f"    dst[d + k * w + i] = {paired(source, 'at', '')}",
    ]
    if isinstance(depth, str):
        inner += [f"if {text(depth)} % 2:", *indent(last)]
    elif depth % 2:
        inner += last
    words = panel_name(*([copies] * many), depth, columns, vectors=vectors, dtype=source)
    return Template(
        name=f"pack_pairs_transposed_{words}",
        doc=filled(
            f"src {copies} x ({columns}, {depth}) -> dst: dst[k, j] = the pair k of row j, in "
            f"panels of at most {vectors} vectors; lo..hi: vectors of columns."
        ),
        imports=(
            imports(source),
            "from nnjit.kernels.pairs import transpose_pairs",
            "",
            f'block = transpose_pairs(lanes={lanes}, source="{source}")',
        ),
        symbols=check_symbols("pack_pairs_transposed", symbols_of(copies, columns, depth), NAMES),
        params=(("src", source), ("dst", "u4")),
        body=("for t in range(lo, hi):", *indent(inner)),
        trip=product(copies, count),
    )
