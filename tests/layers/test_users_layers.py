"""Layers that users write, against the same in Keras: several inputs and outputs, nested, shared,
configured, saved, cloned.
"""

import numpy as np
import pytest
from keras_checks import keras_on_torch, same_as_keras
from layer_checks import apply

import nnjit
from nnjit import layers, ops
from nnjit.errors import ArgumentError
from nnjit.layers import Input, Layer
from nnjit.models import Model, Sequential, clone_model

RNG = np.random.default_rng(8)
A, B = (RNG.standard_normal((3, 4)).astype("float32") for _ in range(2))


def gate_of(L, ops):
    """A layer of two inputs, made from Keras' or nnjit's parts."""

    class Gate(L.Layer):
        def __init__(self, units, **kwargs):
            super().__init__(**kwargs)
            self.units = units
            self.parts = [L.Dense(units, activation=a) for a in ("tanh", "sigmoid")]

        def build(self, input_shape):
            assert [tuple(s) for s in input_shape] == [(None, 4), (None, 4)]
            self.scale = self.add_weight(shape=(self.units,), initializer="ones", name="scale")
            self.offset = self.add_weight(
                shape=(self.units,), initializer="zeros", name="offset", trainable=False
            )

        def call(self, inputs):
            a, b = inputs
            value, gate = (part(x) for part, x in zip(self.parts, (a, b), strict=True))
            return value * gate * self.scale + self.offset - self.parts[0](b)

    return Gate


def test_two_inputs_nested_and_shared_layers_are_those_of_keras():
    keras = keras_on_torch()

    def build(L, whole, ops, Input):
        a, b, gate = Input((4,)), Input((4,)), gate_of(L, ops)(5)
        return whole([a, b], L.Add()([gate([a, b]), gate([b, a])]))

    mine = build(layers, Model, ops, Input)
    theirs = build(keras.layers, keras.Model, keras.ops, keras.Input)
    same_as_keras(mine, theirs, [A, B])
    assert [tuple(w.shape) for w in theirs.weights] == [w.shape for w in mine.weights]
    assert [w.name for w in mine.weights][:2] == ["gate/scale", "gate/offset"]
    assert len(mine.trainable_weights) == 5


@nnjit.register
class Parts(Layer):
    """dict -> dict, with training, an option and a nested layer; __init__ takes no name."""

    def __init__(self, rate=0.5):
        super().__init__()
        self.rate, self.inner = rate, Sequential([layers.Dense(4), layers.ReLU()])

    def call(self, inputs, training=False):
        total = self.inner(inputs["left"]) + inputs["right"]
        return {"sum": total * (1 - self.rate if training else 1.0), "pair": (total, total * 2)}


@nnjit.register
class MeanOfSteps(Layer):
    """The mean of the steps that the mask leaves."""

    def __init__(self, least=1.0, **kwargs):
        super().__init__(**kwargs)
        self.least = least

    def call(self, x, mask=None):
        weight = ops.cast(ops.expand_dims(mask, -1), x.dtype) if mask is not None else x * 0 + 1
        count = ops.maximum(ops.sum(weight, axis=1), self.least)
        return ops.sum(x * weight, axis=1) / count

    def get_config(self):
        return {**super().get_config(), "least": self.least}


def parts_model():
    a, b = Input((4,), name="a"), Input((4,), name="b")
    layer = Parts(rate=0.25)
    layer.name = "halves"
    found = layer({"left": a, "right": b})
    return Model([a, b], layers.Concatenate()([found["sum"], found["pair"][1]]))


def test_dicts_of_inputs_and_outputs_and_training():
    model = parts_model()
    kernel, bias = model.get_weights()
    total = np.maximum(A @ kernel + bias, 0) + B
    for training, factor in ((False, 1), (True, 0.75)):
        y = apply(model, A, B, training=training)[0]
        np.testing.assert_allclose(y, np.hstack([total * factor, total * 2]), rtol=1e-5)


def test_shapes_of_several_inputs_and_outputs():
    layer = gate_of(layers, ops)(5)
    assert layer.compute_output_shape([(None, 4), (None, 4)]) == (None, 5)

    class Split(Layer):
        def call(self, x):
            return x[:, :1], {"rest": x[:, 1:]}

    assert Split().compute_output_shape((None, 4)) == ((None, 1), {"rest": (None, 3)})


def test_models_with_masks_and_own_layers_come_back(tmp_path):
    x = RNG.integers(0, 5, (6, 3)).astype("int32")
    x[:, 0] = 1
    y = RNG.standard_normal((6, 2)).astype("float32")
    tokens = Input(("time",), dtype="int32")
    inner = Sequential([Input((None, 3)), layers.Dense(3, activation="tanh")])
    steps = inner(layers.Embedding(5, 3, mask_zero=True)(tokens), training=False)
    frozen = layers.Dense(2)
    frozen.trainable = False
    model = Model(tokens, frozen(MeanOfSteps()(layers.TimeDistributed(layers.Dense(4))(steps))))
    model.compile("adam", "mse", device="interpret")
    model.train_on_batch(x, y)
    path = tmp_path / "m.nnjit"
    model.save(path)
    again = nnjit.load_model(path, device="interpret")
    longer = np.pad(x, ((0, 0), (0, 4)))
    for m in (model, again):  # what is filled up with zeros does not count
        np.testing.assert_allclose(m.predict(longer), model.predict(x), rtol=1e-5, atol=1e-6)
    assert again.train_on_batch(x, y) == model.train_on_batch(x, y)
    for a, b in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert [w.name for w in again.trainable_weights] == [w.name for w in model.trainable_weights]


def test_a_layer_whose_init_takes_no_name_keeps_its_name(tmp_path):
    model = parts_model()
    model.layers[0].trainable = False
    model.save(tmp_path / "m.nnjit")
    again = nnjit.load_model(tmp_path / "m.nnjit", device="interpret")
    assert [x.name for x in again.layers] == [x.name for x in model.layers]
    assert not again.trainable_weights
    np.testing.assert_array_equal(apply(again, A, B)[0], apply(model, A, B)[0])


def test_clones_have_weights_of_their_own():
    class Unregistered(Layer):
        def call(self, x):
            return x * 2

    class Own(Model):
        def __init__(self, units):
            super().__init__()
            self.units, self.dense, self.twice = units, layers.Dense(units), Unregistered()

        def call(self, x):
            return self.twice(self.dense(x))

    chain = Sequential([Input((4,)), layers.Dense(3), Unregistered(), layers.Dense(2)])
    own = Own(3)
    own.build((None, 4))
    for model in (chain, own, parts_model()):
        model.set_weights([w + 1 for w in model.get_weights()])
        model.session.device = "interpret"
        clone = clone_model(model)
        assert type(clone) is type(model)
        inputs = [A, B] if len(model.inputs) == 2 else A
        before = clone.predict(inputs)
        assert not np.array_equal(before, model.predict(inputs))
        assert [w.name for w in clone.weights] == [w.name for w in model.weights]
        clone.set_weights(model.get_weights())
        np.testing.assert_array_equal(clone.predict(inputs), model.predict(inputs))
        model.set_weights([w * 0 for w in model.get_weights()])
        assert np.abs(clone.predict(inputs)).max() > 0
    with pytest.raises(ArgumentError, match="clone_model: expected a model"):
        clone_model(layers.Dense(3))
