"""What tests of kernels share."""

import pytest

from nnjit.kernels import target


@pytest.fixture(params=["auto", "pairs"] if target.host_multiplies_blocks() else ["auto"])
def bf16(request, monkeypatch):
    """Products of bfloat16 as this CPU does them, and as one without AMX does."""
    monkeypatch.setenv("NNJIT_BF16", request.param)
