"""The compiler on one screen: a Graph becomes a Plan.

expand, simplify, share, mask_before_unpool, lift_over_reshapes, crop_dead_borders, prune (passes)
→ fuse → recompute → halves → schedule → lower → merge updates → keep → chains → plan.
Each stage can be printed: NNJIT_DEBUG=3 shows the graph after each pass, 4 the emitted source;
NNJIT_CHECK=1 verifies the graph after each pass.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace

from nnjit import config
from nnjit.compiler import chains
from nnjit.compiler.cpu.lower import lower
from nnjit.compiler.fuse import fuse
from nnjit.compiler.halves import halves
from nnjit.compiler.keep import keep, with_kept
from nnjit.compiler.merge import Layout, merge_updates
from nnjit.compiler.passes import PASSES
from nnjit.compiler.plan import Plan, make_plan
from nnjit.compiler.recompute import recompute
from nnjit.compiler.schedule import schedule
from nnjit.graph import Graph, Node, verify
from nnjit.kernels.template import render
from nnjit.printing import show


def optimise(graph: Graph) -> Graph:
    """All passes, in order."""
    inputs = graph.leaves("input")
    for run in PASSES:
        graph = run(graph)
        if config.check():
            verify(with_inputs(graph, inputs))
        if config.debug() >= 3:
            print(f"-- after {run.__name__}\n{show(graph)}", file=sys.stderr)
    return graph


def with_inputs(graph: Graph, inputs: Sequence[Node]) -> Graph:
    """The graph with these inputs in it, used or not: a symbol may stand in the shape of an input
    that simplifying has removed.
    """
    return replace(graph, outputs={**graph.outputs, **{f"input {n.name}": n for n in inputs}})


def compile_graph(graph: Graph, layout: Layout | None = None) -> Plan:
    """The Plan of a graph whose store leaves lie as `layout` says (leaf name -> block, byte
    offset).
    """
    fusion = schedule(halves(recompute(fuse(optimise(graph)))))
    launches, buffers, outputs = lower(fusion)
    launches, strips = merge_updates(launches, layout or {}, set(outputs.values()))
    kept = keep(launches, strips)
    if kept:
        launches = with_kept(launches, kept)
        buffers = {n: kept.get(b, b) for n, b in buffers.items()}
        outputs = {name: kept.get(b, b) for name, b in outputs.items()}
    chained: tuple[chains.Chain, ...] = ()
    if config.chains():
        launches, chained = chains.find(launches, set(outputs.values()))
    plan = make_plan(fusion.graph, launches, buffers, outputs, strips, chained)
    if config.debug() >= 4:
        print(source(plan), file=sys.stderr)
    return plan


def source(plan: Plan) -> str:
    """The text of every kernel of a Plan, each once, in order of first use."""
    texts = dict.fromkeys(render(launch.template) for launch in plan.launches)
    return "\n\n".join(texts)
