"""[data] to arrays: what the model reads, and what decides the scaling."""

import numpy as np
import pytest

from nnjit.errors import ConfigError, DataError, ShapeError
from nnjit.runconfig.data import prepare_data
from nnjit.runconfig.schema import Config, Data, Model

LAYERS = [{"type": "Dense", "units": 2}]


def prepared(input_shape=None, **data):
    return prepare_data(
        Config(data=Data(**data), model=Model(layers=LAYERS, input_shape=input_shape))
    )


@pytest.fixture
def npz(tmp_path):
    """Ten rows; the last two are far larger than the others."""
    x = np.zeros((10, 4), np.float32)
    x[8:] = 1000
    file = tmp_path / "rows.npz"
    np.savez(file, x=x, y=np.arange(10) % 2)
    return str(file)


def test_scaling_is_fitted_on_training_rows_alone(npz):
    found = prepared(source=npz, scaling="standard", split="fixed", validation=0, test=2)
    assert (found.preparation.scaling.offset == 0).all()
    assert found.splits.x_test.max() == 1000
    with pytest.raises(DataError, match=r"data\.validation is 0"):
        found.part("validation")


def test_images_get_a_channel_axis():
    found = prepared(split="stratified")
    assert found.splits.x_train.shape[1:] == (8, 8, 1)
    assert found.splits.x_train.dtype == np.float32
    assert found.splits.x_train.max() == 1
    assert found.preparation.scaling.factor == 1 / 16
    assert prepared(channels=False).preparation.sample_shape == (8, 8)


def test_rows_take_the_shape_that_the_model_asks_for(npz):
    assert prepared([2, 2, 1], source=npz).splits.x_train.shape[1:] == (2, 2, 1)
    with pytest.raises(ShapeError, match=r"model\.input_shape = \[3\]: samples of .* are \(4,\)"):
        prepared([3], source=npz)


def test_classes_are_numbered_anew():
    found = prepared(classes=[7, 3])
    assert found.preparation.classes == ("7", "3")
    assert set(found.splits.y_train.tolist()) == {0, 1}
    whole = prepared(split="fixed", validation=0, test=0).splits
    seven = whole.x_train[whole.y_train == 7][0]
    chosen = prepared(split="fixed", validation=0, test=0, classes=[7, 3]).splits
    np.testing.assert_array_equal(chosen.x_train[chosen.y_train == 0][0], seven)
    with pytest.raises(DataError, match="no row has label 11"):
        prepared(classes=[7, 11])


def test_keys_go_with_npz_sources(npz):
    with pytest.raises(ConfigError, match=r"data\.x: goes with an \.npz source"):
        prepared(x="images")
    with pytest.raises(DataError, match=r"no array 'labels'.*x, y"):
        prepared(source=npz, y="labels")
