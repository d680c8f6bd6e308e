"""Memory: nothing that lives at the same time overlaps; what is reported is what is allocated."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnjit import ops
from nnjit.compiler.groups import Buffer
from nnjit.compiler.pipeline import compile_graph
from nnjit.compiler.plan import ALIGN, Block, Plan, place
from nnjit.graph import Graph, input_node
from nnjit.runtime.binding import address
from nnjit.runtime.executable import build
from nnjit.spec import Spec
from tests.compiler.drive import Variable, compare_steps, feed, fresh
from tests.compiler.networks import Net, cnn, mlp
from tests.compiler.random_graphs import random_graph

hypothesis = settings(max_examples=60, derandomize=True, deadline=None, database=None)


def assert_apart(plan: Plan, batch: int) -> None:
    """No two work buffers that live at the same time share a byte; all are aligned and inside."""
    extents = dict.fromkeys(plan.symbols, batch)
    a = plan.arrange(extents)
    assert set(a.offsets) == set(plan.lives)
    for b, at in a.offsets.items():
        assert at % ALIGN == 0
        assert at + b.nbytes(extents) <= a.work
    for b, c in itertools.combinations(plan.lives, 2):
        (b0, b1), (c0, c1) = plan.lives[b], plan.lives[c]
        if b0 <= c1 and c0 <= b1:
            apart = (a.offsets[b] + b.nbytes(extents) <= a.offsets[c]
                     or a.offsets[c] + c.nbytes(extents) <= a.offsets[b])  # fmt: skip
            assert apart or 0 in (b.nbytes(extents), c.nbytes(extents)), (b, c)
    for strip in plan.strips:
        first = min(strip.offsets, key=lambda b: strip.offsets[b])
        start = a.offsets[first] - strip.offsets[first]
        lives = [plan.lives[b] for b in strip.offsets]
        alive = (min(x for x, _ in lives), max(y for _, y in lives))
        for b, at in strip.offsets.items():
            assert a.offsets[b] == start + at
            assert at + b.nbytes(extents) <= strip.span
        for b, (low, high) in plan.lives.items():
            if b not in strip.offsets and low <= alive[1] and alive[0] <= high:
                at, end = a.offsets[b], a.offsets[b] + b.nbytes(extents)
                assert end <= start or at >= start + strip.span, "something lies in a strip"


@hypothesis
@given(seed=st.integers(0, 2**32 - 1), batch=st.sampled_from([0, 1, 5, 64]))
def test_live_buffers_of_random_graphs_never_overlap(seed, batch):
    graph, variables = random_graph(random.Random(seed), nodes=40)
    plan = compile_graph(graph, fresh(variables).layout)
    assert_apart(plan, batch)


@pytest.mark.parametrize("net", [mlp, cnn])
@pytest.mark.parametrize("batch", [1, 32, 1000])
def test_live_buffers_of_networks_never_overlap(net, batch):
    made = net()
    plan = compile_graph(made.graph(), made.store().layout)
    assert plan.strips, "the updates were not merged"
    assert_apart(plan, batch)


blocks = st.lists(
    st.tuples(st.integers(0, 5000), st.integers(0, 20), st.integers(0, 8)), min_size=1, max_size=40
)


@hypothesis
@given(sizes=blocks)
def test_place_keeps_what_lives_together_apart(sizes):
    made = [Block(Buffer(f"b{k}", "work", Spec((n,), "uint8")), n, a, a + length)
            for k, (n, a, length) in enumerate(sizes)]  # fmt: skip
    offsets, total = place(made)
    for b, c in itertools.combinations(made, 2):
        if b.first <= c.last and c.first <= b.last:
            low, high = sorted((b, c), key=lambda x: offsets[x.key])
            assert offsets[low.key] + max(low.size, 1) <= offsets[high.key]
    assert all(at % ALIGN == 0 for at in offsets.values())
    assert total == max(offsets[b.key] + max(1, -(-b.size // ALIGN)) * ALIGN for b in made)
    alive = [sum(b.size for b in made if b.first <= t <= b.last) for t in range(30)]
    assert max(alive) <= total


def test_what_is_reported_is_what_is_allocated():
    net = cnn()
    executable = build(net.graph(), net.store(), "python")
    for batch in (2, 5):
        executable.run(feed(net.graph(), {"batch": batch}))
        a = executable.arrange(batch=batch)
        assert executable.memory.work.nbytes == a.work
        assert f"work arena {a.work} bytes" in executable.listing(batch=batch)
        assert address(executable.memory.work) % ALIGN == 0
    executable.run(feed(net.graph(), {"batch": 1}))
    assert executable.memory.work.nbytes == executable.arrange(batch=5).work, "it never shrinks"


def test_variables_start_on_64_bytes():
    store = mlp().store()
    assert all(address(a) % ALIGN == 0 for a in store.arrays.values())
    assert all(offset % ALIGN == 0 for _, offset in store.layout.values())


@pytest.mark.parametrize("net", [mlp, cnn])
def test_merged_updates_equal_unmerged_ones(net):
    made = net()
    merged, apart = made.store(), made.store()
    one = build(made.graph(), merged, "python")
    assert any(launch.members for launch in one.plan().launches)
    apart.layout = {}  # nothing is known to be a neighbour of anything
    two = compile_graph(made.graph(), apart.layout)
    assert not any(launch.members for launch in two.launches)
    other = build(made.graph(), made.store(), "interpret")
    for step in range(3):
        given = feed(made.graph(), {"batch": 4}, seed=step)
        one.run(given)
        other.run(given)
    for name, value in other.store.arrays.items():
        np.testing.assert_allclose(merged.arrays[name], value, 1e-4, 1e-6, err_msg=name)


def test_a_launch_that_writes_what_an_update_reads_is_not_stepped_over():
    """Updates of a pair, and between them one that overwrites what the first of them reads."""
    names = ["w0", "w1", "e0", "e1", "p"]
    value = np.arange(36.0).reshape(6, 6)
    v = {n: Variable(n, value + k) for k, n in enumerate(names)}
    w0, w1, e0, e1, p = (x.node for x in v.values())
    pair = {w0: w0 * 0.5 + e0, w1: w1 * 0.5 + e1}
    between = {w0: pair[w0], e0: ops.matmul(p, p), w1: pair[w1]}
    for updates, count in ((pair, 2), (between, 0)):
        graph = Graph("pair", {}, updates)
        executable = compare_steps(graph, list(v.values()), "python", (1,))
        assert sum(len(launch.members) for launch in executable.plan().launches) == count


def test_a_frozen_parameter_has_no_backward_kernels():
    whole, frozen = cnn_without(()), cnn_without(("conv_0/kernel", "conv_0/bias"))
    scopes = [s for launch in frozen.launches for s in launch.scopes]
    kernels = [launch.template.name for launch in frozen.launches]
    assert sum(name.startswith("conv2d_dw") for name in kernels) == 1
    assert not any(name.startswith("conv2d_dx") for name in kernels)
    assert scopes.count("conv_0") < [s for x in whole.launches for s in x.scopes].count("conv_0")
    assert len(frozen.launches) < len(whole.launches)


def cnn_without(names: tuple[str, ...]) -> Plan:
    net = Net()
    h = net.conv("conv_0", input_node("x", Spec(("batch", 8, 8, 3))), 3, 8, ops.relu)
    h = ops.flatten(net.conv("conv_1", h, 3, 4, ops.relu))
    net.sgd(net.classify(net.dense("head", h, 10)), frozen=names)
    return compile_graph(net.graph(), net.store().layout)
