"""Depthwise convolutions: one input channel a group, a few output channels each. Plain loops over
channels.

A register tile would use one lane in `lanes` here. Instead channels are the vectorised loop; the
taps of a pixel are written out where it touches no border. b holds w (KH, KW, 1, C * multiplier),
channel by channel.
"""

from __future__ import annotations

from nnjit.kernels import target
from nnjit.kernels.blocks import check_symbols, filled, grain, product, symbols_of, total
from nnjit.kernels.contraction import describe
from nnjit.kernels.geometry import Axis, Conv, forward_axis, gradient_axis
from nnjit.kernels.recipe import Epilogue, Recipe, Step
from nnjit.kernels.template import Template, indent

WRITTEN_OUT = 25  # taps of a kernel up to which a pixel is one expression
# variables of these kernels, which no symbol may be called
NAMES = (
    "lo hi tid a b bias mask residual y v t n h top left r r0 R u u0 U j c s x k out part row p i d"
)


def is_depthwise(conv: Conv, dtype: str) -> bool:
    """One input channel a group, and fewer outputs than would fill a vector."""
    return conv.groups > 1 and conv.CG == 1 and target.lanes(dtype) > conv.OG


def depthwise(name: str, conv: Conv, dtype: str, epilogue: Epilogue) -> Recipe:
    """The forward pass: a = x, b = w."""
    rows = forward_axis(conv.HO, conv.KH, conv.stride[0], conv.padding[0][0], conv.dilation[0])
    columns = forward_axis(conv.WO, conv.KW, conv.stride[1], conv.padding[1][0], conv.dilation[1])
    writer = Writer(conv, dtype, epilogue, False)
    doc = f"y = {describe(epilogue, 'depthwise conv(a, b)')} with a = x, b = w: {conv.describe()}"
    return writer.recipe(name, doc, rows, columns)


def depthwise_dx(name: str, conv: Conv, dtype: str, epilogue: Epilogue) -> Recipe:
    """The input gradient: a = dy, b = w."""
    rows = gradient_axis(conv.H, conv.KH, conv.stride[0], conv.padding[0][0], conv.dilation[0])
    columns = gradient_axis(conv.W, conv.KW, conv.stride[1], conv.padding[1][0], conv.dilation[1])
    writer = Writer(conv, dtype, epilogue, True)
    what = f"y = {describe(epilogue, 'dx')} of depthwise conv(x, w)"
    doc = f"{what} with a = dy, b = w: {conv.describe()}"
    return writer.recipe(name, doc, rows, columns)


class Writer:
    """Writes the loops of a depthwise correlation, forward or backward."""

    def __init__(self, conv: Conv, dtype: str, epilogue: Epilogue, backward: bool):
        self.conv, self.dtype, self.ep, self.backward = conv, dtype, epilogue, backward
        self.many = conv.OG
        c = conv
        self.H, self.W, self.C = (c.HO, c.WO, c.O) if backward else (c.H, c.W, c.C)
        self.HO, self.WO, self.O = (c.H, c.W, c.C) if backward else (c.HO, c.WO, c.O)

    def recipe(self, name: str, doc: str, rows: list[Axis], columns: list[Axis]) -> Recipe:
        c, ep = self.conv, self.ep
        body = ["for t in range(lo, hi):", f"    n = t // {self.HO}", f"    h = t - n * {self.HO}"]
        for axis in rows:
            lines = self.row(axis, columns)
            body += indent(
                [f"if h % {axis.step} == {axis.first}:", *indent(lines)] if axis.step > 1 else lines
            )
        body += indent(self.finish())
        symbols = check_symbols(name, symbols_of(c.batch), NAMES, ep.extra_params)
        params = ((n, self.dtype) for n in ("a", "b", *ep.inputs(), "y"))
        kernel = Template(
            name=name,
            doc=filled(f"{name}: {doc}; rows lo..hi of all images."),
            imports=ep.imports,
            symbols=symbols,
            params=(*params, *ep.extra_params),
            body=tuple(body),
            trip=product(c.batch, self.HO),
            grain=grain(2 * c.WO * c.O * c.KH * c.KW * 4),
        )
        roles = ("a", "b", *ep.inputs(), "out", *(n for n, _ in ep.extra_params))
        return Recipe((Step(kernel, roles),))

    def row(self, axis: Axis, columns: list[Axis]) -> list[str]:
        """One row of y: kernel rows r0..r0+R-1 fall on the image."""
        m = "h" if axis.step == 1 else f"h // {axis.step}"
        step = axis.tap_step
        lines = [
            f"top = {total(m if axis.in_step == 1 else f'{m} * {axis.in_step}', axis.in_first)}"
        ]
        lines += clip("r0", "R", "top", axis, self.H)
        for column in columns:
            lines += self.columns(axis, column, step)
        return lines

    def columns(self, axis: Axis, column: Axis, step: int) -> list[str]:
        """The columns of a class: those that touch no border at once, the others tap by tap."""
        ranges = [column.rows(self.W, 0, column.count, t) for t in range(column.taps)]
        lo = max([r[0] for r in ranges], default=0)
        hi = max(lo, min([r[1] for r in ranges], default=0))
        lines = []
        for start, end in ((0, lo), (hi, column.count)):
            if start < end:
                lines += [
                    f"for j in range({start}, {end}):",
                    *indent(self.border_pixel(axis, column, step)),
                ]
        if lo == hi:
            return lines
        whole = axis.taps * column.taps <= WRITTEN_OUT
        middle = self.inner_pixel(axis, column, whole)
        return [*lines, f"for j in range({lo}, {hi}):", *indent(middle)]

    def place(self, column: Axis) -> list[str]:
        left = total("j" if column.in_step == 1 else f"j * {column.in_step}", column.in_first)
        x = total("j" if column.step == 1 else f"j * {column.step}", column.first)
        return [f"left = {left}", f"out = (t * {self.WO} + {x}) * {self.O}"]

    def kernel(self, axis: Axis, tap: str, last: int) -> tuple[int, str, int]:
        """(first, text, step): the kernel index of a tap; gradients count it from the end."""
        if self.backward:
            first, step = last - axis.kernel_first, -axis.kernel_step
        else:
            first, step = axis.kernel_first, axis.kernel_step
        return first, total(first, f"{tap} * {step}"), step

    def border_pixel(self, axis: Axis, column: Axis, step: int) -> list[str]:
        """A pixel of which some kernel columns fall outside."""
        c = self.conv
        _, row, _ = self.kernel(axis, "r", c.KH - 1)
        _, col, _ = self.kernel(column, "u", c.KW - 1)
        inner = [
            f"x = (n * {self.H} + top + r * {step}) * {self.W} + left + u * {column.tap_step}",
            f"x = x * {self.C}",
            f"k = (({row}) * {c.KW} + {col}) * {c.O}",
            *self.channels([("x", "k")], True),
        ]
        return [
            *self.place(column),
            *self.start(),
            *clip("u0", "U", "left", column, self.W),
            "for r in range(r0, r0 + R):",
            "    for u in range(u0, u0 + U):",
            *indent(inner, 2),
        ]

    def inner_pixel(self, axis: Axis, column: Axis, whole: bool) -> list[str]:
        """A pixel with all kernel columns: one expression if all kernel rows are there too, else
        row by row.
        """
        c = self.conv
        first, _, step = self.kernel(column, "u", c.KW - 1)
        taps = [
            (u * column.tap_step * self.C, (first + u * step) * c.O) for u in range(column.taps)
        ]
        _, row, _ = self.kernel(axis, "r", c.KH - 1)
        by_row = [
            *self.start(),
            "for r in range(r0, r0 + R):",
            f"    x = ((n * {self.H} + top + r * {axis.tap_step}) * {self.W} + left) * {self.C}",
            f"    k = ({row}) * {c.KW * c.O}",
            *indent(self.channels([(total("x", i), total("k", k)) for i, k in taps], True)),
        ]
        if not whole:
            return [*self.place(column), *by_row]
        first, _, step = self.kernel(axis, "r", c.KH - 1)
        both = [
            (
                total("x", r * axis.tap_step * self.W * self.C + i),
                str((first + r * step) * c.KW * c.O + k),
            )
            for r in range(axis.taps)
            for i, k in taps
        ]
        at_once = [
            f"x = ((n * {self.H} + top) * {self.W} + left) * {self.C}",
            *self.channels(both, False),
        ]
        if axis.inside(self.H):
            return [*self.place(column), *at_once]
        return [
            *self.place(column),
            f"if R == {axis.taps}:",
            *indent(at_once),
            "else:",
            *indent(by_row),
        ]

    def start(self) -> list[str]:
        """y starts as zero or the bias."""
        value = "bias[c]" if self.ep.bias else f"{self.dtype}(0)"
        return [f"for c in range({self.O}):", f"    y[out + c] = {value}"]

    def channels(self, taps: list[tuple[str, str]], add: bool) -> list[str]:
        """The loop over channels that adds these taps, places in a and b, to y or starts it."""
        many, outer = self.many, self.conv.C
        one = many == 1
        narrow, wide = "c", "c" if one else "s"
        to, of = (narrow, wide) if self.backward else (wide, narrow)
        first = f"y[out + {to}]" if add else f"bias[{to}]" if self.ep.bias else f"{self.dtype}(0)"
        sums = [f"v += a[{i} + {of}] * b[{k} + {wide}]" for i, k in taps]
        if one:
            inner = [f"v = {first}", *sums, f"y[out + {to}] = v"]
        elif self.backward:
            inner = [
                f"v = {first}",
                f"for s in range(c * {many}, c * {many} + {many}):",
                *indent(sums),
                "y[out + c] = v",
            ]
        else:
            inner = [
                f"for s in range(c * {many}, c * {many} + {many}):",
                *indent([f"v = {first}", *sums, "y[out + s] = v"]),
            ]
        return [f"for c in range({outer}):", *indent(inner)]

    def finish(self) -> list[str]:
        """The final and the tail over the row of y, while it is in L1."""
        ep, zero = self.ep, f"{self.dtype}(0)"
        lines = {
            "mask": [f"v = v if mask[out + c] > {zero} else {zero}"],
            "add": ["v = v + residual[out + c]"],
            "add_relu": ["v = v + residual[out + c]"],
        }.get(ep.final, [])
        if ep.final.endswith("relu"):
            lines = [*lines, f"v = {zero} if v < {zero} else v"]
        if lines:
            lines = ["v = y[out + c]", *lines, "y[out + c] = v"]
        if ep.tail:
            lines = [*lines, *ep.tail("out + c", "c")]
        if not lines:
            return []
        return [
            f"for j in range({self.WO}):",
            f"    out = (t * {self.WO} + j) * {self.O}",
            f"    for c in range({self.O}):",
            *indent(lines, 2),
        ]


def clip(first: str, count: str, at: str, axis: Axis, size: int) -> list[str]:
    """Lines for the taps first..first+count-1 of an axis that fall inside when tap 0 reads `at`."""
    if not axis.taps:
        return [f"{first} = {count} = 0"]
    step = axis.tap_step
    low, high = (
        (f"-{at}", f"{size} - {at}")
        if step == 1
        else (f"-({at} // {step})", f"({size - 1} - {at}) // {step} + 1")
    )
    return [f"{first} = max(0, {low})", f"{count} = min({axis.taps}, {high}) - {first}"]
