"""The weight gradient of a 2-D convolution: dw[kh, kw, c, o] = sum over pixels of x * dy.

Tile rows are input channels (with the kernel columns, or all of the kernel, where nothing is
padded), its reduction runs over the pixels of dy. Threads share the images: partial gradients, a
number fixed by the shape, are summed in order. A large gradient is cut into column panels and
kernel rows instead, and every unit reads all images.
"""

from __future__ import annotations

from dataclasses import replace

from nnjit.kernels import target
from nnjit.kernels.blocks import (
    Dim,
    Panel,
    Tiles,
    call,
    check_symbols,
    filled,
    product,
    symbols_of,
    total,
)
from nnjit.kernels.contraction import matmul_template
from nnjit.kernels.convolution_plan import (
    L2_BYTES,
    PIXELS,
    Plan,
    panel_count,
    plan,
    row_runs,
    rows_per_pass,
)
from nnjit.kernels.depthwise import is_depthwise
from nnjit.kernels.depthwise_grad import depthwise_dw
from nnjit.kernels.geometry import Conv
from nnjit.kernels.partials import images_of, partial_count, reduce_step, zero_partial
from nnjit.kernels.recipe import Recipe, Step
from nnjit.kernels.template import Template, indent
from nnjit.kernels.winograd_grad import fits_dw, weight_gradient

# bytes of dw, half of a common L2, from which it is cut instead of summed from parts
LARGE = 512 * 1024
# variables of these kernels, which no symbol may be called
NAMES = "lo hi tid a b y scratch t p part n g o i j r s h hh h0 w0 R kc image pad u copy at out"


def widens(conv: Conv) -> tuple[str, str]:
    """The dtype codes in which `conv2d_dw` of float32 can read x and dy: b2 or f4."""
    if conv.pointwise or is_depthwise(conv, "f4") or fits_dw(conv, "f4"):
        return "f4", "f4"
    p = plan(conv, "f4")
    if panelled(p):
        return "f4", "f4"
    return "b2" if p.copied else "f4", "b2" if 4 * y_pass(p) <= L2_BYTES else "f4"


def y_pass(p: Plan) -> int:
    """Elements of dy of a pass."""
    return rows_per_pass(p) * p.conv.WO * p.conv.O


def panelled(p: Plan) -> bool:
    """Whether dw is cut into panels instead of summed from parts."""
    c = p.conv
    size = c.KH * c.KW * c.CG * c.O * target.itemsize(p.dtype)
    return size > LARGE and p.kernel != "all" and not p.copied


def conv2d_dw(
    name: str, conv: Conv, *, dtype: str = "f4", stored: tuple[str, str] = ("", "")
) -> Recipe:
    """dw with a = x, b = dy; overwritten, with zeros if there is no image. Roles: a, b, out.

    stored: the dtype codes of a and b, `dtype` by default; b2 where `widens` says so.
    """
    if conv.pointwise and conv.H * conv.W < PIXELS:  # a pass of the tile would be short
        pixels = product(conv.batch, conv.H * conv.W)
        return matmul_template(name, conv.C, conv.O, pixels, transpose_a=True, dtype=dtype)
    if is_depthwise(conv, dtype):
        return depthwise_dw(name, conv, dtype)
    if fits_dw(conv, dtype):
        return weight_gradient(name, conv, dtype)
    a, b = (code or dtype for code in stored)
    p, tiles = replace(plan(conv, dtype), wide=b != dtype), Tiles(dtype)
    size = conv.KH * conv.KW * conv.CG * conv.O
    whole = panelled(p)
    count = 1 if whole else partial_count(conv, dtype)
    if whole:
        body, room = by_panels(p, tiles)
        trip = sum(panel_count(q) for q in p.panels()) * conv.groups * conv.KH
        how = "lo..hi: kernel rows of column panels."
    else:
        body, room, trip = by_parts(p, tiles, size, count, a), 0, count
        how = f"partial sums y over {count} parts of the images; lo..hi of them."
    if p.copied:
        room = -(-p.H * p.W * conv.C // 16) * 16
    pixels = y_pass(p) * p.wide
    if p.wide:
        body = [f"copy = {total(f'tid * {room + pixels}', room)}", *body]
    if p.copied:
        body = [
            f"pad = tid * {room + pixels}",
            f"for i in range({p.H * p.W * conv.C}):",
            f"    scratch[pad + i] = {dtype}(0)",
            *body,
        ]
    room += pixels
    operands = (("a", a), ("b", b), ("y", dtype), *[("scratch", dtype)] * (room > 0))
    loads = ("from nnjit.kernels.bf16 import bf16_load",) * ((a, b) != (dtype, dtype))
    kernel = Template(
        name=name,
        doc=filled(f"{name}: dw of conv(x, w) with a = x, b = dy: {conv.describe()};\n{how}"),
        imports=(*loads, *tiles.imports()),
        symbols=check_symbols(name, symbols_of(conv.batch), NAMES),
        params=operands,
        body=tuple(body),
        trip=trip,
        scratch=room * target.itemsize(dtype),
    )
    args = ("a", "b", "out" if whole else "parts") + ("scratch",) * (room > 0)
    if whole:
        return Recipe((Step(kernel, args),))
    steps = (Step(kernel, args), reduce_step(size, count, dtype))
    return Recipe(steps, {"parts": (count * size, dtype)})


def by_parts(p: Plan, tiles: Tiles, size: int, count: int, stored: str) -> list[str]:
    """Part after part: all of dw over some images, a few rows of an image at a time; stored: the
    dtype code of x.
    """
    c, rows = p.conv, rows_per_pass(p)
    body = []
    for panel in p.panels():
        body += [panel.loop(), *indent(blocks(p, tiles, panel))]
    if c.groups > 1:
        body = [f"for g in range({c.groups}):", *indent(body)]
    if p.kernel != "all":
        body = [f"for r in range({c.KH}):", *indent(kernel_row(p, rows, body))]
    elif rows < c.HO:
        body = [f"R = min({rows}, {c.HO} - hh)", *body]
    if p.wide:
        some = f"min({rows}, {c.HO} - hh) * {c.WO * c.O}"
        body = [
            f"out = n * {c.HO * c.WO * c.O}" + f" + hh * {c.WO * c.O}" * (rows < c.HO),
            f"for i in range({some if rows < c.HO else c.HO * c.WO * c.O}):",
            "    scratch[copy + i] = bf16_load(b[out + i])",
            *body,
        ]
    if rows < c.HO:
        body = [f"for hh in range(0, {c.HO}, {rows}):", *indent(body)]
    return [
        "for p in range(lo, hi):",
        f"    part = p * {size}",
        *indent(zero_partial(size, p.dtype)),
        *indent(images_of(c.batch, count)),
        *indent(image_start(p, stored) + body, 2),
    ]


def by_panels(p: Plan, tiles: Tiles) -> tuple[list[str], int]:
    """Unit after unit: one kernel row of one panel of dw over all images; (lines, scratch
    elements).

    The sums and the image's panel of dy lie together in scratch: rows of dw and dy may be a large
    power of two apart, where they would share a few sets of the caches.
    """
    c = p.conv
    count = sum(panel_count(q) for q in p.panels())
    width = max(q.width for q in p.panels())
    sums, pixels = c.KW * c.CG, c.HO * c.WO
    room = (sums + pixels) * width
    lines = [
        "for t in range(lo, hi):",
        f"    part = tid * {room}",
        f"    copy = part + {sums * width}",
        f"    r = t % {c.KH}",
        f"    u = t // {c.KH}",
    ]
    if c.groups > 1:
        lines = [*lines, f"    g = u // {count}", f"    u = u % {count}"]
    seen = 0
    for q in p.panels():
        column = f"g * {c.OG} + o" if c.groups > 1 else "o"
        zero = [f"for i in range({sums * q.width}):", f"    scratch[part + i] = {p.dtype}(0)"]
        panel = [
            f"for i in range({pixels}):",
            f"    for j in range({q.columns}):",
            f"        at = (n * {pixels} + i) * {c.O} + {column} + j",
            f"        scratch[copy + i * {q.width} + j] = b[at]",
        ]
        inner = image_start(p) + panel + kernel_row(p, c.HO, blocks(p, tiles, q, together=True))
        result = [
            f"for i in range({sums}):",
            f"    for j in range({q.columns}):",
            f"        at = (r * {sums} + i) * {c.O} + {column} + j",
            f"        y[at] = scratch[part + i * {q.width} + j]",
        ]
        lines += [
            f"    if {seen} <= u < {seen + panel_count(q)}:",
            f"        o = {total(q.first, f'(u - {seen}) * {q.width}')}",
            *indent(zero, 2),
            f"        for n in range({c.batch}):",
            *indent(inner, 3),
            *indent(result, 2),
        ]
        seen += panel_count(q)
    return lines, room


def image_start(p: Plan, stored: str = "") -> list[str]:
    """Where image n begins; a padded one with few channels is copied between its zeros."""
    element = f"a[(n * {p.conv.H} + h) * {p.conv.W * p.conv.C} + i]"
    c = p.conv
    if not p.copied:
        return [f"image = n * {c.H * c.W * c.C}"]
    top, left = c.padding[0][0], c.padding[1][0]
    return [
        f"for h in range({c.H}):",
        f"    for i in range({c.W * c.C}):",
        f"        at = pad + (h + {top}) * {p.W * c.C} + i + {left * c.C}",
        f"        scratch[at] = {f'bf16_load({element})' if stored == 'b2' else element}",
    ]


def kernel_row(p: Plan, rows: int, body: list[str]) -> list[str]:
    """Kernel row r: the rows h0..h0+R-1 of dy, of this pass, that it joins with the image; then its
    columns s.
    """
    c = p.conv
    first, last = ("hh", f"min({c.HO}, hh + {rows})") if rows < c.HO else ("0", str(c.HO))
    if not p.clipped:
        lines = [f"h0 = {first}", f"R = {last} - h0"]
        return [
            *lines,
            *(body if p.kernel == "columns" else [f"for s in range({c.KW}):", *indent(body)]),
        ]
    (sh, sw), (dh, dw) = c.stride, c.dilation
    row, col = (f"r * {dh}" if dh > 1 else "r"), (f"s * {dw}" if dw > 1 else "s")
    top, left = c.padding[0][0], c.padding[1][0]
    return [
        f"h0 = max({first}, ({top + sh - 1} - {row}) // {sh})",
        f"R = min({last}, ({c.H - 1 + top} - {row}) // {sh} + 1) - h0",
        f"for s in range({c.KW}):",
        f"    w0 = max(0, ({left + sw - 1} - {col}) // {sw})",
        f"    kc = min({c.WO}, ({c.W - 1 + left} - {col}) // {sw} + 1) - w0",
        "    if R > 0 and kc > 0:",
        *indent(body, 2),
    ]


def blocks(p: Plan, tiles: Tiles, panel: Panel, together: bool = False) -> list[str]:
    """The tiles of one panel: blocks of rows of dw at the kernel position (r, s), or over all of
    the kernel.

    together: dy and the sums of this kernel row are read and written in scratch, at `copy` and
    `part`, panel-wide.
    """
    c = p.conv
    sh, sw = c.stride
    every = p.kernel == "all"
    whole = rows_per_pass(p) >= c.HO
    h0 = ("0" if whole else "hh") if every else "h0"
    at_a, at_pixel = places(p, h0)
    width = panel.width if together else c.O
    column = f"g * {c.OG} + o" if c.groups > 1 else "o"
    rows: Dim = 0
    if not every:
        rows = f"r * {c.KW * c.CG}" if p.kernel == "columns" else f"(r * {c.KW} + s) * {c.CG}"
    at_b = f"(n * {c.HO * c.WO} + {at_pixel}) * {c.O} + {column}"
    if p.wide:
        pixel = "0" if every else at_pixel if whole else f"{at_pixel} - hh * {c.WO}"
        at_b = total("copy", f"({pixel}) * {c.O}" if pixel != "0" else "0", column)
    if together:
        rows = f"s * {c.CG}" if p.kernel == "none" else 0
        at_b = f"copy + ({at_pixel}) * {width}"
    lines = []
    for start, last, offsets in row_runs(p):
        size = len(offsets)
        name = tiles.get(
            size,
            panel,
            rows_a=offsets,
            rows_c=tuple(i * width for i in range(size)),
            step_a=sw * c.C,
            step_b=width,
            init="load",
            final="store",
        )
        shift = "i" if p.contiguous else p.offsets[start]
        at_y = total("part", f"({total(rows, 'i')}) * {width}", 0 if together else column)
        args = [
            str(c.HO) if every and whole else "R",
            "kc" if p.clipped else str(c.WO),
            "scratch" if p.copied else "a",
            total(at_a, shift),
            str(sh * p.W * c.C),
            "scratch" if together or p.wide else "b",
            at_b,
            str(c.WO * width),
            "scratch" if together else "y",
            at_y,
        ]
        lines += [f"for i in range({start}, {last + 1}, {size}):", *indent(call(name, args))]
    return lines


def places(p: Plan, h0: str) -> tuple[str, str]:
    """Where a tile starts in the image for its first row h0 of dy, and the pixel of dy."""
    c = p.conv
    (sh, sw), (dh, dw) = c.stride, c.dilation
    top, left = (c.padding[0][0], c.padding[1][0]) if p.clipped else (0, 0)
    row = "0" if h0 == "0" else f"{h0} * {sh}" if sh > 1 else h0
    kernel_row = "0" if p.kernel == "all" else f"r * {dh}" if dh > 1 else "r"
    col = (f"w0 * {sw}" if sw > 1 else "w0") if p.clipped else "0"
    kernel_col = (f"s * {dw}" if dw > 1 else "s") if p.kernel == "none" else "0"
    x = f"(({total(row, kernel_row, -top)}) * {p.W} + {total(col, kernel_col, -left)}) * {c.C}"
    group = f"g * {c.CG}" if c.groups > 1 else "0"
    pixel = total(f"{h0} * {c.WO}" if h0 != "0" else "0", "w0" if p.clipped else "0")
    return total("pad" if p.copied else "image", x, group), pixel
