"""Gradient of attention as one kernel: weights are computed again from the log-sum-exp, a block of
queries and a block of keys at a time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from nnjit.kernels.attention_text import NAMES, Attention, Text
from nnjit.kernels.blocks import call, check_symbols, filled, panels, product, text
from nnjit.kernels.target import itemsize
from nnjit.kernels.template import Template, indent

KEYS = 64  # keys of a block: two values of keys x queries stay in L1


def attention_gradient(a: Attention, wanted: Sequence[str] = ("dq", "dk", "dv")) -> Template:
    """Those of dq, dk and dv that are wanted, shaped like q, k and v.

    Trip: batch * kv; all queries of a key head are one index, which adds up its dk and dv.
    """
    x = Text(a)
    g = Gradient(a, x, wanted)
    body = ["for t in range(lo, hi):", *indent(g.head())]
    # LLVM unrolls a short loop of known length before it could make vectors of it
    zero = ["zero = tid >> 62  # keeps the loop below that adds it to its length"] * g.slopes
    name = "_".join(["attention_grad", *("to_" + w for w in wanted if len(wanted) < 3), a.name])
    formulas = {"dq": "dq = ds @ k", "dk": "dk = ds.T @ q", "dv": "dv = p.T @ dout"}
    check_symbols(name, a.symbols, NAMES)
    return Template(
        name=name,
        doc=filled(
            f"{name}: p = exp({a.scale:.6g} * q @ k.T - lse), "
            f"ds = {a.scale:.6g} * p * (dout @ v.T - sum(dout * out)), "
            f"{', '.join(formulas[w] for w in wanted)} for each batch and head"
            f"\n{a.shapes()}; lo..hi: key heads of a batch."
        ),
        imports=(
            "from math import inf", "",
            f"from nnjit.kernels.math import exp2_below_{a.dtype}", *x.imports(),
        ),
        symbols=a.symbols,
        params=(
            ("q", a.dtype), ("k", a.dtype), ("v", a.dtype), *((("mask", "u1"),) if a.mask else ()),
            ("out", a.dtype), ("lse", a.dtype), ("dout", a.dtype),
            *((w, a.dtype) for w in wanted), ("scratch", a.dtype),
        ),
        body=(*x.scratch.lines(), *zero, *body),
        trip=product(a.batch, a.kv),
        scratch=x.scratch.size * itemsize(a.dtype),
    )  # fmt: skip


class Gradient:
    """Writes the body of the kernel."""

    def __init__(self, a: Attention, x: Text, wanted: Sequence[str]):
        self.a, self.x, self.wanted = a, x, wanted
        self.slopes = "dq" in wanted or "dk" in wanted
        self.columns = a.columns(a.d)
        wide = [a.columns(a.d), a.columns(a.dv)]
        x.scratch.take("qt", wide[0] * a.width)
        x.scratch.take("st", max(KEYS, *wide) * a.width)
        x.scratch.take("base", a.width)
        x.scratch.take("unit", 1)
        if self.slopes:
            x.scratch.take("dt", wide[1] * a.width)
            x.scratch.take("ds", KEYS * a.width)
            x.scratch.take("inner", a.width)
        if "dq" in wanted:
            x.scratch.take("acc", a.width * self.columns)

    def head(self) -> list[str]:
        """One key head."""
        a = self.a
        heads = "g, g + 1" if a.group == 1 else f"g * {a.group}, (g + 1) * {a.group}"
        lines = [
            f"n = t // {a.kv}",
            f"g = t - n * {a.kv}",
            f"at_k = n * {text(product(a.keys, a.kv * a.d))} + g * {a.d}",
            f"at_v = n * {text(product(a.keys, a.kv * a.dv))} + g * {a.dv}",
        ]
        lines += self.next_head()
        for name, start, row, depth in (
            ("dk", "at_k", a.kv * a.d, a.d),
            ("dv", "at_v", a.kv * a.dv, a.dv),
        ):
            if name in self.wanted:
                lines += [
                    f"for r in range({a.keys}):",
                    f"    for e in range({depth}):",
                    f"        {name}[{start} + r * {row} + e] = {a.dtype}(0.0)",
                ]
        return [
            *lines,
            f"for h in range({heads}):",
            f"    for i0 in range(0, {a.queries}, {a.width}):",
            f"        rows = min({a.width}, {a.queries} - i0)",
            f"        keys = {a.last_key()}",
            f"        at_q = (n * {text(a.queries)} + i0) * {a.heads * a.d} + h * {a.d}",
            f"        at_o = (n * {text(a.queries)} + i0) * {a.heads * a.dv} + h * {a.dv}",
            *indent(self.queries(), 2),
            f"        for j0 in range(0, keys, {KEYS}):",
            f"            count = min({KEYS}, keys - j0)",
            *indent(self.keys(), 3),
            *indent(self.store(), 2),
        ]

    def next_head(self) -> list[str]:
        """Where the operands of the next key head lie, from those of this one."""
        a = self.a
        queries, keys = text(a.queries), text(a.keys)
        return [
            "# from here to the next key head, whose rows are asked for on the way",
            f"r = min(t + 1, {text(product(a.batch, a.kv))} - 1)",
            f"e = r // {a.kv} - n",
            f"r = r % {a.kv} - g",
            f"to_q = e * {queries} * {a.heads * a.d} + r * {a.group * a.d}",
            f"to_o = e * {queries} * {a.heads * a.dv} + r * {a.group * a.dv}",
            f"to_k = at_k + e * {keys} * {a.kv * a.d} + r * {a.d}",
            f"to_v = at_v + e * {keys} * {a.kv * a.dv} + r * {a.dv}",
        ]

    def ahead(self) -> list[str]:
        """Prefetch what the next key head needs for these queries, in a loop over tiles of them."""
        a, x, lines = self.a, self.x, []
        for name, place, depth in (("q", "q", a.d), ("dout", "o", a.dv), ("out", "o", a.dv),
                                   ("dq", "q", a.d)):  # fmt: skip
            row = a.heads * depth
            if name in ("q", "dout") or name in self.wanted or (name == "out" and self.slopes):
                start = f"at_{place} + to_{place} + i * {row}"
                lines += x.ask_for(name, start, row, depth, write=name == "dq")
        return lines

    def queries(self) -> list[str]:
        """What a block of queries needs before it meets the keys."""
        a, x = self.a, self.x
        W, T = a.width, a.dtype
        log2e = 1 / math.log(2)
        lines = [
            "# q.T, scaled for powers of 2",
            f"scratch[unit] = {T}({a.scale * log2e!r})",
            *x.pack("qt", "st", "unit", ("q", "at_q", a.heads * a.d), a.d),
            f"scratch[unit] = {T}(1.0)",
            "# base: lse in powers of 2; no weight where no key is seen",
            f"for j in range({W}):",
            f"    scratch[base + j] = {T}(inf)",
            "for j in range(rows):",
            f"    x = lse[(n * {text(a.queries)} + i0 + j) * {a.heads} + h]",
            f"    scratch[base + j] = x * {T}({log2e!r}) if x != -{T}(inf) else {T}(inf)",
        ]
        if self.slopes:
            row = a.heads * a.dv
            lines += [
                "# dout.T, and inner = sum(dout * out)",
                *x.pack("dt", "st", "unit", ("dout", "at_o", row), a.dv),
                f"for j in range({W}):",
                f"    scratch[inner + j] = {T}(0.0)",
                "for j in range(rows):",
                f"    x = {T}(0.0)",
                f"    for e in range({a.dv} + zero):",
                f"        x += dout[at_o + j * {row} + e] * out[at_o + j * {row} + e]",
                "    scratch[inner + j] = x",
            ]
        if "dq" in self.wanted:
            lines += [f"for j in range({W * self.columns}):", f"    scratch[acc + j] = {T}(0.0)"]
        return lines

    def keys(self) -> list[str]:
        """One block of keys: weights, slopes, and what they add to the gradients."""
        a, x = self.a, self.x
        W, T = a.width, a.dtype
        kd, vd = a.kv * a.d, a.kv * a.dv
        lines = ["# st: scores k @ q.T, keys x queries"]
        also = x.ask_for_keys("k", "to_k", kd, a.d)
        lines += x.scores("st", "qt", "k", f"at_k + j0 * {kd}", kd, a.d, also)
        if self.slopes:
            lines.append("# ds: v @ dout.T")
            also = x.ask_for_keys("v", "to_v", vd, a.dv)
            lines += x.scores("ds", "dt", "v", f"at_v + j0 * {vd}", vd, a.dv, also)
        lines += [
            *x.hide("st"),
            "# st = the weights" + ", ds = the gradients of the scores" * self.slopes,
            "for r in range(count):",
            f"    for j in range({W}):",
            f"        e = exp2_below_{T}(scratch[st + r * {W} + j] - scratch[base + j])",
            f"        scratch[st + r * {W} + j] = e",
        ]
        if self.slopes:
            lines += [
                f"        x = scratch[ds + r * {W} + j] - scratch[inner + j]",
                f"        scratch[ds + r * {W} + j] = e * x * {T}({a.scale!r})",
            ]
        if "dv" in self.wanted:
            lines += self.to_keys("st", "dout", "at_o", a.heads * a.dv, "dv", "at_v", vd, a.dv)
        if "dk" in self.wanted:
            lines += self.to_keys("ds", "q", "at_q", a.heads * a.d, "dk", "at_k", kd, a.d)
        if "dq" in self.wanted:
            lines.append("# acc (dq) += ds.T @ k")
            first = ["if j0 == 0:", *indent(self.ahead())]
            lines += x.from_keys("ds", "k", f"at_k + j0 * {kd}", kd, a.d, "acc", first)
        return lines

    def to_keys(self, left: str, b: str, at_b: str, row_b: int, to: str, at: str, row: int,
                depth: int) -> list[str]:  # fmt: skip
        """Rows of dk or dv: to[r] += left[r] @ b, over the queries of the block."""
        a = self.a
        start, length = ("s", "rows - s") if a.causal else ("0", "rows")
        from_ = ["s = max(0, j0 + r - i0)"] if a.causal else []

        def tiles(rows: int) -> list[str]:
            lines = list(from_)
            for p in panels(depth, 2, a.lanes):
                tile = self.x.tiles.get(
                    rows, p, rows_a=tuple(i * a.width for i in range(rows)),
                    rows_c=tuple(i * row for i in range(rows)), step_b=row_b, init="load",
                )  # fmt: skip
                shift = f" + {start}" if a.causal else ""
                jump = f" + {start} * {row_b}" if a.causal else ""
                step = call(tile, [
                    "1", length, "scratch", f"{left} + r * {a.width}{shift}", "0", b,
                    f"{at_b}{jump} + o", "0", to, f"{at} + (j0 + r) * {row} + o",
                ])  # fmt: skip
                lines += [p.loop(), *indent(step)]
            return lines

        note = f"# {to} += {left} @ {b}"
        also = self.x.ask_for_keys(to, f"to_{to[1]}", row, depth, write=True)
        return [note, *self.x.each_key([*tiles(a.rows), *also], [] if a.even else tiles(1))]

    def store(self) -> list[str]:
        if "dq" not in self.wanted:
            return []
        a = self.a
        acc = ("scratch", "acc", self.columns)
        return self.x.scaled("unit", acc, a.d, ("dq", "at_q", a.heads * a.d))
