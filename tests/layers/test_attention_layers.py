"""Attention layers against Keras and PyTorch: values, gradients, masks, options, open shapes."""

from __future__ import annotations

import numpy as np
import pytest
from keras_checks import keras_on_torch

from nnjit import layers
from nnjit.autodiff import gradients
from nnjit.errors import ArgumentError, ShapeError
from nnjit.graph import Graph, Scope, enter, input_node, interpret, state_node
from nnjit.layers import Input, trace
from nnjit.models import Model
from nnjit.runtime import cpu
from nnjit.runtime.executable import build
from nnjit.runtime.store import Store
from nnjit.spec import Spec

RNG = np.random.default_rng(3)
VALUE = {"query": (5, 6), "value": (7, 4), "key": (7, 3)}


def graph_of(layer, given, training=False, backward=True, **options):
    """The layer on inputs of open batch and time, named as in `given`, which has arrays."""
    axes = {"query": ("t",), "attention_mask": ("t", "s")}
    if options.pop("same_time", False):
        axes["value"] = ("t",)
    inputs = {}
    for name, a in given.items():
        open_axes = axes.get(name, ("s",))
        shape = (*open_axes, *a.shape[1 + len(open_axes) :])
        inputs[name] = Input(shape, dtype=a.dtype.name, name=name)
    query = inputs.pop("query")
    symbolic = layer(query, **inputs, **options)
    results = symbolic if isinstance(symbolic, tuple) else (symbolic,)
    scope = Scope(training=training, random=state_node("random", Spec((2,), "int64")))
    found = trace(results, {}, scope)
    outputs = dict(zip(("y", "scores"), found, strict=False))
    if backward:
        wrt = [x for x in (query, *inputs.values()) if x.dtype.startswith("float")]
        wrt += [v.node for v in layer.trainable_weights]
        with enter(scope):
            dy = input_node("dy", found[0].spec)
            for x, g in zip(wrt, gradients(found[0], wrt, dy), strict=True):
                outputs[f"d{x.name}"] = g
    return Graph("attention", outputs)


def run(layer, given, training=False, backward=True, device="interpret", **options):
    graph = graph_of(layer, given, training, backward, **options)
    values = dict(given)
    if backward:
        y = graph.outputs["y"]
        rank = given["query"].ndim - 1
        shape = (*given["query"].shape[:-1], *y.shape[rank:])
        values["dy"] = np.random.default_rng(1).standard_normal(shape).astype(y.dtype)
    if device == "interpret":
        weights = {v.name: v.numpy() for v in layer.weights}
        values |= weights | {"random": np.array([7, 0], np.int64)}
        return interpret(graph, values)[0], values.get("dy")
    return build(graph, Store(layer.weights), device).run(values), values.get("dy")


def by_keras(theirs, ours, given, dy, masks, **options):
    """Output, scores and gradients of Keras' layer with the same weights."""
    torch = pytest.importorskip("torch", reason="compares with torch, which is missing")
    tensors = {n: torch.tensor(a, requires_grad=a.dtype.kind == "f") for n, a in given.items()}
    inputs = {n: t for n, t in tensors.items() if n not in masks}
    theirs(**inputs)
    theirs.set_weights(ours.get_weights())
    got = theirs(**tensors, **options)
    results = got if isinstance(got, tuple) else (got,)
    results[0].backward(torch.tensor(dy))
    out = {n: t.detach().numpy() for n, t in zip(("y", "scores"), results, strict=False)}
    out |= {f"d{n}": t.grad.numpy() for n, t in inputs.items()}
    for mine, other in zip(ours.trainable_weights, theirs.trainable_weights, strict=True):
        out[f"d{mine.name}"] = other.value.grad.numpy()
    return out


def arrays(dtype="float64", batch=3, **shapes):
    return {n: RNG.standard_normal((batch, *s)).astype(dtype) for n, s in shapes.items()}


def key_mask(batch, keys):
    return np.arange(keys) < RNG.integers(1, keys + 1, (batch, 1))


SELF = {"query": (5, 6), "value": (5, 6)}
CASES = [
    ("self", "MultiHeadAttention", {"num_heads": 2, "key_dim": 4}, SELF, {}),
    ("cross", "MultiHeadAttention", {"num_heads": 3, "key_dim": 4, "value_dim": 5}, VALUE, {}),
    ("causal", "MultiHeadAttention", {"num_heads": 2, "key_dim": 3, "use_bias": False}, SELF,
     {"use_causal_mask": True}),
    ("output shape", "MultiHeadAttention", {"num_heads": 2, "key_dim": 3, "output_shape": (4, 2)},
     SELF, {}),
    ("scores", "MultiHeadAttention", {"num_heads": 2, "key_dim": 3}, VALUE,
     {"return_attention_scores": True, "use_causal_mask": True}),
    ("gate", "MultiHeadAttention", {"num_heads": 2, "key_dim": 3, "use_gate": True}, SELF, {}),
    ("window", "MultiHeadAttention", {"num_heads": 2, "key_dim": 3, "sliding_window": 2}, SELF,
     {"use_causal_mask": True}),
    ("images", "MultiHeadAttention", {"num_heads": 2, "key_dim": 3},
     {"query": (2, 3, 4), "value": (2, 3, 4)}, {}),
    ("one axis", "MultiHeadAttention", {"num_heads": 2, "key_dim": 3, "attention_axes": 1},
     {"query": (2, 3, 4), "value": (5, 3, 4)}, {"return_attention_scores": True}),
    ("last axis", "MultiHeadAttention", {"num_heads": 2, "key_dim": 3, "attention_axes": -2},
     {"query": (2, 3, 4), "value": (2, 4, 4)}, {"same_time": True}),
    ("grouped", "GroupQueryAttention",
     {"head_dim": 3, "num_query_heads": 4, "num_key_value_heads": 2}, VALUE,
     {"use_causal_mask": True}),
    ("grouped, gate and scores", "GroupQueryAttention",
     {"head_dim": 3, "num_query_heads": 4, "num_key_value_heads": 1, "use_gate": True}, SELF,
     {"return_attention_scores": True}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "kind", "config", "shapes", "options"), CASES,
                         ids=[c[0] for c in CASES])  # fmt: skip
def test_values_and_gradients_are_those_of_keras(name, kind, config, shapes, options):
    keras = keras_on_torch()
    dtype = "float32" if name == "cross" else "float64"
    given = arrays(dtype, **shapes)
    ours = getattr(layers, kind)(**config, dtype=dtype)
    got, dy = run(ours, given, **options)
    options = {k: v for k, v in options.items() if k != "same_time"}
    theirs = getattr(keras.layers, kind)(**config, dtype=dtype)
    want = by_keras(theirs, ours, given, dy, (), **options)
    assert [v.name.split("/", 1)[1] for v in ours.weights] == [
        v.path.split("/", 1)[1] for v in theirs.weights
    ]
    assert set(got) == set(want)
    for key, w in want.items():
        np.testing.assert_allclose(got[key], w, *((3e-5, 3e-5) if dtype == "float32" else
                                                  (1e-5, 1e-6)), err_msg=key)  # fmt: skip


@pytest.mark.parametrize("scores", [False, True])
@pytest.mark.parametrize("kind", ["MultiHeadAttention", "GroupQueryAttention"])
def test_masks_are_those_of_keras(kind, scores):
    """given by hand: of the keys, and of pairs of query and key."""
    keras = keras_on_torch()
    given = arrays(**VALUE) | {"value_mask": key_mask(3, 7), "key_mask": np.ones((3, 7), bool)}
    given["attention_mask"] = RNG.random((3, 5, 7)) < 0.7
    given["attention_mask"][:, :, 0] = given["value_mask"][:, :1] = True
    config = {
        "MultiHeadAttention": {"num_heads": 2, "key_dim": 3},
        "GroupQueryAttention": {"head_dim": 3, "num_query_heads": 4, "num_key_value_heads": 2},
    }[kind]
    ours = getattr(layers, kind)(**config, dtype="float64")
    options = {"return_attention_scores": scores}
    got, dy = run(ours, given, **options)
    theirs = getattr(keras.layers, kind)(**config, dtype="float64")
    masks = ("value_mask", "key_mask", "attention_mask")
    want = by_keras(theirs, ours, given, dy, masks, **options)
    for key, w in want.items():
        np.testing.assert_allclose(got[key], w, 1e-5, 1e-6, err_msg=key)


def test_masks_of_layers_before_are_used_and_passed_on():
    tokens = np.array([[1, 2, 3, 0, 0], [4, 0, 0, 0, 0], [1, 2, 3, 4, 5]])
    x = Input((None,), dtype="int32", name="x")
    h = layers.Embedding(9, 6, mask_zero=True)(x)
    attention = layers.MultiHeadAttention(2, 3)
    y = attention(h, h)
    z = layers.GlobalAveragePooling1D()(y)
    model = Model(x, [y, z])
    values, pooled = model.predict(tokens, verbose=0)
    weights = {w.name.split("/", 1)[1]: w.numpy() for w in attention.weights}
    assert sorted(weights)[0] == "attention_output/bias"
    table = model.weights[0].numpy()
    for row in range(3):
        real = int((tokens[row] != 0).sum())
        alone = model.predict(tokens[row : row + 1, :real], verbose=0)
        np.testing.assert_allclose(values[row, :real], alone[0][0], 1e-5, 1e-6)
        np.testing.assert_allclose(pooled[row], alone[1][0], 1e-5, 1e-6)
        # a padded query gives nothing but the last bias, which starts at 0
        np.testing.assert_array_equal(values[row, real:], 0)
    assert table.shape == (9, 6)


def test_dropout_drops_weights_while_training_only():
    given = arrays("float32", batch=2, query=(40, 8), value=(40, 8))
    layer = layers.MultiHeadAttention(2, 4, dropout=0.5, seed=3)
    plain, _ = run(layer, given, backward=False)
    dropped, _ = run(layer, given, training=True)
    again, _ = run(layer, given, training=True)
    assert np.abs(dropped["y"] - plain["y"]).max() > 1e-3
    np.testing.assert_array_equal(dropped["y"], again["y"])
    assert {"attention"} <= {n.op.name for n in graph_of(layer, given, backward=False).nodes()}
    names = {n.op.name for n in graph_of(layer, given, training=True).nodes()}
    assert "attention" not in names
    assert "random_uniform" in names


def test_torch_multihead_attention_with_the_same_weights_gives_the_same():
    torch = pytest.importorskip("torch", reason="compares with torch, which is missing")
    width, heads = 8, 2
    given = arrays("float32", query=(6, width), value=(6, width))
    given["value"] = given["query"]
    layer = layers.MultiHeadAttention(heads, width // heads)
    got, _ = run(layer, given, backward=False, use_causal_mask=True)
    theirs = torch.nn.MultiheadAttention(width, heads, batch_first=True)
    w = {v.name.split("/", 1)[1]: v.numpy() for v in layer.weights}
    with torch.no_grad():
        rows = [w[f"{n}/kernel"].reshape(width, width).T for n in ("query", "key", "value")]
        theirs.in_proj_weight.copy_(torch.tensor(np.concatenate(rows)))
        out = w["attention_output/kernel"].reshape(width, width).T
        theirs.out_proj.weight.copy_(torch.tensor(out.copy()))
        theirs.in_proj_bias.zero_()
        theirs.out_proj.bias.zero_()
        x = torch.tensor(given["query"])
        ahead = torch.ones(6, 6, dtype=torch.bool).triu(1)
        want = theirs(x, x, x, attn_mask=ahead, need_weights=False)[0].numpy()
    np.testing.assert_allclose(got["y"], want, 2e-5, 2e-6)


def test_compiled_for_any_batch_and_time_with_no_compilation_after_the_first():
    layer = layers.GroupQueryAttention(8, 4, 2)
    given = arrays("float32", query=(9, 16), value=(9, 16))
    given["value_mask"] = key_mask(3, 9)
    graph = graph_of(layer, given, use_causal_mask=True)
    executable = build(graph, Store(layer.weights), "cpu")
    weights = {v.name: v.numpy() for v in layer.weights}
    before = None
    for batch, queries, keys in ((3, 9, 9), (1, 1, 1), (2, 70, 33)):
        now = arrays("float32", batch=batch, query=(queries, 16), value=(keys, 16))
        now["value_mask"] = key_mask(batch, keys)
        now["dy"] = RNG.standard_normal(now["query"].shape).astype("f4")
        got = executable.run(now)
        before = cpu.compiled_count() if before is None else before
        want, _ = interpret(graph, {**weights, **now}, dtype="float64")
        for key, w in want.items():
            scale = max(1.0, float(np.abs(w).max(initial=0)))
            np.testing.assert_allclose(got[key], w, 2e-4, 2e-5 * scale, err_msg=key)
    assert cpu.compiled_count() == before
    names = [launch.template.name for launch in executable.plan().launches]
    assert sum(n.startswith("attention_") for n in names) == 2
    assert not any("transpose" in n and "pack" not in n for n in names), names


@pytest.mark.parametrize(
    "layer",
    [
        layers.MultiHeadAttention(2, 3, 4, 0.1, False, (4, 2), (1,), 3, False, seed=4, name="m"),
        layers.GroupQueryAttention(3, 4, 2, 0.2, kernel_regularizer="l2", use_gate=True),
    ],
)
def test_configuration_round_trip(layer):
    config = layer.get_config()
    again = type(layer).from_config(config)
    assert again.get_config() == config
    given = arrays("float32", query=(5, 6), value=(5, 6))
    y, _ = run(layer, given, backward=False)
    assert y["y"].shape == again.compute_output_shape((3, 5, 6), (3, 5, 6))
    run(again, given, backward=False)
    assert [w.shape for w in again.weights] == [w.shape for w in layer.weights]


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: layers.MultiHeadAttention(0, 3), ArgumentError, "num_heads=0"),
        (lambda: layers.MultiHeadAttention(2, 3, dropout=1.5), ArgumentError, "dropout=1.5"),
        (lambda: layers.MultiHeadAttention(2, 3, dropout=0.1, flash_attention=True),
         ArgumentError, "flash_attention=True with dropout"),
        (lambda: layers.GroupQueryAttention(3, 4, 3), ArgumentError, "num_key_value_heads=3"),
        (lambda: layers.MultiHeadAttention(2, 3)(Input((4,)), Input((4,))), ShapeError,
         "batch, time, features"),
        (lambda: layers.MultiHeadAttention(2, 3, attention_axes=3)(Input((4, 5)), Input((4, 5))),
         ArgumentError, "attention_axes"),
        (lambda: layers.MultiHeadAttention(2, 3, sliding_window=2)(
            Input((4, 5, 6)), Input((4, 5, 6))), ShapeError, "sliding_window"),
        (lambda: layers.MultiHeadAttention(2, 3)(Input((4, 5)), Input((4, 5)), Input((3, 5))),
         ShapeError, "must have the same axes"),
    ],
)  # fmt: skip
def test_errors_name_the_option_and_what_was_given(make, error, words):
    with pytest.raises(error, match=words):
        make()


PAIRS = [
    ("dot", "Attention", {}, {}),
    ("scaled, causal", "Attention", {"use_scale": True}, {"use_causal_mask": True}),
    ("scores", "Attention", {"use_scale": True}, {"return_attention_scores": True}),
    ("concat", "Attention", {"score_mode": "concat", "use_scale": True}, {}),
    ("additive", "AdditiveAttention", {}, {"use_causal_mask": True}),
    ("additive, unscaled", "AdditiveAttention", {"use_scale": False},
     {"return_attention_scores": True}),
]  # fmt: skip


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("name", "kind", "config", "options"), PAIRS, ids=[c[0] for c in PAIRS])
def test_attention_without_projections_is_that_of_keras(name, kind, config, options, masked):
    keras = keras_on_torch()
    torch = pytest.importorskip("torch", reason="compares with torch, which is missing")
    given = arrays(query=(5, 4), value=(7, 4), key=(7, 4))
    ours = getattr(layers, kind)(**config, dtype="float64")
    axes = {"query": "t", "value": "s", "key": "s"}
    nodes = [Input((axes[n], 4), dtype="float64", name=n) for n in given]
    masks, names = None, []
    if masked:
        given |= {"query_mask": key_mask(3, 5), "value_mask": key_mask(3, 7)}
        names = ["query_mask", "value_mask"]
        masks = [Input((axes[n[:5]],), dtype="bool", name=n) for n in names]
    got = ours(nodes, mask=masks, **options)
    scope = Scope(random=state_node("random", Spec((2,), "int64")))
    found = trace(got if isinstance(got, tuple) else (got,), {}, scope)
    wrt = [*nodes, *(v.node for v in ours.trainable_weights)]
    dy = input_node("dy", found[0].spec)
    outputs = dict(zip(("y", "scores"), found, strict=False))
    outputs |= zip([f"d{x.name}" for x in wrt], gradients(found[0], wrt, dy), strict=True)
    cotangent = RNG.standard_normal((3, 5, 4))
    values = {**given, "dy": cotangent} | {v.name: v.numpy() for v in ours.weights}
    result, _ = interpret(Graph("pair", outputs), values)

    theirs = getattr(keras.layers, kind)(**config, dtype="float64")
    tensors = {n: torch.tensor(a, requires_grad=a.dtype.kind == "f") for n, a in given.items()}
    qvk = [tensors[n] for n in ("query", "value", "key")]
    theirs(qvk)
    theirs.set_weights(ours.get_weights())
    want = theirs(qvk, mask=[tensors[n] for n in names] or None, **options)
    want = want if isinstance(want, tuple) else (want,)
    want[0].backward(torch.tensor(cotangent))
    for key, w in zip(("y", "scores"), want, strict=False):
        np.testing.assert_allclose(result[key], w.detach().numpy(), 1e-5, 1e-6, err_msg=key)
    for n in ("query", "value", "key"):
        w = tensors[n].grad.numpy()
        np.testing.assert_allclose(result[f"d{n}"], w, 1e-5, 1e-6, err_msg=n)
    for mine, other in zip(ours.weights, theirs.weights, strict=True):
        w = other.value.grad.numpy()
        np.testing.assert_allclose(result[f"d{mine.name}"], w, 1e-5, 1e-6, err_msg=mine.name)


def test_attention_without_projections_passes_the_mask_of_the_query_on():
    tokens = np.array([[1, 2, 0, 0], [3, 4, 5, 6]])
    x = Input(("time",), dtype="int32", name="x")
    h = layers.Embedding(9, 6, mask_zero=True)(x)
    z = layers.GlobalAveragePooling1D()(layers.Attention(dropout=0.1)([h, h]))
    model = Model(x, z)
    both = model.predict(tokens, verbose=0)
    np.testing.assert_allclose(both[0], model.predict(tokens[:1, :2], verbose=0)[0], 1e-5, 1e-6)


def test_attention_errors_name_the_option_and_what_was_given():
    with pytest.raises(ArgumentError, match="score_mode='sum'"):
        layers.Attention(score_mode="sum")
    with pytest.raises(ArgumentError, match=r"\[query, value\]"):
        layers.Attention()(Input((3, 4)))
    with pytest.raises(ShapeError, match="batch, time, features"):
        layers.AdditiveAttention()([Input((3,)), Input((3,))])
    layer = layers.AdditiveAttention(dropout=0.2)
    assert layers.AdditiveAttention.from_config(layer.get_config()).dropout == 0.2
