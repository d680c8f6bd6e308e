"""How a launch walks the samples of a batch: what chains are made of.

Most kernels write to each sample's part of a buffer what they make of the same sample's parts of
others, and their trip indices follow the samples. Sums over samples have a fixed number of partial
results, each over its share of the samples. Where neither is known of a kernel, nothing is claimed.

A sample's part is a matter of places: buffers are cut into as many equal pieces as there are
samples, and piece n is that of sample n, whatever is in it.
"""

from __future__ import annotations

from collections.abc import Sequence

from nnjit.compiler.cpu.text import parse_dim
from nnjit.compiler.groups import Buffer
from nnjit.compiler.samples import FREE, SUM, Kind, NotSliceable, Rows, Samples, where
from nnjit.graph import Node
from nnjit.kernels.template import Template
from nnjit.spec import Dim, Extent, divide, symbols_of

SYMBOL = "batch"
#: by its place in `Launch.walk`: nothing is known; trip indices follow the samples; each trip index
#: is a share of the samples
UNKNOWN, SAMPLES, SHARES = "", "samples", "shares"

#: operations with kernels of their own whose trip indices follow the samples: rows of images,
#: pixels, or what lies before the axis along which values are joined
FOLLOW = ("conv2d", "conv2d_dx", "concatenate", "max_pool", "max_pool_index", "max_pool_grad",
          "avg_pool", "avg_pool_grad")  # fmt: skip

#: how the buffers of partial results are called
PARTIAL = ("parts", "partials")


def walk_of(
    template: Template, buffers: Sequence[Buffer], writes: Sequence[int], nodes: Sequence[Node],
    domain: Sequence[Dim] | None = None,
) -> str:  # fmt: skip
    """How a launch walks the samples. nodes: what it computes, inputs before users; domain: the
    shape of its loops, if it is written as loops.
    """
    touched = [b for b in buffers if b.kind != "scratch"]
    if not any(SYMBOL in symbols_of(b.spec.dims) for b in touched):
        return UNKNOWN
    if any(b.elements or pieces(b) is None for b in touched):
        return UNKNOWN
    kinds = own_kinds(nodes)
    if not kinds or not in_order(nodes, domain):
        return UNKNOWN
    written = [buffers[i] for i in writes]
    trip = parse_dim(template.trip)
    sums = any(k == SUM for k in kinds)
    if not sums and trip is not None and per_sample(trip):
        return SAMPLES if all(in_pieces(b) for b in written) else UNKNOWN
    shared = [b for b in written if not in_pieces(b)]
    if sums and shared and isinstance(trip, int) and all(holds(b, trip) for b in shared):
        return SHARES
    return UNKNOWN


def pieces(b: Buffer) -> Dim | None:
    """Elements of a sample's piece; 0 for a buffer without samples, None where pieces differ."""
    size = b.spec.size
    if SYMBOL not in symbols_of([size]):
        return 0
    return per_sample(size)


def per_sample(dim: Dim) -> Dim | None:
    """dim / batch, where that does not depend on the batch."""
    found = divide(dim, Extent(1, (SYMBOL,)))
    return None if found is None or SYMBOL in symbols_of([found]) else found


def in_pieces(b: Buffer) -> bool:
    return bool(pieces(b))


def holds(b: Buffer, shares: int) -> bool:
    """Whether a buffer is what lowering makes for partial results, one for each share."""
    partial = b.kind == "work" and b.node is None and b.name.startswith(PARTIAL)
    return partial and shares > 1 and isinstance(b.spec.size, int) and b.spec.size % shares == 0


def in_order(nodes: Sequence[Node], domain: Sequence[Dim] | None) -> bool:
    """Whether the kernel of these Nodes takes the samples in order."""
    if domain is None:
        return nodes[0].op.name in (*FOLLOW, "conv2d_dw")
    return bool(domain) and bool(per_sample(domain[0])) and SYMBOL not in symbols_of(domain[1:])


class Own(Samples):
    """The samples as one kernel meets them: what it reads from elsewhere is in pieces, or has no
    samples.
    """

    def outside(self, n: Node, x: Node) -> Kind:
        """An operand that the kernel reads."""
        if not self.has(x.shape):
            return FREE
        self.at(n, x.shape, 1)
        return Rows(1)

    def beforehand(self, n: Node, x: Node) -> None:
        raise NotSliceable(f"{where(n)} needs {where(x)} of the whole batch")


def own_kinds(nodes: Sequence[Node]) -> list[Kind]:
    """The kinds of a kernel's Nodes, if each is in pieces, has no samples, or is a sum over them
    that nothing else in the kernel reads; else none at all.
    """
    samples = Own(SYMBOL)
    inside = set(nodes)
    try:
        for n in nodes:
            for x in n.inputs:
                if x not in inside:
                    samples.kinds[x] = samples.outside(n, x)
            samples.kinds[n] = samples.node(n)
    except NotSliceable:
        return []
    kinds = [samples.kinds[n] for n in nodes]
    read = {x for n in nodes for x in n.inputs if samples.kinds[x] == SUM}
    known = all(k in (FREE, SUM, Rows(1), Rows(None)) for k in kinds)
    return kinds if known and not read else []
