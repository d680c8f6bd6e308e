"""Metrics over several batches: state kept by the graph's updates, results against NumPy."""

import json

import numpy as np
import pytest

from nnjit import losses, metrics, ops
from nnjit.errors import ArgumentError
from nnjit.graph import Graph, Scope, enter, input_node, interpret
from nnjit.spec import Spec, symbol

RNG = np.random.default_rng(0)
BATCH = symbol("batch")


def specs(*arrays):
    return [Spec((BATCH, *a.shape[1:]), a.dtype.name) for a in arrays]


def gather(metric, batches):
    """The metric's result after batches of (y_true, y_pred[, sample_weight])."""
    for batch in batches:
        batch = [np.asarray(a) for a in batch]
        nodes = [input_node(f"x{i}", s) for i, s in enumerate(specs(*batch))]
        scope = Scope()
        with enter(scope):
            metric.update(*nodes)
        values = {f"x{i}": a for i, a in enumerate(batch)}
        values |= {v.name: v.numpy() for v in metric.variables}
        updates = interpret(Graph("g", {}, scope.updates), values)[1]
        before = metric.result()
        assert metric.result({**values, **updates}) == metric.result(updates)
        assert metric.result() == before
        for v in metric.variables:
            v.assign(updates[v.name])
    return metric.result()


P = RNG.uniform(0, 1, (9, 6)).astype("float32")
LABELS = RNG.integers(0, 6, 9).astype("int32")
HOT = np.eye(6, dtype="float32")[LABELS]
T = RNG.uniform(0, 1, (9, 6)).astype("float32")
BITS = (T > 0.5).astype("float32")
RIGHT = P.argmax(-1) == LABELS
RANK = (np.take_along_axis(P, LABELS[:, None], -1) < P).sum(-1)
COS = (T * P).sum(-1) / np.linalg.norm(T, axis=-1) / np.linalg.norm(P, axis=-1)
CASES = [
    ("sparse_categorical_accuracy", LABELS, P, RIGHT),
    ("sparse_categorical_accuracy", LABELS[:, None].astype("float32"), P, RIGHT),
    ("categorical_accuracy", HOT, P, RIGHT),
    ("binary_accuracy", BITS, P, ((P > 0.5) == BITS).mean(-1)),
    (metrics.BinaryAccuracy(threshold=0.25), BITS, P, ((P > 0.25) == BITS).mean(-1)),
    (metrics.SparseTopKCategoricalAccuracy(k=2), LABELS, P, RANK < 2),
    (metrics.TopKCategoricalAccuracy(k=3), HOT, P, RANK < 3),
    ("mse", T, P, ((T - P) ** 2).mean(-1)),
    ("mae", T, P, np.abs(T - P).mean(-1)),
    ("CosineSimilarity", T, P, COS),
    ("binary_crossentropy", BITS, P,
     -(BITS * np.log(P) + (1 - BITS) * np.log(1 - P)).mean(-1)),
    ("sparse_categorical_crossentropy", LABELS, P,
     -np.log((HOT * P).sum(-1) / P.sum(-1))),
    (metrics.CategoricalCrossentropy(from_logits=True), HOT, P,
     np.log(np.exp(P).sum(-1)) - (HOT * P).sum(-1)),
]  # fmt: skip


@pytest.mark.parametrize(("metric", "t", "p", "expected"), CASES, ids=lambda c: str(c)[:30])
def test_means_over_batches(metric, t, p, expected):
    metric = metrics.get(metric)
    parts = [slice(0, 4), slice(4, 8), slice(8, 9)]
    found = gather(metric, [(t[s], p[s]) for s in parts])
    np.testing.assert_allclose(found, expected.mean(), rtol=1e-5)
    metric.reset()
    assert metric.result() == 0
    weights = RNG.uniform(0, 2, 9).astype("float32")
    found = gather(metric, [(t[s], p[s], weights[s]) for s in parts])
    np.testing.assert_allclose(found, np.average(expected, weights=weights), rtol=1e-5)
    config = json.loads(json.dumps(metric.get_config()))
    assert type(metric).from_config(config).get_config() == metric.get_config()


def test_root_mean_squared_error_is_the_root_of_the_mean():
    found = gather(metrics.get("rmse"), [(T[:4], P[:4]), (T[4:], P[4:])])
    np.testing.assert_allclose(found, np.sqrt(((T - P) ** 2).mean()), rtol=1e-6)


def test_counts_stay_exact_beyond_float32():
    metric = metrics.Mean()
    metric.total.assign(2.0**24)
    metric.count.assign(2.0**24)
    gather(metric, [(np.ones(1, "float32"),)])
    assert metric.count.numpy() == 2**24 + 1
    assert metric.total.numpy() == 2**24 + 1


def test_mean_of_a_scalar_with_a_weight():
    metric = metrics.Mean("loss")
    scope = Scope()
    with enter(scope):
        for value, weight in [(3.0, 1.0), (6.0, 2.0)]:
            metric.update(ops.as_node(value), ops.as_node(weight))
    values = {v.name: v.numpy() for v in metric.variables}
    updates = interpret(Graph("g", {}, scope.updates), values)[1]
    assert metric.result(updates) == 5.0  # two updates in one step add up
    assert [v.name for v in metric.variables] == ["loss/total", "loss/count"]


@pytest.mark.parametrize(
    ("t", "p", "kind"),
    [
        (LABELS, P, "SparseCategorical"),
        (LABELS[:, None], P, "SparseCategorical"),
        (HOT, P, "Categorical"),
        (LABELS, P[:, :1], "Binary"),
        (LABELS[:, None], P[:, :1], "Binary"),
        (np.zeros((9, 4), int), np.zeros((9, 4, 6)), "SparseCategorical"),
    ],
)
def test_accuracy_chooses_by_shape(t, p, kind):
    for name in ("accuracy", "acc"):
        metric = metrics.get(name, *specs(t, p))
        assert type(metric).__name__ == kind + "Accuracy"
        assert metric.name == name
    assert type(metrics.get("ce", *specs(t, p))).__name__ == kind + "Crossentropy"


def test_functions_and_losses_are_metrics():
    def error(y_true, y_pred):
        return ops.mean(ops.abs(y_true - y_pred), axis=-1)

    metric = metrics.get(error)
    assert metric.name == "error"
    np.testing.assert_allclose(gather(metric, [(T, P)]), np.abs(T - P).mean(), rtol=1e-5)
    metric = metrics.get(losses.Huber(0.5))
    assert metric.name == "huber"
    assert gather(metric, [(T, P)]) > 0


def test_errors():
    with pytest.raises(ArgumentError, match="unknown metric 'acuracy'; did you mean 'accuracy'"):
        metrics.get("acuracy")
    with pytest.raises(ArgumentError, match="depends on shapes"):
        metrics.get("accuracy")
    with pytest.raises(ArgumentError, match="threshold=3"):
        metrics.BinaryAccuracy(threshold=3)
