"""Names, weights, calls, sharing, sublayers, penalties and configurations of layers."""

import json

import numpy as np
import pytest
from layer_checks import apply, values_of

import nnjit.initializers
import nnjit.registry
import nnjit.regularizers
from nnjit import layers, ops
from nnjit.errors import ArgumentError, DTypeError, ShapeError
from nnjit.graph import Graph, Scope, input_node, interpret, state_node
from nnjit.layers.base import called_layers, name_layers, trace
from nnjit.spec import Spec, symbol


def net():
    x = layers.Input((4,))
    h = layers.Dense(3)(x)
    h = layers.Dense(3, name="dense_1")(h)
    return x, layers.ReLU()(layers.Dense(3)(h))


def test_two_builds_get_the_same_names():
    for _ in range(2):
        _, y = net()
        found = called_layers([y])
        name_layers(found)
        assert [x.name for x in found] == ["dense", "dense_1", "dense_2", "re_lu"]
        name_layers(found)
        assert [x.name for x in found] == ["dense", "dense_1", "dense_2", "re_lu"]


@pytest.mark.parametrize(
    ("layer", "name"),
    [
        (layers.Conv2D(1, 1), "conv2d"),
        (layers.MaxPooling2D(), "max_pooling2d"),
        (layers.GlobalAveragePooling2D(), "global_average_pooling2d"),
        (layers.DepthwiseConv2D(1), "depthwise_conv2d"),
        (layers.BatchNormalization(), "batch_normalization"),
        (layers.LeakyReLU(), "leaky_re_lu"),
        (layers.Conv2DTranspose(1, 1), "conv2d_transpose"),
        (layers.UpSampling1D(), "up_sampling1d"),
        (layers.ELU(), "elu"),
    ],
)
def test_names_are_those_of_keras(layer, name):
    assert layer.name == name


def test_equal_names_by_the_user_are_an_error():
    with pytest.raises(ArgumentError, match="two layers are named 'a'"):
        name_layers([layers.Dense(1, name="a"), layers.Flatten(name="a")])


def test_a_layer_named_in_one_model_keeps_its_name_in_the_next():
    shared, other = layers.Dense(2), layers.Dense(2)
    name_layers([layers.Dense(2), shared])
    name_layers([other, shared])
    assert (other.name, shared.name) == ("dense", "dense_1")


def test_initial_values_depend_on_seed_and_name_only():
    a, b, c = layers.Dense(3, name="a"), layers.Dense(3, name="a"), layers.Dense(3, name="c")
    for layer in (a, b, c):
        layer.build((None, 4))
    np.testing.assert_array_equal(a.kernel.numpy(), b.kernel.numpy())
    assert (a.kernel.numpy() != c.kernel.numpy()).all()
    before = a.kernel.numpy()
    a.kernel.initialize(5)
    assert (a.kernel.numpy() != before).all()


# ------------------------------------------------------------------------------------------ calls
def test_a_shared_layer_is_one_set_of_weights():
    dense = layers.Dense(3, kernel_regularizer="l2")
    x = layers.Input((3,), name="x")
    y = dense(dense(x)) * 2
    scope = Scope()
    (out,) = trace([y], {}, scope)
    data = np.ones((2, 3), "float32")
    kernel = np.arange(9, dtype="float32").reshape(3, 3)
    dense.set_weights([kernel, np.zeros(3)])
    values = values_of(dense.weights) | {"x": data}
    found = interpret(Graph("g", {"y": out}), values)[0]["y"]
    np.testing.assert_allclose(found, data @ kernel @ kernel * 2)
    assert len(scope.losses) == 1
    penalty = interpret(Graph("g", {"p": scope.losses[0]}), values)[0]["p"]
    np.testing.assert_allclose(penalty, 0.01 * (kernel**2).sum(), rtol=1e-6)
    dense.trainable = False
    again = Scope()
    trace([y], {}, again)
    assert not again.losses


def test_activity_regularizer_sees_each_result_per_sample():
    layer = layers.Activation("relu", activity_regularizer="l1")
    x = layers.Input((2,), name="x")
    scope = Scope()
    trace([layer(x)], {}, scope)
    data = np.array([[1, -2], [3, 4]], "float32")
    found = interpret(Graph("g", {"p": scope.losses[0]}), {"x": data})[0]["p"]
    np.testing.assert_allclose(found, 0.08 / 2, rtol=1e-6)


def test_layers_can_add_losses():
    class Penalised(layers.Layer):
        def call(self, x):
            self.add_loss(ops.sum(x))
            return x

    x = layers.Input((2,), name="x")
    scope = Scope()
    trace([Penalised()(x)], {}, scope)
    found = interpret(Graph("g", {"p": scope.losses[0]}), {"x": np.ones((3, 2), "float32")})
    assert found[0]["p"] == 6


FLOAT64 = [
    layers.Conv2D(2, 2, dtype="float64", kernel_regularizer="l1_l2", activation="gelu"),
    layers.DepthwiseConv2D(2, dtype="float64"),
    layers.BatchNormalization(dtype="float64"),
    layers.AveragePooling2D(dtype="float64"),
    layers.GlobalMaxPooling2D(dtype="float64"),
    layers.Dropout(0.5, dtype="float64"),
    layers.ReLU(max_value=6, negative_slope=0.1, dtype="float64"),
    layers.Softmax(axis=(1, 2), dtype="float64"),
]


@pytest.mark.parametrize("layer", FLOAT64, ids=lambda x: x.name)
def test_float64_stays_float64(layer):
    x = np.random.default_rng(0).standard_normal((2, 4, 4, 3)).astype("float32")
    y, _, updates = apply(layer, x, training=True)
    assert y.dtype == np.float64
    assert all(v.dtype == np.float64 for v in updates.values())
    inputs = layers.Input((4, 4, 3), dtype="float64")
    assert layer(inputs).dtype == "float64"


def test_feeds_rename_inputs_and_their_symbols():
    x = layers.Input((None, 4))
    y = ops.reshape(layers.Dense(2)(x), (x.shape[0] * x.shape[1], 2)) / ops.mean(x)
    mine = input_node("mine", Spec((symbol("batch"), symbol("time"), 4)))
    (out,) = trace([y], {x: mine}, Scope())
    assert str(out.shape) == "(batch*time, 2)"
    graph = Graph("g", {"y": out})
    assert graph.symbols == ("batch", "time")
    dense = called_layers([y])[0]
    data = np.ones((2, 5, 4), "float32")
    found = interpret(graph, values_of(dense.weights) | {"mine": data})[0]["y"]
    np.testing.assert_allclose(found, data.reshape(10, 4) @ dense.get_weights()[0], rtol=1e-6)


class Block(layers.Layer):
    """A user's layer: own weight, sublayers in attributes and lists, two inputs and results."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.first = layers.Dense(units)
        self.rest = [layers.Dense(units), layers.Dropout(0.5)]

    def build(self, input_shape):
        assert input_shape == [(None, 3), (None, 2)]
        self.scale = self.add_weight((self.units,), "ones", "scale")

    def call(self, inputs, training=False):
        a, b = inputs
        h = self.rest[1](self.rest[0](b) + self.first(a))
        return {"sum": self.scale * h + (1.0 if training else 0.0), "a": a}


def test_users_layers_with_sublayers():
    a, b = layers.Input((3,), name="a"), layers.Input((2,), name="b")
    block = Block(4)
    results = block([a, b])
    assert results["sum"].shape[1:] == (4,)
    assert results["a"].shape[1:] == (3,)
    assert [v.name for v in block.weights] == [
        "block/scale", "block/dense/kernel", "block/dense/bias",
        "block/dense_1/kernel", "block/dense_1/bias",
    ]  # fmt: skip
    assert block.count_params() == 4 + 12 + 4 + 8 + 4
    scope = Scope(training=True, random=state_node("random", Spec((2,), "int64")))
    (y,) = trace([results["sum"]], {}, scope)
    assert any(n.scope == "block/dense_1" for n in Graph("g", {"y": y}).nodes())
    block.trainable = False
    assert block.trainable_weights == []
    assert len(block.non_trainable_weights) == 5
    assert not block.first.trainable


def test_arrays_and_scopes_are_traced_inline():
    layer = layers.Dense(2, kernel_initializer="ones")
    node = layer(np.ones((1, 3), "float32"))
    values = values_of(layer.weights)
    np.testing.assert_allclose(interpret(Graph("g", {"y": node}), values)[0]["y"], [[3, 3]])


def test_compute_output_shape():
    assert layers.Conv2D(8, 3).compute_output_shape((None, 28, 28, 1)) == (None, 26, 26, 8)
    assert layers.Embedding(9, 5).compute_output_shape((None, 7)) == (None, 7, 5)


def test_set_weights_changes_nothing_if_one_does_not_fit():
    layer = layers.Dense(2, name="d")
    layer.build((None, 3))
    before = layer.get_weights()
    with pytest.raises(ShapeError, match=r"d/bias: expected shape \(2,\), got \(3,\)"):
        layer.set_weights([np.zeros((3, 2)), np.zeros(3)])
    with pytest.raises(ShapeError, match=r"1 arrays for 2 weights: d/kernel \(3, 2\)"):
        layer.set_weights([np.zeros((3, 2))])
    np.testing.assert_array_equal(layer.get_weights()[0], before[0])
    with pytest.raises(DTypeError, match="cannot assign complex128 to float32"):
        layer.kernel.assign(np.zeros((3, 2), complex))
    layer.kernel.numpy()[:] = 9
    assert (layer.kernel.numpy() != 9).all()


# --------------------------------------------------------------------------------- configurations
ALL = [
    layers.Dense(3, "relu", kernel_regularizer=nnjit.regularizers.L1L2(0.1, 0.2), name="d"),
    layers.Conv2D(3, (3, 2), kernel_constraint="max_norm", padding=((1, 1), (0, 0))),
    layers.DepthwiseConv2D(3, depth_multiplier=2),
    layers.Conv1D(3, 4, padding="causal", bias_regularizer="l2", groups=3),
    layers.SeparableConv2D(3, 2, pointwise_constraint="non_neg", depth_multiplier=2),
    layers.Conv2DTranspose(3, (2, 3), 2, "same", output_padding=(1, 0), activation="relu"),
    layers.UpSampling2D((2, 3), interpolation="bilinear"),
    layers.ZeroPadding2D(((1, 0), (2, 3))),
    layers.Cropping1D((0, 2)),
    layers.AveragePooling1D(3, 2, "same"),
    layers.MaxPooling2D(3, 2, "same"),
    layers.GlobalMaxPooling2D(keepdims=True),
    layers.Reshape((3, -1), input_shape=(6,)),
    layers.Dropout(0.1, seed=3),
    layers.BatchNormalization(momentum=0.5, trainable=False),
    layers.Embedding(3, 2, embeddings_initializer=nnjit.initializers.RandomNormal(stddev=0.1)),
    layers.Activation(ops.gelu),
    layers.ReLU(6.0, 0.1),
    layers.Softmax(axis=(1, 2)),
]


@pytest.mark.parametrize("layer", ALL, ids=lambda x: x.name)
def test_config_round_trip_through_json(layer):
    config = json.loads(json.dumps(layer.get_config()))
    again = type(layer).from_config(config)
    assert again.get_config() == layer.get_config()
    assert again.name == layer.name
    assert again.trainable == layer.trainable
    whole = json.loads(json.dumps(nnjit.registry.serialize(layer)))
    assert type(layers.get(whole)) is type(layer)


def test_registered_classes_and_functions_can_be_saved():
    def double(x):
        return x * 2

    layer = layers.Activation(double)
    with pytest.raises(ArgumentError, match=r"Activation.activation: .*@nnjit.register"):
        layer.get_config()
    try:
        nnjit.registry.register(double)
        assert layer.get_config()["activation"] == "double"
        assert layers.Activation("double").activation is double
        nnjit.registry._functions.remove(double)
        nnjit.registry.register(Block)
        again = layers.get(nnjit.registry.serialize(Block(2)))
        assert again.units == 2
    finally:
        for registry in nnjit.registry.REGISTRIES.values():
            for name in ("double", "Block", "block"):
                registry.items.pop(name, None)
    with pytest.raises(ArgumentError, match="register: expected"):
        nnjit.registry.register(3)


def test_functions_registered_early_reach_registries_made_later():
    def early(x):
        return x

    made = dict(nnjit.registry.REGISTRIES)
    try:
        nnjit.registry.register(early)
        assert nnjit.registry.Registry("loss").get("early") is early
        assert "early" not in nnjit.registry.Registry("optimizer").items
    finally:
        nnjit.registry._functions.remove(early)
        for registry in made.values():
            registry.items.pop("early", None)
        nnjit.registry.REGISTRIES.update(made)


def test_registry_answers():
    assert layers.get(None) is None
    assert isinstance(layers.get("flatten"), layers.Flatten)
    assert isinstance(layers.get(layers.Flatten), layers.Flatten)
    with pytest.raises(ArgumentError, match="unknown layer 'Flaten'; did you mean 'Flatten'"):
        layers.get("Flaten")
    with pytest.raises(ArgumentError, match="expected a layer, got the initializer"):
        layers.get(nnjit.initializers.Zeros())
    with pytest.raises(ArgumentError, match="'class_name'"):
        layers.get({"config": {}})


def test_float64_layers_cast_their_input():
    y, _, _ = apply(layers.Dense(2, dtype="float64"), np.ones((1, 3), "float32"))
    assert y.dtype == np.float64
