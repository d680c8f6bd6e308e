"""Pooling kernels over images in NHWC: text templates, for windows of any size, stride and padding.

Padding is never materialised: windows are clipped at the border, so padded positions neither win a
maximum nor (unless asked) count in a mean. All inner loops run over channels. The trip count is
rows of the result, so chunks are free.
"""

from __future__ import annotations

from nnjit.kernels.blocks import Dim
from nnjit.kernels.template import Template
from nnjit.kernels.window_text import (
    UNROLL,
    Padding,
    Pair,
    at,
    covered_grad,
    forward_body,
    pooled_rows,
    tiled_grad,
    window_of,
)


def max_pool(
    n: Dim,
    h: int,
    w: int,
    c: int,
    window: Pair,
    strides: Pair | None = None,
    padding: Padding = ((0, 0), (0, 0)),
    dtype: str = "f4",
    with_index: bool = True,
) -> Template:
    """y and, with_index, the position inside the window (row * kw + column) of the maximum.

    x (n, h, w, c) -> y (n, ho, wo, c), index of the same shape: u1, or i4 for windows above 256.
    The first maximum wins; a NaN wins over all, the last one if there are several. strides defaults
    to the window. dtype b2: bfloat16, compared as f4.
    """
    g = window_of(h, w, c, window, strides, padding)
    index, code = g.index_code, "f4" if dtype == "b2" else dtype
    store = [f"    y[b + c] = {'bf16_round(best)' if dtype == 'b2' else 'best'}"]
    store += ["    index[b + c] = where"] if with_index else []

    def value_of(element: str) -> str:
        return f"bf16_load({element})" if dtype == "b2" else element

    def take(position: str, element: str) -> list[str]:
        value = value_of(element)
        if not with_index:
            return [f"    best = maximum_{code}(best, {value})"]
        lines = [
            f"    v = {value}",
            f"    t = overtakes_{code}(v, best)",
            "    best = v if t else best",
        ]
        return [*lines, f"    where = {index}({position}) if t else where"]

    whole: list[str] = []
    if g.kh * g.kw <= UNROLL:
        whole = [f"for c in range({c}):", f"    best = {value_of('x[a + c]')}"]
        whole += [f"    where = {index}(0)"] if with_index else []
        for k in range(1, g.kh * g.kw):
            whole += take(str(k), f"x[{at('a', (k // g.kw * w + k % g.kw) * c)}]")
        whole += store
    origin = f"x[a + p0 * {w * c} + q0 * {c} + c]"
    first = [f"for c in range({c}):", f"    y[b + c] = {origin}"]
    tap = [f"for c in range({c}):", f"    best = {value_of('y[b + c]')}"]
    if with_index:
        first += [f"    index[b + c] = {index}(p0 * {g.kw} + q0)"]
        tap += ["    where = index[b + c]"]
    tap += [*take(f"p * {g.kw} + q", "x[e + c]"), *store]
    helper = f"overtakes_{code}" if with_index else f"maximum_{code}"
    imports = [f"from nnjit.kernels.math import {helper}"] if g.kh * g.kw > 1 else []
    imports += ["from nnjit.kernels.bf16 import bf16_load, bf16_round"] if dtype == "b2" else []
    params = [("x", dtype), ("y", dtype)] + ([("index", index)] if with_index else [])
    return Template(
        name=f"max_pool_{'index_' if with_index else ''}{g.label}_{dtype}",
        doc=f"""Maximum over each window: {g.words}.
x (n, {h}, {w}, {c}) -> y (n, {g.ho}, {g.wo}, {c}); rows lo..hi of n * {g.ho} result rows.""",
        imports=tuple(imports),
        params=tuple(params),
        body=tuple(forward_body(g, whole, first, tap, [])),
        **pooled_rows(n, g.ho, g.wo * c),
    )


def avg_pool(
    n: Dim,
    h: int,
    w: int,
    c: int,
    window: Pair,
    strides: Pair | None = None,
    padding: Padding = ((0, 0), (0, 0)),
    dtype: str = "f4",
    count_include_pad: bool = False,
) -> Template:
    """The mean of each window: x (n, h, w, c) -> y (n, ho, wo, c).

    Padded positions are zeros that do not count, unless count_include_pad. strides defaults to the
    window.
    """
    g = window_of(h, w, c, window, strides, padding)
    counted = ", padding counted" if count_include_pad else ""
    whole: list[str] = []
    if g.kh * g.kw <= UNROLL:
        terms = [f"x[{at('a', (k // g.kw * w + k % g.kw) * c)}]" for k in range(g.kh * g.kw)]
        whole = [
            f"for c in range({c}):",
            f"    s = {terms[0]}",
            *(f"    s += {t}" for t in terms[1:]),
        ]
        whole += [f"    y[b + c] = s * {dtype}({1 / (g.kh * g.kw)!r})"]
    first = [f"for c in range({c}):", f"    y[b + c] = {dtype}(0)"]
    tap = [f"for c in range({c}):", "    y[b + c] += x[e + c]"]
    count = f"{g.kh * g.kw}" if count_include_pad else "(p1 - p0) * (q1 - q0)"
    last = [
        f"scale = {dtype}(1) / {dtype}({count})",
        f"for c in range({c}):",
        "    y[b + c] *= scale",
    ]
    return Template(
        name=f"avg_pool_{'pad_' if count_include_pad else ''}{g.label}_{dtype}",
        doc=f"""Mean over each window: {g.words}{counted}.
x (n, {h}, {w}, {c}) -> y (n, {g.ho}, {g.wo}, {c}); rows lo..hi of n * {g.ho} result rows.""",
        imports=(),
        params=(("x", dtype), ("y", dtype)),
        body=tuple(forward_body(g, whole, first, tap, last)),
        **pooled_rows(n, g.ho, g.wo * c),
    )


def max_pool_grad(
    n: Dim,
    h: int,
    w: int,
    c: int,
    window: Pair,
    strides: Pair | None = None,
    padding: Padding = ((0, 0), (0, 0)),
    dtype: str = "f4",
    relu_mask: bool = False,
) -> Template:
    """dx (n, h, w, c) from dy and index (n, ho, wo, c): each window's gradient goes to its maximum.

    Every element of dx is written. dtype b2 only where the windows lie side by side (bfloat16 is
    moved, not added). relu_mask also reads y and lets a gradient through only where y
    > 0: the gradient of max_pool(relu(x)) without relu's own kernel. Parameters: dy, index, y with
    relu_mask, dx.
    """
    g = window_of(h, w, c, window, strides, padding)
    load = [
        f"d = dy[b + c] if y[b + c] > {dtype}(0) else {dtype}(0)" if relu_mask else "d = dy[b + c]"
    ]
    load += ["q = index[b + c]"]
    if g.tiles and g.kh * g.kw <= UNROLL:
        body = tiled_grad(g, dtype, load, f"d if q == {{k}} else {dtype}(0)")
        rows = g.ho
    else:
        position = [f"k = (r - i * {g.sh}) * {g.kw} + w - j * {g.sw}"]
        body = covered_grad(g, dtype, position, load, f"d if q == k else {dtype}(0)")
        rows = h
    of = " of a ReLU" if relu_mask else ""
    params = [
        ("dy", dtype),
        ("index", g.index_code),
        *([("y", dtype)] if relu_mask else []),
        ("dx", dtype),
    ]
    return Template(
        name=f"max_pool_{'relu_' if relu_mask else ''}grad_{g.label}_{dtype}",
        doc=f"""Gradient of the maximum over each window{of}: {g.words}.
dy, index (n, {g.ho}, {g.wo}, {c}) -> dx (n, {h}, {w}, {c}); lo..hi of n * {rows} rows.""",
        imports=(),
        params=tuple(params),
        body=tuple(body),
        **pooled_rows(n, rows, h * w * c // rows),
    )


def avg_pool_grad(
    n: Dim,
    h: int,
    w: int,
    c: int,
    window: Pair,
    strides: Pair | None = None,
    padding: Padding = ((0, 0), (0, 0)),
    dtype: str = "f4",
    count_include_pad: bool = False,
) -> Template:
    """dx (n, h, w, c) from dy (n, ho, wo, c): each window's gradient is shared by its positions.

    Every element of dx is written. See avg_pool for count_include_pad.
    """
    g = window_of(h, w, c, window, strides, padding)
    scale = f"{dtype}({1 / (g.kh * g.kw)!r})"
    counted = ", padding counted" if count_include_pad else ""
    if g.tiles and g.kh * g.kw <= UNROLL:
        body, rows = tiled_grad(g, dtype, [f"d = dy[b + c] * {scale}"], "d"), g.ho
    else:
        before = [f"scale = {scale}"]
        if g.clipped and not count_include_pad:
            inside_h = f"(min({g.h + g.top}, i * {g.sh} + {g.kh}) - max({g.top}, i * {g.sh}))"
            inside_w = f"(min({g.w + g.left}, j * {g.sw} + {g.kw}) - max({g.left}, j * {g.sw}))"
            before = [f"count = {inside_h} * {inside_w}", f"scale = {dtype}(1) / {dtype}(count)"]
        body, rows = covered_grad(g, dtype, before, [], "dy[b + c] * scale"), h
    return Template(
        name=f"avg_pool_{'pad_' if count_include_pad else ''}grad_{g.label}_{dtype}",
        doc=f"""Gradient of the mean over each window: {g.words}{counted}.
dy (n, {g.ho}, {g.wo}, {c}) -> dx (n, {h}, {w}, {c}); lo..hi of n * {rows} rows.""",
        imports=(),
        params=(("dy", dtype), ("dx", dtype)),
        body=tuple(body),
        **pooled_rows(n, rows, h * w * c // rows),
    )
