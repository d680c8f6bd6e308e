"""The benchmarks' workloads are what they say: shapes, operations, parameters, in every framework.

Nothing is compiled or timed here.
"""

import importlib.util

import numpy as np
import pytest

from bench.workloads import WORKLOADS
from nnjit.spec import FLOATS

GFLOP = {  # of one step's contractions, to the digits that were asked for
    "mlp": 0.41, "cnn": 1.97, "ae": 0.54, "lstm": 11.5, "gpt": 3.9, "gptm": 146, "resnet": 15.7,
    "unet": 4.8, "ncf": 0.038,
}  # fmt: skip
SHAPES = {  # of a sample of each input, of the labels, of the model's output
    "mlp": ([(784,)], (), (10,)),
    "cnn": ([(28, 28, 1)], (), (10,)),
    "ae": ([(784,)], (784,), (784,)),
    "lstm": ([(64,)], (64,), (64, 65)),
    "gpt": ([(64,)], (64,), (64, 65)),
    "gptm": ([(256,)], (256,), (256, 256)),
    "resnet": ([(32, 32, 3)], (), (10,)),
    "unet": ([(64, 64, 3)], (64, 64, 1), (64, 64, 1)),
    "ncf": ([(), ()], (1,), (1,)),
}

each = pytest.mark.parametrize("name", list(WORKLOADS))


@each
def test_a_step_has_the_stated_operations(name):
    assert WORKLOADS[name].flops / 1e9 == pytest.approx(GFLOP[name], rel=0.03)


@each
def test_data_has_the_right_shapes_and_depends_on_nothing_else(name):
    work = WORKLOADS[name]
    inputs, labels, out = SHAPES[name]
    x, y = work.data(2)
    assert [a.shape for a in x] == [(2, work.batch, *shape) for shape in inputs]
    assert y.shape == (2, work.batch, *labels)
    again = work.data(2)
    for a, b in zip((*x, y), (*again[0], again[1]), strict=True):
        np.testing.assert_array_equal(a, b)
        assert a.dtype in ("float32", "int32")
        if str(a.dtype) in FLOATS:
            assert np.isfinite(a).all()
            assert not ((a != 0) & (np.abs(a) < np.finfo(a.dtype).tiny)).any(), "denormal"
    if work.loss == "classes":
        assert y.min() >= 0
        assert y.max() < out[-1]
    if work.loss == "binary":
        assert set(np.unique(y)) == {0, 1}


@each
def test_the_model_has_the_stated_parameters_and_output(name):
    from bench import models_nnjit

    model = models_nnjit.build(WORKLOADS[name])  # asserts the number of parameters
    assert model.output_shape == (None, *SHAPES[name][2])


@each
def test_pytorch_has_as_many_parameters(name):
    if importlib.util.find_spec("torch") is None:
        pytest.skip("torch is not installed")
    from bench import models_torch

    models_torch.build(WORKLOADS[name])


def test_a_different_number_of_parameters_is_an_error():
    from bench.trainer import check_parameters

    with pytest.raises(AssertionError, match="mlp: 5 parameters, expected 669706"):
        check_parameters(WORKLOADS["mlp"], 5)
