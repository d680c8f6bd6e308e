"""2-D convolutions on channels-last images: the forward pass and the input gradient, as
correlations by the tile.

Tile rows are output columns; the reduction runs over kernel rows (clipped when running), kernel
columns (taps, clipped in the text) and channels. Nothing is padded, copied or unfolded. Groups are
loops around it; where a group has one input channel and few outputs, see `depthwise`. Weight
gradients: `convolution_grad`.
"""

from __future__ import annotations

from nnjit.kernels import target, winograd
from nnjit.kernels.blocks import choose, lanes_of, product
from nnjit.kernels.contraction import describe, matmul_template
from nnjit.kernels.correlation import Correlation, correlate
from nnjit.kernels.depthwise import depthwise, depthwise_dx, is_depthwise
from nnjit.kernels.geometry import Conv, forward_axis, gradient_axis
from nnjit.kernels.packing import pack, pack_transposed, packed_size
from nnjit.kernels.recipe import PLAIN, Epilogue, Recipe, Step
from nnjit.kernels.template import Template

PACK_BYTES = 1024  # rows of w from this size are packed: their addresses fall into few cache sets


def conv2d(
    name: str, conv: Conv, *, dtype: str = "f4", epilogue: Epilogue = PLAIN, out: str = ""
) -> Recipe:
    """y = conv(a, b) with a = x and b = w. Roles: a, b, bias, mask or residual, out, the epilogue's
    extra params.

    out: the dtype code of y; b2 of a float32 convolution that is not `is_depthwise` or pointwise,
    without a tail.
    """
    if conv.pointwise:
        pixels = product(conv.batch, conv.H * conv.W)
        return matmul_template(name, pixels, conv.O, conv.C, dtype=dtype, epilogue=epilogue)
    if is_depthwise(conv, dtype):
        return depthwise(name, conv, dtype, epilogue)
    what = forward_doc(conv, epilogue)
    if winograd.fits(conv, dtype):
        return winograd.forward(name, conv, dtype, epilogue, what, dtype, out or dtype)
    c = forward_correlation(conv, dtype, epilogue, out or dtype)
    main = correlate(name, c, what)
    depth = conv.KH * conv.KW * conv.C
    if not c.packed:
        return Recipe((Step(main, roles(False, epilogue, c.rounds)),))
    first = Step(pack(depth, conv.O, c.vectors, dtype), ("b", "packed_b"))
    temps = {"packed_b": (packed_size(depth, conv.O, dtype), dtype)}
    return Recipe((first, Step(main, roles(True, epilogue, c.rounds))), temps)


def forward_doc(conv: Conv, epilogue: Epilogue) -> str:
    return f"y = {describe(epilogue, 'conv(a, b)')} with a = x, b = w: {conv.describe()}"


def forward_correlation(conv: Conv, dtype: str, epilogue: Epilogue, out: str) -> Correlation:
    """The forward pass as a correlation; for dtype b2 over pairs of channels."""
    pairs = dtype == "b2"
    rows = forward_axis(conv.HO, conv.KH, conv.stride[0], conv.padding[0][0], conv.dilation[0])
    columns = forward_axis(conv.WO, conv.KW, conv.stride[1], conv.padding[1][0], conv.dilation[1])
    most, vectors = choose(conv.WO, conv.OG, dtype, exact=True)
    width = vectors * lanes_of(dtype)
    size = 4 if pairs else target.itemsize(dtype)
    packed = conv.groups == 1 and conv.O * size >= PACK_BYTES and width < conv.O
    C = conv.C // 2 if pairs else conv.C
    return Correlation(
        conv.batch, conv.H, conv.W, C, conv.HO, conv.WO, conv.O, conv.KH, conv.KW, conv.groups,
        tuple(rows), tuple(columns), packed, dtype, most, vectors, epilogue, out,
    )  # fmt: skip


def conv2d_dx(
    name: str, conv: Conv, *, dtype: str = "f4", epilogue: Epilogue = PLAIN, out: str = ""
) -> Recipe:
    """dx, the gradient for the input, with a = dy and b = w; positions that no kernel reaches get
    zeros (+ bias).

    Roles: a, b, bias, mask or residual (laid out like x), out, the epilogue's extra params. out: as
    in `conv2d`.
    """
    if conv.pointwise:
        pixels = product(conv.batch, conv.H * conv.W)
        return matmul_template(
            name, pixels, conv.C, conv.O, transpose_b=True, dtype=dtype, epilogue=epilogue
        )
    if is_depthwise(conv, dtype):
        return depthwise_dx(name, conv, dtype, epilogue)
    what = gradient_doc(conv, epilogue)
    if winograd.fits(conv, dtype):
        return winograd.backward(name, conv, dtype, epilogue, what, dtype, out or dtype)
    c = gradient_correlation(conv, dtype, epilogue, out or dtype)
    first, size = turned_weights(conv, c.vectors, dtype)
    main = Step(correlate(name, c, what), roles(True, epilogue, c.rounds))
    return Recipe((Step(first, ("b", "packed_b")), main), {"packed_b": (size, dtype)})


def gradient_doc(conv: Conv, epilogue: Epilogue) -> str:
    what = describe(epilogue, "dx")
    return f"y = {what} of conv(x, w) with a = dy, b = w: {conv.describe()}"


def gradient_correlation(conv: Conv, dtype: str, epilogue: Epilogue, out: str) -> Correlation:
    """The input gradient as a correlation; for dtype b2 over pairs of channels."""
    rows = gradient_axis(conv.H, conv.KH, conv.stride[0], conv.padding[0][0], conv.dilation[0])
    columns = gradient_axis(conv.W, conv.KW, conv.stride[1], conv.padding[1][0], conv.dilation[1])
    most, vectors = choose(max(axis.count for axis in columns), conv.CG, dtype, exact=True)
    O = conv.O // 2 if dtype == "b2" else conv.O  # noqa: E741
    return Correlation(
        conv.batch, conv.HO, conv.WO, O, conv.H, conv.W, conv.C, conv.KH, conv.KW, conv.groups,
        tuple(rows), tuple(columns), True, dtype, most, vectors, epilogue, out,
    )  # fmt: skip


def turned_weights(conv: Conv, vectors: int, dtype: str) -> tuple[Template, int]:
    """w turned around and transposed, packed in panels; and its size."""
    planes = conv.KH * conv.KW
    first = pack_transposed(
        conv.OG, conv.CG, vectors, dtype,
        planes=planes, plane_stride=conv.CG * conv.O, leading=conv.O,
        copies=conv.groups, copy_stride=conv.OG,
    )  # fmt: skip
    size = product(conv.groups, packed_size(planes * conv.OG, conv.CG, dtype))
    assert isinstance(size, int)
    return first, size


def roles(packed: bool, epilogue: Epilogue, rounds: bool = False) -> tuple[str, ...]:
    """What the main kernel takes, in the order of its params."""
    extra = (n for n, _ in epilogue.extra_params)
    return ("a", "packed_b" if packed else "b", *epilogue.inputs(), "out", *extra,
            *["scratch"] * rounds)  # fmt: skip
