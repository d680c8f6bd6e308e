"""The one building block of all contractions: a register tile, and the transposition that packs its
operand.

`tile(...)` returns a function

    C[rows_c[i] + j] = final(init + sum_r sum_taps sum_k A[r*sar + tap.a + rows_a[i] + k*step_a]
                                                       * B[r*sbr + tap.b + k*step_b + j])

that holds len(rows_c) x vectors SIMD accumulators in registers. In a compile worker it is a Numba
intrinsic (see `tile_llvm`), elsewhere the NumPy meaning below, on flat arrays, so emitted kernels
run in both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from nnjit.kernels import target
from nnjit.kernels.bf16 import expand, shorten

INITS = ("zero", "load", "bias")
FINALS = ("store", "relu", "mask", "mul", "add", "add_relu")
RUNTIME = ("row_a", "row_c", "step_a", "step_b")


@dataclass(frozen=True)
class TileShape:
    """Everything of a tile that is a literal of its machine code; see `tile` for the meaning of the
    fields.
    """

    rows_a: tuple[int, ...]
    rows_c: tuple[int, ...]
    vectors: int
    lanes: int
    taps: tuple[tuple[int, int, int, int], ...]
    step_a: int
    step_b: int
    tail: int | str
    init: str
    final: str
    static_k: int
    dtype: str
    runtime: tuple[str, ...]
    out: str
    emulate: bool

    @property
    def reads_m(self) -> bool:
        return self.final in ("mask", "mul", "add", "add_relu")

    def arguments(self) -> list[str]:
        """Names of the call's arguments, in order."""
        names = ["R", "kc", "a", "aoff", "sar", "b", "boff", "sbr", "c", "coff"]
        names += ["e", "eoff"] * (self.init == "bias") + ["m", "moff"] * self.reads_m
        return names + list(self.runtime) + ["width"] * (self.tail == "run")


def tile(
    *,
    rows_a: Iterable[int],
    rows_c: Iterable[int],
    vectors: int,
    lanes: int,
    taps: Iterable[tuple[int, int, int, int]] | None = None,
    step_a: int = 1,
    step_b: int = 0,
    tail: int | str = 0,
    init: str = "zero",
    final: str = "store",
    static_k: int = 0,
    dtype: str = "f4",
    runtime: tuple[str, ...] = (),
    out: str = "",
    emulate: bool = False,
) -> Callable[..., None]:
    """The tile as a function (R, kc, a, aoff, sar, b, boff, sbr, c, coff[, e, eoff][, m, moff][,
    strides][, width]).

    rows_a, rows_c: offsets of the tile's rows in A and C. taps: static pieces (a offset, b offset,
    first row, end row) of the reduction, each for a range of tile rows; none means one tap for all.
    R outer steps (sar, sbr apart) and kc inner steps (step_a, step_b apart; `static_k` > 0 unrolls
    them); R <= 0 or kc <= 0 leaves the initial value. tail: columns in use of the last vector, 0
    for all, "run" if it is the last argument. init: zero, load (C) or bias (the row at e). final:
    store, relu, mask (0 where not m > 0), mul (by m), add (m), add_relu; m is laid out like C.
    runtime: of row_a, row_c, step_a, step_b those that are arguments; rows_a and rows_c then
    multiply row_a and row_c. NaN and inf propagate as in the formula; relu keeps NaN.

    dtype "b2": A and B hold pairs of bfloat16 that follow each other along k. Their offsets,
    rows_a, steps, sar, sbr, taps and kc count pairs; their pointers may have any dtype. lanes, the
    sums and e are float32: each pair adds its second product, then its first, with one rounding
    each. C is float32, or bfloat16 (rounded) with out="b2", which init "load" excludes; m is
    either, by its pointer. emulate: without the CPU's vdpbf16ps (`target.multiplies_pairs` says
    whether it has that); equal bits but for denormal numbers, which the instruction takes and gives
    as 0.
    """
    rows_a, rows_c = tuple(rows_a), tuple(rows_c)
    pieces = ((0, 0, 0, len(rows_c)),) if taps is None else tuple(taps)
    if len(rows_a) != len(rows_c) or init not in INITS or final not in FINALS:
        raise ValueError(
            f"tile(rows_a={rows_a}, rows_c={rows_c}, init={init!r}, final={final!r}): "
            "as many rows_a as rows_c, "
            f"init of {INITS} and final of {FINALS} are expected"
        )
    ordered = tuple(name for name in RUNTIME if name in runtime)
    if len(ordered) != len(runtime):
        raise ValueError(f"tile(runtime={runtime!r}): expected names out of {RUNTIME}")
    out = out or ("f4" if dtype == "b2" else dtype)
    if out not in (("f4", "b2") if dtype == "b2" else (dtype,)) or (out, init) == ("b2", "load"):
        raise ValueError(
            f"tile(dtype={dtype!r}, out={out!r}, init={init!r}): out is the dtype; of pairs (b2) "
            "it is f4, or b2 where nothing is loaded"
        )
    shape = TileShape(
        rows_a,
        rows_c,
        vectors,
        lanes,
        pieces,
        step_a,
        step_b,
        tail,
        init,
        final,
        static_k,
        dtype,
        ordered,
        out,
        emulate,
    )
    if target.jitting:
        from nnjit.kernels.tile_llvm import tile_intrinsic

        return tile_intrinsic(shape)
    return numpy_tile(shape)


def numpy_tile(s: TileShape, stretch: int = 1) -> Callable[..., None]:
    """The meaning of a tile on flat NumPy arrays; along k, A lies in stretches of so many."""
    names = s.arguments()

    def run(*args: Any) -> None:
        if len(args) != len(names):
            raise TypeError(f"tile takes {names}, got {len(args)} arguments")
        v = dict(zip(names, args, strict=True))
        columns = s.vectors * s.lanes
        if s.tail:
            columns += (v["width"] if s.tail == "run" else int(s.tail)) - s.lanes
        rows_a = np.array(s.rows_a, dtype=np.int64) * v.get("row_a", 1)
        at_c = np.array(s.rows_c, dtype=np.int64) * v.get("row_c", 1)
        at_c = at_c[:, None] + np.arange(columns)
        step_a, step_b = v.get("step_a", s.step_a), v.get("step_b", s.step_b)
        c = v["c"]
        acc = np.zeros(at_c.shape, np.float32 if s.dtype == "b2" else c.dtype)
        if s.init == "load":
            acc = c[v["coff"] + at_c]
        elif s.init == "bias":
            acc = acc + v["e"][v["eoff"] : v["eoff"] + columns]
        kc = s.static_k or v["kc"]
        k = np.arange(kc)
        along_a = k // stretch * stretch * step_a + k % stretch
        with np.errstate(all="ignore"):
            for r in range(v["R"] if kc > 0 else 0):
                for ta, tb, lo, hi in s.taps:
                    at_a = v["aoff"] + r * v["sar"] + ta + rows_a[lo:hi, None] + along_a
                    first = v["boff"] + r * v["sbr"] + tb
                    at_b = first + k[:, None] * step_b + np.arange(columns)
                    if s.dtype == "b2":
                        for half in (1, 0):
                            acc[lo:hi] += part(v["a"], at_a, half) @ part(v["b"], at_b, half)
                    else:
                        acc[lo:hi] += v["a"][at_a] @ v["b"][at_b]
            m = None
            if s.reads_m:
                m = v["m"][v["moff"] + at_c]
                m = expand(m) if m.dtype == np.uint16 else m
            acc = finished(s.final, acc, m)
        c[v["coff"] + at_c] = shorten(acc) if s.out == "b2" else acc

    return run


def finished(final: str, acc: Any, m: Any) -> Any:
    """What a tile's final makes of sums; m: the mask or residual, None where there is none."""
    if final == "mask":
        acc = np.where(m > 0, acc, acc.dtype.type(0))
    elif m is not None:
        acc = acc * m if final == "mul" else acc + m
    return np.maximum(acc, 0) if final.endswith("relu") else acc


def part(pairs: Any, at: Any, half: int) -> Any:
    """The first (0) or second (1) number of each of these pairs of bfloat16."""
    return expand(pairs.view(np.uint16)[2 * at + half])


def transpose_block(
    *, lanes: int, rows: int = 0, columns: int = 0, dtype: str = "f4"
) -> Callable[..., None]:
    """A function (src, soff, ld_src, dst, doff, ld_dst): dst[c*ld_dst + r] = src[r*ld_src + c] for
    a lanes x lanes block.

    rows, columns (0: all) bound what is read of src; whole vectors of dst are written, zeros for
    the missing rows, and none for the missing columns. lanes is a power of two.
    """
    rows, columns = rows or lanes, columns or lanes
    if lanes & (lanes - 1):
        raise ValueError(f"transpose_block(lanes={lanes}): a power of two is expected")
    if target.jitting:
        from nnjit.kernels.tile_llvm import transpose_intrinsic

        return transpose_intrinsic(lanes, rows, columns, dtype)

    def run(src: Any, soff: int, ld_src: int, dst: Any, doff: int, ld_dst: int) -> None:
        block = np.zeros((columns, lanes), dst.dtype)
        at = soff + np.arange(columns)[:, None] + np.arange(rows) * ld_src
        block[:, :rows] = src[at]
        dst[doff + np.arange(columns)[:, None] * ld_dst + np.arange(lanes)] = block

    return run
