"""Attention as one kernel: online softmax over blocks of keys, for a block of queries at a time."""

from __future__ import annotations

import math

from nnjit.kernels.attention_text import NAMES, Attention, Text
from nnjit.kernels.blocks import check_symbols, filled, product, text
from nnjit.kernels.target import itemsize
from nnjit.kernels.template import Template, indent

KEYS = 128  # keys of a block: their scores stay in L1 beside the queries


def attention_forward(a: Attention, lse: bool = True) -> Template:
    """out (batch, queries, heads, dv), and lse (batch, queries, heads) if asked for.

    Trip: batch * heads * blocks of queries; each is done on its own.
    """
    x = Text(a)
    name = f"attention_{a.name}" + "_lse" * lse
    x.scratch.take("qt", a.columns(a.d) * a.width)
    x.scratch.take("st", max(KEYS, a.columns(a.d)) * a.width)
    x.scratch.take("acc", a.width * a.columns(a.dv))
    for part in ("top", "base", "shrink", "total", "unit"):
        x.scratch.take(part, a.width)
    inner = [
        *queries(a, x),
        f"for j0 in range(0, keys, {KEYS}):",
        f"    count = min({KEYS}, keys - j0)",
        *indent(keys(a, x)),
        *finish(a, x, lse),
    ]
    check_symbols(name, a.symbols, NAMES)
    functions = f"exp2_below_{a.dtype}" + f", log_{a.dtype}" * lse
    return Template(
        name=name,
        doc=filled(
            f"{name}: out = softmax({a.scale:.6g} * q @ k.T) @ v for each batch and head"
            f"\n{a.shapes()}; lo..hi: blocks of {a.width} queries of a head."
        ),
        imports=(
            "from math import inf", "", f"from nnjit.kernels.math import {functions}", *x.imports(),
        ),
        symbols=a.symbols,
        params=(
            ("q", a.dtype), ("k", a.dtype), ("v", a.dtype), *((("mask", "u1"),) if a.mask else ()),
            ("out", a.dtype), *((("lse", a.dtype),) if lse else ()), ("scratch", a.dtype),
        ),
        body=(*x.scratch.lines(), "for t in range(lo, hi):", *indent(inner)),
        trip=product(a.batch, a.heads, a.blocks),
        scratch=x.scratch.size * itemsize(a.dtype),
    )  # fmt: skip


def queries(a: Attention, x: Text) -> list[str]:
    """Which queries these are; scaled for exp2 and transposed; nothing is summed yet."""
    T, W = a.dtype, a.width
    own = "h" if a.group == 1 else f"h // {a.group}"
    return [
        f"w = t // {text(a.blocks)}",
        f"i0 = (t - w * {text(a.blocks)}) * {W}",
        f"n = w // {a.heads}",
        f"h = w - n * {a.heads}",
        f"rows = min({W}, {a.queries} - i0)",
        f"keys = {a.last_key()}",
        f"at_q = (n * {text(a.queries)} + i0) * {a.heads * a.d} + h * {a.d}",
        f"at_k = n * {text(product(a.keys, a.kv * a.d))} + {own} * {a.d}",
        f"at_v = n * {text(product(a.keys, a.kv * a.dv))} + {own} * {a.dv}",
        f"at_o = (n * {text(a.queries)} + i0) * {a.heads * a.dv} + h * {a.dv}",
        *next_head(a),
        "# q.T, scaled for powers of 2",
        f"scratch[unit] = {T}({a.scale / math.log(2)!r})",
        *x.pack("qt", "st", "unit", ("q", "at_q", a.heads * a.d), a.d),
        f"for j in range({W}):",
        f"    scratch[top + j] = -{T}(inf)",
        f"    scratch[base + j] = {T}(0.0)",
        f"    scratch[total + j] = {T}(0.0)",
        f"for j in range({W * a.columns(a.dv)}):",
        f"    scratch[acc + j] = {T}(0.0)",
    ]


def next_head(a: Attention) -> list[str]:
    """Where the operands of the next head lie: its rows are asked for on the way."""
    group = "" if a.group == 1 else f" // {a.group}"
    return [
        "# from here to the next head, whose rows are asked for on the way",
        f"r = min(w + 1, {text(product(a.batch, a.heads))} - 1)",
        f"j = r // {a.heads}",
        f"r = r % {a.heads}",
        f"to_q = at_q + (j - n) * {text(product(a.queries, a.heads * a.d))} + (r - h) * {a.d}",
        f"to_o = at_o + (j - n) * {text(product(a.queries, a.heads * a.dv))} + (r - h) * {a.dv}",
        f"to_k = j * {text(product(a.keys, a.kv * a.d))} + r{group} * {a.d}",
        f"to_v = j * {text(product(a.keys, a.kv * a.dv))} + r{group} * {a.dv}",
    ]


def keys(a: Attention, x: Text) -> list[str]:
    """One block of keys: scores, weights, and what they add to the result."""
    kd, vd, acc = a.kv * a.d, a.kv * a.dv, ("scratch", "acc", a.columns(a.dv))
    return [
        "# st: scores k @ q.T, keys x queries",
        *x.scores(
            "st", "qt", "k", f"at_k + j0 * {kd}", kd, a.d, x.ask_for_keys("k", "to_k", kd, a.d)
        ),
        *x.hide("st"),
        *softmax(a),
        "# acc = acc * shrink + st.T @ v",
        "if j0 > 0:",
        *indent(x.scaled("shrink + i", acc, a.dv, acc)),
        *x.from_keys("st", "v", f"at_v + j0 * {vd}", vd, a.dv, "acc", ahead(a, x)),
    ]


def ahead(a: Attention, x: Text) -> list[str]:
    """Prefetch rows of the next head, in a loop over tiles of queries: as many of v as of q."""
    vd, qd, od = a.kv * a.dv, a.heads * a.d, a.heads * a.dv
    lines = [
        *x.ask_for("v", f"to_v + (i0 + i) * {vd}", vd, a.dv),
        *x.ask_for("q", f"to_q + i * {qd}", qd, a.d),
        *x.ask_for("out", f"to_o + i * {od}", od, a.dv, write=True),
    ]
    return ["if j0 == 0:", *indent(lines)]


def softmax(a: Attention) -> list[str]:
    """Weights of this block against the largest score so far; what was summed before shrinks."""
    T, W = a.dtype, a.width
    at = f"scratch[st + r * {W} + j]"
    four = [f"scratch[st + (r + {k}) * {W} + j]" if k else at for k in range(4)]
    single = [
        "for r in range(count // 4 * 4, count):",
        f"    for j in range({W}):",
        f"        x = {at}",
        "        y = scratch[top + j]",
        "        scratch[top + j] = x if x > y else y",
    ]
    return [
        "# top: the largest score of each query so far",
        f"for j in range({W}):",
        "    scratch[shrink + j] = scratch[top + j]",
        "for r in range(0, count - 3, 4):",
        f"    for j in range({W}):",
        *(f"        {name} = {value}" for name, value in zip("xyce", four, strict=True)),
        "        x = x if x > y else y",
        "        c = c if c > e else e",
        "        x = x if x > c else c",
        "        y = scratch[top + j]",
        "        scratch[top + j] = x if x > y else y",
        *([] if a.even else single),
        f"for j in range({W}):",
        "    y = scratch[top + j]",
        f"    y = y if y != -{T}(inf) else {T}(0.0)",
        "    scratch[base + j] = y",
        f"    c = exp2_below_{T}(scratch[shrink + j] - y)",
        "    scratch[shrink + j] = c",
        "    scratch[total + j] *= c",
        "# st = 2 ** (st - top)",
        "for r in range(count):",
        f"    for j in range({W}):",
        f"        e = exp2_below_{T}({at} - scratch[base + j])",
        f"        {at} = e",
        "        scratch[total + j] += e",
    ]


def finish(a: Attention, x: Text, lse: bool) -> list[str]:
    """The result divided by the sum of weights; 0 where no key is seen."""
    T, acc = a.dtype, ("scratch", "acc", a.columns(a.dv))
    natural = [f"    scratch[top + j] = {T}({math.log(2)!r}) * scratch[base + j] + log_{T}(x)"]
    place = f"lse[(n * {text(a.queries)} + i0 + i) * {a.heads} + h]"
    return [
        "# out = acc / total",
        f"for j in range({a.width}):",
        "    x = scratch[total + j]",
        *(natural if lse else []),
        f"    scratch[total + j] = {T}(1.0) / x if x != {T}(0.0) else {T}(0.0)",
        *x.scaled("total + i", acc, a.dv, ("out", "at_o", a.heads * a.dv)),
        *(["for i in range(rows):", f"    {place} = scratch[top + i]"] if lse else []),
    ]
