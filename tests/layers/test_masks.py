"""Masks: which layers make them, pass them on, merge them or end them, against Keras."""

import numpy as np
import pytest
from keras_checks import keras_on_torch, same_as_keras
from layer_checks import apply

from nnjit import layers, ops
from nnjit.errors import ArgumentError, ShapeError
from nnjit.graph import Graph, Scope, current_scope, enter, input_node, interpret
from nnjit.models import Model, Sequential
from nnjit.spec import Spec

pytestmark = pytest.mark.filterwarnings("ignore:Layer .* destroy the mask")
RNG = np.random.default_rng(2)
TOKENS = np.array([[3, 1, 0, 2], [1, 0, 0, 0], [0, 0, 0, 0]], np.int32)
A, B = (RNG.standard_normal((3, 4, 5)).astype("float32") for _ in range(2))
A[0, 2:] = A[1, 1] = B[0, 1:3] = B[2] = 0


class Shown(layers.Layer):
    """The mask of the input as numbers, -1 where there is none."""

    def call(self, x, mask=None):
        zeros = ops.sum(x, axis=tuple(range(2, x.rank))) * 0
        return zeros - 1 if mask is None else zeros + ops.cast(mask, "float32")


def keras_shown(keras):
    class KerasShown(keras.layers.Layer):
        def call(self, x, mask=None):
            zeros = keras.ops.sum(x, axis=tuple(range(2, len(x.shape)))) * 0
            return zeros - 1 if mask is None else zeros + keras.ops.cast(mask, "float32")

    return KerasShown()


PASSING = [
    lambda L: L.Dense(3),
    lambda L: L.Activation("tanh"),
    lambda L: L.Dropout(0.5),
    lambda L: L.ReLU(),
    lambda L: L.LeakyReLU(),
    lambda L: L.ELU(),
    lambda L: L.PReLU(shared_axes=[1]),
    lambda L: L.Rescaling(2.0),
    lambda L: L.LayerNormalization(),
    lambda L: L.BatchNormalization(),
    lambda L: L.TimeDistributed(L.Dense(2)),
    lambda L: L.Reshape((4, 5)),
    lambda L: L.Permute((1, 2)),
    lambda L: L.Conv1D(3, 1),
    lambda L: L.Masking(0.5),
]


@pytest.mark.parametrize("make", PASSING)
def test_layers_pass_on_the_mask_as_in_keras(make):
    keras = keras_on_torch()
    ours = Sequential([layers.Input((4, 5)), layers.Masking(), make(layers), Shown()])
    other = [keras.Input((4, 5)), keras.layers.Masking(), make(keras.layers), keras_shown(keras)]
    same_as_keras(ours, keras.Sequential(other), [A])


MERGING = [
    lambda L: L.Add(), lambda L: L.Subtract(), lambda L: L.Multiply(), lambda L: L.Average(),
    lambda L: L.Maximum(), lambda L: L.Minimum(), lambda L: L.Concatenate(),
    lambda L: L.Concatenate(axis=1), lambda L: L.Dot(axes=2), lambda L: L.Dot(axes=(1, 1)),
]  # fmt: skip


@pytest.mark.parametrize("masked", ["both", "first", "second"])
@pytest.mark.parametrize("make", MERGING)
def test_merging_layers_merge_masks_and_values_as_in_keras(make, masked):
    keras = keras_on_torch()

    def model(L, whole, shown, Input):
        a, b = Input((4, 5)), Input((4, 5))
        left = L.Masking()(a) if masked != "second" else a
        right = L.Masking()(b) if masked != "first" else b
        y = make(L)([left, right])
        return whole([a, b], L.Concatenate()([L.Flatten()(y), shown(y)]))

    ours = model(layers, Model, Shown(), layers.Input)
    theirs = model(keras.layers, keras.Model, keras_shown(keras), keras.Input)
    same_as_keras(ours, theirs, [A, B])


def test_embedding_masks_zero():
    keras = keras_on_torch()

    def chain(L, first, shown):
        return [first, L.Embedding(4, 3, mask_zero=True), L.Dense(2), shown]

    ours = Sequential(chain(layers, layers.Input((None,), dtype="int32"), Shown()))
    first = keras.Input((None,), dtype="int32")
    theirs = keras.Sequential(chain(keras.layers, first, keras_shown(keras)))
    y = same_as_keras(ours, theirs, [TOKENS])
    np.testing.assert_array_equal(y, TOKENS != 0)
    again = layers.get({"class_name": "Embedding", "config": ours.layers[0].get_config()})
    assert again.mask_zero
    assert again.supports_masking


# ------------------------------------------------------------------------ where masks can travel
def shown(model, *arrays):
    return apply(model, *arrays)[0]


def test_masks_go_through_nested_models_and_shared_layers():
    inner = Sequential([layers.Input((None, 5)), layers.Dense(5), layers.Activation("relu")])
    shared = layers.Dense(2)
    a, b = layers.Input(("time", 5)), layers.Input(("time", 5))
    masked, free = shared(inner(layers.Masking()(a))), shared(inner(b))
    model = Model([a, b], layers.Concatenate()([Shown()(masked), Shown()(free)]))
    y = shown(model, A, B)
    np.testing.assert_array_equal(y, np.hstack([(A != 0).any(-1), -np.ones((3, 4))]))


def test_a_mask_given_in_the_call_wins():
    inner = Sequential([layers.Input((None, 5)), layers.Dense(5), Shown()])
    x, m = layers.Input(("time", 5)), layers.Input(("time",))
    y = inner(layers.Masking()(x), mask=m), Shown()(layers.Masking()(x), mask=m), Shown()(x)
    model = Model([x, m], layers.Concatenate()(list(y)))
    given = (TOKENS > 0).astype("float32")
    expected = np.hstack([given, given, -np.ones((3, 4))])
    np.testing.assert_array_equal(shown(model, A, given), expected)
    with pytest.raises(ArgumentError, match="dense: mask=…: Dense takes no mask"):
        layers.Dense(3)(x, mask=m)
    with pytest.raises(ArgumentError, match=r"\['mask'\] take symbolic values, not arrays"):
        inner(A, mask=given)


class Block(layers.Layer):
    """Masks within a user's call; the mask of its result is that of the layers inside."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.mask, self.dense = layers.Masking(), layers.Dense(3)

    def call(self, x):
        return self.dense(self.mask(x))


class Halves(layers.Layer):
    """Two results with masks of their own."""

    def call(self, x, mask=None):
        return {"first": x[:, :2], "second": x[:, 2:]}

    def compute_mask(self, inputs, previous_mask=None):
        if previous_mask is None:
            return None
        return {"second": previous_mask[:, 2:], "first": previous_mask[:, :2]}


class Renewed(layers.Layer):
    """Returns its input, with a mask that only its own readers are to see."""

    def call(self, x):
        return x

    def compute_mask(self, inputs, previous_mask=None):
        return ops.sum(inputs, axis=-1) > 0


def test_users_layers_make_and_pass_on_masks():
    x = layers.Input((4, 5))
    halves = Halves()(Block()(x))
    y = [Shown()(halves["first"]), Shown()(halves["second"]), Shown()(Renewed()(x)), Shown()(x)]
    expected = [(A != 0).any(-1), A.sum(-1) > 0, -np.ones((3, 4))]
    np.testing.assert_array_equal(shown(Model(x, layers.Concatenate()(y)), A), np.hstack(expected))


def test_a_mask_survives_another_dtype_of_the_next_layer():
    model = Sequential([
        layers.Input((4, 5), dtype="float64"), layers.Masking(dtype="float64"), layers.Dense(2),
        Shown(),
    ])  # fmt: skip
    np.testing.assert_array_equal(shown(model, A.astype("float64")), (A != 0).any(-1))


class Two(layers.Layer):
    """Masks of several arguments, by their names."""

    def call(self, query, value, query_mask=None, value_mask=None):
        assert value_mask is None
        return ops.sum(query + value, axis=-1) * 0 + ops.cast(query_mask, "float32")


def test_arguments_have_masks_by_name():
    scope = Scope()
    a, b = (input_node(k, Spec(("batch", 4, 5))) for k in "ab")
    with enter(scope):
        y = Two()(layers.Masking()(a), b)
        assert current_scope().masks
    out, _ = interpret(Graph("test", {"y": y}), {"a": A, "b": B})
    np.testing.assert_array_equal(out["y"], (A != 0).any(-1))


def test_training_given_in_a_call_holds_inside():
    inner = Sequential([layers.Input((4, 5)), layers.Dropout(0.5)])
    x = layers.Input((4, 5))
    ones = np.ones_like(A)
    frozen = Model(x, inner(x, training=False))
    np.testing.assert_array_equal(apply(frozen, ones, training=True)[0], ones)
    active = Model(x, inner(x, training=True))
    assert set(np.unique(apply(active, ones)[0])) == {0, 2}


def test_softmax_leaves_out_what_a_mask_says():
    keras = keras_on_torch()
    mask = TOKENS[:, None, :] > 0
    x = RNG.standard_normal((3, 2, 4)).astype("float32")
    i = layers.Input((2, 4))
    m = layers.Input((1, 4), dtype="bool")
    ours = apply(Model([i, m], layers.Softmax()(i, mask=m)), x, mask)[0]
    np.testing.assert_allclose(ours, keras.layers.Softmax()(x, mask=mask), rtol=1e-6, atol=1e-7)
    with pytest.raises(ShapeError, match="softmax"):
        layers.Softmax()(i, mask=layers.Input((3, 4), dtype="bool"))
    chain = Sequential([layers.Input((4, 5)), layers.Masking(), layers.Softmax(), Shown()])
    np.testing.assert_array_equal(shown(chain, A), (A != 0).any(-1))
