"""Matrix products as kernels: y = a @ b with transposed operands, batches and epilogues, every extent an int or a symbol.

Rows of y are the launch's trip, so no two chunks write the same element and nothing is summed across threads; each
element is one chain of fused multiply-adds over k, whatever the chunk. A transposed b is packed by a launch of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from nnjit.kernels import target
from nnjit.kernels.blocks import (
    Dim, Panel, Tiles, call, check_symbols, choose, grain, padded, panels, product, symbols_of, text, total,
)  # fmt: skip
from nnjit.kernels.packing import pack, pack_transposed, packed_size
from nnjit.kernels.recipe import PLAIN, Epilogue, Recipe, Step
from nnjit.kernels.template import Template, indent

SMALL_B, GROUP = (
    256 * 1024,
    4,
)  # bytes of b that stay in L2, and tiles of rows that then go over all panels together
DEPTH = 4096  # bytes of a reduction after which its sums go through memory; from four times as much
UNROLL = 16  # reductions up to this length are unrolled completely
PACK_ROWS, PACK_BYTES = (
    512,
    2048,
)  # rows of y from which packing b pays, and the least size of a row of b

NAMES = ("lo", "hi", "tid", "a", "b", "bias", "mask", "residual", "y", "i", "k0", "j", "o", "q", "r", "t",
         "first", "last", "done")  # fmt: skip  # variables of these kernels


@dataclass(frozen=True)
class Product:
    """y[i, j] = sum_k a[i * row_a + k * step_a] * b[k * step_b + j], one of `batch`; strides in elements."""

    M: Dim
    N: Dim
    K: Dim
    row_a: Dim
    step_a: Dim
    packed: bool
    dtype: str
    batch: Dim | None
    batch_a: bool
    batch_b: bool
    epilogue: Epilogue
    rows: int
    vectors: int

    def panels(self) -> list[Panel]:
        return panels(self.N, self.vectors, target.lanes(self.dtype))

    def step_b(self, p: Panel) -> Dim:
        return p.width if self.packed else self.N


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
    packed: bool | None = None,
) -> Recipe:
    """y (M, N) = a (M, K) @ b (K, N); a is stored (K, M) if transpose_a, b (N, K) if transpose_b.

    M, N, K and batch are ints or expressions of symbols, of any size, 0 included. With batch, y is (batch, M, N) and so
    are a and b, except an operand whose batch_a or batch_b is False: all share it. packed: whether an untransposed,
    shared b with a static K is packed first (None: where M is static and large and a row of b is a power of two or long).
    Roles: a, b, bias, mask or residual, out, the epilogue's extra params.
    """
    if batch is not None and not batch_b and not transpose_a and batch_a:
        return matmul_template(name, product(batch, M), N, K, transpose_b=transpose_b, dtype=dtype,
                               epilogue=epilogue, packed=packed)  # fmt: skip
    if batch is None:
        batch_a = batch_b = False
    rows, vectors = choose(M, N, dtype)
    plain = not transpose_b and not batch_b and isinstance(K, int)
    if packed is None:
        wide = isinstance(N, int) and N * target.itemsize(dtype) >= PACK_BYTES
        packed = plain and wide and isinstance(M, int) and M >= PACK_ROWS
    if packed and not plain and not transpose_b:
        raise ValueError(
            f"matmul_template(packed=True): {name} has a batch of b or a run-time K, {K}"
        )
    row_a, step_a = (1, M) if transpose_a else (K, 1)
    p = Product(
        M,
        N,
        K,
        row_a,
        step_a,
        packed or transpose_b,
        dtype,
        batch,
        batch_a,
        batch_b,
        epilogue,
        rows,
        vectors,
    )
    main = matmul_kernel(name, p, transpose_a, transpose_b)
    steps, temps = [], {}
    if p.packed:
        copies = batch if batch is not None and batch_b else 1
        size = product(K, N)
        first = (pack_transposed(K, N, vectors, dtype, copies=copies, copy_stride=size)
                 if transpose_b else pack(K, N, vectors, dtype))  # fmt: skip
        steps.append(Step(first, ("b", "packed_b")))
        temps["packed_b"] = (product(copies, packed_size(K, N, dtype)), dtype)
    roles = (
        "a",
        "packed_b" if p.packed else "b",
        *epilogue.inputs(),
        "out",
        *(n for n, _ in epilogue.extra_params),
    )
    return Recipe((*steps, Step(main, roles)), temps)


def matmul_kernel(name: str, p: Product, transpose_a: bool, transpose_b: bool) -> Template:
    """The kernel of a product: rows lo..hi of y."""
    tiles = Tiles(p.dtype)
    ep = p.epilogue
    if p.batch is None:
        body = row_groups(p, tiles)
    else:
        m = text(p.M)
        a = "t * " + text(product(p.M, p.K)) if p.batch_a else ""
        depth = product(p.K, padded(p.N, target.lanes(p.dtype))) if p.packed else product(p.K, p.N)
        b = "t * " + text(depth) if p.batch_b else ""
        inner = row_blocks(p, tiles, Rows("first", "last", a, b, f"t * {m}"))
        body = ["done = lo", "while done < hi:", f"    t = done // {m}", f"    first = done - t * {m}",
                 f"    last = min(hi - t * {m}, {p.M})", *indent(inner), f"    done = t * {m} + last"]  # fmt: skip
    shapes = f"a ({layout(p.K, p.M, transpose_a)}), b ({layout(p.N, p.K, transpose_b)}) -> y ({p.M}, {p.N})"
    formula = describe(ep, f"a{'.T' * transpose_a} @ b{'.T' * transpose_b}")
    note = "b is packed in panels; " * p.packed
    lead = "" if p.batch is None else f"{p.batch} times "
    symbols = symbols_of(p.batch, p.M, p.N, p.K)
    check_symbols(name, symbols, (*NAMES, *(n for n, _ in ep.extra_params)))
    return Template(
        name=name, doc=f"{name}: y = {formula}\n{lead}{shapes}; {note}rows lo..hi of y.",
        imports=(*ep.imports, *tiles.imports()), symbols=symbols,
        params=(("a", p.dtype), ("b", p.dtype), *((n, p.dtype) for n in ep.inputs()), ("y", p.dtype), *ep.extra_params),
        body=tuple(body), trip=p.M if p.batch is None else product(p.batch, p.M), grain=grain(product(2, p.N, p.K), p.rows),
    )  # fmt: skip


def row_groups(p: Product, tiles: Tiles) -> list[str]:
    """All panels for a few rows at a time where b stays in L2 anyway; else all rows of the chunk for each panel."""
    whole = p.K * p.N if isinstance(p.K, int) and isinstance(p.N, int) else 0
    if p.row_a == 1 or not 0 < whole * target.itemsize(p.dtype) <= SMALL_B or len(p.panels()) < 2:
        return row_blocks(p, tiles, Rows("lo", "hi"))
    group = GROUP * p.rows
    return [f"for first in range(lo, hi, {group}):", f"    last = min(hi, first + {group})",
            *indent(row_blocks(p, tiles, Rows("first", "last")))]  # fmt: skip


def layout(first: Dim, second: Dim, transposed: bool) -> str:
    """A matrix as it is stored: (second, first) unless it is transposed."""
    return f"{first}, {second}" if transposed else f"{second}, {first}"


def describe(ep: Epilogue, formula: str) -> str:
    """The formula with the epilogue."""
    formula += " + bias" * ep.bias
    formula = {"mask": f"where(mask > 0, {formula}, 0)", "add": f"{formula} + residual", "relu": f"relu({formula})",
               "add_relu": f"relu({formula} + residual)"}.get(ep.final, formula)  # fmt: skip
    return f"tail({formula})" if ep.tail else formula


@dataclass(frozen=True)
class Phase:
    """A stretch of the reduction: k from `start`, `count` long; loop: the line that repeats it, if any."""

    start: Dim
    count: Dim
    init: str
    final: str
    loop: str = ""
    last: bool = True


def phases(p: Product) -> list[Phase]:
    """The reduction whole, or cut where a panel of b would not stay in L2; y holds the sums in between."""
    ep, most = p.epilogue, DEPTH // target.itemsize(p.dtype)
    init, final = ep.tile_options()["init"], ep.final
    if isinstance(p.K, int):
        if p.K <= 4 * most:
            return [Phase(0, p.K, init, final)]
        last = (p.K - 1) // most * most
        return [Phase(0, most, init, "store", last=False),
                Phase("k0", most, "load", "store", f"for k0 in range({most}, {last}, {most}):", last=False),
                Phase(last, p.K - last, "load", final)]  # fmt: skip
    if p.K.isidentifier() or final != "store" or ep.tail:
        return [Phase(0, p.K, init, final)]
    return [Phase(0, f"min({p.K}, {most})", init, "store"),
            Phase("k0", f"min({p.K} - k0, {most})", "load", "store", f"for k0 in range({most}, {p.K}, {most}):")]  # fmt: skip


@dataclass(frozen=True)
class Rows:
    """Rows first..last of one matrix; a, b, row: where the matrix starts in a, b and (in rows) y."""

    first: str
    last: str
    a: str = ""
    b: str = ""
    row: str = ""


def row_blocks(p: Product, tiles: Tiles, at: Rows) -> list[str]:
    """These rows of one matrix, panel after panel."""
    lines, parts = [], phases(p)
    for panel in p.panels():
        lines.append(panel.loop())
        for phase in parts:

            def block(
                rows: int, i: str = "i", panel: Panel = panel, phase: Phase = phase
            ) -> list[str]:
                return tile_call(p, tiles, panel, phase, rows, i, at)

            # where y is read, no row may be done twice
            again = len(parts) == 1 and not p.epilogue.operand
            body = blocks_of_rows(p.rows, at, block, again)
            lines += indent([phase.loop, *indent(body)] if phase.loop else body)
    return lines


def blocks_of_rows(
    rows: int, at: Rows, block: Callable[[int], list[str]], again: bool
) -> list[str]:
    """Full tiles, then what is left: one more tile that overlaps its neighbour if `again`, or fewer rows at a time."""
    first, last = at.first, at.last
    if rows == 1:
        return [f"for i in range({first}, {last}):", *indent(block(1))]
    lines = [f"for i in range({first}, {last} - {rows - 1}, {rows}):", *indent(block(rows))]
    if again:
        return [*lines, f"if ({last} - {first}) % {rows} != 0:",
                f"    if {last} - {first} >= {rows}:", f"        i = {last} - {rows}", *indent(block(rows), 2),
                "    else:", f"        for i in range({first}, {last}):", *indent(block(1), 3)]  # fmt: skip
    lines += [f"i = {last} - ({last} - {first}) % {rows}"]
    if rows > 3:
        half = rows // 2
        lines += [f"if {last} - i >= {half}:", *indent(block(half)), f"    i += {half}"]
    return [*lines, f"for i in range(i, {last}):", *indent(block(1))]


def tile_call(
    p: Product, tiles: Tiles, panel: Panel, phase: Phase, rows: int, i: str, at: Rows
) -> list[str]:
    """One block of y: `rows` rows at i (of the matrix), the columns of `panel` at o; then its share of the tail."""
    ep, step_b = p.epilogue, p.step_b(panel)
    strides = {"row_a": p.row_a, "row_c": p.N, "step_a": p.step_a, "step_b": step_b}
    run_time = [
        n
        for n, d in strides.items()
        if isinstance(d, str) and not (rows == 1 and n.startswith("row"))
    ]
    fixed = {n: d if isinstance(d, int) else int(n.startswith("row")) for n, d in strides.items()}
    static = p.K if isinstance(p.K, int) and p.K <= UNROLL else 0
    name = tiles.get(
        rows, panel, rows_a=tuple(r * fixed["row_a"] for r in range(rows)),
        rows_c=tuple(r * fixed["row_c"] for r in range(rows)), step_a=fixed["step_a"], step_b=fixed["step_b"],
        static_k=static, runtime=tuple(run_time), init=phase.init, final=phase.final,
    )  # fmt: skip
    at_a = total(
        at.a or 0, f"{i} * {text(p.row_a)}" if p.row_a != 1 else i, product(phase.start, p.step_a)
    )
    at_b = total(at.b or 0, f"o * {text(p.K)}" if p.packed else "o", product(phase.start, step_b))
    at_y = f"({at.row} + {i}) * {text(p.N)} + o" if at.row else f"{i} * {text(p.N)} + o"
    operands = ["bias", "o"] if phase.init == "bias" else []
    operands += [ep.operand, at_y] if ep.operand and phase.last else []
    args = ["1", str(phase.count), "a", at_a, "0", "b", at_b, "0", "y", at_y, *operands,
            *(str(strides[n]) for n in run_time), *([str(panel.columns)] if panel.tail == "run" else [])]  # fmt: skip
    tail = ep.lines(at_y, rows, text(p.N), "o", panel.columns) if phase.last else []
    return [*call(name, args), *tail]
