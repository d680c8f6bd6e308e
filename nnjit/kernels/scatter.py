"""Rows taken from a table by index, and added back into one: text templates for embeddings and
their gradients.

An index outside of the table never touches memory: reading it gives a row of NaN (0 for integers),
so that a loss shows it, and adding to it does nothing.
"""

from __future__ import annotations

from math import prod

from nnjit.kernels.blocks import Dim, check_symbols, symbols_of
from nnjit.kernels.template import Template

LOCALS = "lo hi tid table index y dy dtable row a b c e i"
INDEX_CODES = ("i4", "i8", "u1", "u4")
#: elements of the result that are worth a chunk
GRAIN = 4096
#: a scatter is cut into at most this many ranges of table rows; each range reads all indices
RANGES = 16


def check(kind: str, n: Dim, table_rows: Dim, width: Dim, index_dtype: str) -> tuple[str, ...]:
    """The symbols of the sizes, after a look at the arguments."""
    if index_dtype not in INDEX_CODES:
        expected = ", ".join(INDEX_CODES)
        raise ValueError(f"{kind}: index dtype must be one of {expected}, got {index_dtype!r}")
    if table_rows == 0 or width == 0:
        raise ValueError(f"{kind}: table of {table_rows} rows of {width}: both must be at least 1")
    return check_symbols(kind, symbols_of(n, table_rows, width), LOCALS)


def grain(width: Dim) -> int:
    """Rows that are worth a chunk; a symbol counts as 32."""
    return max(1, GRAIN // max(1, estimate(width)))


def estimate(dim: Dim) -> int:
    """A dim as a number, a symbol counting as 32."""
    return dim if isinstance(dim, int) else prod(
        int(w) if w.isdigit() else 32 for w in dim.split(" * ")
    )  # fmt: skip


def title(kind: str, table_rows: Dim, width: Dim, dtype: str, index_dtype: str) -> str:
    """gather_rows_50x16_f4_i4."""
    sizes = "_by_".join(str(d).replace(" * ", "_") for d in (table_rows, width))
    if isinstance(table_rows, int) and isinstance(width, int):
        sizes = f"{table_rows}x{width}"
    return f"{kind}_{sizes}_{dtype}_{index_dtype}"


def gather_rows(
    n: Dim, table_rows: Dim, width: Dim, dtype: str = "f4", index_dtype: str = "i4"
) -> Template:
    """y[i] = table[index[i]]: table (table_rows, width), index (n) -> y (n, width).

    n, table_rows and width are ints, or expressions of symbols such as 'batch * 26'. Rows of an
    index below 0 or beyond the table are NaN, for integers 0.
    """
    symbols = check("gather_rows", n, table_rows, width, index_dtype)
    is_float = dtype.startswith("f")
    outside = "NaN" if is_float else "0"
    return Template(
        name=title("gather_rows", table_rows, width, dtype, index_dtype),
        doc=f"""y[i] = table[index[i]]; {outside} where the index is outside of the table.
table ({table_rows}, {width}) · index (n) -> y (n, {width}); rows lo..hi of y.""",
        imports=("from math import nan",) if is_float else (),
        symbols=symbols,
        params=(("table", dtype), ("index", index_dtype), ("y", dtype)),
        body=(
            "for i in range(lo, hi):",
            "    row = i8(index[i])",
            f"    b = i * {width}",
            f"    if row >= 0 and row < {table_rows}:",
            f"        a = row * {width}",
            f"        for c in range({width}):",
            "            y[b + c] = table[a + c]",
            "    else:",
            f"        for c in range({width}):",
            f"            y[b + c] = {dtype}({'nan' if is_float else '0'})",
        ),
        trip=n,
        grain=grain(width),
    )


def scatter_add_rows(
    n: Dim, table_rows: Dim, width: Dim, dtype: str = "f4", index_dtype: str = "i4"
) -> Template:
    """dtable = 0, then dtable[index[i]] += dy[i] for i in order: index (n), dy (n, width).

    A chunk owns a range of table rows and reads all indices, so the order of the sums never
    changes. Indices outside of the table are skipped. Sizes are as in gather_rows.
    """
    symbols = check("scatter_add_rows", n, table_rows, width, index_dtype)
    return Template(
        name=title("scatter_add_rows", table_rows, width, dtype, index_dtype)
        + (f"_n{n}" if isinstance(n, int) else ""),
        doc=f"""dtable[index[i]] += dy[i] for all i in order, from dtable = 0.
index (n) · dy (n, {width}) -> dtable ({table_rows}, {width}); rows lo..hi of dtable.""",
        imports=(),
        symbols=symbols,
        params=(("index", index_dtype), ("dy", dtype), ("dtable", dtype)),
        body=(
            f"for e in range(lo * {width}, hi * {width}):",
            f"    dtable[e] = {dtype}(0)",
            f"for i in range({n}):",
            "    row = i8(index[i])",
            "    if row >= lo and row < hi:",
            f"        a = row * {width}",
            f"        b = i * {width}",
            f"        for c in range({width}):",
            "            dtable[a + c] += dy[b + c]",
        ),
        trip=table_rows,
        grain=max(grain(width), -(-estimate(table_rows) // RANGES)),
    )
