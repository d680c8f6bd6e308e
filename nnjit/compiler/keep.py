"""What a step makes of parameters that it leaves as they are: packed, transformed, rounded weights.

Launches that read nothing else need to run only after a parameter has changed. What they write gets
memory that nothing else is put into: buffers of kind "kept".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from nnjit.compiler.groups import Buffer, Launch
from nnjit.compiler.plan import Strip
from nnjit.graph import PARAMETER


def keep(launches: Sequence[Launch], strips: Sequence[Strip]) -> dict[Buffer, Buffer]:
    """The work buffers that last from run to run, each with the kept one that takes its place."""
    writers = Counter(b for x in launches for b in x.written)
    apart = {b for s in strips for b in s.offsets}
    kept: dict[Buffer, Buffer] = {}

    def lasts(b: Buffer) -> bool:
        parameter = b.kind == "store" and b.node is not None and b.node.op is PARAMETER
        return b in kept or b.kind in ("constant", "scratch") or (parameter and b not in writers)

    for launch in launches:
        written = launch.written
        alone = all(
            b.kind == "work" and writers[b] == 1 and b not in apart and steady(b) for b in written
        )
        fixed = not launch.template.symbols and isinstance(launch.trip, int)
        if alone and fixed and all(lasts(b) for b in launch.touched if b not in written):
            kept |= {b: replace(b, kind="kept") for b in written}
    return kept


def steady(b: Buffer) -> bool:
    """Whether its size is known before a run."""
    return not b.elements and isinstance(b.spec.nbytes, int)


def with_kept(launches: Sequence[Launch], kept: Mapping[Buffer, Buffer]) -> list[Launch]:
    """The launches with kept buffers in their places."""
    return [
        replace(
            x,
            buffers=tuple(kept.get(b, b) for b in x.buffers),
            members=tuple(with_kept(x.members, kept)),
        )
        for x in launches
    ]
