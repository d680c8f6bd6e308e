"""Fixtures of all tests.

Compiled kernels are kept from one session to the next, in NNJIT_CACHE or ~/.cache/nnjit-tests: a
kernel is compiled again only when its text, a helper or the machine has changed.
"""

import os
from pathlib import Path

import pytest

os.environ.setdefault("NNJIT_CACHE", str(Path.home() / ".cache" / "nnjit-tests"))


def pytest_addoption(parser):
    parser.addoption(
        "--device",
        default="interpret",
        help="where models of the tests run: interpret (quick), python or cpu",
    )


@pytest.fixture
def device(request):
    """The device that a test's models run on: `--device cpu` runs the same tests compiled."""
    return request.config.getoption("--device")
