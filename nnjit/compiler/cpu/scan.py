"""Scans: one kernel runs all time steps and writes every result that is wanted.

Rows are independent in time, so threads share them and none waits for another (`scan_rows`). Rows
that are too few for that are done by pieces of columns, if that pays: threads then meet after each
step (`scan_pieces`). A batch whose size only a run knows may be either, so its kernel has both. The
matrices of products are packed by launches of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from nnjit.compiler.cpu.scan_body import body_of, schedule
from nnjit.compiler.cpu.scan_pieces import FEW, PiecesScan, cut, worth_pieces
from nnjit.compiler.cpu.scan_rows import RowsScan
from nnjit.compiler.cpu.scan_text import Params, ScanText
from nnjit.compiler.cpu.text import dim_text, math_imports, text_of, used_symbols
from nnjit.compiler.cpu.values import Lines
from nnjit.graph import Node
from nnjit.kernels.blocks import Tiles
from nnjit.kernels.recurrent import GRAIN
from nnjit.kernels.target import CODES
from nnjit.kernels.template import Template, indent

if TYPE_CHECKING:
    from nnjit.compiler.cpu.lower import Lowering


def launch(low: Lowering, nodes: Sequence[Node]) -> None:
    """Emit the kernels of a scan: `nodes` are the results of one Step that are wanted."""
    kinds = [n.attrs["result"] for n in nodes]
    stacked = [i for kind, i in kinds if kind == "all"]
    last = [i for kind, i in kinds if kind == "last"]
    plan = schedule(body_of(nodes[0].attrs["step"], stacked, last))
    params = Params()
    rows = RowsScan(low, nodes, plan, params)
    tiles = {n.dtype: Tiles(CODES[n.dtype]) for n in plan.body.products}
    batch = rows.batch
    found = cut(plan) if worth_pieces(rows) else None
    if isinstance(batch, int) and batch >= FEW:
        found = None
    if found is None:
        how = f"for each of the rows lo..hi of {dim_text(batch)}"
        emit(rows, text(rows, tiles), tiles, how, text_of(batch))
        return
    few = PiecesScan(rows, found)
    how = f"by {found.pieces} pieces p of the columns, stage after stage"
    if isinstance(batch, int):
        lines = text(few, tiles)
        emit(few, lines, tiles, how, few.trip, few.stages)
        return
    is_few, many = f"{dim_text(batch)} < {FEW}", text(rows, tiles)
    lines = [f"if {is_few}:", *indent(text(few, tiles)), "else:", *indent(many)]
    how = f"for each of the rows lo..hi of {dim_text(batch)}, fewer than {FEW} rows {how}"
    trip = f"({few.trip} if {is_few} else {dim_text(batch)})"
    emit(rows, lines, tiles, how, trip, f"({few.stages} if {is_few} else 1)")


def text(scan: ScanText, tiles: dict[str, Tiles]) -> list[str]:
    """The lines of one way to run a scan; what packs its matrices is emitted."""
    lines = Lines()
    scan.bind()
    scan.write(lines, tiles)
    return lines.text


def emit(
    scan: ScanText, lines: list[str], tiles: dict[str, Tiles], how: str, trip: int | str,
    stages: int | str = 1,
) -> None:  # fmt: skip
    """The launch that runs the scan."""
    low, params = scan.low, scan.params
    imports = [*math_imports(lines)]
    for one in tiles.values():
        imports += one.imports()
    template = Template(
        scan.name(), scan.doc(how), tuple(imports), used_symbols(lines, low.symbols),
        tuple(params.names), tuple(lines), trip, grain=GRAIN, stages=stages,
    )  # fmt: skip
    n = scan.nodes[0]
    flops = [n.op.flops(n)] if n.op.flops else []
    low.emit(template, params.buffers, params.writes, scan.nodes, "scan", flops)
