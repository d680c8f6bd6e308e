"""Fixtures of all tests."""

import pytest


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
