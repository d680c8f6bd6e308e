"""Kernels that turn bfloat16 into float32 and back, for contractions without pairs of their own."""

from __future__ import annotations

from nnjit.kernels.blocks import Dim, symbols_of
from nnjit.kernels.packing import panel_name
from nnjit.kernels.recipe import Step
from nnjit.kernels.template import Template

GRAIN = 16384  # elements worth a chunk


def converted(stem: str, size: Dim, source: str, to: str, args: tuple[str, str]) -> Step:
    """The second of `args` = the first in the other dtype: f4 to b2, or b2 to f4."""
    function = "bf16_round" if to == "b2" else "bf16_load"
    name = f"{stem}_{panel_name(size, vectors=1, dtype=to).replace('_v1', '')}"
    template = Template(
        name=name,
        doc=f"{name}: dst[i] = {function}(src[i]) of {size} elements.",
        imports=(f"from nnjit.kernels.bf16 import {function}",),
        symbols=symbols_of(size),
        params=(("src", source), ("dst", to)),
        body=("for i in range(lo, hi):", f"    dst[i] = {function}(src[i])"),
        trip=size,
        grain=GRAIN,
    )
    return Step(template, args)
