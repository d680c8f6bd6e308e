"""Normalisations against Keras, and what they promise by themselves."""

import json
import os

import numpy as np
import pytest
from layer_checks import apply

from nnjit import layers, ops
from nnjit.errors import ArgumentError, ShapeError
from nnjit.graph import Graph, Scope, enter, input_node, interpret
from nnjit.spec import Spec

RNG = np.random.default_rng(3)
AFFINE = {"gamma_initializer": "random_normal", "beta_initializer": "random_normal"}


@pytest.fixture(scope="module")
def keras():
    os.environ.setdefault("KERAS_BACKEND", "torch")
    keras = pytest.importorskip("keras", reason="compares with keras, which is missing")
    if keras.backend.backend() != "torch":
        pytest.skip("compares with keras on torch")
    return keras


def array(*shape, dtype="float32"):
    return RNG.standard_normal(shape).astype(dtype)


CASES = [
    ("LayerNormalization", {"epsilon": 1e-2, **AFFINE}, (5, 7), {}),
    ("LayerNormalization", {"axis": [3, 1], **AFFINE}, (2, 3, 4, 5), {}),
    ("LayerNormalization", {"axis": [1, 2], "center": False, **AFFINE}, (2, 3, 4), {}),
    ("LayerNormalization", {"scale": False}, (2, 3, 1), {}),
    ("RMSNormalization", {}, (2, 3, 4), {}),
    ("RMSNormalization", {"axis": [1, 2], "epsilon": 0.1}, (2, 3, 4), {}),
    ("GroupNormalization", {"groups": 2, **AFFINE}, (3, 4, 2, 6), {}),
    ("GroupNormalization", {"groups": -1, "axis": 1, **AFFINE}, (3, 4, 5), {}),
    ("GroupNormalization", {"groups": 1, "scale": False}, (3, 4), {}),
    ("UnitNormalization", {}, (2, 3, 4), {}),
    ("UnitNormalization", {"axis": [1, 2]}, (2, 3, 4), {}),
    ("BatchNormalization", {"momentum": 0.5, **AFFINE}, (4, 3, 5), {"training": True}),
    ("BatchNormalization", {"axis": 1, "scale": False}, (4, 3, 2), {"training": True}),
    ("BatchNormalization", {"center": False, **AFFINE}, (6, 3), {"training": True}),
    ("BatchNormalization", {"moving_mean_initializer": "random_normal"}, (6, 3), {}),
    ("BatchNormalization", {"moving_variance_initializer": "ones"}, (1, 5), {"training": True}),
]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("name", "options", "shape", "call"), CASES)
def test_values_gradients_and_statistics_are_those_of_keras(
    keras, name, options, shape, call, dtype
):
    torch = pytest.importorskip("torch")
    ours = getattr(layers, name)(dtype=dtype, **options)
    theirs = getattr(keras.layers, name)(dtype=dtype, **options)
    x, dy = array(*shape, dtype=dtype), array(*shape, dtype=dtype)
    apply(ours, x, **call)
    theirs.build((None, *shape[1:]))
    assert [w.shape for w in ours.weights] == [tuple(w.shape) for w in theirs.weights]
    assert [w.name.split("/")[-1] for w in ours.weights] == [w.name for w in theirs.weights]
    theirs.set_weights(ours.get_weights())
    y, grads, updates = apply(ours, x, cotangent=dy, **call)
    tx = torch.tensor(x, requires_grad=True)
    ty = theirs(tx, **call)
    ty.backward(torch.tensor(dy))
    assert y.dtype == grads["x0"].dtype == dtype
    tol = {"rtol": 1e-4, "atol": 2e-5}  # Keras normalises float64 in float32
    np.testing.assert_allclose(y, ty.detach().numpy(), **tol)
    np.testing.assert_allclose(grads["x0"], tx.grad.numpy(), **tol)
    for mine, other in zip(ours.trainable_weights, theirs.trainable_weights, strict=True):
        np.testing.assert_allclose(grads[mine.name], other.value.grad.numpy(), **tol)
    for mine, other in zip(ours.weights, theirs.weights, strict=True):
        if mine.name in updates:
            np.testing.assert_allclose(updates[mine.name], other.value.detach().numpy(), **tol)


def test_batch_normalization_leaves_masked_positions_out(keras):
    x, mask = array(4, 6, 3), RNG.random((4, 6)) < 0.6
    ours, theirs = (
        layers.BatchNormalization(momentum=0),
        keras.layers.BatchNormalization(momentum=0),
    )
    kept, m = input_node("x", Spec(("batch", 6, 3))), input_node("m", Spec(("batch", 6), "bool"))
    ours.build((None, 6, 3))
    ours.built = True
    scope = Scope(training=True)
    with enter(scope):
        out = ours(kept, training=True, mask=m)
    values = {"x": x, "m": mask} | {v.name: v.numpy() for v in ours.weights}
    found, updates = interpret(Graph("g", {"y": out}, scope.updates), values)
    want = theirs(x, training=True, mask=mask).detach().numpy()
    np.testing.assert_allclose(found["y"], want, rtol=1e-4, atol=1e-5)
    for mine, other in zip(ours.weights[2:], theirs.weights[2:], strict=True):
        np.testing.assert_allclose(
            updates[mine.name], other.value.detach().numpy(), rtol=1e-5, atol=1e-6
        )


def test_zeros_have_no_direction_and_no_nan():
    y, grads, _ = apply(
        layers.UnitNormalization(),
        np.zeros((2, 3), "float32"),
        cotangent=np.ones((2, 3), "float32"),
    )
    assert (y == 0).all()
    assert np.isfinite(grads["x0"]).all()


@pytest.mark.parametrize(
    "layer",
    [
        layers.LayerNormalization(axis=(1, 2), gamma_regularizer="l2", beta_constraint="non_neg"),
        layers.RMSNormalization(axis=[-1], epsilon=0.5),
        layers.GroupNormalization(groups=-1, axis=2, center=False),
        layers.UnitNormalization(axis=(1, 2)),
        layers.BatchNormalization(
            axis=1, moving_mean_initializer="ones", gamma_constraint="max_norm"
        ),
    ],
    ids=lambda x: x.name,
)
def test_config_round_trip(layer):
    config = json.loads(json.dumps(layer.get_config()))
    assert type(layer).from_config(config).get_config() == layer.get_config()
    assert layer.supports_masking == (type(layer) is not layers.RMSNormalization)


ERRORS = [
    (lambda: layers.LayerNormalization(axis="last"), "axis='last'"),
    (lambda: layers.LayerNormalization(axis=[]), r"axis=\[\]"),
    (lambda: layers.LayerNormalization(rms_scaling=True), "rms_scaling=True.*RMSNormalization"),
    (lambda: layers.LayerNormalization(epsilon=-1), "epsilon=-1"),
    (lambda: layers.GroupNormalization(groups=0), "groups=0"),
    (lambda: layers.GroupNormalization(axis=[1]), r"axis=\[1\]"),
    (lambda: layers.BatchNormalization(axis=1.5), "axis=1.5"),
    (lambda: layers.BatchNormalization(renorm=True), "renorm=True"),
    (lambda: layers.BatchNormalization(synchronized=True), "synchronized=True"),
    (lambda: layers.BatchNormalization(beta_initialiser="ones"), "did you mean 'beta_initializer'"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "message"), ERRORS)
def test_wrong_arguments_are_named(make, message):
    with pytest.raises(ArgumentError, match=message):
        make()


SHAPES = [
    (layers.LayerNormalization(axis=3), (4,), "no axis 3"),
    (layers.LayerNormalization(axis=(1, -1)), (4,), "names an axis twice"),
    (layers.LayerNormalization(), (None,), "must be known"),
    (layers.GroupNormalization(groups=3), (4,), "groups=3 does not divide the 4 channels"),
    (layers.GroupNormalization(axis=0), (4,), "axis=0 is the batch axis"),
]


@pytest.mark.parametrize(("layer", "shape", "message"), SHAPES)
def test_wrong_shapes_are_named(layer, shape, message):
    with pytest.raises(ShapeError, match=message):
        layer(layers.Input(shape))


def test_a_layer_built_for_other_extents_says_so():
    layer = layers.LayerNormalization(name="ln")
    layer(layers.Input((4,)))
    with pytest.raises(ShapeError, match=r"ln: expected \(4,\) on axes \(1,\), got \(batch, 5\)"):
        layer(layers.Input((5,)))


def test_groups_must_divide_the_channels():
    x = layers.Input((4, 6))
    for groups, axis in ((4, -1), (0, -1), (3, 1)):
        with pytest.raises(ShapeError, match=rf"group_normalization: groups={groups} on axis"):
            ops.group_normalization(x, groups, axis=axis)
