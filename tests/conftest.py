"""Fixtures of all tests.

Compiled kernels are kept from one session to the next, in NNJIT_CACHE or ~/.cache/nnjit-tests: a
kernel is compiled again only when its text, a helper or the machine has changed. Tests that compile
many kernels or train to the end are marked slow.
"""

import gc
import os
from pathlib import Path

import pytest

from nnjit import config

os.environ.setdefault("NNJIT_CACHE", str(Path.home() / ".cache" / "nnjit-tests"))
os.environ.setdefault("NNJIT_PLANS", "0")  # tests change what the compiler counts with

# Numba and its peers keep millions of objects: to look for garbage after every 700 new ones takes 5
# to 15 % of compiling
gc.set_threshold(100_000, 20, 20)

HERE = Path(__file__).parent
#: folders and files whose tests are all slow
SLOW = (
    "kernels", "compiler", "runtime", "test_against_torch.py", "test_examples.py",
    "test_real_data.py", "test_same_bits.py",
)  # fmt: skip


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.relative_to(HERE).parts[0] in SLOW:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(autouse=True)
def _settings():
    """What a test sets by nnjit.set_seed and the like ends with it."""
    before = dict(config._set)
    yield
    config._set.clear()
    config._set.update(before)


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
