"""Convolutions of bfloat16: products in pairs of channels, sums in float32, results of either.

Winograd's and the correlations of `convolution` take pairs as they lie in memory. Where channels do
not pair (an odd number, one per group) the operands become float32 first: they are rounded already,
so the arithmetic is the same. Operands may also come as float32 and are rounded here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from nnjit.kernels import convolution, convolution_grad, winograd
from nnjit.kernels.blocks import (
    Dim,
    check_symbols,
    filled,
    lanes_of,
    padded,
    panels,
    product,
    symbols_of,
)
from nnjit.kernels.contraction import matmul_template
from nnjit.kernels.contraction_sums import LEAST
from nnjit.kernels.convolution import roles
from nnjit.kernels.correlation import correlate
from nnjit.kernels.depthwise import is_depthwise
from nnjit.kernels.geometry import Conv
from nnjit.kernels.packing_pairs import pack_pairs
from nnjit.kernels.recipe import PLAIN, Epilogue, Recipe, Step
from nnjit.kernels.template import Template, indent
from nnjit.kernels.widened import converted
from nnjit.kernels.winograd_grad import fits_dw, weight_gradient

Stored = tuple[str, str, str]  # dtype codes of a, b and the result: b2 or f4
Make = Callable[[Epilogue, Stored], Recipe]


def conv2d(name: str, conv: Conv, *, stored: Stored, epilogue: Epilogue = PLAIN) -> Recipe:
    """`convolution.conv2d` of bfloat16; stored: what a, b and the result are in memory."""
    if conv.pointwise:
        pixels = product(conv.batch, conv.H * conv.W)
        return matmul_template(
            name, pixels, conv.O, conv.C, dtype="b2", epilogue=epilogue, stored=stored
        )

    def make(ep: Epilogue, codes: Stored) -> Recipe:
        return forward(name, conv, ep, codes)

    return complete(
        make, epilogue, stored, x_size(conv), product(conv.batch, conv.HO * conv.WO), conv.O
    )


def conv2d_dx(name: str, conv: Conv, *, stored: Stored, epilogue: Epilogue = PLAIN) -> Recipe:
    """`convolution.conv2d_dx` of bfloat16; stored: what a, b and the result are in memory."""
    if conv.pointwise:
        pixels = product(conv.batch, conv.H * conv.W)
        return matmul_template(
            name, pixels, conv.C, conv.O, transpose_b=True, dtype="b2", epilogue=epilogue,
            stored=stored,
        )  # fmt: skip

    def make(ep: Epilogue, codes: Stored) -> Recipe:
        return gradient(name, conv, ep, codes)

    return complete(
        make, epilogue, stored, y_size(conv), product(conv.batch, conv.H * conv.W), conv.C
    )


def conv2d_dw(name: str, conv: Conv, *, stored: Stored, epilogue: Epilogue = PLAIN) -> Recipe:
    """`convolution_grad.conv2d_dw` of bfloat16 x and dy; dw is float32."""
    if epilogue != PLAIN or stored[2] != "f4":
        raise ValueError(f"conv2d_dw: nothing follows it and it is float32, got {stored}")
    if conv.pointwise and min(conv.C, conv.O) >= LEAST:
        pixels = product(conv.batch, conv.H * conv.W)
        return matmul_template(
            name, conv.C, conv.O, pixels, transpose_a=True, dtype="b2", stored=stored
        )
    sizes = {"a": x_size(conv), "b": y_size(conv)}
    before: list[Step] = []
    temps: dict[str, tuple[Dim, str]] = {}
    renamed: dict[str, str] = {}

    def turned(role: str, code: str, to: str) -> None:
        stem = f"round_{'up' if to == 'f4' else 'down'}"
        source = renamed.get(role, role)
        renamed[role] = f"{to}_{role}"
        before.append(converted(stem, sizes[role], code, to, (source, renamed[role])))
        temps[renamed[role]] = (sizes[role], to)

    pairs = fits_dw(conv, "b2")
    read = ("b2", "b2") if pairs else convolution_grad.widens(conv)
    for role, code, reads in zip("ab", stored, read, strict=False):
        if code == "f4":
            turned(role, "f4", "b2")
        if reads == "f4":
            turned(role, "b2", "f4")
    recipe = (
        weight_gradient(name, conv, "b2")
        if pairs
        else convolution_grad.conv2d_dw(name, conv, stored=read)
    )
    steps = [Step(s.template, tuple(renamed.get(r, r) for r in s.args)) for s in recipe.steps]
    return Recipe((*before, *steps), {**temps, **recipe.temps})


def x_size(conv: Conv) -> Dim:
    return product(conv.batch, conv.H * conv.W * conv.C)


def w_size(conv: Conv) -> int:
    return conv.KH * conv.KW * conv.CG * conv.O


def y_size(conv: Conv) -> Dim:
    return product(conv.batch, conv.HO * conv.WO * conv.O)


def forward(name: str, conv: Conv, ep: Epilogue, stored: Stored) -> Recipe:
    """The forward pass of a bfloat16 x, without a tail if the result is bfloat16."""
    what, (_, weights, out) = convolution.forward_doc(conv, ep), stored
    if winograd.fits(conv, "b2"):
        return winograd.forward(name, conv, "b2", ep, what, weights, out)
    if conv.CG % 2 or is_depthwise(conv, "f4"):
        return widened(partial(convolution.conv2d, name, conv), conv, ep, stored,
                       (x_size(conv), w_size(conv), y_size(conv)))  # fmt: skip
    c = convolution.forward_correlation(conv, "b2", ep, out)
    depth = conv.KH * conv.KW * conv.CG
    first = pack_pairs(depth, conv.O, c.vectors if c.packed else 0, weights)
    size = depth // 2 * (padded(conv.O, lanes_of("b2")) if c.packed else conv.O)  # type: ignore[operator]
    main = Step(correlate(name, c, what), roles(True, ep))
    return Recipe((Step(first, ("b", "packed_b")), main), {"packed_b": (size, "u4")})


def gradient(name: str, conv: Conv, ep: Epilogue, stored: Stored) -> Recipe:
    """The input gradient from a bfloat16 dy, without a tail if the result is bfloat16."""
    what, (_, weights, out) = convolution.gradient_doc(conv, ep), stored
    if winograd.fits(conv, "b2"):
        return winograd.backward(name, conv, "b2", ep, what, weights, out)
    if conv.OG % 2 or is_depthwise(conv, "f4"):
        return widened(partial(convolution.conv2d_dx, name, conv), conv, ep, stored,
                       (y_size(conv), w_size(conv), x_size(conv)))  # fmt: skip
    c = convolution.gradient_correlation(conv, "b2", ep, out)
    turned, size = convolution.turned_weights(conv, c.vectors, "f4")
    pairs = pairs_in_panels(conv.KH * conv.KW * conv.OG, conv.CG, c.vectors, conv.groups)
    wide = weights_as_floats(conv, weights)
    return Recipe(
        (
            *wide,
            Step(turned, (wide[0].args[-1] if wide else "b", "turned_b")),
            Step(pairs, ("turned_b", "packed_b")),
            Step(correlate(name, c, what), roles(True, ep)),
        ),
        {
            **{step.args[-1]: (conv.KH * conv.KW * conv.CG * conv.O, "f4") for step in wide},
            "turned_b": (size, "f4"),
            "packed_b": (size // 2, "u4"),
        },
    )


def weights_as_floats(conv: Conv, weights: str) -> tuple[Step, ...]:
    """The step that makes float32 of weights that lie in memory as bfloat16."""
    return (
        (converted("pack_wide", w_size(conv), "b2", "f4", ("b", "wide_b")),)
        if weights == "b2"
        else ()
    )


def complete(
    make: Make, ep: Epilogue, stored: Stored, size: Dim, rows: Dim, channels: int,
) -> Recipe:  # fmt: skip
    """What `make` gives for a bfloat16 operand a and no tail on bfloat16; around it a step that
    rounds a of that size, and one for the tail over rows of channels.
    """
    a, weights, out = stored
    before: list[Step] = []
    after: list[Step] = []
    temps: dict[str, tuple[Dim, str]] = {}
    renamed: dict[str, str] = {}
    if a == "f4":
        before = [converted("round_a", size, "f4", "b2", ("a", "short_a"))]
        temps["short_a"], renamed["a"] = (size, "b2"), "short_a"
    if ep.tail is not None and out == "b2":
        after = [Step(tail_kernel(rows, channels, ep), tail_roles(ep))]
        temps["sums"], renamed["out"] = (product(rows, channels), "f4"), "sums"
        ep, out = replace(ep, tail=None, extra_params=(), imports=(), beside=beside(ep, out)), "f4"
    recipe = make(ep, ("b2", weights, out))
    steps = [Step(s.template, tuple(renamed.get(r, r) for r in s.args)) for s in recipe.steps]
    return Recipe((*before, *steps, *after), {**temps, **recipe.temps})


def beside(ep: Epilogue, out: str) -> str:
    return ep.beside or out


def tail_roles(ep: Epilogue) -> tuple[str, ...]:
    return ("out", *(n for n, _ in ep.extra_params), "sums")


def tail_kernel(rows: Dim, channels: int, ep: Epilogue) -> Template:
    """y (bfloat16) and the rest of the tail from the sums, which are where it expects scratch."""
    name = f"tail_{channels}"
    if ep.tail and any("COLUMN" in line for line in ep.tail("q + j", "COLUMN")):
        lines = ep.lines(f"t * {channels}", "", channels, f"t * {channels}")
        lines = ["for t in range(lo, hi):", *indent(lines)]
    else:  # one loop vectorises where many short ones do not
        first = f"lo * {channels}"
        lines = ep.lines(first, "", f"(hi - lo) * {channels}", first)
    return Template(
        name=name,
        doc=f"{name}: what follows a convolution, from its float32 sums; lo..hi: pixels.",
        imports=ep.imports,
        symbols=check_symbols(name, symbols_of(rows), "lo hi tid t q j at_sums y scratch",
                              ep.extra_params),
        params=(("y", "b2"), *ep.extra_params, ("scratch", "f4")),
        body=tuple(lines),
        trip=rows,
        grain=max(1, 8192 // channels),
    )  # fmt: skip


def widened(
    make: Callable[..., Recipe], conv: Conv, ep: Epilogue, stored: Stored,
    sizes: tuple[Dim, Dim, Dim],
) -> Recipe:  # fmt: skip
    """The float32 recipe after steps that make float32 of its operands; it rounds the result
    itself, but for a step of a depthwise one. sizes: elements of a, b and the result.
    """
    _, weights, out = stored
    before = [converted("round_up", sizes[0], "b2", "f4", ("a", "wide_a"))]
    temps: dict[str, tuple[Dim, str]] = {"wide_a": (sizes[0], "f4"), "wide_b": (sizes[1], "f4")}
    short = "b"
    if weights == "f4":
        short, temps["short_b"] = "short_b", (sizes[1], "b2")
        before.append(converted("pack_round", sizes[1], "f4", "b2", ("b", short)))
    before.append(converted("pack_wide", sizes[1], "b2", "f4", (short, "wide_b")))
    renamed, after = {"a": "wide_a", "b": "wide_b"}, []
    if ep.operand and beside(ep, out) == "b2":
        name = renamed[ep.operand] = f"wide_{ep.operand}"
        before.append(converted("round_up", sizes[2], "b2", "f4", (ep.operand, name)))
        temps[name] = (sizes[2], "f4")
    if out == "b2" and is_depthwise(conv, "f4"):
        out = "f4"
        renamed["out"], temps["wide_out"] = "wide_out", (sizes[2], "f4")
        after = [converted("round_result", sizes[2], "f4", "b2", ("wide_out", "out"))]
    recipe = make(epilogue=replace(ep, beside="f4" if ep.operand else ""), out=out)
    steps = [Step(s.template, tuple(renamed.get(r, r) for r in s.args)) for s in recipe.steps]
    return Recipe((*before, *steps, *after), {**temps, **recipe.temps})


def pairs_in_panels(depth: int, columns: int, vectors: int, copies: int) -> Template:
    """src: float32 packed in panels, `copies` times -> dst: the same of pairs of its rows. Trip:
    pairs of rows of all copies.
    """
    lanes, half = lanes_of("b2"), depth // 2
    wide = padded(columns, lanes)
    lines = [f"m, k = t // {half}, t % {half}"]
    for p in panels(columns, vectors, lanes):
        lines += [
            p.loop(),
            f"    d = m * {half * int(wide)} + o * {half} + k * {p.width}",
            f"    s = m * {depth * int(wide)} + o * {depth} + k * {2 * p.width}",
            f"    for j in range({p.width}):",
            f"        x, y = bf16_round(src[s + j]), bf16_round(src[s + {p.width} + j])",
            "        dst[d + j] = bf16_pair(x, y)",
        ]
    name = f"pack_pairs_in_panels_{copies}_{depth}_{columns}_v{vectors}"
    return Template(
        name=name,
        doc=filled(
            f"src {copies} x ({depth}, {columns}), float32 in panels -> dst: the panels of pairs "
            "of rows, as bfloat16; lo..hi: pairs of rows."
        ),
        imports=("from nnjit.kernels.bf16 import bf16_pair, bf16_round",),
        symbols=(),
        params=(("src", "f4"), ("dst", "u4")),
        body=("for t in range(lo, hi):", *indent(lines)),
        trip=copies * half,
        grain=max(1, 4096 // columns),
    )
