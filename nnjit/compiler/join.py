"""Joining whole groups: loops over the same domain that read something in common become one.

So a loss, its gradient and a metric over the same logits read them once.
"""

from __future__ import annotations

from nnjit.compiler.groups import Fusion, Group
from nnjit.compiler.maps import INDEX_VIEWS, reduced_axes, use_map
from nnjit.graph import Node


def join_groups(fusion: Fusion) -> Fusion:
    """The fusion with each group moved into the latest earlier one that may absorb it."""
    kept: list[Group] = []
    alike: dict[tuple, list[Group]] = {}  # those kept, by what a home and its guest share
    for g in fusion.groups:
        homes = alike.setdefault((g.kind, g.domain), [])
        home = next((k for k in reversed(homes) if may_absorb(fusion, k, g)), None)
        if home is None:
            kept.append(g)
            homes.append(g)
            continue
        home.inner = max(home.inner, g.inner)
        home.nodes.update(g.nodes)
        fusion.of.update(dict.fromkeys(g.nodes, home))
    return Fusion(fusion.graph, kept, fusion.of, fusion.aliases)


def may_absorb(fusion: Fusion, home: Group, g: Group) -> bool:
    """Are the loops the same, and is everything that g reads known where home runs?"""
    if g.kind == "single" or not g.domain:
        return False
    if home.head is not None or g.head is not None or home.holds_update or g.holds_update:
        return False
    if home.inner and g.inner and home.inner != g.inner:
        return False
    inputs = {x for n in g.nodes for x in n.inputs}
    reads = set(map(fusion.base, inputs)) - set(g.nodes)
    if any(fusion.of[x].index > home.index for x in reads if x in fusion.of):
        return False
    if g.kind == "sink" and not sinks_agree(home, g, reads):
        return False
    if any(x in fusion.aliases and fusion.base(x) in home.nodes for x in inputs):
        return False
    if not all(agrees(n, g, home) for n in g.nodes):
        return False
    theirs = {fusion.base(x) for n in home.nodes for x in n.inputs} | set(home.nodes)
    return any(x in theirs and x.spec.size != 1 for x in reads)


def sinks_agree(home: Group, g: Group, reads: set[Node]) -> bool:
    """Do both reduce over the same axes, neither needing the other's sums nor counting indices?"""
    counts = any(n.op.name.startswith("arg") for n in (*home.nodes, *g.nodes))
    needs = any(x.op.kind == "reduce" for x in reads if x in home.nodes)
    return sink_axes(home) == sink_axes(g) and not counts and not needs


def sink_axes(g: Group) -> tuple[int, ...]:
    """The axes that the reductions of a sink group are over."""
    return next(reduced_axes(n) for n in g.nodes if n.op.kind == "reduce")


def agrees(n: Node, g: Group, home: Group) -> bool:
    """Does n, moved from g to home, find the values computed there at its own place?"""
    shared = [x for x in n.inputs if x in home.nodes]
    if shared and (n.op.name in INDEX_VIEWS or n.op.kind == "random"):
        return False
    return all(use_map(x, n, g) == home.nodes[x] for x in shared)
