"""Names of kernels."""

import numpy as np
import pytest

import nnjit
from nnjit import ops


@pytest.mark.parametrize("name", ["rsqrt", "tanh"])
def test_a_kernel_of_one_function_does_not_hide_that_function(name):
    x = np.linspace(0.1, 2, 7, dtype="float32")
    y = nnjit.function(getattr(ops, name))(x)
    expected = 1 / np.sqrt(x) if name == "rsqrt" else np.tanh(x)
    np.testing.assert_allclose(y, expected, rtol=1e-5)
