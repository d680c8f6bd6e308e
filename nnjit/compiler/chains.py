"""Chains: launches that the samples of a batch pass through one after the other, some at a time.

Between two points where a step needs the whole batch there are launches in which each sample needs
only its own pieces of what the launches before have made (`compiler.walks`). Launch by launch, a
piece has left the cache before it is read; as a chain, whoever takes some samples runs all launches
on them. Limits are those of samples, and shares of sums stay whole, so results are the same bits.

What a chain is follows from the launches, so its buffers live as long as it runs; how many samples
are taken at a time, and which of its launches are worth it, follows from the extents.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from nnjit.compiler.groups import NOMINAL, Buffer, Launch, number
from nnjit.compiler.walks import SHARES, SYMBOL, in_pieces
from nnjit.spec import symbols_of

#: bytes of buffers that a unit may use: half of a common L2
FIT = 512 * 1024
#: ... where shares of sums make units larger: what is still much nearer than memory
MOST = 4 << 20
#: bytes of buffers from which a chain is worth it: less stays in L2 anyway
WORTH = 2 << 20
#: bytes that a step needs at once from which its chains are: less stays in a common L3, and is read
#: from there as fast as kernels called sample by sample would cost
FAR = 32 << 20
#: units that a chain has at least, so that threads are busy alike; of single samples fewer will do
UNITS, FEWEST = 16, 8
#: bytes that launches share for each sample, if they are to be a chain
SHARED = 4096
#: what a chain may need of the memory that the step needs anyway
ROOM = 1.02
#: launches that a chain is looked for in
AHEAD = 32
#: launches of a chain: what they use lives through all of it, so longer ones need more memory
LONG = 4


@dataclass(frozen=True)
class Chain:
    """The launches of a plan from `first` on, `count` of them."""

    first: int
    count: int

    @property
    def last(self) -> int:
        return self.first + self.count - 1


# ------------------------------------------------------------------------------------ what they are
def find(
    launches: Sequence[Launch], outputs: Collection[Buffer] = ()
) -> tuple[list[Launch], tuple[Chain, ...]]:
    """The launches with those of each chain next to each other, and the chains. outputs: what is
    kept to the end. None where a batch of NOMINAL samples would stay in L3.
    """
    if peak(spans(launches, outputs)) < FAR:
        return list(launches), ()
    out: list[Launch] = []
    chains: list[Chain] = []
    rest = list(launches)
    while rest:
        before, members, after = gather(rest)
        if len(members) > 1:
            out += before
            chains.append(Chain(len(out), len(members)))
            out += members
            rest[: len(before) + len(members) + len(after)] = after
        else:
            out.append(rest.pop(0))
    return out, affordable(out, chains, outputs)


def affordable(
    launches: Sequence[Launch], chains: Sequence[Chain], outputs: Collection[Buffer]
) -> tuple[Chain, ...]:
    """The chains, or parts of them, for which the memory of the step is enough: what a chain uses
    lives as long as all of it, where launches by themselves would reuse it.
    """
    known = spans(launches, outputs)

    def live(first: int, last: int) -> int:
        return sum(size for size, born, dies in known if born <= last and first <= dies)

    most = ROOM * peak(known)
    out: list[Chain] = []
    for chain in chains:
        first = chain.first
        while first < chain.last:
            last = chain.last
            while last > first and live(first, last) > most:
                last -= 1
            if last > first:
                out.append(Chain(first, last - first + 1))
            first = last + 1
    return tuple(out)


def spans(launches: Sequence[Launch], outputs: Collection[Buffer]) -> list[tuple[int, int, int]]:
    """Of each work buffer its nominal bytes and the first and last launch that needs it."""
    lives: dict[Buffer, tuple[int, int]] = {}
    for i, x in enumerate(launches):
        for b in x.touched:
            if b.kind == "work":
                lives[b] = (lives[b][0] if b in lives else i, i)
    lives |= {b: (lives[b][0], len(launches)) for b in outputs if b in lives}
    return [(nominal(b), *life) for b, life in lives.items()]


def peak(known: Collection[tuple[int, int, int]]) -> int:
    """The most bytes that are needed at once, of (bytes, first launch, last launch)."""
    change = [0] * (max((last for _, _, last in known), default=0) + 2)
    for size, first, last in known:
        change[first] += size
        change[last + 1] -= size
    return max(itertools.accumulate(change))


def nominal(b: Buffer) -> int:
    """Bytes of a buffer; symbols count as NOMINAL."""
    names = symbols_of(b.spec.dims)
    return 0 if b.elements else b.nbytes(dict.fromkeys(names, NOMINAL))


def gather(launches: Sequence[Launch]) -> tuple[list[Launch], list[Launch], list[Launch]]:
    """A chain that begins with the first launch: what can run before it, the chain itself, and
    those of the launches seen that must run after it.

    It ends with a launch that walks the samples, but needs what has to wait for the whole batch or
    shares too little with the chain.
    """
    first, *others = launches[:AHEAD]
    before: list[Launch] = []
    members = [first]
    after: list[Launch] = []
    seen = 1
    tail = 0  # launches behind the last member, at the end of `before` and `after`
    for launch in others if first.walk else ():
        free = not any(conflict(x, launch) for x in after)
        if launch.walk:
            if not (free and joins(members, launch) and len(members) < LONG):
                break
            members.append(launch)
            tail = 0
        elif free and not any(conflict(x, launch) for x in members):
            before.append(launch)
            tail += 1
        else:
            after.append(launch)
            tail += 1
        seen += 1
    behind = set(launches[seen - tail : seen])
    return (
        [x for x in before if x not in behind],
        in_turn(members),
        [x for x in after if x not in behind],
    )


def conflict(a: Launch, b: Launch) -> bool:
    """Whether b must stay behind a."""
    return bool(
        set(a.written).intersection(b.touched) or set(b.written).intersection(a.touched)
    )  # fmt: skip


def joins(members: Sequence[Launch], launch: Launch) -> bool:
    """Whether a launch that walks the samples can be the next of a chain, and gains by it."""
    earlier = {b for x in members for b in x.touched}
    written = {b for x in members for b in x.written}
    both = [b for b in launch.touched if b in earlier and b.kind != "scratch"]
    if any(not in_pieces(b) for b in both if b in written or b in launch.written):
        return False
    return sum(map(piece_bytes, both)) >= SHARED


def piece_bytes(b: Buffer) -> int:
    """Bytes of a sample's piece; other symbols count as 1."""
    return b.nbytes(dict.fromkeys(symbols_of(b.spec.dims), 1)) if in_pieces(b) else 0


def in_turn(members: Sequence[Launch]) -> list[Launch]:
    """The members with sums last, of most shares first, since those of few shares need many samples
    at a time; a chain can then do without them.
    """
    out: list[Launch] = []
    for x in members:
        at = len(out)
        while at and rank(out[at - 1]) > rank(x) and not conflict(out[at - 1], x):
            at -= 1
        out.insert(at, x)
    return out


def rank(x: Launch) -> float:
    """Where a launch would stand in its chain."""
    return -float(x.trip) if x.walk == SHARES else -math.inf


# --------------------------------------------------------------------------------- how they are run
@dataclass(frozen=True)
class Link:
    """Launches of a chain that run together, `samples` at a time. steps: the trip indices of a unit
    of each.
    """

    first: int
    samples: int
    units: int
    steps: tuple[int, ...]


def links(
    chain: Chain, launches: Sequence[Launch], trips: Sequence[int], extents: Mapping[str, int]
) -> list[Link]:
    """The parts of a chain that are worth it for these extents. trips: those of all launches."""
    batch = extents.get(SYMBOL, 0)
    out: list[Link] = []
    first = chain.first
    while batch and first < chain.last:
        found = None
        for end in range(first + 2, chain.last + 2):
            tried = link(first, launches[first:end], trips[first:end], batch, extents)
            if tried is None:
                break
            found = tried
        if found is not None:
            out.append(found)
        first += len(found.steps) if found is not None else 1
    return out


def link(
    first: int, members: Sequence[Launch], trips: Sequence[int], batch: int,
    extents: Mapping[str, int],
) -> Link | None:  # fmt: skip
    """These launches as one link; None where no number of samples at a time is good."""
    least, unit = 1, 1
    for x, trip in zip(members, trips, strict=True):
        if x.walk == SHARES:
            unit = math.lcm(unit, batch // math.gcd(trip, batch))
        else:
            grain = number(x.template.grain, extents)
            least = max(least, -(-grain * batch // max(trip, 1)))
    used = {b for x in members for b in x.touched if b.kind != "scratch" and in_pieces(b)}
    total = sum(b.nbytes(extents) for b in used)
    if total < WORTH:
        return None
    most = min(FIT * batch // total, batch // (2 * UNITS))
    samples = -(-max(least, most // unit * unit) // unit) * unit
    units = -(-batch // samples)
    if units < max(FEWEST, min(UNITS, batch)) or total * samples > MOST * batch:
        return None
    steps = tuple([trip * samples // batch for trip in trips])
    return Link(first, samples, units, steps)
