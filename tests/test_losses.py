"""Losses: values against hand-written formulas, gradients against PyTorch, weights, logits."""

import json

import numpy as np
import pytest

from nnjit import losses, ops
from nnjit.autodiff import gradients
from nnjit.errors import ArgumentError, ShapeError
from nnjit.graph import Graph, constant, input_node, interpret, walk
from nnjit.registry import REGISTRIES, _functions, register
from nnjit.spec import Spec, symbol

RNG = np.random.default_rng(0)
BATCH = symbol("batch")


def node(name, array):
    return input_node(name, Spec((BATCH, *array.shape[1:]), array.dtype.name))


def evaluate(loss, y_true, y_pred, sample_weight=None, activation=None):
    """(loss, gradient with respect to y_pred) of a batch."""
    feeds = {"t": np.asarray(y_true), "p": np.asarray(y_pred)}
    weight = None
    if sample_weight is not None:
        feeds["w"] = np.asarray(sample_weight, "float32")
        weight = node("w", feeds["w"])
    p = node("p", feeds["p"])
    value = loss(node("t", feeds["t"]), p if activation is None else activation(p), weight)
    graph = Graph("loss", {"loss": value, "grad": gradients(value, [p])[0]})
    found = interpret(graph, feeds)[0]
    return found["loss"], found["grad"]


T = RNG.uniform(0.1, 1, (6, 5))
P = RNG.uniform(0.1, 1, (6, 5))
S = np.sign(RNG.standard_normal((6, 5)))
HOT = np.eye(5)[[0, 4, 2, 2, 1, 3]]
N = P / P.sum(-1, keepdims=True)
E = P - T
FORMULAS = [
    ("mse", T, P, (E**2).mean(-1)),
    ("mae", T, P, np.abs(E).mean(-1)),
    ("mape", T, P, 100 * np.abs(E / T).mean(-1)),
    ("msle", T, P, (np.log((1 + P) / (1 + T)) ** 2).mean(-1)),
    ("huber", T, 5 * P, np.where(np.abs(5 * P - T) < 1, (5 * P - T) ** 2 / 2,
                                 np.abs(5 * P - T) - 0.5).mean(-1)),
    (losses.Huber(delta=0.1), T, P, np.where(np.abs(E) < 0.1, E**2 / 2,
                                            0.1 * np.abs(E) - 0.005).mean(-1)),
    ("log_cosh", T, P, np.log(np.cosh(E)).mean(-1)),
    ("kl_divergence", T, P, (T * np.log(T / P)).sum(-1)),
    ("poisson", T, P, (P - T * np.log(P + 1e-7)).mean(-1)),
    ("hinge", S, P, np.maximum(1 - S * P, 0).mean(-1)),
    ("hinge", (S + 1) / 2, P, np.maximum(1 - S * P, 0).mean(-1)),
    ("squared_hinge", S, P, (np.maximum(1 - S * P, 0) ** 2).mean(-1)),
    ("categorical_hinge", HOT, P,
     np.maximum(((1 - HOT) * P).max(-1) - (HOT * P).sum(-1) + 1, 0)),
    ("cosine_similarity", T, P,
     -(T * P).sum(-1) / np.linalg.norm(T, axis=-1) / np.linalg.norm(P, axis=-1)),
    ("categorical_crossentropy", T, P, -(T * np.log(N)).sum(-1)),
    (losses.CategoricalCrossentropy(label_smoothing=0.1), HOT, P,
     -((HOT * 0.9 + 0.02) * np.log(N)).sum(-1)),
    ("sparse_categorical_crossentropy", HOT.argmax(-1), P, -np.log((HOT * N).sum(-1))),
    ("sparse_categorical_crossentropy", HOT.argmax(-1)[:, None].astype("float32"), P,
     -np.log((HOT * N).sum(-1))),
    ("binary_crossentropy", T, N, -(T * np.log(N) + (1 - T) * np.log(1 - N)).mean(-1)),
    (losses.BinaryCrossentropy(label_smoothing=0.2), HOT, N,
     -((0.8 * HOT + 0.1) * np.log(N) + (0.9 - 0.8 * HOT) * np.log(1 - N)).mean(-1)),
]  # fmt: skip


@pytest.mark.parametrize(("loss", "t", "p", "expected"), FORMULAS, ids=lambda c: str(c)[:30])
def test_formulas(loss, t, p, expected):
    loss = losses.get(loss)
    np.testing.assert_allclose(evaluate(loss, t, p)[0], expected.mean(), rtol=1e-6)
    weights = RNG.uniform(0, 2, 6).astype("float32")
    for shape in ((6,), (6, 1)):
        found = evaluate(loss, t, p, weights.reshape(shape))[0]
        np.testing.assert_allclose(found, (expected * weights).mean(), rtol=1e-6)
    again = losses.get(json.loads(json.dumps(
        {"class_name": type(loss).__name__, "config": {**loss.get_config(), "reduction": "sum"}}
    )))  # fmt: skip
    np.testing.assert_allclose(evaluate(again, t, p)[0], expected.sum(), rtol=1e-6)


def test_known_values_of_keras():
    """Numbers printed in Keras' documentation."""
    cases = [
        (losses.MeanSquaredError(), [[0, 1], [0, 0]], [[1, 1], [1, 0]], None, 0.5),
        (losses.MeanSquaredError(), [[0, 1], [0, 0]], [[1, 1], [1, 0]], [0.7, 0.3], 0.25),
        (losses.Huber(), [[0, 1], [0, 0]], [[0.6, 0.4], [0.4, 0.6]], None, 0.155),
        (losses.Hinge(), [[0, 1], [0, 0]], [[0.6, 0.4], [0.4, 0.6]], None, 1.3),
        (losses.SparseCategoricalCrossentropy(), [1, 2], [[0.05, 0.95, 0], [0.1, 0.8, 0.1]],
         None, 1.177),
        (losses.CategoricalCrossentropy(), [[0, 1, 0], [0, 0, 1]],
         [[0.05, 0.95, 0], [0.1, 0.8, 0.1]], [0.3, 0.7], 0.814),
        (losses.BinaryCrossentropy(from_logits=True), [[0, 1, 0, 0]],
         [[-18.6, 0.51, 2.94, -12.8]], None, 0.865),
    ]  # fmt: skip
    for loss, t, p, w, expected in cases:
        found = evaluate(loss, np.array(t, "float32"), np.array(p, "float32"), w)[0]
        np.testing.assert_allclose(found, expected, atol=1e-3)


LOGITS = RNG.standard_normal((6, 5)) * 3


@pytest.mark.parametrize("form", ["from_logits", "softmax", "probabilities"])
def test_softmax_cross_entropies_and_their_gradients(form):
    torch = pytest.importorskip("torch", reason="compares with torch, which is missing")
    labels = HOT.argmax(-1)
    logits = torch.tensor(LOGITS, requires_grad=True)
    theirs = torch.nn.functional.cross_entropy(logits, torch.tensor(labels))
    theirs.backward()
    activation = {
        "from_logits": None, "softmax": ops.softmax, "probabilities": lambda x: ops.softmax(x) * 1,
    }[form]  # fmt: skip
    given = form == "from_logits"
    for loss, target in [
        (losses.SparseCategoricalCrossentropy(given), labels),
        (losses.CategoricalCrossentropy(given), HOT),
    ]:
        value, grad = evaluate(loss, target, LOGITS, activation=activation)
        np.testing.assert_allclose(value, theirs.item(), rtol=1e-9)
        np.testing.assert_allclose(grad, logits.grad.numpy(), rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize("form", ["from_logits", "sigmoid", "probabilities"])
def test_binary_cross_entropy_and_its_gradient(form):
    torch = pytest.importorskip("torch", reason="compares with torch, which is missing")
    logits = torch.tensor(LOGITS, requires_grad=True)
    theirs = torch.nn.functional.binary_cross_entropy_with_logits(logits, torch.tensor(T))
    theirs.backward()
    activation = {
        "from_logits": None, "sigmoid": ops.sigmoid, "probabilities": lambda x: ops.sigmoid(x) * 1,
    }[form]  # fmt: skip
    loss = losses.BinaryCrossentropy(form == "from_logits")
    value, grad = evaluate(loss, T, LOGITS, activation=activation)
    np.testing.assert_allclose(value, theirs.item(), rtol=1e-9)
    np.testing.assert_allclose(grad, logits.grad.numpy(), rtol=1e-7, atol=1e-12)


def test_confident_softmax_outputs_lose_nothing():
    """Through probabilities the loss would be cut off at -log(1e-7) = 16.1, with gradient 0."""
    far = np.array([[200.0, 0.0]], "float32")
    value, grad = evaluate(losses.get("sparse_categorical_crossentropy"), [1], far,
                           activation=ops.softmax)  # fmt: skip
    assert value == 200
    np.testing.assert_allclose(grad, [[1, -1]])
    value, grad = evaluate(losses.get("binary_crossentropy"), [[1.0]], np.array([[-200.0]]),
                           activation=ops.sigmoid)  # fmt: skip
    assert value == 200
    np.testing.assert_allclose(grad, [[-1]])


def test_probabilities_of_zero_stay_finite():
    value, _ = evaluate(losses.get("sparse_categorical_crossentropy"), [1],
                        np.array([[1.0, 0.0]], "float32"))  # fmt: skip
    np.testing.assert_allclose(value, -np.log(1e-7), rtol=1e-3)
    value, _ = evaluate(losses.get("binary_crossentropy"), [[1.0]], np.array([[0.0]]))
    np.testing.assert_allclose(value, -np.log(1e-7), rtol=1e-3)


def test_softmax_over_another_axis_is_not_traded():
    y = ops.softmax(constant(np.zeros((2, 3, 3), "float32")), axis=1)
    loss = losses.sparse_categorical_crossentropy(constant(np.zeros((2, 3), "int32")), y)
    assert y in walk([loss])


def test_labels_one_axis_short_of_one_output():
    value, _ = evaluate(losses.get("mse"), np.array([1.0, 2.0]), np.array([[0.0], [0.0]]))
    assert value == 2.5


def test_sequences_and_their_weights():
    p, t = RNG.uniform(size=(2, 3, 4)), RNG.integers(0, 4, (2, 3))
    n = p / p.sum(-1, keepdims=True)
    values = -np.log(np.take_along_axis(n, t[..., None], -1))[..., 0]
    loss = losses.get("sparse_categorical_crossentropy")
    np.testing.assert_allclose(evaluate(loss, t, p)[0], values.mean(), rtol=1e-6)
    w = np.array([1.0, 3.0])
    np.testing.assert_allclose(evaluate(loss, t, p, w)[0], (values * w[:, None]).mean(), rtol=1e-6)
    mask = np.array([[1, 1, 0], [1, 0, 0]])
    np.testing.assert_allclose(evaluate(loss, t, p, mask)[0], (values * mask).mean(), rtol=1e-6)


def test_functions_are_losses():
    def cubed(y_true, y_pred):
        return ops.mean(ops.abs(y_true - y_pred) ** 3, axis=-1)

    loss = losses.get(cubed)
    assert loss.name == "cubed"
    np.testing.assert_allclose(evaluate(loss, T, P)[0], (np.abs(E) ** 3).mean(), rtol=1e-6)
    try:
        register(cubed)
        assert losses.get("cubed").function is cubed
    finally:
        _functions.remove(cubed)
        for registry in REGISTRIES.values():
            registry.items.pop("cubed", None)


ERRORS = [
    (lambda: losses.get("sparse_categorical_crossentrpy"), ArgumentError, "did you mean 'sparse_"),
    (lambda: losses.MeanSquaredError(reduction="none"), ArgumentError, "reduction='none'"),
    (lambda: losses.BinaryCrossentropy(from_logit=True), ArgumentError, "'from_logits'"),
    (lambda: evaluate(losses.get("mse"), T, P[:, :2]), ShapeError,
     r"mean_squared_error: labels of shape \(batch, 5\) do not fit .* \(batch, 2\)"),
    (lambda: evaluate(losses.get("sparse_categorical_crossentropy"), HOT, P), ShapeError,
     r"expected class numbers of shape \(batch,\) .* got \(batch, 5\)"),
    (lambda: evaluate(losses.CategoricalCrossentropy(label_smoothing=2), HOT, P), ArgumentError,
     "label_smoothing=2"),
    (lambda: evaluate(losses.get("mse"), T, P, np.ones((6, 5, 2))), ShapeError, "sample_weight"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "error", "message"), ERRORS)
def test_errors(make, error, message):
    with pytest.raises(error, match=message):
        make()
