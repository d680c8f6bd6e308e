"""The program as text: launch, layers, kernel, buffers and trip count."""

from __future__ import annotations

from collections.abc import Sequence

from nnjit.compiler.groups import Buffer
from nnjit.compiler.plan import Arrangement, Plan


def listing(plan: Plan, rows: Sequence, a: Arrangement) -> str:
    """One line a launch, then the memory."""
    lines = [
        f"program {plan.name}: {len(rows)} launches, "
        + ", ".join(f"{k} = {v}" for k, v in a.extents.items())
    ]
    for k, row in enumerate(rows):
        launch = row.launch
        layers = ", ".join(launch.scopes) or "-"
        names = [
            ("*" if i in launch.writes else "") + place(b, a)
            for i, b in enumerate(launch.buffers)
        ]  # fmt: skip
        merged = f", {len(launch.members)} merged" if launch.members else ""
        stages = f" of each of {row.stages} stages" if row.stages > 1 else ""
        trip = f"trip {row.trip} in {row.chunks} chunk(s){stages}{merged}{chained(rows, k)}"
        lines.append(f"{k:4d}  {launch.template.name}  [{layers}]  {trip}  ({', '.join(names)})")
    kept = {b for x in plan.launches for b in x.written if b.kind == "kept"}
    lasting = f", {sum(b.nbytes({}) for b in kept)} bytes made of parameters alone" if kept else ""
    lines.append(
        f"work arena {a.work} bytes{lasting}, scratch {a.scratch} bytes a thread; * is written"
    )
    return "\n".join(lines)


def chained(rows: Sequence, k: int) -> str:
    """', chain of 3, 2 samples at a time' for the first launch of a chain, ', chained' for the
    others.
    """
    row = rows[k]
    if row.links:
        return f", chain of {row.links + 1}, {row.samples} sample(s) at a time"
    return ", chained" if row.samples else ""


def place(b: Buffer, a: Arrangement) -> str:
    """'conv2d/kernel' or 't12@4096:8192' (offset and bytes in the work arena)."""
    if b.kind != "work":
        return b.name
    return f"{b.name}@{a.offsets[b]}:{b.nbytes(a.extents)}"
