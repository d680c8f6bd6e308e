"""bfloat16 as bits: what kernels load and round, against the definition and against torch."""

from __future__ import annotations

import numpy as np
import pytest

from nnjit.kernels.bf16 import expand, shorten
from nnjit.kernels.template import Template
from tests.kernels.launch import launch

ROUND = Template(
    "round_trip",
    "bits of x, and the value of bits",
    ("from nnjit.kernels.bf16 import bf16_load, bf16_round",),
    (),
    (("x", "f4"), ("bits", "b2"), ("y", "b2"), ("z", "f4")),
    ("for i in range(lo, hi):", "    y[i] = bf16_round(x[i])", "    z[i] = bf16_load(bits[i])"),
    512,
)


def values() -> np.ndarray:
    """Halves between two bfloat16, limits, denormals, infinities, NaN, and random bits."""
    bits = np.random.default_rng(0).integers(0, 2**32, 512).astype(np.uint32)
    edges = [0x3F808000, 0x3F818000, 0x3F808001, 0x7F7FFFFF, 0x7F7F7FFF, 0x7F800000, 0xFF800000,
             0x7F800001, 0xFFFFFFFF, 0x00000001, 0x00008000, 0x00018000, 0x80000000]  # fmt: skip
    bits[: len(edges)] = edges
    return bits.view(np.float32)


@pytest.mark.parametrize("jit", [True, False])
def test_load_and_round(jit):
    x = values()
    bits = np.random.default_rng(1).integers(0, 2**16, 512).astype(np.uint16)
    y, z = launch(ROUND, {"x": x, "bits": bits}, {"y": (512,), "z": (512,)}, jit=jit)
    np.testing.assert_array_equal(y, shorten(x))
    np.testing.assert_array_equal(z.view(np.uint32) >> 16, bits)
    assert not (z.view(np.uint32) & 0xFFFF).any()


def test_rounding_is_to_nearest_even():
    x = values()
    y = expand(shorten(x))
    assert (np.isnan(y) == np.isnan(x)).all()
    assert [hex(b) for b in shorten(x)[:7]] == [
        "0x3f80", "0x3f82", "0x3f81", "0x7f80", "0x7f7f", "0x7f80", "0xff80",
    ]  # fmt: skip
    torch = pytest.importorskip("torch")
    with np.errstate(invalid="ignore"):
        want = torch.from_numpy(x.copy()).to(torch.bfloat16).float().numpy()
    np.testing.assert_array_equal(y, want)
