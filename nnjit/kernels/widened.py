"""Kernels that turn bfloat16 into float32 and back, for contractions without pairs of their own."""

from __future__ import annotations

from nnjit.kernels.blocks import Dim, symbols_of
from nnjit.kernels.packing import panel_name
from nnjit.kernels.recipe import Step
from nnjit.kernels.template import Template

GRAIN = 16384  # elements worth a chunk


def widened(role: str, size: Dim) -> Step:
    """wide_{role} = the float32 of bfloat16 operand `role`."""
    body = ("for i in range(lo, hi):", "    dst[i] = bf16_load(src[i])")
    return _step(f"pack_wide_{role}" if role == "b" else f"wide_{role}", size, body, "b2", "f4",
                 (role, f"wide_{role}"))  # fmt: skip


def rounded(role: str, size: Dim) -> Step:
    """The operand `role` = bfloat16 of the float32 in wide_{role}."""
    body = ("for i in range(lo, hi):", "    dst[i] = bf16_round(src[i])")
    return _step(f"round_{role}", size, body, "f4", "b2", (f"wide_{role}", role))


def _step(
    stem: str, size: Dim, body: tuple[str, ...], source: str, to: str, args: tuple[str, str]
) -> Step:
    name = f"{stem}_{panel_name(size, vectors=1, dtype=to).replace('_v1', '')}"
    function = body[1].split("= ")[1].split("(")[0]
    template = Template(
        name=name,
        doc=f"{name}: dst[i] = {function}(src[i]) of {size} elements.",
        imports=(f"from nnjit.kernels.bf16 import {function}",),
        symbols=symbols_of(size),
        params=(("src", source), ("dst", to)),
        body=body,
        trip=size,
        grain=GRAIN,
    )
    return Step(template, args)
