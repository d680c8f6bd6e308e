"""Merging the updates of neighbouring parameters into one launch.

An optimizer writes the same flat kernel for every parameter. Where parameters and their slots lie
one behind the other in the store, at the same distances, one launch can run over all of them; their
gradients are then given places at the same distances (a strip). The gaps between two buffers are
run over too: nobody reads them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from nnjit.compiler.groups import Buffer, Launch
from nnjit.compiler.plan import Strip, align
from nnjit.spec import DTYPES

Layout = Mapping[str, tuple[int, int]]  # leaf name -> (block, byte offset)


def merge_updates(
    launches: Sequence[Launch], layout: Layout, pinned: set[Buffer]
) -> tuple[list[Launch], list[Strip]]:
    """Launches with runs of equal updates merged, and the strips that this asks for.

    pinned: work buffers that must stay where they are (outputs).
    """
    families: dict[tuple, list[int]] = {}
    for i, launch in enumerate(launches):
        if mergeable(launch, layout):
            t = launch.template
            scalars = tuple(b for b in launch.buffers if b.spec.size == 1)
            families.setdefault((t.name, t.body, t.params, scalars), []).append(i)
    out: list[Launch | None] = list(launches)
    strips: list[Strip] = []
    used = set(pinned)
    for members in families.values():
        for run in runs(members, launches, layout, used):
            last = max(run)
            if any(disturbs(launches, run, i) for i in range(min(run), last) if i not in run):
                continue
            strips += strips_of([launches[i] for i in run], layout)
            used |= {b for i in run for b in launches[i].buffers if b.kind == "work"}
            for i in run:
                out[i] = None
            out[last] = merged([launches[i] for i in run], layout)
    return [launch for launch in out if launch is not None], strips


def mergeable(launch: Launch, layout: Layout) -> bool:
    """A flat update of store buffers of one size in bytes, reading scalars, the store and work
    buffers.
    """
    if not launch.flat or launch.template.symbols or not launch.writes:
        return False
    for i, b in enumerate(launch.buffers):
        if b.spec.size == 1 and i not in launch.writes:
            continue
        if b.spec.size != launch.template.trip or b.kind not in ("store", "work"):
            return False
        if b.kind == "store" and b.name not in layout:
            return False
        if b.kind == "work" and i in launch.writes:
            return False
    sizes = {DTYPES[b.spec.dtype] for b in launch.buffers if b.spec.size != 1}
    return len(sizes) == 1 and any(launch.buffers[i].kind == "store" for i in launch.writes)


def anchors(launch: Launch, layout: Layout) -> list[tuple[int, int]]:
    """(block, offset) of each store buffer that is not a scalar."""
    return [layout[b.name] for b in launch.buffers if b.kind == "store" and b.spec.size != 1]


def nbytes(launch: Launch) -> int:
    b = next(b for b in launch.buffers if b.spec.size != 1)
    assert isinstance(b.spec.nbytes, int)
    return b.spec.nbytes


def runs(
    members: list[int], launches: Sequence[Launch], layout: Layout, used: set[Buffer]
) -> list[list[int]]:
    """Longest runs of launches whose store buffers are neighbours in every block."""
    free = [
        i for i in members if not any(b in used for b in launches[i].buffers if b.kind == "work")
    ]
    free.sort(key=lambda i: anchors(launches[i], layout))
    out: list[list[int]] = []
    taken: set[Buffer] = set()
    for i in free:
        gradients = {b for b in launches[i].buffers if b.kind == "work" and b.spec.size != 1}
        if out and not gradients & taken and follows(launches[out[-1][-1]], launches[i], layout):
            out[-1].append(i)
        else:
            out.append([i])
        taken |= gradients
    return [run for run in out if len(run) > 1]


def follows(first: Launch, second: Launch, layout: Layout) -> bool:
    step = align(nbytes(first))
    pairs = zip(anchors(first, layout), anchors(second, layout), strict=True)
    return all(a[0] == b[0] and a[1] + step == b[1] for a, b in pairs)


def disturbs(launches: Sequence[Launch], run: Sequence[int], i: int) -> bool:
    """Does launch i, which stands between members, touch what a member before it writes, or write
    what such a member reads? The member would then run too late.
    """
    before = [launches[k] for k in run if k < i]
    written = {b for launch in before for b in launch.written}
    read = {b for launch in before for b in launch.touched}
    return bool(written.intersection(launches[i].touched) or read.intersection(launches[i].written))


def strips_of(members: Sequence[Launch], layout: Layout) -> list[Strip]:
    """A strip for each parameter of the kernel that is a work buffer."""
    start = anchors(members[0], layout)[0][1]
    where = [anchors(m, layout)[0][1] - start for m in members]
    out = []
    for k, b in enumerate(members[0].buffers):
        if b.kind == "work" and b.spec.size != 1:
            offsets = {m.buffers[k]: at for m, at in zip(members, where, strict=True)}
            out.append(Strip(offsets, where[-1] + nbytes(members[-1])))
    return out


def merged(members: Sequence[Launch], layout: Layout) -> Launch:
    """One launch over all members' memory."""
    first, last = members[0], members[-1]
    step = DTYPES[next(b for b in first.buffers if b.spec.size != 1).spec.dtype]
    span = anchors(last, layout)[0][1] - anchors(first, layout)[0][1] + nbytes(last)
    scopes = tuple(dict.fromkeys(s for m in members for s in m.scopes))
    flops = tuple(f for m in members for f in m.flops)
    return replace(
        first, scopes=scopes, flops=flops, members=tuple(members), merged_trip=span // step
    )
