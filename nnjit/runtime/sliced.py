"""A training step that runs on slices of the batch where the whole batch does not fit in cache.

The first batch decides: where what a step keeps is small, it is compiled as it is; else its parts
are (`compiler.slices`), and later batches, whatever their size, only change the number of slices.
How many there are follows from shapes alone, so results depend neither on threads nor on the
machine.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from nnjit.compiler.groups import Launch
from nnjit.compiler.plan import Arrangement, Plan, align
from nnjit.compiler.samples import NotSliceable
from nnjit.compiler.slices import (
    FIRST,
    Split,
    Work,
    contractions,
    kept_bytes,
    least_rows,
    split,
)
from nnjit.errors import ArgumentError
from nnjit.graph import Graph, Node
from nnjit.runtime import plan_cache
from nnjit.runtime.buffers import aligned
from nnjit.runtime.executable import Executable, build
from nnjit.runtime.store import Store

log = logging.getLogger("nnjit")

Go = Callable[[Executable, Mapping[str, np.ndarray]], Mapping[str, np.ndarray]]

AUTO = "auto"
#: bytes of work arena that a slice may have: half of a large cache
SLICE_BYTES = 16 << 20
#: ... or so many times the bytes of the sums, which every slice reads and writes
TIMES_SUMS = 1.0
#: bytes that a step keeps from which it is worth a look
LARGE = 3 * SLICE_BYTES


@dataclass(frozen=True, eq=False)
class Parts:
    """The compiled parts of a step, and the memory of its sums."""

    split: Split
    before: Executable | None
    body: Executable
    after: Executable
    sums: np.ndarray
    works: Sequence[Work]

    @property
    def executables(self) -> list[Executable]:
        return [x for x in (self.before, self.body, self.after) if x is not None]


class SlicedExecutable(Executable):
    """A step whole or in slices. slices: "auto", or how many from 2 on. reason: why it is whole."""

    def __init__(self, graph: Graph, store: Store, device: str, slices: int | str):
        super().__init__(graph, store)
        self.device, self.slices = device, slices
        self.decided: Executable | Parts | None = None
        self.reason = ""
        self.rows_found: dict[tuple[int, ...], int] = {}  # by extents

    # -- which variant
    @cached_property
    def whole(self) -> Executable:
        return build(self.graph, self.store, self.device)

    @cached_property
    def parts(self) -> Parts | None:
        """The parts, compiled; None where the graph has none, `reason` then says why."""
        try:
            found = split(self.graph)
        except NotSliceable as error:
            self.reason = str(error)
            if self.slices != AUTO:
                raise ArgumentError(f"batch_slices={self.slices}: {self.reason}") from None
            return None
        body_store, after_store, sums = with_sums(self.store, found.sums)
        parts = (found.before, self.store), (found.body, body_store), (found.after, after_store)
        made = [None if g is None else build(g, s, self.device) for g, s in parts]
        assert made[1] is not None
        assert made[2] is not None
        return Parts(
            found, made[0], made[1], made[2], sums, contractions(found.body, found.symbol)
        )  # fmt: skip

    def why_whole(self) -> str:
        """Why the graph has no parts; "" if it has."""
        return self.reason if self.parts is None else ""

    def variant(self, extents: Mapping[str, int]) -> Executable | Parts:
        """What runs a batch of these extents: what the first run decided, if there was one."""
        if self.decided is not None:
            return self.decided
        if self.slices == AUTO:
            if self.device == "interpret" or "batch" not in extents:
                return self.whole
            if kept_bytes(self.graph, extents) <= LARGE:
                self.reason = "what the step keeps is small"
                return self.whole
            self.reason = plan_cache.reason_whole(self.graph, self.why_whole)
            if self.reason:
                return self.whole
        parts = self.parts
        if parts is None:
            return self.whole
        if self.slices == AUTO and self.rows_of(parts, extents) >= extents[parts.split.symbol]:
            self.reason = "slices would not be faster"
            return self.whole
        return parts

    def rows_of(self, parts: Parts, extents: Mapping[str, int]) -> int:
        """The samples of a slice: of as few slices as fit in cache, but enough of them for fast
        products.
        """
        symbol = parts.split.symbol
        batch = max(1, extents[symbol])
        if isinstance(self.slices, int):
            return -(-batch // self.slices)
        key = tuple(extents.values())
        if key not in self.rows_found:
            budget = max(SLICE_BYTES, TIMES_SUMS * parts.sums.nbytes)
            low, high = 1, max(1, batch // least_rows(parts.works, extents, symbol))
            while low < high:
                middle = (low + high) // 2
                at = {**extents, symbol: -(-batch // middle)}
                fits = parts.body.arrange(**at).work <= budget
                low, high = (low, middle) if fits else (middle + 1, high)
            self.rows_found[key] = -(-batch // low)
        return self.rows_found[key]

    def in_slices(self, parts: Parts, extents: Mapping[str, int]) -> list[int]:
        """The samples of each slice."""
        batch, rows = extents[parts.split.symbol], self.rows_of(parts, extents)
        return [min(rows, batch - first) for first in range(0, batch, rows)]

    # -- running
    def run(self, inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
        if isinstance(self.decided, Executable):
            return self.decided.run(inputs)
        arrays, extents = self.check_inputs(inputs)
        with self.lock:
            parts = self.decide(extents)
            if isinstance(parts, Executable):
                return parts.run(arrays)
            return dict(self.each(parts, arrays, extents, lambda part, given: part.run(given)))

    def decide(self, extents: Mapping[str, int]) -> Executable | Parts:
        """The variant that runs from now on."""
        if self.decided is None:
            self.decided = self.variant(extents)
            log.debug("step %r, %s: %s", self.graph.name, dict(extents), self.describe(extents))
        return self.decided

    def each(
        self, parts: Parts, arrays: Mapping[str, np.ndarray], extents: Mapping[str, int], go: Go
    ) -> Mapping[str, np.ndarray]:
        """Let `go` run the parts, in order, with their inputs; what the last one gives."""
        known = {**arrays, **parts.split.numbers(extents)}
        if parts.before is not None:
            known |= go(parts.before, known)
        parts.sums[:] = 0
        first = 0
        for rows in self.in_slices(parts, extents):
            part = {name: arrays[name][first : first + rows] for name in parts.split.sliced}
            go(parts.body, {**known, **part, FIRST: np.array([first], np.int64)})
            first += rows
        return go(parts.after, known)

    def measure(self, inputs: Mapping[str, Any], steps: int) -> tuple[np.ndarray, Arrangement]:
        """As of the cpu device; the launches of all parts, one part after the other."""
        if self.device != "cpu":
            raise ArgumentError("profile: only device 'cpu' counts time per launch")
        arrays, extents = self.check_inputs(inputs)
        with self.lock:
            parts: Any = self.decide(extents)
            if isinstance(parts, Executable):
                return parts.measure(arrays, steps)  # type: ignore[attr-defined]
            counters: dict[Executable, Any] = {}

            def go(part: Any, given: Mapping[str, np.ndarray]) -> Any:
                counters[part] = counters.get(part, 0) + part.measure(given, 1)[0]
                return part.run(given) if part is parts.before else {}

            for _ in range(steps):
                self.each(parts, arrays, extents, go)
            return np.concatenate([counters[x] for x in parts.executables]), self.arrange(**extents)

    # -- looking inside
    def slices_text(self, extents: Mapping[str, int]) -> str:
        found = self.variant(extents)
        if isinstance(found, Executable):
            return ""
        sizes = self.in_slices(found, extents)
        many = "slice" if len(sizes) == 1 else "slices"
        return f"{len(sizes)} {many} of up to {max(sizes, default=0)} samples"

    def whole_text(self, extents: Mapping[str, int]) -> str:
        return "" if self.slices_text(extents) else self.reason

    def describe(self, extents: Mapping[str, int]) -> str:
        """The slices, or 'the whole batch' and why."""
        why = f" ({self.reason})" if self.reason else ""
        return self.slices_text(extents) or f"the whole batch{why}"

    def at(self, part: Executable, parts: Parts, extents: Mapping[str, int]) -> dict[str, int]:
        """The extents of a part: those of the first slice, of the whole batch, or none."""
        rows = max(self.in_slices(parts, extents), default=0)
        mine = {**extents, parts.split.symbol: rows} if part is parts.body else extents
        return {k: v for k, v in mine.items() if k in part.symbols}

    def arrange(self, **extents: int) -> Arrangement:
        """Where everything lies in a slice; `work`: the bytes of all parts."""
        found = self.variant(extents)
        if isinstance(found, Executable):
            return found.arrange(**extents)
        made = {x: x.arrange(**self.at(x, found, extents)) for x in found.executables}
        work = sum(a.work for a in made.values())
        scratch = max(a.scratch for a in made.values())
        return replace(made[found.body], extents=dict(extents), work=work, scratch=scratch)

    def rows(self, extents: Mapping[str, int]) -> list[Any]:
        """Trip counts and chunks; of a slice, where there are any."""
        found = self.variant(extents)
        if isinstance(found, Executable):
            return found.rows(extents)
        return [r for x in found.executables for r in x.rows(self.at(x, found, extents))]

    def launches(self, extents: Mapping[str, int]) -> Sequence[Launch]:
        found = self.variant(extents)
        if isinstance(found, Executable):
            return found.launches(extents)
        return [launch for x in found.executables for launch in x.launches(extents)]

    def listing(self, **extents: int) -> str:
        """The program of each part."""
        found = self.variant(extents)
        if isinstance(found, Executable):
            return found.listing(**extents)
        texts = [x.listing(**self.at(x, found, extents)) for x in found.executables]
        return "\n\n".join([self.describe(extents), *texts])

    def source(self) -> str:
        """Every kernel's text; before the first run, that of the whole step."""
        found = self.decided or self.whole
        if isinstance(found, Executable):
            return found.source()
        return "\n\n".join(x.source() for x in found.executables)

    def plan(self) -> Plan:
        """The Plan of the whole step, or of a slice."""
        found = self.decided or self.whole
        return found.plan() if isinstance(found, Executable) else found.body.plan()


def with_sums(store: Store, sums: Sequence[Node]) -> tuple[Store, Store, np.ndarray]:
    """The stores of a slice and of what follows, with the sums in both, and the sums' bytes.

    They lie in order, as parameters do, so that updates of several can be one launch. To a slice
    each is a block of its own: it is added to while the gradient is still in cache.
    """
    body, after = store.copy(), store.copy()
    specs = [n.spec for n in sums]
    sizes = [int(np.prod(s.shape)) * np.dtype(s.dtype).itemsize for s in specs]  # type: ignore
    memory = aligned(max(align(1), sum(map(align, sizes))))
    at = 0
    for n, spec, size in zip(sums, specs, sizes, strict=True):
        part = memory[at : at + align(size)]
        view = part[:size].view(spec.dtype).reshape(spec.shape)  # type: ignore[arg-type]
        body.layout[n.name], after.layout[n.name] = (len(body.blocks), 0), (len(store.blocks), at)
        body.arrays[n.name] = after.arrays[n.name] = view
        body.blocks.append(part)
        at += align(size)
    after.blocks.append(memory)
    return body, after, memory
