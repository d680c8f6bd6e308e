"""dtype_policy="mixed_bfloat16": what is rounded, what is not, and that training is as good."""

from __future__ import annotations

import random

import numpy as np
import pytest

from nnjit import config
from nnjit import layers as L
from nnjit.bfloat16 import rounded
from nnjit.compiler.fuse import fuse
from nnjit.compiler.halves import halves
from nnjit.compiler.passes import PASSES
from nnjit.compiler.recompute import recompute, traffic
from nnjit.errors import ArgumentError, NnjitError
from nnjit.graph import interpret
from nnjit.losses import SparseCategoricalCrossentropy
from nnjit.models import Model, Sequential
from nnjit.precision import PRODUCTS, with_policy
from nnjit.printing import show
from nnjit.runconfig.schema import Train
from nnjit.runtime import cpu
from nnjit.runtime.executable import build
from nnjit.runtime.sliced import SlicedExecutable
from nnjit.saving import load_model
from tests.compiler.drive import feed, fresh
from tests.compiler.random_graphs import random_graph

MIXED = "mixed_bfloat16"


def mlp() -> Model:
    return Sequential([L.Input((19,)), L.Dense(33, "relu"), L.Dense(16, "gelu"), L.Dense(5)])


def cnn() -> Model:
    return Sequential([
        L.Input((12, 12, 1)), L.Conv2D(16, 3, activation="relu"), L.MaxPooling2D(),
        L.Conv2D(16, 3, activation="relu"), L.MaxPooling2D(), L.Flatten(), L.Dropout(0.1),
        L.Dense(5),
    ])  # fmt: skip


def transformer() -> Model:
    x = tokens = L.Input((6,), dtype="int32")
    x = L.Embedding(9, 16)(x)
    y = L.LayerNormalization()(x)
    x = L.Add()([x, L.MultiHeadAttention(2, 8)(y, y, use_causal_mask=True)])
    y = L.Dense(32, "gelu")(L.LayerNormalization()(x))
    x = L.Add()([x, L.Dense(16)(y)])
    return Model(tokens, L.Dense(5)(L.GlobalAveragePooling1D()(x)))


def lstm() -> Model:
    return Sequential([L.Input((7, 3)), L.LSTM(16, return_sequences=True), L.LSTM(16), L.Dense(5)])


SHAPES = {mlp: (19,), cnn: (12, 12, 1), transformer: (6,), lstm: (7, 3)}


def data(make, rows: int = 48) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    if make is transformer:
        x = rng.integers(0, 9, (rows, 6)).astype("i4")
        return x, (x.sum(1) % 5).astype("i4")
    return rng.standard_normal((rows, *SHAPES[make])).astype("f4"), rng.integers(0, 5, rows)


def compiled(make, policy: str = MIXED, device: str = "interpret", slices: int = 1) -> Model:
    with config.seeded(3):
        model = make()
    loss = SparseCategoricalCrossentropy(from_logits=True)
    model.compile(
        "adam", loss, ["accuracy"], device=device, dtype_policy=policy, batch_slices=slices
    )
    return model


def losses(make, policy: str, device: str) -> list[float]:
    model = compiled(make, policy, device)
    return model.fit(*data(make), batch_size=16, epochs=3, verbose=0).history["loss"]


def train_graph(model: Model):
    return model.executable("train").graph


@pytest.mark.parametrize("make", SHAPES, ids=lambda m: m.__name__)
def test_products_read_bfloat16_and_everything_else_is_float32(make):
    graph = train_graph(compiled(make))
    products = [n for n in graph.nodes() if n.op.name in PRODUCTS]
    assert products
    for n in products:
        assert n.dtype == "float32"
        assert {x.dtype for x in n.inputs} == {"bfloat16"}, n
    casts = [n.inputs[0] for n in graph.nodes() if n.op.name == "cast" and n.dtype == "bfloat16"]
    assert len(casts) == len(set(casts)), "a value is rounded once for all that read it"
    assert all(n.dtype != "bfloat16" for n in (*graph.roots, *graph.leaves()))


def test_the_loss_alone_is_left_in_float32():
    def product(y, pred):
        return (pred @ pred.T).sum()

    model = Sequential([L.Input((4,)), L.Dense(3)])
    model.compile("sgd", product, device="interpret", dtype_policy=MIXED)
    inside = [n for n in train_graph(model).nodes() if n.op.name == "matmul"]
    assert {n.inputs[0].dtype for n in inside if n.scope.startswith("loss")} == {"float32"}
    assert {n.inputs[0].dtype for n in inside if n.scope == "dense"} <= {"bfloat16"}


def test_a_prediction_is_the_product_of_rounded_values():
    model = Sequential([L.Input((7,)), L.Dense(4)])
    model.compile("sgd", "mse", device="interpret", dtype_policy=MIXED)
    x = np.random.default_rng(0).standard_normal((5, 7)).astype("f4")
    w, b = model.get_weights()
    want = rounded(x).astype("f8") @ rounded(w).astype("f8") + b
    np.testing.assert_allclose(model.predict(x, verbose=0), want, rtol=1e-5, atol=1e-6)


def test_float64_models_stay_as_they_are():
    model = Sequential([L.Input((4,), dtype="float64"), L.Dense(3, dtype="float64")])
    model.compile("sgd", "mse", device="interpret", dtype_policy=MIXED)
    assert all(n.dtype != "bfloat16" for n in train_graph(model).nodes())


@pytest.mark.parametrize("make", SHAPES, ids=lambda m: m.__name__)
def test_training_is_that_of_float32_up_to_rounding(make):
    np.testing.assert_allclose(
        losses(make, MIXED, "interpret"), losses(make, "float32", "interpret"), rtol=0.02
    )


@pytest.mark.slow
@pytest.mark.parametrize(("make", "device"), [(mlp, "python"), *((make, "cpu") for make in SHAPES)])
def test_devices_compute_what_the_interpreter_does(make, device, monkeypatch):
    """Each launch is compared too."""
    want = losses(make, MIXED, "interpret")
    monkeypatch.setenv("NNJIT_CHECK", "1")
    np.testing.assert_allclose(losses(make, MIXED, device), want, rtol=0.002)


@pytest.mark.parametrize("make", [mlp, cnn, transformer], ids=lambda m: m.__name__)
def test_storing_16_bits_moves_fewer_bytes_and_changes_little(make):
    model = compiled(make)
    graph = train_graph(model)
    for run in PASSES:
        graph = run(graph)
    plain = recompute(fuse(graph))
    fusion = halves(plain)
    assert traffic(fusion) <= traffic(plain)
    x, y = data(make, 40)
    values = {v.node.name: v.numpy() for v in model.step_variables()}
    values |= {"x": x, "y": y.astype("i4")}
    want, got = (interpret(f.graph, values)[0]["loss"] for f in (plain, fusion))
    np.testing.assert_allclose(got, want, rtol=0.01)


def test_what_crosses_groups_per_sample_is_stored_in_16_bits():
    graph = train_graph(compiled(transformer))
    for run in PASSES:
        graph = run(graph)
    plain = recompute(fuse(graph))
    fusion = halves(plain)
    assert traffic(fusion) < traffic(plain)
    reduced = [n for n in fusion.graph.nodes() if n.op.kind == "reduce"]
    assert {n.inputs[0].dtype for n in reduced} <= {"float32", "bool"}


def test_float32_steps_are_left_alone():
    graph = train_graph(compiled(mlp, "float32"))
    for run in PASSES:
        graph = run(graph)
    plain = fuse(graph)
    assert halves(plain) is plain


@pytest.mark.slow
def test_real_data_is_learnt_as_well():
    datasets = pytest.importorskip("sklearn.datasets", reason="the data comes with scikit-learn")
    x, y = datasets.load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    x, y = (x / 16).astype("f4")[order], y[order]
    found = {}
    for policy in ("float32", MIXED):
        with config.seeded(0):
            model = Sequential([L.Input((64,)), L.Dense(64, "relu"), L.Dense(10, "softmax")])
        model.compile("adam", "sparse_categorical_crossentropy", ["accuracy"], dtype_policy=policy)
        model.fit(x[:1400], y[:1400], epochs=15, verbose=0)
        found[policy] = model.evaluate(x[1400:], y[1400:], verbose=0)
    (loss, accuracy), (mixed_loss, mixed_accuracy) = found.values()
    assert abs(mixed_loss - loss) < 0.03
    assert mixed_accuracy >= accuracy - 0.01
    assert mixed_accuracy >= 0.9


@pytest.mark.slow
@pytest.mark.parametrize("make", [cnn, transformer], ids=lambda m: m.__name__)
def test_threads_and_batch_sizes_change_nothing(make):
    before, found = 0, []
    x, y = data(make, 300)
    for threads in (1, 2, 3):
        config.set_threads(threads)
        model = compiled(make, device="cpu")
        model.fit(x, y, batch_size=128, verbose=0)
        model.evaluate(x, y, verbose=0)
        model.predict(x, verbose=0)
        before = before or cpu.compiled_count()
        model.fit(x[:150], y[:150], batch_size=37, verbose=0)
        parts = [model.predict(x[:5], verbose=0), np.array(model.evaluate(x[:5], y[:5], verbose=0))]
        found.append([v.numpy() for v in model.step_variables()] + parts)
    assert cpu.compiled_count() == before, "another batch size compiled something"
    for other in found[1:]:
        assert all(map(np.array_equal, found[0], other))


@pytest.mark.parametrize("seed", range(20, 40))
def test_random_graphs(seed, monkeypatch):
    """Each launch is compared with the interpreter."""
    monkeypatch.setenv("NNJIT_CHECK", "1")
    graph, variables = random_graph(random.Random(seed), "float32", nodes=40)
    executable = build(with_policy(graph, MIXED), fresh(variables), "python")
    for batch in (2, 5):
        executable.run(feed(graph, dict.fromkeys(graph.symbols, batch), seed=batch))


@pytest.mark.slow
def test_a_cpu_without_the_instruction_computes_the_same_bits(monkeypatch):
    found = []
    for mode in ("pairs", "emulate"):
        monkeypatch.setenv("NNJIT_BF16", mode)
        model = compiled(mlp, device="cpu")
        model.fit(*data(mlp), batch_size=16, verbose=0)
        found.append([v.numpy() for v in model.step_variables()])
    assert all(map(np.array_equal, *found))


@pytest.mark.slow
def test_slices_of_the_batch_on_the_cpu():
    found = []
    for slices in (1, 2):
        model = compiled(cnn, device="cpu", slices=slices)
        found.append(model.fit(*data(cnn), batch_size=16, epochs=2, verbose=0).history["loss"])
        steps = [step.executable for step in model.session._steps.values()]
        assert [isinstance(step, SlicedExecutable) for step in steps] == [slices > 1]
    np.testing.assert_allclose(*found, rtol=1e-4)


def test_weights_stay_float32_and_a_file_keeps_the_policy(tmp_path):
    model = compiled(mlp)
    x, y = data(mlp)
    model.fit(x, y, verbose=0)
    assert {v.numpy().dtype.name for v in model.weights} == {"float32"}
    assert all(np.any(v.numpy() != rounded(v.numpy())) for v in model.weights)
    model.save(tmp_path / "m.nnjit")
    loaded = load_model(tmp_path / "m.nnjit", device="interpret")
    assert loaded.compiled.dtype_policy == MIXED
    assert loaded.train_on_batch(x, y) == model.train_on_batch(x, y)


def test_the_graph_and_the_kernels_show_it():
    model = compiled(mlp, device="python")
    assert "bfloat16" in show(train_graph(model))
    assert "bf16_round" in model.executable("train").source()


@pytest.mark.parametrize("given", ["mixed_bfloat", "bfloat16", None])
def test_another_policy_is_refused(given):
    with pytest.raises(ArgumentError, match=r"dtype_policy=.*mixed_bfloat16"):
        mlp().compile("sgd", "mse", dtype_policy=given)


def test_a_configuration_may_say_so():
    assert Train(dtype_policy=MIXED).dtype_policy == MIXED
    with pytest.raises((NnjitError, ValueError), match="dtype_policy"):
        Train(dtype_policy="half")
