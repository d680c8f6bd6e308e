"""What is made of parameters alone is made once, and anew after any write to a parameter."""

import numpy as np
import pytest

from nnjit import Input, Model, layers, ops
from nnjit.compiler.pipeline import compile_graph
from nnjit.graph import Graph, Scope, enter, input_node, parameter_node
from nnjit.spec import Spec
from nnjit.training.checkpoint import BackupAndRestore

rng = np.random.default_rng(0)
X = rng.standard_normal((3, 6, 6, 16), np.float32)
Y = rng.standard_normal((3, 6, 6, 16), np.float32)


def network(conv: layers.Layer | None = None) -> Model:
    """A convolution through Winograd's points of its weights, and a product whose b is packed."""
    x = Input((6, 6, 16))
    y = (conv or layers.Conv2D(16, 3, padding="same", name="conv"))(x)
    model = Model(x, layers.Dense(16, name="dense")(y))
    model.compile("sgd", "mse", device="cpu")
    return model


@pytest.fixture(scope="module")
def model() -> Model:
    return network()


def expected(model: Model) -> np.ndarray:
    """The answer of a model that has had no other weights."""
    fresh = network()
    fresh.compile("sgd", "mse", device="interpret")
    fresh.set_weights(model.get_weights())
    return fresh.predict_on_batch(X)


def calls(model: Model) -> int:
    """How many launches the next prediction runs."""
    return int(model.executable("predict").measure({"x": X}, 1)[0][:, 1].sum())


def grown(model: Model) -> list[np.ndarray]:
    return [w + rng.standard_normal(w.shape, np.float32) for w in model.get_weights()]


def by_assign(model, tmp_path):
    model.get_layer("conv").kernel.assign(grown(model)[0])


def by_set_weights(model, tmp_path):
    model.set_weights(grown(model))


def by_initialize(model, tmp_path):
    model.get_layer("conv").kernel.initialize(7)


def by_load_weights(model, tmp_path):
    other = network()
    other.set_weights(grown(model))
    other.save_weights(tmp_path / "weights.nnjit")
    model.load_weights(tmp_path / "weights.nnjit")


def by_training(model, tmp_path):
    model.train_on_batch(X, Y)


def by_training_another_model(model, tmp_path):
    network(model.get_layer("conv")).train_on_batch(X, Y)


def by_restoring(model, tmp_path):
    backup = BackupAndRestore(tmp_path / "backup", save_freq=1, delete_checkpoint=False)
    model.fit(X, Y, epochs=1, verbose=0, callbacks=[backup])
    model.predict_on_batch(X)
    model.set_weights(grown(model))
    model.predict_on_batch(X)
    model.fit(X, Y, epochs=1, verbose=0, callbacks=[backup])


WAYS = [
    by_assign, by_set_weights, by_initialize, by_load_weights, by_training,
    by_training_another_model, by_restoring,
]  # fmt: skip


@pytest.mark.parametrize("change", WAYS)
def test_every_write_to_a_parameter_is_seen(model, tmp_path, change):
    before = model.predict_on_batch(X)
    np.testing.assert_array_equal(model.predict_on_batch(X), before)
    change(model, tmp_path)
    after = model.predict_on_batch(X)
    assert np.abs(after - before).max() > 1e-4
    np.testing.assert_allclose(after, expected(model), rtol=1e-3, atol=1e-4)


def test_packing_runs_once_until_a_parameter_changes(model):
    model.predict_on_batch(X)
    least = calls(model)
    assert calls(model) == least
    model.get_layer("dense").kernel.assign(grown(model)[2])
    assert calls(model) > least
    assert calls(model) == least


def test_evaluating_and_state_change_no_parameter(model):
    model.predict_on_batch(X)
    least = calls(model)
    model.evaluate(X, Y, verbose=0)
    assert calls(model) == least


def test_a_frozen_layer_is_packed_once_in_training():
    conv = layers.Conv2D(16, 3, padding="same", name="conv")
    model = network(conv)
    conv.trainable = False
    model.compile("sgd", "mse", device="cpu")
    step = model.executable("train")
    sizes = []
    for _ in range(3):
        sizes.append(int(step.measure({"x": X, "y": Y}, 1)[0][:, 1].sum()))
    assert sizes[0] > sizes[1] == sizes[2]
    conv.kernel.assign(conv.kernel.numpy() * 2)
    assert int(step.measure({"x": X, "y": Y}, 1)[0][:, 1].sum()) == sizes[0]


def test_what_a_step_updates_or_reads_anew_is_not_kept():
    w, v = (parameter_node(n, Spec((4, 4), "float32")) for n in "wv")
    x = input_node("x", Spec((4, 4), "float32"))
    scope = Scope()
    with enter(scope):
        lasting = ops.matmul(ops.sqrt(w), ops.transpose(w))
        changing = ops.matmul(v, ops.transpose(v))
        scope.update(v, v + x)
        out = {"y": lasting + changing + x}
    plan = compile_graph(Graph("g", out, scope.updates))
    kept = {b.name for launch in plan.launches for b in launch.written if b.kind == "kept"}
    read = {
        b.name for x in plan.launches if any(b.kind == "kept" for b in x.written) for b in x.buffers
    }
    assert kept
    assert "w" in read
    assert not read & {"v", "x"}
