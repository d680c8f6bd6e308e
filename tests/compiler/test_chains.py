"""Chains: which launches walk the samples, what runs together, and that no bit depends on it."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest

import nnjit
from nnjit import Input, Model, config, layers, ops
from nnjit.compiler import chains, stored_plan
from nnjit.compiler.pipeline import compile_graph
from nnjit.compiler.plan import make_plan
from nnjit.compiler.walks import SAMPLES, SHARES, UNKNOWN
from nnjit.graph import Graph, input_node
from nnjit.runtime import driver
from nnjit.runtime.device_cpu import CpuExecutable
from nnjit.spec import Spec
from tests.compiler.drive import Variable


def residual(image=(12, 12, 3)):
    """Normalised convolutions, one of them with strides beside a shortcut, as in a ResNet."""

    def conv(x, width, size, strides=1):
        y = layers.Conv2D(width, size, strides, padding="same", use_bias=False)(x)
        return layers.BatchNormalization()(y)

    image = Input(shape=image)
    x = layers.ReLU()(conv(image, 16, 3))
    y = layers.ReLU()(conv(x, 16, 3))
    x = layers.ReLU()(layers.Add()([conv(y, 16, 3), x]))
    y = layers.ReLU()(conv(x, 16, 3, 2))
    x = layers.ReLU()(layers.Add()([y, conv(x, 16, 1, 2)]))
    return Model(image, layers.Dense(3)(layers.GlobalAveragePooling2D()(x)))


def hourglass():
    """Down by pooling and up by a transposed convolution, with a skip, dropout, a depthwise and a
    pointwise convolution.
    """
    image = Input(shape=(12, 12, 3))
    top = layers.Conv2D(16, 3, padding="same", activation="relu")(image)
    x = layers.Conv2D(16, 3, padding="same", activation="relu")(layers.MaxPooling2D()(top))
    x = layers.Dropout(0.3)(layers.DepthwiseConv2D(3, padding="same", activation="tanh")(x))
    x = layers.Conv2DTranspose(16, 2, strides=2)(x)
    x = layers.Conv2D(8, 3, padding="same", activation="relu")(layers.Concatenate()([x, top]))
    x = layers.AveragePooling2D()(layers.Conv2D(4, 1)(x))
    return Model(image, layers.Dense(3)(layers.Flatten()(x)))


@pytest.fixture
def eager(monkeypatch):
    """Small models have chains too."""
    monkeypatch.setattr(chains, "WORTH", 0)
    monkeypatch.setattr(chains, "FAR", 0)
    monkeypatch.setattr(chains, "SHARED", 1)
    monkeypatch.setattr(chains, "UNITS", 2)
    monkeypatch.setattr(chains, "FEWEST", 2)
    monkeypatch.setattr(chains, "FIT", 100_000)


def prepared(make, slices=1):
    nnjit.set_seed(3)
    model = make()
    model.compile(
        loss=nnjit.losses.SparseCategoricalCrossentropy(from_logits=True), optimizer="adam",
        device="cpu", batch_slices=slices,
    )  # fmt: skip
    return model


def batches(sizes):
    rng = np.random.default_rng(1)
    return [
        (rng.standard_normal((n, 12, 12, 3)).astype("f4"), rng.integers(0, 3, n)) for n in sizes
    ]


def executable_of(model) -> CpuExecutable:
    (step,) = model.session._steps.values()
    return step.executable


def trained(make, threads, sizes):
    """All weights after steps at several batch sizes, and the model."""
    config.set_threads(threads)
    model = prepared(make)
    for x, y in batches(sizes):
        model.train_on_batch(x, y)
    return [w.numpy().tobytes() for w in model.weights], model


# ------------------------------------------------------------------------------------------ results
@pytest.mark.parametrize("make", [residual, hourglass])
def test_no_bit_depends_on_chains_or_threads(make, eager, monkeypatch):
    """Batches of whole and of ragged shares, and one of a single sample."""
    sizes = (16, 32, 13, 1, 24)
    monkeypatch.setenv("NNJIT_CHAINS", "0")
    plain, model = trained(make, 2, sizes)
    assert not executable_of(model).compiled.chains
    monkeypatch.setenv("NNJIT_CHAINS", "1")
    for threads in (1, 3):
        weights, model = trained(make, threads, sizes)
        assert weights == plain, threads
    executable = executable_of(model)
    heads = {n: [r for r in executable.rows({"batch": n}) if r.links] for n in sizes}
    assert len(heads[32]) >= 5
    assert len(heads[13]) >= 5
    assert not heads[1]
    assert any(r.launch.walk == SHARES and r.samples for r in executable.rows({"batch": 32}))
    text = executable.listing(batch=32)
    assert f"chain of {heads[32][0].links + 1}, {heads[32][0].samples} sample(s) at a time" in text


def test_chains_in_slices_checked_and_counted(eager, monkeypatch):
    """A step in slices runs chains in each; with NNJIT_CHECK each launch is compared alone."""
    (x, y), _ = batches((32, 1))
    weights = []
    for on in "01":
        monkeypatch.setenv("NNJIT_CHAINS", on)
        model = prepared(hourglass, slices=2)
        model.train_on_batch(x, y)
        weights.append([w.numpy().tobytes() for w in model.weights])
    assert weights[0] == weights[1]
    config.set_threads(2)
    profile = model.profile(x, y, steps=2)
    rows = executable_of(model).rows({"batch": 32})
    assert len(profile.launches) == len(rows)
    linked = [t for t, r in zip(profile.launches, rows, strict=True) if r.samples]
    assert linked
    assert all(t.milliseconds > 0 for t in linked)
    assert {t.calls for t in linked} == {2}  # one for each slice
    monkeypatch.setenv("NNJIT_CHECK", "1")
    prepared(hourglass).train_on_batch(x, y)


# --------------------------------------------------------------------------------- kernels, alone
def call(executable, bound, k, lo, hi):
    """Indices lo..hi of launch k."""
    row = bound.program.rows[k]
    words = ctypes.cast(int(row[driver.TABLE]), ctypes.POINTER(ctypes.c_int64))
    given = [words[i] for i in range(int(row[driver.WORDS]))]
    function = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * (3 + len(given)))
    function(int(row[driver.ADDRESS]))(lo, hi, 0, *given)


def linear(b):
    return "batch" in str(b.spec.dims)


def piece(b, first, last, batch):
    """Where samples first..last of a buffer are, if it has samples; else all of it."""
    size = b.spec.size
    each = size.factor if linear(b) else 0
    return slice(each * first, each * last) if each else slice(None)


def check_walk(executable, bound, k, of, first, last):
    """Launch k on samples first..last alone, with nothing known of the others: the same result.

    of: the arrays of its buffers.
    """
    launch, batch = executable.compiled.launches[k], bound.arrangement.extents["batch"]
    before = {b: a.copy() for b, a in of.items()}
    executable.run_row(bound, k)
    after = {b: of[b].copy() for b in launch.written}
    trip = int(bound.program.rows[k, driver.TRIP])
    lo, hi = trip * first // batch, trip * last // batch
    for b, a in of.items():
        part = piece(b, first, last, batch)
        a[...] = np.nan if a.dtype.kind == "f" else 0
        a.reshape(-1)[part] = before[b].reshape(-1)[part]
    for b in launch.written:
        of[b][...] = before[b]
    call(executable, bound, k, lo, hi)
    for b in launch.written:
        part = piece(b, first, last, batch)
        if not linear(b):  # a result for each share
            part = slice(b.spec.size * lo // trip, b.spec.size * hi // trip)
        want = before[b].copy()
        want.reshape(-1)[part] = after[b].reshape(-1)[part]
        assert of[b].tobytes() == want.tobytes(), f"{k} {launch.template.name}: {b.name}"
    for b, a in of.items():
        a[...] = after.get(b, before[b])


@pytest.mark.parametrize("make", [residual, hourglass])
def test_a_walk_needs_no_sample_but_its_own(make, monkeypatch):
    """Every launch that is said to walk the samples, on a few of them, others being NaN."""
    monkeypatch.setenv("NNJIT_CHAINS", "0")
    model = prepared(make)
    (x, y), _ = batches((32, 1))
    model.train_on_batch(x, y)
    executable = executable_of(model)
    names = {n.name for n in executable.graph.leaves("input")}
    labels = next(n for n in executable.graph.leaves("input") if n.name == "y")
    arrays = dict.fromkeys(names, x) | {"y": y.astype(labels.dtype)}
    bound = executable.ready(arrays, {"batch": 32})
    kinds = set()
    for k, launch in enumerate(executable.compiled.launches):
        if launch.walk == UNKNOWN:
            executable.run_row(bound, k)
            continue
        kinds.add((launch.walk, launch.ops.split()[0]))
        touched = [b for b in launch.touched if b.kind != "scratch"]
        of = {
            b: executable.binder.array(b, bound.arrangement) for b in touched if b.kind != "input"
        }
        of |= {b: arrays[b.name] for b in touched if b.kind == "input"}
        for first in (0, 12, 28):
            check_walk(executable, bound, k, of, first, first + 4)
    expected = {(SAMPLES, "conv2d"), (SAMPLES, "conv2d_dx"), (SHARES, "conv2d_dw")}
    assert expected <= kinds


# --------------------------------------------------------------------------------------- analysis
def value(*dims):
    return input_node("x", Spec(("batch", *dims), "float32"))


def weights(*dims):
    return Variable("w", np.ones(dims, "f4"))


def walks(y, variables=()):
    """The walks of the launches that compute y, by the first operation of each."""
    plan = compile_graph(Graph("g", {"y": y}, {}), {v.name: (0, 0) for v in variables})
    return {launch.ops.split()[0]: launch.walk for launch in plan.launches}


def flat(x):
    return ops.reshape(x, (-1, 2048))


IMAGE = (16, 16, 8)
PLAIN = {
    "elementwise": lambda x: ops.exp(x) * 2,
    "rows": lambda x: ops.exp(x - ops.max(x, -1, True)),
    "means of images": lambda x: ops.mean(x, (1, 2)),
    "transposed within": lambda x: ops.exp(ops.transpose(x, (0, 3, 1, 2))),
    "cut within": lambda x: ops.exp(x[:, 1:]) + 1,
    "flipped within": lambda x: ops.exp(ops.flip(x, 1)),
    "convolved": lambda x: ops.conv(x, weights(3, 3, 8, 8).node, padding="same"),
    "pooled": lambda x: ops.max_pool(x, 2),
    "joined within": lambda x: ops.concatenate([ops.exp(x), x], -1),
}
MIXED = {  # the operation whose launch needs other samples than its own, and a graph with it
    "flipped": ("flip", lambda x: ops.exp(ops.flip(x, 0))),
    "first sample": ("slice", lambda x: x - x[:1]),
    "behind each other": ("concatenate", lambda x: ops.concatenate([ops.exp(x), x], 0)),
    "batch last": ("transpose", lambda x: ops.exp(ops.transpose(x, (1, 2, 3, 0)))),
    "batch second": ("transpose", lambda x: ops.exp(flat(ops.transpose(x, (1, 0, 2, 3))))),
    "gathered": ("take_rows", lambda x: ops.take(flat(x), INDEX)),
    "numbered": ("iota", lambda x: x + ops.cast(ops.iota(x.shape, 0), "float32")),
    "largest of all": ("max", lambda x: ops.exp(x - ops.max(x, 0, True))),
    "products of samples": ("matmul", lambda x: ops.matmul(flat(x), flat(x), transpose_b=True)),
}
INDEX = input_node("index", Spec(("batch",), "int32"))


@pytest.mark.parametrize("case", PLAIN)
def test_launches_that_walk_the_samples(case):
    assert set(walks(PLAIN[case](value(*IMAGE))).values()) - {UNKNOWN} == {SAMPLES}


@pytest.mark.parametrize("case", MIXED)
def test_launches_that_do_not(case):
    op, made = MIXED[case]
    found = walks(made(value(*IMAGE)))
    assert found[op] == UNKNOWN, found


def test_sums_have_shares_and_what_follows_them_is_no_walk():
    x = value(*IMAGE)
    found = walks(x - ops.mean(x, (0, 1, 2), True))
    assert list(found.values()) == [SHARES, UNKNOWN, UNKNOWN, SAMPLES], found
    w = weights(2048, 16)
    found = walks(ops.matmul(flat(x), ops.matmul(flat(x), w.node), transpose_a=True), [w])
    assert set(found.values()) == {UNKNOWN}, found


def test_a_chain_waits_for_the_whole_batch_and_takes_sums_last(eager):
    """exp, a sum and a convolution of it are a chain; what reads the sum is behind it."""
    x, w = value(*IMAGE), weights(3, 3, 8, 8)
    y = ops.exp(x)
    total = ops.sum(y * y, (0, 1, 2))
    z = ops.conv(y, w.node, padding="same")
    graph = Graph("g", {"y": y, "z": ops.max_pool(z, 2), "t": z * ops.sqrt(total)}, {})
    plan = compile_graph(graph, {"w": (0, 0)})
    chain, *others = plan.chains
    members = plan.launches[chain.first : chain.last + 1]
    assert [m.walk for m in members] == [SAMPLES, SAMPLES, SHARES]
    assert all(c.first > chain.last for c in others)
    after = {b for x in plan.launches[chain.last + 1 :] for b in x.touched}
    sums = {b for m in members if m.walk == SHARES for b in m.written}
    assert sums & after
    for b, (born, dies) in plan.lives.items():
        if any(b in m.touched for m in members):
            assert born <= chain.first
            assert dies >= chain.last, b


def test_how_many_samples_are_taken_at_a_time(monkeypatch):
    """Shares stay whole; a unit fits; where shares make units too few or too large, the sum runs
    alone; small batches, and steps that stay in L3, have no chain.
    """
    x = input_node("x", Spec(("batch", 32, 32, 16), "float32"))
    w = weights(3, 3, 16, 16)
    y = ops.conv(ops.exp(x), w.node, padding="same")
    graph = Graph("g", {"y": y, "s": ops.sum(y * y, (0, 1, 2))}, {})
    assert compile_graph(graph, {"w": (0, 0)}).chains == ()
    monkeypatch.setattr(chains, "FAR", 8 << 20)
    plan = compile_graph(graph, {"w": (0, 0)})
    (chain,) = plan.chains
    launches = plan.launches

    def linked(batch):
        extents = {"batch": batch}
        trips = [eval(str(x.trip), {}, extents) for x in launches]
        return [(k.first - chain.first, len(k.steps), k.samples)
                for k in chains.links(chain, launches, trips, extents)]  # fmt: skip

    assert linked(64) == [(0, 3, 2)]
    assert linked(128) == [(0, 3, 4)]
    assert linked(63) == [(0, 2, 1)]  # shares of all samples: the sum runs alone
    assert linked(12) == [(0, 2, 1)]
    assert linked(7) == []
    assert linked(4096) == [(0, 2, 2)]


def test_only_launches_without_conflicts_change_places(eager):
    """Random orders of reads and writes: each launch still sees what it saw before."""
    x, w = value(*IMAGE), weights(3, 3, 8, 8)
    y = x
    for _ in range(4):
        y = ops.conv(ops.exp(y), w.node, padding="same")
        y = y - ops.mean(y, (0, 1, 2), True)
    plan = compile_graph(Graph("g", {"y": y}, {}), {"w": (0, 0)})
    known = {}
    for launch in plan.launches:
        for b in launch.touched:
            if b.kind == "work" and b not in launch.written:
                assert b in known, (launch.template.name, b.name)
        known |= dict.fromkeys(launch.written)
    assert len(plan.chains) >= 3
    again = make_plan(plan.graph, plan.launches, {}, plan.outputs, (), plan.chains)
    assert again.lives == plan.lives
    stored = stored_plan.decode(*stored_plan.encode(plan), origin=lambda: None, key="")
    assert stored.chains == plan.chains
    assert [x.walk for x in stored.launches] == [x.walk for x in plan.launches]


def test_a_member_that_touches_shares_of_another_is_refused(eager):
    x = value(*IMAGE)
    plan = compile_graph(Graph("g", {"y": x - ops.mean(x, (0, 1, 2), True)}, {}), {})
    first, join, scale, last = plan.launches
    assert not chains.joins([first], join)
    assert not chains.joins([scale], last)
    assert chains.find(plan.launches) == (list(plan.launches), ())
    assert plan.chains == ()
