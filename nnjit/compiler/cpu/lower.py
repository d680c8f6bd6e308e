"""Groups become launches: kernels, their buffers, and which values overwrite a leaf in place."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from nnjit.compiler.cpu import singles
from nnjit.compiler.cpu.contractions import contraction_launches
from nnjit.compiler.cpu.loops import LoopKernel
from nnjit.compiler.cpu.naming import describe, kernel_name
from nnjit.compiler.cpu.sinks import SinkKernel, reduce_partials
from nnjit.compiler.cpu.text import (
    dim_text,
    math_imports,
    parse_dim,
    text_of,
    times,
    unmangle_all,
    used_symbols,
)
from nnjit.compiler.cpu.updates import copy_updates, place_updates, save_leaves
from nnjit.compiler.cpu.values import Values
from nnjit.compiler.groups import Buffer, Fusion, Group, Launch
from nnjit.compiler.walks import walk_of
from nnjit.graph import EXTENT, Node, users
from nnjit.kernels.target import CODES
from nnjit.kernels.template import Template
from nnjit.spec import DTYPES as SIZES
from nnjit.spec import Dim, Spec, product, symbols_of

KINDS = {"input": "input", "parameter": "store", "state": "store", "constant": "constant"}
FLAT_GRAIN = 1024  # least elements of a flat loop that are worth a chunk


class Lowering:
    """The state of one lowering: buffers by Node, launches so far."""

    def __init__(self, fusion: Fusion):
        self.fusion, self.graph = fusion, fusion.graph
        self.order = fusion.graph.nodes()
        self.place = {n: i for i, n in enumerate(self.order)}
        self.users = users(self.order)
        self.roots = set(map(fusion.base, fusion.graph.roots))
        self.readers = self.base_readers()
        self.buffers: dict[Node, Buffer] = {}
        self.launches: list[Launch] = []
        self.done: set[Node] = set()
        self.symbols = all_symbols(self.order)
        self.saved: dict[Node, Buffer] = {}  # old values of leaves

    def base_readers(self) -> dict[Node, list[Node]]:
        """For each buffer's Node, the Nodes of groups that read it, through reshapes too."""
        out: dict[Node, list[Node]] = {n: [] for n in self.order}
        for n in self.order:
            if n not in self.fusion.aliases:
                for x in n.inputs:
                    out[self.fusion.base(x)].append(n)
        return out

    # -- buffers
    def buffer(self, n: Node) -> Buffer:
        """The buffer that holds n."""
        n = self.fusion.base(n)
        if n not in self.buffers:
            kind = KINDS[n.op.name] if n.is_leaf else "work"
            name = n.name or f"t{len(self.buffers)}"
            self.buffers[n] = Buffer(name, kind, n.spec, n)
        return self.buffers[n]

    def work(self, name: str, elements: Dim | str, dtype: str, kind: str = "work") -> Buffer:
        """A buffer between two kernels of one group; elements: a dim, or text of a template."""
        size = parse_dim(elements) if isinstance(elements, str) else elements
        if size is None:
            return Buffer(name, kind, Spec((), dtype), elements=unmangle_all(str(elements)))
        return Buffer(name, kind, Spec((size,), dtype))

    def scratch(self, elements: Dim | str, dtype: str) -> Buffer:
        """Scratch, `elements` for each thread."""
        return self.work("scratch", elements, dtype, "scratch")

    def materialised(self, group: Group, extra: Sequence[Node] = ()) -> list[Node]:
        """The Nodes of a group that something outside of it reads, in graph order."""
        inside = {*group.nodes, *extra}
        return [
            n for n in self.ordered(inside)
            if n in self.roots or any(u not in inside for u in self.users[n])
        ]  # fmt: skip

    def ordered(self, nodes: Iterable[Node]) -> list[Node]:
        """Those of the Nodes that the graph has, in its order."""
        return sorted((n for n in nodes if n in self.place), key=self.place.__getitem__)

    # -- groups
    def run(self) -> list[Launch]:
        copies = place_updates(self)
        save_leaves(self, copies)
        for group in self.fusion.groups:
            if group.head is not None or any(n.op.kind == "contraction" for n in group.nodes):
                contraction_launches(self, group)
            elif group.kind == "single":
                singles.launch(self, group)
            elif group.kind == "sink":
                self.sink(group)
            else:
                self.loop(group)
        copy_updates(self, copies)
        return self.launches

    def emit(
        self, template: Template, buffers: Sequence[Buffer], writes: Sequence[int],
        nodes: Sequence[Node], ops: str, flops: Sequence[Dim] = (), flat: bool = False,
        walk: str = "",
    ) -> None:  # fmt: skip
        scopes = tuple(dict.fromkeys(n.scope for n in nodes if n.scope))
        self.launches.append(
            Launch(
                template, tuple(buffers), frozenset(writes), scopes, ops, tuple(flops), flat,
                walk=walk,
            )
        )  # fmt: skip

    def params(
        self, values: Values, outputs: Sequence[Node]
    ) -> tuple[list[tuple[str, str]], list[Buffer], list[int]]:
        """Parameters of a loop kernel: x0.. are read, y0.. written, z0.. both."""
        reads = values.buffers_read()
        written = {self.buffer(n): n for n in outputs}
        names: list[tuple[str, str]] = []
        buffers: list[Buffer] = []
        writes: list[int] = []
        count = {"x": 0, "y": 0, "z": 0}

        def add(letter: str, b: Buffer) -> str:
            name = f"{letter}{count[letter]}"
            count[letter] += 1
            names.append((name, CODES[b.spec.dtype]))
            if letter != "x":
                writes.append(len(buffers))
            buffers.append(b)
            return name

        for x in reads:
            b = self.buffer(x)
            both = b in written
            values.params[x] = add("z" if both else "x", b)
            if both:
                values.fresh.add(x)
                values.params[written[b]] = values.params[x]
        for n in outputs:
            if n not in values.params:
                values.params[n] = add("y", self.buffer(n))
        return names, buffers, writes

    def loop(self, group: Group) -> None:
        """An elementwise group, or rows with reductions."""
        outputs = self.materialised(group)
        values = Values(self.fusion, group, self.ordered(group.nodes))
        names, buffers, writes = self.params(values, outputs)
        kernel = LoopKernel(values, outputs)
        values.flat = kernel.one_loop
        kernel.write()
        if kernel.scratch:
            elements, dtype = kernel.scratch
            names.append(("scratch", CODES[dtype]))
            buffers.append(self.scratch(elements, dtype))
        self.finish(kernel, names, buffers, writes, group, values)

    def finish(
        self, kernel: LoopKernel, names: list[tuple[str, str]], buffers: list[Buffer],
        writes: list[int], group: Group, values: Values,
    ) -> None:  # fmt: skip
        body = kernel.lines.text
        flat = kernel.one_loop
        sizes = tuple((name, factor) for factor, name in values.factors.items())
        size = product([loop.extent for loop in kernel.loops])
        per = size if isinstance(size, int) else size.factor * 32
        trip = kernel.trip if isinstance(kernel.trip, int) else kernel.trip.factor * 32
        grain = FLAT_GRAIN if flat else max(1, FLAT_GRAIN * max(trip, 1) // max(per, 1))
        scratch: Dim = 0
        if kernel.scratch:
            scratch = times(kernel.scratch[0], SIZES[kernel.scratch[1]])
        name = kernel_name(group, values, flat)
        params = values.params | kernel.results
        template = Template(
            name, describe(name, flat and group.kind == "loop", values, kernel, params),
            tuple(math_imports(body)), used_symbols(body, self.symbols), tuple(names), tuple(body),
            text_of(kernel.trip), scratch if isinstance(scratch, int) else dim_text(scratch),
            grain, sizes=sizes,
        )  # fmt: skip
        self.emit(
            template, buffers, writes, values.nodes, ops_text(values.nodes), flops_of(values.nodes),
            kernel.is_flat, walk_of(template, buffers, writes, values.nodes, group.domain),
        )  # fmt: skip

    def sink(self, group: Group) -> None:
        """Reductions over other axes than the last; with partial results, two launches."""
        sinks = [n for n in self.ordered(group.nodes) if n.op.kind == "reduce"]
        outputs = [n for n in self.materialised(group) if n not in sinks]
        values = Values(self.fusion, group, self.ordered(group.nodes))
        names, buffers, writes = self.params(values, outputs)
        kernel = SinkKernel(values, outputs)
        several = kernel.partials > 1
        targets = []
        for k, n in enumerate(sinks):
            size = times(kernel.kept_size, kernel.partials)
            b = self.work(f"partials{k}", size, accumulated(n)) if several else self.buffer(n)
            name = f"p{k}" if several else f"y{len(outputs) + k}"
            names.append((name, CODES[b.spec.dtype]))
            writes.append(len(buffers))
            buffers.append(b)
            targets.append(name)
        kernel.write_sinks(targets)
        partials = buffers[-len(sinks) :]
        if kernel.scratch:
            elements, dtype = kernel.scratch
            names.append(("scratch", CODES[dtype]))
            buffers.append(self.scratch(elements, dtype))
        self.finish(kernel, names, buffers, writes, group, values)
        if several:
            self.join(kernel, sinks, partials)

    def join(self, kernel: SinkKernel, sinks: list[Node], partials: list[Buffer]) -> None:
        size, count = kernel.kept_size, kernel.partials
        sizes = (("size", size), ("count", count)) if isinstance(size, int) else ()
        body = reduce_partials(kernel.sums, *[n for n, _ in sizes] or [dim_text(size), str(count)])
        pairs = [(f"p{k}", CODES[b.spec.dtype]) for k, b in enumerate(partials)]
        pairs += [(f"y{k}", CODES[n.dtype]) for k, n in enumerate(sinks)]
        ops = "_".join(dict.fromkeys(n.op.name for n in sinks))
        name = f"join_{ops}_{pairs[0][1]}"
        doc = f"{name}: y[i] = the partial results p[i], p[i + size], … joined in order"
        template = Template(
            name, doc, tuple(math_imports(body)), used_symbols(body, self.symbols), tuple(pairs),
            tuple(body), text_of(size), grain=FLAT_GRAIN // count, sizes=sizes,
        )  # fmt: skip
        buffers = [*partials, *(self.buffer(n) for n in sinks)]
        self.emit(template, buffers, range(len(partials), len(buffers)), sinks, "join")


def accumulated(n: Node) -> str:
    """The dtype of a reduction's partial results."""
    return n.dtype


def all_symbols(nodes: Sequence[Node]) -> tuple[str, ...]:
    """The symbols of all Nodes; simplifying may have removed the inputs that bring them."""
    dims = [d for n in nodes for d in n.shape]
    return symbols_of([*dims, *(n.attrs["dim"] for n in nodes if n.op is EXTENT)])


def ops_text(nodes: Sequence[Node]) -> str:
    """The ops of a launch, each once: 'multiply add relu'."""
    return " ".join(dict.fromkeys(n.op.name for n in nodes))


def flops_of(nodes: Sequence[Node]) -> list[Dim]:
    """What each Node costs; one operation per element where its op does not say."""
    out: list[Dim] = []
    for n in nodes:
        if n.op.flops is not None:
            out.append(n.op.flops(n))
        elif n.op.kind == "reduce":
            out.append(n.inputs[0].spec.size)
        elif n.op.kind in ("elementwise", "random"):
            out.append(n.spec.size)
    return out


def lower(fusion: Fusion) -> tuple[list[Launch], dict[Node, Buffer], dict[str, Buffer]]:
    """The launches of a fused graph, in order; the buffer of each materialised Node and leaf; and
    of each output that the program computes or must copy."""
    lowering = Lowering(fusion)
    launches = lowering.run()
    outputs: dict[str, Buffer] = {}
    for name, n in fusion.graph.outputs.items():
        base = fusion.base(n)
        if base in lowering.saved:
            outputs[name] = lowering.saved[base]
        elif not base.is_leaf:
            outputs[name] = lowering.buffers[base]
    return launches, lowering.buffers, outputs
