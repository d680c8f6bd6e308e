"""The weight gradient of a depthwise convolution: loops over channels, four pixels at a time."""

from __future__ import annotations

from nnjit.kernels.blocks import check_symbols, filled, symbols_of, total
from nnjit.kernels.depthwise import NAMES
from nnjit.kernels.geometry import Conv, forward_axis
from nnjit.kernels.partials import images_of, partial_count, reduce_step, zero_partial
from nnjit.kernels.recipe import Recipe, Step
from nnjit.kernels.template import Template, indent


def depthwise_dw(name: str, conv: Conv, dtype: str) -> Recipe:
    """The weight gradient: a = x, b = dy; partial sums over groups of images, then their sum."""
    size, count = conv.KH * conv.KW * conv.O, partial_count(conv, dtype)
    body = [
        "for p in range(lo, hi):",
        f"    part = p * {size}",
        *indent(zero_partial(size, dtype)),
        *indent(images_of(conv.batch, count)),
        *indent(dw_image(conv), 2),
    ]
    kernel = Template(
        name=name,
        doc=filled(
            f"{name}: partial sums y of dw of depthwise conv(x, w) with a = x, b = dy: "
            f"{conv.describe()}; {count} parts of the images, lo..hi of them."
        ),
        imports=(),
        symbols=check_symbols(name, symbols_of(conv.batch), NAMES),
        params=(("a", dtype), ("b", dtype), ("y", dtype)),
        body=tuple(body),
        trip=count,
    )
    return Recipe(
        (Step(kernel, ("a", "b", "parts")), reduce_step(size, count, dtype)),
        {"parts": (count * size, dtype)},
    )


def dw_image(c: Conv) -> list[str]:
    """One image: for each tap the products of the pixels it touches, four at a time."""
    many, wide = c.OG, "c" if c.OG == 1 else "s"
    lines: list[str] = []
    axis = forward_axis(c.WO, c.KW, c.stride[1], c.padding[1][0], c.dilation[1])[0]
    for u in range(c.KW):
        lo, hi = axis.rows(c.W, 0, c.WO, u)
        if lo == hi:
            continue
        left = axis.in_first + u * axis.tap_step
        for start, end, step in ((lo, hi - (hi - lo) % 4, 4), (hi - (hi - lo) % 4, hi, 1)):
            if start == end:
                continue
            terms = [
                f"a[{total('x + c', i * axis.in_step * c.C)}] * b[{total(f'd + {wide}', i * c.O)}]"
                for i in range(step)
            ]
            value = (
                f"({terms[0]} + {terms[1]}) + ({terms[2]} + {terms[3]})" if step == 4 else terms[0]
            )
            sums = [f"y[{total(f'k + {wide}', u * c.O)}] += {value}"]
            if many > 1:
                sums = [f"for s in range(c * {many}, c * {many} + {many}):", *indent(sums)]
            lines += [
                f"for j in range({start}, {end}, {step}):",
                f"    x = row + {total(f'j * {axis.in_step * c.C}', left * c.C)}",
                f"    d = t + j * {c.O}",
                f"    for c in range({c.C}):",
                *indent(sums, 2),
            ]
    (top, _), _ = c.padding
    h = f"h * {c.stride[0]}" if c.stride[0] > 1 else "h"
    return [
        f"for h in range({c.HO}):",
        f"    t = (n * {c.HO} + h) * {c.WO * c.O}",
        f"    for r in range({c.KH}):",
        f"        i = {total(h, f'r * {c.dilation[0]}' if c.dilation[0] > 1 else 'r', -top)}",
        f"        if 0 <= i < {c.H}:",
        f"            row = (n * {c.H} + i) * {c.W * c.C}",
        f"            k = part + r * {c.KW * c.O}",
        *indent(lines, 3),
    ]
