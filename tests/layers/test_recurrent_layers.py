"""Recurrent layers beside Keras on torch: values, gradients, masks, states; options; errors."""

from __future__ import annotations

import numpy as np
import pytest
from keras_checks import Typed, keras_on_torch, same_as_keras
from layer_checks import apply, values_of

from nnjit import layers, ops, register
from nnjit.errors import ArgumentError, ShapeError
from nnjit.graph import Graph, Scope, interpret, state_node
from nnjit.layers import Input, trace
from nnjit.layers.calls import leaves
from nnjit.models import Sequential
from nnjit.spec import Spec

B, T, F, U = 3, 4, 2, 5
NORMAL = {"bias_initializer": "normal", "recurrent_initializer": "glorot_uniform"}
X = np.random.default_rng(0).standard_normal((B, T, F)).astype("float32")
MASK = np.array([[1, 1, 0, 0], [0, 0, 1, 1], [1, 0, 1, 0]], bool)
SEQUENCE = {"return_sequences": True}

CASES = {
    "simple": lambda k: k.SimpleRNN(U, **NORMAL),
    "simple, backwards": lambda k: k.SimpleRNN(U, "relu", go_backwards=True, **SEQUENCE),
    "gru": lambda k: k.GRU(U, **NORMAL, **SEQUENCE),
    "gru, reset before": lambda k: k.GRU(U, reset_after=False, go_backwards=True, **NORMAL),
    "gru, no bias": lambda k: k.GRU(U, "elu", "hard_sigmoid", use_bias=False, **SEQUENCE),
    "lstm": lambda k: k.LSTM(U, **NORMAL),
    "lstm, sequences": lambda k: k.LSTM(U, "softsign", "hard_sigmoid", **NORMAL, **SEQUENCE),
    "lstm, backwards": lambda k: k.LSTM(U, use_bias=False, go_backwards=True, **SEQUENCE),
    "rnn of a cell": lambda k: k.RNN(k.LSTMCell(U, **NORMAL), **SEQUENCE),
    "stacked cells": lambda k: k.RNN([k.LSTMCell(U, **NORMAL), k.GRUCell(2)], **SEQUENCE),
    "both ways": lambda k: k.Bidirectional(k.LSTM(U, **NORMAL), merge_mode="sum"),
    "both ways, concat": lambda k: k.Bidirectional(k.GRU(U, **NORMAL, **SEQUENCE)),
    "both ways, mul": lambda k: k.Bidirectional(k.SimpleRNN(U, **SEQUENCE), merge_mode="mul"),
    "both ways, ave": lambda k: k.Bidirectional(
        k.GRU(U), merge_mode="ave", backward_layer=k.GRU(U, "relu", go_backwards=True)
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients_are_those_of_keras(name):
    keras = keras_on_torch()
    same_as_keras(CASES[name](layers), CASES[name](keras.layers), [X])


@pytest.mark.parametrize("name", ["gru", "lstm", "both ways"])
def test_float64_too(name):
    keras = keras_on_torch()
    ours, theirs = (CASES[name](Typed(k, "float64")) for k in (layers, keras.layers))
    same_as_keras(ours, theirs, [X.astype("float64")], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("times", [1, 7])
def test_lstm_and_gru_are_those_of_torch(times):
    torch = pytest.importorskip("torch", reason="compares with torch, which is missing")
    x = np.random.default_rng(2).standard_normal((B, times, F)).astype("float32")
    orders = {"LSTM": [0, 1, 2, 3], "GRU": [1, 0, 2]}  # Keras' z, r, h are torch's r, z, n
    for kind, order in orders.items():
        ours = getattr(layers, kind)(U, return_sequences=True)
        theirs = getattr(torch.nn, kind)(F, U, batch_first=True)
        ours.build_from_config({"input_shape": (None, times, F)})

        def gates(w, order=order):
            parts = np.split(w.detach().numpy(), len(order))
            return np.concatenate([parts[i] for i in order]).T

        bias = np.stack([gates(theirs.bias_ih_l0), gates(theirs.bias_hh_l0)])
        bias = bias if kind == "GRU" else bias.sum(0)
        ours.set_weights([gates(theirs.weight_ih_l0), gates(theirs.weight_hh_l0), bias])
        given = torch.tensor(x, requires_grad=True)
        expected = theirs(given)[0]
        dy = np.random.default_rng(3).standard_normal(expected.shape).astype("float32")
        expected.backward(torch.tensor(dy))
        y, grads, _ = apply(ours, x, cotangent=dy)
        np.testing.assert_allclose(y, expected.detach().numpy(), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(grads["x0"], given.grad.numpy(), rtol=1e-5, atol=1e-6)
        want = gates(theirs.weight_hh_l0.grad)
        got = grads[ours.weights[1].name]
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


# ------------------------------------------------------------------------------- masks and states
def run(layer, x, training=False, **given):
    """All results of a layer called with arrays for its arguments, by the interpreter."""
    arrays = [x, *leaves_of(given)]
    nodes = [Input(a.shape[1:], dtype=a.dtype.name, name=f"x{i}") for i, a in enumerate(arrays)]
    rest = iter(nodes[1:])
    symbolic = {
        k: [next(rest) for _ in v] if isinstance(v, list) else next(rest) for k, v in given.items()
    }
    results = leaves([layer(nodes[0], **symbolic)])
    scope = Scope(training=training, random=state_node("random", Spec((2,), "int64")))
    graph = Graph("test", {f"y{i}": n for i, n in enumerate(trace(results, {}, scope))})
    values = {n.name: a for n, a in zip(nodes, arrays, strict=True)} | values_of(layer.weights)
    found, _ = interpret(graph, values | {"random": np.array([3, 0])})
    return [found[f"y{i}"] for i in range(len(found))]


def leaves_of(given):
    return [a for v in given.values() for a in (v if isinstance(v, list) else [v])]


def states(*sizes):
    return [np.random.default_rng(k).standard_normal((B, k)).astype("float32") for k in sizes]


BOTH = {"return_state": True, **SEQUENCE}
WITH_MASKS = {
    "sequences and states": (lambda k: k.LSTM(U, **BOTH), []),
    "first output is 0, not the state": (lambda k: k.GRU(U, **BOTH), states(U)),
    "last output": (lambda k: k.LSTM(U, return_state=True), states(U, U)),
    "backwards": (lambda k: k.SimpleRNN(U, go_backwards=True, **BOTH), states(U)),
    "zeros": (lambda k: k.GRU(U, zero_output_for_mask=True, **BOTH), []),
    "zero at the end": (lambda k: k.LSTM(U, zero_output_for_mask=True), states(U, U)),
    "stacked": (lambda k: k.RNN([k.GRUCell(U), k.LSTMCell(2)], **SEQUENCE), []),
    "both ways": (lambda k: k.Bidirectional(k.LSTM(U, **BOTH)), states(U, U, U, U)),
    "both ways, apart": (lambda k: k.Bidirectional(k.GRU(U, **BOTH), merge_mode=None), []),
    "both ways, last": (lambda k: k.Bidirectional(k.GRU(U)), []),
}


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", WITH_MASKS)
def test_masks_and_states_are_those_of_keras(name, masked):
    keras = keras_on_torch()
    make, initial = WITH_MASKS[name]
    ours, theirs = make(layers), make(keras.layers)
    given = {"mask": MASK} if masked else {}
    given |= {"initial_state": initial} if initial else {}
    found = run(ours, X, **given)
    theirs.build(X.shape)
    theirs.set_weights(ours.get_weights())
    tensors = {
        k: [keras.ops.convert_to_tensor(a) for a in v] if isinstance(v, list)
        else keras.ops.convert_to_tensor(v) for k, v in given.items()
    }  # fmt: skip
    expected = keras.tree.flatten(theirs(keras.ops.convert_to_tensor(X), **tensors))
    assert len(found) == len(expected)
    for y, want in zip(found, expected, strict=True):
        want = want.detach().numpy()
        np.testing.assert_allclose(y, want, rtol=1e-5, atol=1e-6)


def test_padded_steps_have_no_gradient():
    layer = layers.LSTM(U)
    masking = layers.Masking()
    x = np.where(MASK[..., None], X, 0)
    both = Sequential([masking, layer])
    _, grads, _ = apply(both, x, cotangent=np.ones((B, U), "float32"))
    assert not grads["x0"][~MASK].any()
    assert (grads["x0"][MASK] != 0).all()


def test_a_mask_goes_on_only_with_sequences():
    mask = object()
    assert layers.GRU(U).compute_mask(None, mask) is None
    assert layers.LSTM(U, **BOTH).compute_mask(None, mask) == [mask, None, None]
    both = layers.Bidirectional(layers.GRU(U, **BOTH), merge_mode=None)
    assert both.compute_mask(None, mask) == [mask, mask, None, None]


# -------------------------------------------------------------------------------------- own cells
@register
class Leaky(layers.Layer):
    """A cell whose output is none of its states: the state fades, the output is a product."""

    def __init__(self, units, fade=0.5, **kwargs):
        super().__init__(**kwargs)
        self.units, self.fade, self.state_size = units, fade, units

    def build(self, input_shape):
        self.kernel = self.add_weight((input_shape[-1], self.units), "normal", "kernel")
        self.scale = self.add_weight((), "ones", "scale")

    def call(self, inputs, states):
        h = states[0] * self.fade + ops.matmul(inputs, self.kernel)
        return h * h * self.scale + 1, [h]


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("sequences", [False, True])
def test_a_cell_of_your_own(masked, sequences):
    layer = layers.RNN(Leaky(U), return_sequences=sequences, return_state=True)
    given = {"mask": MASK} if masked else {}
    found = run(layer, X, **given)
    h, y, ys = np.zeros((B, U)), np.zeros((B, U)), []
    for t in range(T):
        on = MASK[:, t, None] if masked else True
        new = h * 0.5 + X[:, t] @ layer.cell.kernel.numpy()
        h, y = np.where(on, new, h), np.where(on, new * new + 1, y)
        ys.append(y)
    np.testing.assert_allclose(found[0], np.stack(ys, 1) if sequences else y, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found[1], h, rtol=1e-5, atol=1e-6)
    again = layers.get({"class_name": "RNN", "config": layer.get_config()})
    assert again.get_config() == layer.get_config()


# ------------------------------------------------------------------------------ dropout, penalties
def test_dropout_chooses_once_for_all_times():
    x = np.ones((B, T, 50), "float32")
    layer = layers.SimpleRNN(
        50,
        None,
        dropout=0.5,
        kernel_initializer="identity",
        recurrent_initializer="zeros",
        **SEQUENCE,
    )
    (y,) = run(layer, x, training=True)
    assert (y == y[:, :1]).all()
    assert sorted(np.unique(y)) == [0, 2]
    assert 0.3 < (y[:, 0] == 0).mean() < 0.7
    assert (run(layer, x)[0] == 1).all()


def test_recurrent_dropout_chooses_once_for_all_times():
    ones = np.ones((B, 50), "float32")
    layer = layers.SimpleRNN(
        50, None, recurrent_dropout=0.5, recurrent_initializer="identity", **SEQUENCE
    )
    (y,) = run(layer, np.zeros((B, T, F), "float32"), training=True, initial_state=[ones])
    kept = y[:, 0] != 0
    for t in range(T):
        np.testing.assert_array_equal(y[:, t], np.where(kept, 2.0 ** (t + 1), 0))
    assert 0.3 < kept.mean() < 0.7


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_dropout_of_gates(kind):
    """With recurrent dropout each gate drops on its own; seeds make it repeatable."""
    made = [getattr(layers, kind)(U, dropout=0.3, recurrent_dropout=0.3, seed=s) for s in (1, 1, 2)]
    cells = [layers.RNN([made[0].cell.__class__(U, dropout=0.3, recurrent_dropout=0.3, seed=1)])]
    found = []
    for layer in (*made, *cells):
        layer.build_from_config({"input_shape": (None, T, F)})
        layer.set_weights(made[0].get_weights())
        found.append(run(layer, X, training=True)[0])
    np.testing.assert_array_equal(found[0], found[1])
    assert (found[0] != found[2]).any()
    np.testing.assert_allclose(found[0], found[3], rtol=1e-6)  # before the scan or inside of it
    assert (found[0] != run(made[0], X)[0]).any()


def test_penalties_reach_the_loss_and_constraints_the_weights():
    layer = layers.LSTM(
        U, kernel_regularizer="l2", recurrent_regularizer="l1", bias_regularizer="l2",
        recurrent_constraint="non_neg", activity_regularizer="l2", return_sequences=True,
    )  # fmt: skip
    x = Input((T, F))
    y = layer(x)
    scope = Scope(training=True)
    trace([y, layer(x)], {}, scope)
    assert len(scope.losses) == 3 + 2  # each weight once, each output
    assert layer.cell.recurrent_kernel.constraint is not None


# ---------------------------------------------------------------------------- state, configuration
def test_stateful_begins_where_the_batch_before_ended():
    x = np.random.default_rng(5).standard_normal((2, 6, F)).astype("float32")
    model = Sequential([Input((3, F), batch_size=2), layers.GRU(U, stateful=True)])
    whole = Sequential([Input((6, F)), layers.GRU(U)])
    for m in (model, whole):
        m.compile("sgd", "mse", device="interpret")
    whole.set_weights(model.get_weights()[1:])  # the first is the state
    first = model.predict(x[:, :3], batch_size=2, verbose=0)
    second = model.predict(x[:, 3:], batch_size=2, verbose=0)
    np.testing.assert_allclose(second, whole.predict(x, verbose=0), rtol=1e-6)
    model.layers[0].reset_states()
    np.testing.assert_array_equal(model.predict(x[:, :3], batch_size=2, verbose=0), first)
    model.evaluate(x[:, 3:], second, batch_size=2, verbose=0)
    assert not np.array_equal(model.layers[0].states[0].numpy(), first)


CONFIGS = [
    *(make(layers) for make in CASES.values()),
    layers.LSTM(
        U, recurrent_constraint="unit_norm", dropout=0.1, recurrent_dropout=0.2,
        seed=3, unit_forget_bias=False, kernel_regularizer="l2", name="mine", **BOTH,
    ),
]  # fmt: skip


@pytest.mark.parametrize("layer", CONFIGS, ids=range(len(CONFIGS)))
def test_configurations_come_back(layer):
    again = type(layer).from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    shapes = [v.shape for v in built(layer).weights]
    assert shapes == [v.shape for v in built(again).weights]


def built(layer):
    layer.build_from_config({"input_shape": (None, T, F)})
    return layer


def test_the_forget_bias_begins_as_one():
    bias = built(layers.LSTM(U)).get_weights()[2]
    assert bias.tolist() == [0] * U + [1] * U + [0] * 2 * U
    assert not built(layers.LSTM(U, unit_forget_bias=False)).get_weights()[2].any()


# ------------------------------------------------------------------------------------------ errors
def called(layer, *shape, **given):
    return lambda: layer()(Input(shape), **given)


ERRORS = {
    "unroll=True": (ArgumentError, lambda: layers.LSTM(U, unroll=True)),
    "use_cudnn=True": (ArgumentError, lambda: layers.GRU(U, use_cudnn=True)),
    "units=0": (ArgumentError, lambda: layers.SimpleRNN(0)),
    "recurrent_dropout=1.5": (ArgumentError, lambda: layers.LSTM(U, recurrent_dropout=1.5)),
    "did you mean 'recurrent_dropout'": (ArgumentError, lambda: layers.GRU(U, recurent_dropout=0)),
    "expected a layer with state_size": (ArgumentError, lambda: layers.RNN(layers.Dense(3))),
    "stateful=True needs a fixed batch size": (
        ShapeError, called(lambda: layers.LSTM(U, stateful=True), T, F)),
    "expected (batch, time, features), got (None, 4)": (
        ShapeError, called(lambda: layers.LSTM(U), T)),
    "initial_state: expected (batch, 5) and (batch, 5), got (batch, 5)": (
        ShapeError, called(lambda: layers.LSTM(U), T, F, initial_state=[Input((U,))])),
    "expected a mask (batch, 4), got (batch, 3)": (
        ShapeError, called(lambda: layers.GRU(U), T, F, mask=Input((3,), dtype="bool"))),
    "scan: the step holds max": (
        ArgumentError, called(lambda: layers.SimpleRNN(U, "softmax"), T, F)),
    "layer=<Dense 'dense'>: expected a recurrent layer": (
        ArgumentError, lambda: layers.Bidirectional(layers.Dense(3))),
    "merge_mode='avg'": (
        ArgumentError, lambda: layers.Bidirectional(layers.GRU(U), merge_mode="avg")),
    "both have go_backwards=False": (
        ArgumentError, lambda: layers.Bidirectional(layers.GRU(U), backward_layer=layers.GRU(U))),
    "layer has return_sequences=False": (
        ArgumentError, lambda: layers.Bidirectional(
            layers.GRU(U), backward_layer=layers.GRU(U, go_backwards=True, **SEQUENCE))),
}  # fmt: skip


@pytest.mark.parametrize("text", ERRORS)
def test_errors_name_layer_and_option(text):
    error, make = ERRORS[text]
    with pytest.raises(error) as e:
        make()
    assert text in str(e.value)
