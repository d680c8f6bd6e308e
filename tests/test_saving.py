"""Model files: what is saved comes back exactly, and damage is found."""

import json

import numpy as np
import pytest

import nnjit
from nnjit import ops
from nnjit.container import HEAD, read_container, write_container
from nnjit.errors import ArgumentError, ModelFileError
from nnjit.layers import (
    BatchNormalization,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    Input,
    Layer,
)
from nnjit.models import Model, Sequential

RNG = np.random.default_rng(0)
X = RNG.normal(size=(20, 4)).astype(np.float32)
Y = RNG.integers(0, 3, 20)
SPARSE = "sparse_categorical_crossentropy"


def trained(device, model=None, **options):
    model = model or Sequential(
        [Input((4,)), Dense(6, "relu"), BatchNormalization(), Dropout(0.2), Dense(3, "softmax")]
    )
    settings = {"optimizer": "adam", "loss": SPARSE, "metrics": ["accuracy"], **options}
    model.compile(**settings, device=device)
    model.fit(X, Y, verbose=0, batch_size=8)
    return model


def test_a_loaded_model_goes_on_as_if_never_saved(tmp_path, device):
    model = trained(device)
    model.optimizer.learning_rate = 0.02
    model.save(tmp_path / "m.nnjit")
    other = nnjit.load_model(tmp_path / "m.nnjit", device=device)
    np.testing.assert_array_equal(model.predict(X), other.predict(X))
    assert other.optimizer.learning_rate == pytest.approx(0.02)
    assert int(other.optimizer.iterations.numpy()) == 3
    histories = [m.fit(X, Y, verbose=0, epochs=2).history for m in (model, other)]
    assert histories[0] == histories[1]
    for a, b in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_without_optimizer_or_without_compile(tmp_path, device):
    model = trained(device)
    model.save(tmp_path / "m.nnjit", include_optimizer=False)
    assert nnjit.load_model(tmp_path / "m.nnjit").compiled is None
    model.save(tmp_path / "m.nnjit")
    assert nnjit.load_model(tmp_path / "m.nnjit", compile=False).compiled is None


@nnjit.register
class Join(Layer):
    """A layer that takes a list."""

    def call(self, parts):
        return ops.concatenate(parts, axis=-1)


@nnjit.register
class MeanOverTime(Layer):
    def call(self, x):
        return ops.mean(x, axis=1)


def functional():
    a, b = Input((4,), name="a"), Input((4,), name="b")
    shared = Dense(5, "tanh", name="shared")
    h = Join()([shared(a), shared(b)])
    h = ops.maximum(h * 2.0 + 1.0, 0.5) + ops.as_node(np.arange(10, dtype=np.float32))
    return Model({"a": a, "b": b}, [Dense(3, "softmax", name="p")(h), ops.sum(h, axis=-1)])


def nested():
    inner = Sequential([Input((4,)), Dense(3, "relu"), Dense(2)], name="inner")
    x = Input((4,))
    return Model(x, Dense(3)(inner(x)))


def open_axis():
    return Sequential([Input((None, 4)), Dense(3), MeanOverTime()])


MODELS = {
    "functional": (functional, {"a": X, "b": X[::-1]}),
    "nested": (nested, X),
    "open axis": (open_axis, X[None]),
    "image": (lambda: Sequential([Conv2D(2, 3, input_shape=(5, 5, 1)), Flatten(), Dense(2)]),
              RNG.normal(size=(3, 5, 5, 1))),
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_architectures_come_back(tmp_path, name, device):
    build, x = MODELS[name]
    model = build()
    model.session.device = device
    model.save(tmp_path / "m.nnjit")
    other = nnjit.load_model(tmp_path / "m.nnjit", device=device)
    got, want = other.predict(x), model.predict(x)
    for a, b in zip(got, want, strict=True):
        np.testing.assert_array_equal(a, b)
    assert [w.name for w in other.weights] == [w.name for w in model.weights]
    assert json.dumps(other.get_config()) == json.dumps(model.get_config())
    assert other.output_names == model.output_names


def test_frozen_layers_come_back_frozen(tmp_path):
    model = Sequential([Input((4,)), Dense(2), Dense(2)])
    model.layers[0].trainable = False
    model.save(tmp_path / "m.nnjit")
    assert [x.trainable for x in nnjit.load_model(tmp_path / "m.nnjit").layers] == [False, True]


class Double(Layer):
    """A user's own layer."""

    def __init__(self, factor=2.0, **options):
        super().__init__(**options)
        self.factor = factor

    def call(self, x):
        return x * self.factor


def test_own_layers_need_their_class(tmp_path, device):
    model = Sequential([Input((4,)), Double(3.0)])
    model.session.device = device
    model.save(tmp_path / "m.nnjit")
    with pytest.raises(ModelFileError, match=r"unknown layer 'Double'.*custom_objects"):
        nnjit.load_model(tmp_path / "m.nnjit")
    again = nnjit.load_model(tmp_path / "m.nnjit", {"Double": Double}, device=device)
    np.testing.assert_allclose(again.predict(X), 3 * X, rtol=1e-6)


def test_what_cannot_be_saved_is_named(tmp_path, device):
    model = Sequential([Input((4,)), Dense(1)])
    model.compile("sgd", lambda y, p: ops.abs(y - p), device=device)
    with pytest.raises(ArgumentError, match=r"compile\(loss=…\).*cannot be saved"):
        model.save(tmp_path / "m.nnjit")
    assert not (tmp_path / "m.nnjit").exists()
    model.save(tmp_path / "m.nnjit", include_optimizer=False)
    with pytest.raises(ArgumentError, match="not built yet"):
        Sequential([Dense(1)]).save(tmp_path / "n.nnjit")


def test_weights_alone(tmp_path):
    model, other = (Sequential([Input((4,)), Dense(3)]) for _ in range(2))
    model.set_weights([w + 1 for w in model.get_weights()])
    for save in (model.save_weights, model.save):
        other.set_weights([0 * w for w in other.get_weights()])
        save(tmp_path / "w.nnjit")
        other.load_weights(tmp_path / "w.nnjit")
        np.testing.assert_array_equal(model.get_weights()[0], other.get_weights()[0])
    with pytest.raises(ModelFileError, match="not of this model"):
        Sequential([Input((4,)), Dense(2)]).load_weights(tmp_path / "w.nnjit")


# ----------------------------------------------------------------------------------------- damage
def test_every_flipped_bit_and_truncation_is_found(tmp_path):
    file = tmp_path / "m.nnjit"
    Sequential([Input((2,)), Dense(2)]).save(file)
    whole = file.read_bytes()
    for position in RNG.integers(0, 8 * len(whole), 200):
        damaged = bytearray(whole)
        damaged[position // 8] ^= 1 << (position % 8)
        file.write_bytes(damaged)
        with pytest.raises(ModelFileError):
            nnjit.load_model(file)
    for size in RNG.integers(0, len(whole), 30):
        file.write_bytes(whole[:size])
        with pytest.raises(ModelFileError):
            nnjit.load_model(file)
    file.write_bytes(whole + b"\0")
    with pytest.raises(ModelFileError, match="checksum differs"):
        nnjit.load_model(file)
    file.write_bytes(whole)
    nnjit.load_model(file)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a model file"),
        (b"PK\x03\x04" + bytes(100), "not a model file"),
        (b"NNJITMF9" + bytes(100), "another version"),
        (b"NNJITMF1", "truncated or damaged"),
    ],
)
def test_foreign_files(tmp_path, content, message):
    (tmp_path / "m.nnjit").write_bytes(content)
    with pytest.raises(ModelFileError, match=message) as e:
        nnjit.load_model(tmp_path / "m.nnjit")
    assert "\n" not in str(e.value)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(ModelFileError, match="no such weights file"):
        Sequential([Input((4,)), Dense(3)]).load_weights(tmp_path / "none.nnjit")
    with pytest.raises(ModelFileError, match="no such model file"):
        nnjit.load_model(tmp_path / "m.nnjit")
    with pytest.raises(ModelFileError, match="cannot be read"):
        nnjit.load_model(tmp_path)
    (tmp_path / "f").write_text("")
    model = Sequential([Input((4,)), Dense(2)])
    with pytest.raises(ModelFileError, match="cannot be written"):
        model.save(tmp_path / "f" / "m.nnjit")


def test_a_valid_file_with_another_content_is_refused(tmp_path):
    file = tmp_path / "m.nnjit"
    for header in ({}, {"model": {"class_name": "Dense", "kind": "layer", "config": {"units": 1}}}):
        write_container(file, b"NNJITMF1", header, {})
        with pytest.raises(ModelFileError):
            nnjit.load_model(file)
    header, _ = read_container(file, b"NNJITMF1", "model file")
    assert header["model"]["class_name"] == "Dense"
    assert HEAD.size == 16


def test_files_of_equal_models_are_equal(tmp_path):
    for name in "ab":
        model = functional()
        model.name = "m"
        model.save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
