"""Steps on slices of the batch against the same steps whole: gradients, metrics, states, refusals.

On device "interpret" both are NumPy, so what differs is the order of sums; some run compiled too.
"""

from __future__ import annotations

import logging

import numpy as np
import pytest

import nnjit
from nnjit import Input, Model, Sequential, config, layers, losses, ops, optimizers, regularizers
from nnjit.compiled import usual_labels
from nnjit.compiler.samples import NotSliceable
from nnjit.compiler.slices import contractions, kept_bytes, least_rows, split
from nnjit.errors import ArgumentError
from nnjit.runtime import cpu, sliced
from nnjit.step import train_step

BATCH = 11  # in four slices of 3, 3, 3 and 2


def dense(**options):
    x = Input(shape=(6,))
    y = layers.Dense(5, activation="tanh", **options)(x)
    return Model(x, layers.Dense(3)(y))


def images():
    return Sequential([
        layers.Conv2D(4, 3, activation="relu", input_shape=(9, 9, 2)),
        layers.MaxPooling2D(2),
        layers.Dropout(0.4),
        layers.Conv2D(3, 2, strides=2, padding="same"),
        layers.Flatten(),
        layers.Dense(3),
    ])  # fmt: skip


def block():
    tokens = Input(shape=(5,), dtype="int32")
    x = layers.Embedding(7, 8, mask_zero=True)(tokens)
    y = layers.LayerNormalization()(x)
    x = layers.Add()([x, layers.MultiHeadAttention(2, 4)(y, y, use_causal_mask=True)])
    x = layers.Dropout(0.2)(x)
    return Model(tokens, layers.Dense(7)(layers.Dense(8, activation="gelu")(x)))


def recurrent():
    tokens = Input(shape=(None,), dtype="int32")
    x = layers.Embedding(7, 4)(tokens)
    x = layers.LSTM(4, return_sequences=True)(x)
    return Model(tokens, layers.Dense(3)(layers.GRU(3)(x)))


def branches():
    a, b = Input(shape=(4,), name="a"), Input(shape=(3,), name="b")
    both = layers.Concatenate()([layers.Dense(4, activation="relu")(a), b])
    first = layers.Dense(3, name="first")(both)
    return Model([a, b], [first, layers.Dense(1, activation="sigmoid", name="second")(both)])


def data(model, rows, seed=0):
    """Inputs and labels for one of the models here."""
    rng = np.random.default_rng(seed)
    xs = []
    for n in model.inputs:
        shape = [rows, *(d if isinstance(d, int) else 4 for d in n.shape[1:])]
        whole = n.dtype == "int32"
        xs.append(rng.integers(0, 7, shape).astype("i4") if whole else
                  rng.standard_normal(shape).astype("f4"))  # fmt: skip
    ys = []
    for n in model.outputs:
        shape = [rows, *n.shape[1:-1]]
        ys.append(rng.integers(0, 3, shape).astype("i4") if n.shape[-1] > 1 else
                  rng.integers(0, 2, (*shape, 1)).astype("f4"))  # fmt: skip
    return (xs, ys) if len(xs) > 1 else (xs[0], ys[0])


CLASSES = {"loss": losses.SparseCategoricalCrossentropy(from_logits=True)}
CASES = {
    "mlp": (dense, {**CLASSES, "metrics": ["accuracy"]}),
    "regularised": (lambda: dense(kernel_regularizer=regularizers.L2(0.1)), CLASSES),
    "clipped": (dense, {**CLASSES, "optimizer": ("sgd", {"global_clipnorm": 0.05})}),
    "accumulating": (dense, {**CLASSES, "optimizer": ("sgd", {"gradient_accumulation_steps": 2})}),
    "images": (images, {**CLASSES, "weighted_metrics": ["accuracy"]}),
    "summed": (images, {"loss": losses.SparseCategoricalCrossentropy(True, reduction="sum")}),
    "block": (block, {**CLASSES, "metrics": ["accuracy"]}),
    "open time": (recurrent, CLASSES),
    "branches": (branches, {
        "loss": [CLASSES["loss"], "binary_crossentropy"], "loss_weights": [1.0, 0.3],
        "metrics": {"second": ["auc"]},
    }),
}  # fmt: skip


def trained(make, options, slices, device, weight=False, freeze=False, **more):
    """(logs of three steps, all variables) of a model of one seed; the last batch is smaller."""
    name, config = options.get("optimizer", ("adam", {}))
    optimizer = optimizers.get({"class_name": name, "config": config})
    nnjit.set_seed(3)
    model = make()
    if freeze:
        model.layers[1].trainable = False
    options = {**options, **more, "optimizer": optimizer}
    model.compile(**options, device=device, batch_slices=slices)
    logs = []
    for rows in (BATCH, BATCH, 5):
        x, y = data(model, rows)
        w = np.linspace(0.2, 2, rows).astype("f4") if weight else None
        logs.append(model.train_on_batch(x, y, sample_weight=w, return_dict=True))
    steps = [step.executable for step in model.session._steps.values()]
    assert [isinstance(step, sliced.SlicedExecutable) for step in steps] == [slices > 1]
    return logs, [v.numpy() for v in model.step_variables()]


def compare(case, device="interpret", **more):
    make, options = CASES[case]
    logs, variables = trained(make, options, 1, device, **more)
    logs4, variables4 = trained(make, options, 4, device, **more)
    for a, b in zip(logs, logs4, strict=True):
        assert a == pytest.approx(b, rel=1e-5, abs=1e-6)
    for a, b in zip(variables, variables4, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_slices_train_as_the_whole_batch_does(case):
    """Dropout's masks are those of the whole batch too."""
    compare(case)


def test_sample_weights_and_frozen_variables():
    compare("images", weight=True)
    compare("mlp", freeze=True)


@pytest.mark.parametrize("case", ["block", "images", "open time"])
def test_slices_compiled(case, monkeypatch):
    monkeypatch.setenv("NNJIT_CHECK", "1")
    compare(case, "cpu", weight=case == "images")


def test_threads_change_no_bit():
    found = []
    before = config.threads()
    for threads in (1, 2):
        nnjit.set_threads(threads)
        found.append(trained(*CASES["images"], 3, "cpu")[1])
    nnjit.set_threads(before)
    assert all(a.tobytes() == b.tobytes() for a, b in zip(*found, strict=True))


def test_slices_of_a_mixed_precision_step():
    logs = [
        trained(*CASES["images"], n, "interpret", dtype_policy="mixed_bfloat16")[0] for n in (1, 4)
    ]
    for a, b in zip(*logs, strict=True):
        assert a == pytest.approx(b, rel=1e-3)


def graph_of(model, **options):
    model.compile(**{**CLASSES, **options})
    compiled = model.compiled
    outputs = compiled.resolve()
    labels = {o.key: usual_labels(o) for o in outputs}
    return train_step(model, compiled, labels, None)


def test_what_the_whole_batch_is_needed_for_is_computed_before():
    parts = split(graph_of(block()))
    assert parts.before is not None  # the number of tokens that are no padding
    assert [n.spec.shape for n in parts.before.outputs.values()] == [()]
    assert parts.sliced == {"x", "y"}
    assert not parts.body.outputs
    assert set(parts.body.updates) == set(parts.sums)
    assert not parts.after.symbols


def mean_of_all(x):
    return x - ops.mean(x * 1.5, axis=0)


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (layers.BatchNormalization(), "batch_normalization needs the whole batch"),
        (layers.Activation(mean_of_all), "of the whole batch"),
        (layers.Activation(lambda x: ops.flip(x, 0)), "flip .* moves them"),
        (layers.Activation(lambda x: x * ops.max(x, axis=0)), "max .* over all samples"),
        (layers.Activation(lambda x: ops.matmul(x @ ops.transpose(x), x)), "with each other"),
    ],
)
def test_what_mixes_samples_is_not_split(layer, reason):
    model = Sequential([layers.Dense(4, input_shape=(6,)), layer, layers.Dense(3)])
    with pytest.raises(NotSliceable, match=reason):
        split(graph_of(model))
    model.compile(**CLASSES, device="interpret", batch_slices=2)
    with pytest.raises(ArgumentError, match=f"batch_slices=2: .*{reason}"):
        model.train_on_batch(*data(model, 4))


@pytest.mark.parametrize("given", [0, -1, 2.0, True, "all", None])
def test_batch_slices_is_checked(given):
    with pytest.raises(ArgumentError, match=r"batch_slices=.*'auto' or a whole number"):
        dense().compile(**CLASSES, batch_slices=given)


def test_auto_takes_slices_where_the_batch_is_large(monkeypatch, caplog):
    """The first batch decides; a later one changes the number of slices and compiles nothing."""
    monkeypatch.setattr(sliced, "SLICE_BYTES", 1 << 20)
    monkeypatch.setattr(sliced, "LARGE", 1 << 20)
    caplog.set_level(logging.DEBUG, "nnjit")
    model = images()
    model.compile(**CLASSES)
    step = model.executable("train")
    model.train_on_batch(*data(model, 5000))
    assert "slices of up to" in caplog.text
    parts = step.decided
    assert step.arrange(batch=5000).work < 2 << 20
    assert step.describe({"batch": 10_000}) != step.describe({"batch": 5000})
    compiled = cpu.compiled_count()
    model.train_on_batch(*data(model, 7))
    assert step.describe({"batch": 7}) == "1 slice of up to 7 samples"
    assert (cpu.compiled_count(), step.decided) == (compiled, parts)
    profile = model.profile(*data(model, 5000), steps=1)
    assert "slices of up to" in str(profile)
    assert max(launch.calls for launch in profile.launches) > 1

    small = images()
    small.compile(**CLASSES)
    small.train_on_batch(*data(small, 7))
    assert "the whole batch (what the step keeps is small)" in caplog.text
    small.train_on_batch(*data(small, 5000))  # as the first batch decided
    why = "on the whole batch, not in slices: what the step keeps is small"
    assert why in str(small.profile(*data(small, 7), steps=1))
    assert small.executable("train").describe({"batch": 5000}).startswith("the whole batch")


def test_slices_have_rows_enough_for_fast_products():
    graph = graph_of(dense())
    works = contractions(split(graph).body, "batch")
    assert least_rows(works, {"batch": 10_000}, "batch") == 231  # 0.9 * 256
    assert least_rows(works, {"batch": 100}, "batch") == 100  # none is enough: all of them
    assert kept_bytes(graph, {"batch": 100}) > 100 * 4 * (5 + 3)
