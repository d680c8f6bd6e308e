"""Which template computes a contraction Node, and with which sizes."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING

from nnjit import config
from nnjit.compiler.cpu.text import int_of, text_of
from nnjit.graph import Node
from nnjit.kernels import target
from nnjit.kernels.contraction import matmul_template
from nnjit.kernels.recipe import Epilogue, Recipe
from nnjit.kernels.target import CODES
from nnjit.spec import product

if TYPE_CHECKING:
    from nnjit.kernels.geometry import Conv


MOST = 512  # recipes that are remembered
_made: dict[Hashable, Recipe] = {}


Codes = tuple[str, str, str]  # dtype codes in memory: of both operands and the result


def recipe_of(n: Node, name: str, epilogue: Epilogue, codes: Codes, steady: bool) -> Recipe:
    """The kernels of one contraction Node; equal Nodes, as of equal layers, share one recipe.

    steady: the second operand is the same in many runs.
    """
    tail = None if epilogue.tail is None else tuple(epilogue.tail("q", "j"))
    key = (
        name, n.op, n.spec, *(x.spec for x in n.inputs), repr(n.attrs), epilogue.bias,
        epilogue.final, tail, epilogue.extra_params, epilogue.imports, epilogue.beside, codes,
        epilogue.apart,
        target.vector_bits(), target.multiplies_pairs(), target.multiplies_blocks(),
        target.splits_floats(), config.winograd(), steady,
    )  # fmt: skip
    if key not in _made:
        if len(_made) >= MOST:
            _made.clear()
        _made[key] = (
            matmul(n, name, epilogue, codes, steady)
            if n.op.name == "matmul"
            else convolution(n, name, epilogue, codes)
        )
    return _made[key]


def matmul(n: Node, name: str, epilogue: Epilogue, codes: Codes, steady: bool) -> Recipe:
    """The kernels of a product."""
    a = n.inputs[0]
    rows, columns = n.shape[-2:]
    depth = a.shape[-2] if n.attrs["transpose_a"] else a.shape[-1]
    batch = text_of(product(n.shape[:-2])) if n.rank > 2 else None
    return matmul_template(
        name, text_of(rows), text_of(columns), text_of(depth),
        transpose_a=n.attrs["transpose_a"], transpose_b=n.attrs["transpose_b"],
        dtype=CODES[a.dtype], batch=batch, epilogue=epilogue,
        stored=codes if a.dtype == "bfloat16" else ("", "", ""), steady_b=steady,
    )  # fmt: skip


def convolution(n: Node, name: str, epilogue: Epilogue, codes: Codes) -> Recipe:
    """The kernels of a convolution or one of its gradients; imported for graphs that have any."""
    conv, code = conv_of(n), CODES[n.dtype]
    if n.inputs[0].dtype == "bfloat16":
        from nnjit.kernels import convolution_pairs

        kernels = getattr(convolution_pairs, n.op.name)
        return kernels(name, conv, stored=codes, epilogue=epilogue)
    from nnjit.kernels.convolution import conv2d, conv2d_dx
    from nnjit.kernels.convolution_grad import conv2d_dw

    if n.op.name == "conv2d":
        return conv2d(name, conv, dtype=code, epilogue=epilogue)
    if n.op.name == "conv2d_dx":
        return conv2d_dx(name, conv, dtype=code, epilogue=epilogue)
    return conv2d_dw(name, conv, dtype=code)


def conv_of(n: Node) -> Conv:
    """The geometry of a convolution Node, whichever of the three it is."""
    from nnjit.kernels.geometry import Conv

    first, second = n.inputs
    if n.op.name == "conv2d":
        batch, h, w, c = first.shape
        kh, kw, _, o = second.shape
    elif n.op.name == "conv2d_dx":
        batch, h, w, c = n.shape
        kh, kw, _, o = second.shape
    else:
        batch, h, w, c = first.shape
        kh, kw, _, o = n.shape
    sizes = [int_of(d) for d in (h, w, c, o, kh, kw)]
    return Conv(
        text_of(batch), sizes[0], sizes[1], sizes[2], sizes[3], sizes[4], sizes[5],
        n.attrs["strides"], n.attrs["padding"], n.attrs["dilation"], n.attrs["groups"],
    )  # fmt: skip
