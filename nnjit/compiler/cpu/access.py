"""Where an operand lies in memory, seen from a loop nest; and loops collapsed where all operands
allow it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from nnjit.compiler.cpu.text import dim_text, sum_text, times
from nnjit.graph import Node
from nnjit.spec import Dim, product


def strides(shape: Sequence[Dim]) -> list[Dim]:
    """Elements between neighbours along each axis of a contiguous value."""
    return [product(shape[i + 1 :]) for i in range(len(shape))]


@dataclass
class Access:
    """Flat index = sum(coefs[axis] * loop variable of axis) + offset; pins: (axis, text with {0}
    for its variable).

    guards are conditions, texts with {0} for the variable of their axis, under which the element
    exists.
    """

    coefs: dict[int, Dim] = field(default_factory=dict)
    offset: list[Dim] = field(default_factory=list)
    pins: list[tuple[int, str]] = field(default_factory=list)
    guards: list[tuple[int, str]] = field(default_factory=list)

    @property
    def axes(self) -> set[int]:
        """Domain axes that the index depends on."""
        return {a for a, c in self.coefs.items() if c != 0} | self.pinned

    @property
    def pinned(self) -> set[int]:
        """Axes whose own variable the text needs, so that they cannot be collapsed with others."""
        return {a for a, _ in self.pins} | {a for a, _ in self.guards}


def plain(shape: Sequence[Dim], axes: Sequence[int]) -> Access:
    """A contiguous value whose axes are these domain axes."""
    out = Access()
    for axis, step in zip(axes, strides(shape), strict=True):
        if axis >= 0:
            out.coefs[axis] = step
    return out


def through_view(view: Node, axes: Sequence[int]) -> Access:
    """The buffer of a slice's, pad's or flip's input, seen from loops over the view."""
    out = Access()
    shape = view.inputs[0].shape
    for k, (axis, step) in enumerate(zip(axes, strides(shape), strict=True)):
        if view.op.name == "slice":
            start, stride = view.attrs["starts"][k], view.attrs["steps"][k]
            if start:
                out.offset.append(times(start, step))
            if axis >= 0:
                out.coefs[axis] = times(stride, step)
        elif view.op.name == "flip":
            turned = k in view.attrs["axes"]
            if turned:
                out.offset += [times(shape[k], step), times(-1, step)]
            if axis >= 0:
                out.coefs[axis] = times(-1 if turned else 1, step)
        else:
            pad_axis(out, axis, view.attrs["widths"][k], shape[k], step)
    return out


def pad_axis(out: Access, axis: int, widths: tuple[int, int, int], extent: Dim, step: Dim) -> None:
    """Index arithmetic of one axis of a pad: low, high and interior zeros."""
    low, high, interior = widths
    if not (low or high or interior):
        if axis >= 0:
            out.coefs[axis] = step
        return
    if axis < 0:  # the padded extent is 1: there is one element (interior does nothing), or none
        if low or high:
            out.guards.append((axis, "False"))
        return
    gap = interior + 1
    end = [times(extent, gap), low - interior]  # one beyond the last element
    if low or high:
        stop = f" < {index_sum(end)}" if high else ""
        out.guards.append((axis, f"{low} <= {{0}}{stop}" if low else f"{{0}}{stop}"))
    if interior:
        back = f"({{0}} - {low})" if low else "{0}"
        out.guards.append((axis, f"{back} % {gap} == 0"))
        out.pins.append((axis, f"{back} // {gap}" + (f" * {dim_text(step)}" if step != 1 else "")))
        return
    out.coefs[axis] = step
    if low:
        out.offset.append(times(-low, step))


@dataclass(frozen=True)
class Loop:
    """One loop: its variable, its extent, and the domain axes that it runs over (the last one
    varies fastest).
    """

    name: str
    extent: Dim
    axes: tuple[int, ...]
    reduced: bool = False


def collapse(
    domain: Sequence[Dim], accesses: Sequence[Access], inner: set[int], names: str = "ijklmnopqr"
) -> list[Loop]:
    """The fewest loops over the domain: neighbours merge where every operand is contiguous across
    them.

    Axes in `inner` are reduced; they never merge with others.
    """
    pinned = {a for access in accesses for a in access.pinned}
    runs: list[list[int]] = []
    for axis, extent in enumerate(domain):
        if extent == 1:
            continue
        if runs:
            last = runs[-1][-1]
            fits = last not in pinned and axis not in pinned and (last in inner) == (axis in inner)
            if fits and all(
                acc.coefs.get(last, 0) == times(acc.coefs.get(axis, 0), extent) for acc in accesses
            ):
                runs[-1].append(axis)
                continue
        runs.append([axis])
    return [
        Loop(names[k], product([domain[a] for a in run]), tuple(run), run[0] in inner)
        for k, run in enumerate(runs)
    ]


def offset_terms(offset: Sequence[Dim]) -> list[tuple[str, Dim]]:
    """Constants as terms of a sum, the numbers added up."""
    number = sum(d for d in offset if isinstance(d, int))
    return [*(("", d) for d in offset if not isinstance(d, int)), ("", number)]


def index_sum(offset: Sequence[Dim]) -> str:
    """The sum of constants as text."""
    return sum_text(offset_terms(offset))


def index_text(access: Access, loops: Sequence[Loop]) -> str:
    """The flat index as text over the loops' variables."""
    terms: list[tuple[str, Dim]] = []
    for loop in loops:
        terms.append((loop.name, access.coefs.get(loop.axes[-1], 0)))
    text = sum_text([*terms, *offset_terms(access.offset)])
    for axis, form in access.pins:
        name = next(loop.name for loop in loops if axis in loop.axes)
        text = form.format(name) if text == "0" else f"{text} + {form.format(name)}"
    return text


def guard_text(access: Access, loops: Sequence[Loop]) -> str:
    """The condition under which the element exists, '' if always."""
    out = []
    for axis, form in access.guards:
        name = next((loop.name for loop in loops if axis in loop.axes), "0")
        out.append(form.format(name))
    return " and ".join(out)


def depth(access: Access, loops: Sequence[Loop]) -> int:
    """How many loops must be open before the index is known."""
    used = access.axes
    return max((k + 1 for k, loop in enumerate(loops) if used & set(loop.axes)), default=0)
