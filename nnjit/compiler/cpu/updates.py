"""Where updates are written: over their leaf where every reader of the old value comes before, else
copied at the end; old values that are needed later are saved at the start.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnjit.compiler.cpu.access import plain
from nnjit.compiler.cpu.text import dim_text
from nnjit.compiler.groups import Buffer
from nnjit.compiler.maps import INDEX_VIEWS, input_maps
from nnjit.graph import Node
from nnjit.kernels.target import CODES
from nnjit.kernels.template import Template

if TYPE_CHECKING:
    from nnjit.compiler.cpu.lower import Lowering

COPY_GRAIN = 1024  # least elements of a copy that are worth a chunk


def place_updates(low: Lowering) -> list[tuple[Node, Node]]:
    """Give values the buffer of the leaf that they become, where every reader of the old value
    comes before.

    Returns the (leaf, value) pairs that need a copy at the end.
    """
    copies, taken = [], set()
    for leaf, value in low.graph.updates.items():
        node = low.fusion.base(value)
        if node is leaf:
            continue
        free = not node.is_leaf and node not in taken
        if free and overwrites(low, leaf, node):
            low.buffers[node] = low.buffer(leaf)
            taken.add(node)
        else:
            copies.append((leaf, value))
    return copies


def overwrites(low: Lowering, leaf: Node, value: Node) -> bool:
    """May `value` be written over `leaf` where it is computed?"""
    home = low.fusion.of[value]
    for reader in low.readers.get(leaf, []):
        group = low.fusion.of[reader]
        if group.index < home.index:
            continue
        if group.index > home.index or home.kind != "loop" or home.inner or reader is home.head:
            return False
        if home.head is not None and not home.apart:
            return False
        if reader.op.name in INDEX_VIEWS or reader.op.kind == "random":
            return False
        maps = input_maps(reader, home.nodes[reader], ())
        for x, m in zip(reader.inputs, maps, strict=True):
            if low.fusion.base(x) is leaf:
                mine = plain(value.shape, home.nodes[value])
                if plain(x.shape, m).coefs != mine.coefs:
                    return False
    return True


def save_leaves(low: Lowering, copies: list[tuple[Node, Node]]) -> None:
    """Copy old values that are needed after their leaf may be gone, before all else.

    These are outputs that are updated leaves, and leaves that another leaf becomes (a swap).
    """
    wanted = [*low.graph.outputs.values(), *(value for _, value in copies)]
    for leaf in map(low.fusion.base, wanted):
        if leaf in low.graph.updates and leaf not in low.saved:
            old = low.work(f"old {leaf.name}", leaf.spec.size, leaf.dtype)
            low.saved[leaf] = copy(low, low.buffer(leaf), old, leaf)


def copy(low: Lowering, source: Buffer, target: Buffer, node: Node) -> Buffer:
    code = CODES[node.dtype]
    body = ("for i in range(lo, hi):", "    y0[i] = x0[i]")
    template = Template(
        f"copy_{code}", f"copy_{code}: y0 = x0, flat", (), (), (("x0", code), ("y0", code)),
        body, dim_text(node.spec.size), grain=COPY_GRAIN,
    )  # fmt: skip
    low.emit(template, [source, target], [1], [node], "copy")
    return target


def copy_updates(low: Lowering, copies: list[tuple[Node, Node]]) -> None:
    """Copy the values that could not be written over their leaf where they were computed."""
    for leaf, value in copies:
        source = low.fusion.base(value)
        copy(low, low.saved.get(source, low.buffer(source)), low.buffer(leaf), leaf)
