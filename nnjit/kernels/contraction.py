"""Matrix products as kernels: y = a @ b with transposed operands, batches and epilogues, every
extent an int or a symbol.

Rows of y, or pieces of them, are the launch's trip, so no two chunks write the same element and
nothing is summed across threads; each element is one chain of sums over k, whatever the chunk. A
transposed b is packed by a launch of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from nnjit.kernels import target
from nnjit.kernels.amx_tile import MOST_ROWS
from nnjit.kernels.blocks import (
    Dim,
    Tiles,
    check_symbols,
    choose,
    defined,
    filled,
    grain,
    lanes_of,
    padded,
    parts,
    product,
    symbols_of,
    text,
)
from nnjit.kernels.contraction_pairs import pair_operands
from nnjit.kernels.contraction_pieces import Pieces
from nnjit.kernels.contraction_product import Product
from nnjit.kernels.contraction_rows import Rows, row_blocks, several_rows
from nnjit.kernels.contraction_sums import sums_apply, sums_template
from nnjit.kernels.contraction_thirds import thirds_apply, thirds_template
from nnjit.kernels.contraction_updates import update_template
from nnjit.kernels.packing import pack, pack_transposed, packed_size
from nnjit.kernels.recipe import PLAIN, Epilogue, Recipe, Step
from nnjit.kernels.template import Template, indent

PACK_ROWS = 512  # rows of y from which packing b pays
PACK_BYTES = 2048  # the least size of a row of b for it

# variables of these kernels, which no symbol may be called
NAMES = (
    "lo hi tid a b bias mask residual y i k0 j o q r t first last left right done step g stop "
    "group scratch at_sums"
)


def matmul_template(
    name: str,
    M: Dim,
    N: Dim,
    K: Dim,
    *,
    transpose_a: bool = False,
    transpose_b: bool = False,
    dtype: str = "f4",
    batch: Dim | None = None,
    batch_a: bool = True,
    batch_b: bool = True,
    epilogue: Epilogue = PLAIN,
    stored: tuple[str, str, str] = ("", "", ""),
    steady_b: bool = False,
) -> Recipe:
    """y (M, N) = a (M, K) @ b (K, N); a is stored (K, M) if transpose_a, b (N, K) if transpose_b.

    M, N, K and batch are ints or expressions of symbols, of any size, 0 included. With batch, y is
    (batch, M, N) and so are a and b, except an operand whose batch_a or batch_b is False: all share
    it. A transposed b is packed first, another one where M is static and large and a row of b
    is long, or where steady_b says that it is the same in many runs. Roles: a, b, bias, mask or
    residual, out, the epilogue's extra params.

    dtype b2: a and b are bfloat16, sums and bias float32. stored: dtype codes of a, b (b2, or f4
    that is rounded) and y (f4 by default, or b2; see `Epilogue.tail`).
    """
    if batch is not None and not batch_b and not transpose_a and batch_a:
        return matmul_template(
            name,
            product(batch, M),
            N,
            K,
            transpose_b=transpose_b,
            dtype=dtype,
            epilogue=epilogue,
            stored=stored,
            steady_b=steady_b,
        )
    whole = batch is None and not (transpose_a and transpose_b)
    if whole and thirds_apply(M, N, K, dtype, transpose_a, epilogue):
        assert isinstance(N, int), N
        formula = describe(epilogue, f"a{'.T' * transpose_a} @ b{'.T' * transpose_b}")
        return thirds_template(name, M, N, K, transpose_a, transpose_b, epilogue, formula)
    if epilogue.apart and dtype != "b2":
        assert isinstance(M, int), M
        assert isinstance(N, int), N
        formula = describe(epilogue, "a.T @ b")
        make = sums_template if sums_apply(M, N, K, dtype, epilogue) else update_template
        return make(name, M, N, K, dtype, epilogue, formula)
    if batch is None:
        batch_a = batch_b = False
        plain = transpose_a and not transpose_b and stored[2] != "b2"
        if plain and sums_apply(M, N, K, dtype, epilogue):
            formula = describe(epilogue, "a.T @ b")
            return sums_template(name, M, N, K, dtype, epilogue, formula, stored[:2])  # type: ignore[arg-type]
    lay_out = pair_operands if dtype == "b2" else operands
    p, before, temps = lay_out(
        Product(
            M, N, K, 1, 1, False, dtype, batch, batch_a, batch_b, epilogue,
            *choose(M, N, dtype), stored, steady_b,
        ),
        transpose_a, transpose_b,
    )  # fmt: skip
    main = matmul_kernel(name, p, transpose_a, transpose_b)
    return Recipe((*before, main_step(main, p, before)), temps)


def operands(
    p: Product, transpose_a: bool, transpose_b: bool
) -> tuple[Product, list[Step], dict[str, tuple[Dim, str]]]:
    """The product with its strides, and a launch that packs b where that is needed or pays."""
    large = isinstance(p.M, int) and isinstance(p.K, int) and p.M >= PACK_ROWS
    wide = isinstance(p.N, int) and p.N * target.itemsize(p.dtype) >= PACK_BYTES
    packed = transpose_b or ((p.steady_b or (large and wide)) and not p.batch_b)
    row_a, step_a = (1, p.M) if transpose_a else (p.K, 1)
    p = replace(p, row_a=row_a, step_a=step_a, packed=packed)
    if not packed:
        return p, [], {}
    copies = p.batch if p.batch is not None and p.batch_b else 1
    size = product(p.K, p.N)
    first = (
        pack_transposed(p.K, p.N, p.vectors, p.dtype, copies=copies, copy_stride=size)
        if transpose_b
        else pack(p.K, p.N, p.vectors, p.dtype)
    )
    packed_b = (product(copies, packed_size(p.K, p.N, p.dtype)), p.dtype)
    return p, [Step(first, ("b", "packed_b"))], {"packed_b": packed_b}


def main_step(main: Template, p: Product, before: Sequence[Step]) -> Step:
    """The launch of the product; operands that a step before laid out are read where it did."""
    written = {step.args[0]: step.args[-1] for step in before}
    ep = p.epilogue
    roles = (*(written.get(n, n) for n in ("a", "b")), *ep.inputs(), "out",
             *(n for n, _ in ep.extra_params), *["scratch"] * p.sums)  # fmt: skip
    return Step(main, roles)


def matmul_kernel(name: str, p: Product, transpose_a: bool, transpose_b: bool) -> Template:
    """The kernel of a product: rows lo..hi of y."""
    tiles, asking = Tiles(p.dtype, p.kind), Tiles(p.dtype, "asking_tile")
    ep = p.epilogue
    units = grain(product(2, p.N, p.K), p.rows)
    pieces = Pieces.of(p)
    if pieces:
        units, body = 1, pieces.lines(p, tiles, asking)
    elif p.block_a:
        units = max(1, units // MOST_ROWS)
        body = [
            f"first, last = lo * {MOST_ROWS}, min(hi * {MOST_ROWS}, {p.M})",
            *row_blocks(p, tiles, Rows("first", "last")),
        ]
    elif p.batch is None:
        body = several_rows(p, tiles)
    else:
        m = text(p.M)
        a = "t * " + text(product(p.M, p.K)) if p.batch_a else ""
        depth = product(p.K, padded(p.N, lanes_of(p.dtype))) if p.packed else product(p.K, p.N)
        b = "t * " + text(depth) if p.batch_b else ""
        inner = row_blocks(p, tiles, Rows("first", "last", a, b, f"t * {m}"))
        body = [
            "done = lo",
            "while done < hi:",
            f"    t = done // {m}",
            f"    first = done - t * {m}",
            f"    last = min(hi - t * {m}, {p.M})",
            *indent(inner),
            f"    done = t * {m} + last",
        ]
    a_code, b_code, y_code = p.codes
    stored = f"a ({layout(p.K, p.M, transpose_a)}), b ({layout(p.N, p.K, transpose_b)})"
    shapes = f"{stored} -> y ({p.M}, {p.N})"
    formula = describe(ep, f"a{'.T' * transpose_a} @ b{'.T' * transpose_b}")
    note = "b is packed in panels; " * p.packed
    note = "pairs of bfloat16 along k; " * (p.dtype == "b2") + note
    part = f"lo..hi: blocks of {MOST_ROWS} rows of y" if p.block_a else "rows lo..hi of y"
    if pieces:
        part = (
            f"lo..hi: for each {pieces.several} x {pieces.rows} rows, {pieces.count} panels of "
            f"columns, cut into {pieces.several}"
        )
    lead = "" if p.batch is None else f"{p.batch} times "
    symbols = symbols_of(p.batch, p.M, p.N, p.K)
    check_symbols(name, symbols, NAMES, ep.extra_params)
    return Template(
        name=name,
        doc=filled(f"{name}: y = {formula}\n{lead}{shapes}; {note}{part}."),
        imports=(*ep.imports, *defined(asking, tiles, tiles.asks)),
        symbols=symbols,
        params=(
            ("a", a_code),
            ("b", b_code),
            *ep.params(y_code),
            ("y", y_code),
            *ep.extra_params,
            *[("scratch", "f4")] * p.sums,
        ),
        body=tuple(body),
        trip=pieces.trip(p.M) if pieces else trip_of(p),
        scratch=4 * p.scratch,
        grain=units,
    )


def trip_of(p: Product) -> Dim:
    """Rows of y, or blocks of them."""
    if p.block_a:
        return parts(p.M, MOST_ROWS)
    return p.M if p.batch is None else product(p.batch, p.M)


def layout(first: Dim, second: Dim, transposed: bool) -> str:
    """A matrix as it is stored: (second, first) unless it is transposed."""
    return f"{first}, {second}" if transposed else f"{second}, {first}"


def describe(ep: Epilogue, formula: str) -> str:
    """The formula with the epilogue."""
    formula += " + bias" * ep.bias
    formula = {
        "mask": f"where(mask > 0, {formula}, 0)",
        "mul": f"({formula}) * residual",
        "add": f"{formula} + residual",
        "relu": f"relu({formula})",
        "add_relu": f"relu({formula} + residual)",
    }.get(ep.final, formula)
    return f"tail({formula})" if ep.tail else formula
