"""Metrics from counts of true and false positives and negatives, against NumPy."""

import json

import numpy as np
import pytest
from test_metrics import gather

from nnjit import metrics
from nnjit.errors import ArgumentError

RNG = np.random.default_rng(3)
T = (RNG.uniform(size=(40, 3)) < 0.4).astype("float32")
P = np.clip(0.3 * T + RNG.uniform(0, 0.7, (40, 3)), 0, 1).astype("float32")
W = RNG.uniform(0.5, 2, 40).astype("float32")
TRUE, POSITIVE = T > 0, P > 0.5
PARTS = [slice(0, 25), slice(25, 40)]


def batches(weights=False):
    return [(T[s], P[s], W[s]) if weights else (T[s], P[s]) for s in PARTS]


def count(hit, weights):
    return (hit * W[:, None]).sum() if weights else hit.sum()


@pytest.mark.parametrize("weights", [False, True])
def test_counts_precision_recall(weights):
    tp, fp = count(TRUE & POSITIVE, weights), count(~TRUE & POSITIVE, weights)
    fn, tn = count(TRUE & ~POSITIVE, weights), count(~TRUE & ~POSITIVE, weights)
    for metric, expected in [
        (metrics.TruePositives(), tp),
        (metrics.FalsePositives(), fp),
        (metrics.FalseNegatives(), fn),
        (metrics.TrueNegatives(), tn),
        (metrics.Precision(), tp / (tp + fp)),
        (metrics.Recall(), tp / (tp + fn)),
        (metrics.F1Score("micro", 0.5, classes=3), 2 * tp / (2 * tp + fp + fn)),
    ]:
        np.testing.assert_allclose(gather(metric, batches(weights)), expected, rtol=1e-6)
        again = type(metric).from_config(json.loads(json.dumps(metric.get_config())))
        assert again.get_config() == metric.get_config()


def test_one_class_and_another_threshold():
    found = gather(metrics.Recall(thresholds=0.3, class_id=1), batches())
    expected = (TRUE & (np.float32(0.3) < P))[:, 1].sum() / TRUE[:, 1].sum()
    np.testing.assert_allclose(found, expected)
    assert gather(metrics.Precision(), [(T * 0, P * 0)]) == 0


@pytest.mark.parametrize("average", ["macro", "weighted"])
def test_f1_of_the_largest_prediction(average):
    chosen = P.max(-1, keepdims=True) == P
    tp, total = (TRUE & chosen).sum(0), TRUE.sum(0) + chosen.sum(0)
    scores = 2 * tp / total
    share = TRUE.sum(0) / TRUE.sum() if average == "weighted" else np.ones(3) / 3
    found = gather(metrics.F1Score(average, classes=3), batches())
    np.testing.assert_allclose(found, (scores * share).sum(), rtol=1e-6)


def test_roc_area_is_the_share_of_ordered_pairs():
    t, p = T[:, 0], np.round(P[:, 0], 2)
    pairs = p[t > 0][:, None] - p[t == 0]
    expected = (pairs > 0).mean() + 0.5 * (pairs == 0).mean()
    limits = (np.arange(0, 101) + 0.5) / 100  # between any two predictions
    found = gather(metrics.AUC(thresholds=limits.tolist()), [(t, p)])
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert abs(gather(metrics.AUC(), [(t, p)]) - expected) < 0.02


def test_areas_of_the_documentation_of_keras():
    t, p = np.array([0, 0, 1, 1.0]), np.array([0, 0.5, 0.3, 0.9])
    np.testing.assert_allclose(gather(metrics.AUC(num_thresholds=3), [(t, p)]), 0.75)
    metric = metrics.AUC(num_thresholds=3)
    weights = np.array([1, 0, 0, 1.0])
    np.testing.assert_allclose(gather(metric, [(t, p, weights)]), 1.0)


def test_area_under_precision_and_recall():
    t, p = T.ravel(), P.ravel()
    order = np.argsort(-p)
    precision = np.cumsum(t[order]) / np.arange(1, t.size + 1)
    average = (precision * t[order]).sum() / t.sum()
    for method in ("interpolation", "minoring", "majoring"):
        found = gather(metrics.AUC(1000, "PR", method), [(t, p)])
        assert abs(found - average) < 0.03
    logits = np.log(p / (1 - p))
    np.testing.assert_allclose(
        gather(metrics.AUC(from_logits=True), [(t, logits)]), gather(metrics.AUC(), [(t, p)]),
        atol=0.01,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: metrics.AUC(curve="RCO"), "curve='RCO'; did you mean 'ROC'"),
        (lambda: metrics.AUC(summation_method="minor"), "'minoring'"),
        (lambda: metrics.AUC(num_thresholds=1), "num_thresholds=1"),
        (lambda: metrics.F1Score("mean"), "average='mean'"),
        (lambda: metrics.Precision(thresholds="half"), "thresholds='half'"),
        (lambda: gather(metrics.Recall(class_id=3), batches()), "class_id=3"),
        (lambda: gather(metrics.F1Score(classes=2), batches()), "classes=2"),
    ],
)
def test_wrong_arguments_are_named(make, message):
    with pytest.raises(ArgumentError, match=message):
        make()
