"""A cache folder for the session, kernels to load, and fresh registries."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from small_kernels import make_source, scale

from nnjit.runtime import cpu

ROOT = Path(__file__).resolve().parents[2]
_kept = []  # registries own machine code that the driver may still run


@pytest.fixture
def kernel():
    """`make_source`."""
    return make_source


@pytest.fixture
def scaled():
    """`scale`."""
    return scale


@pytest.fixture(scope="session")
def session_cache(tmp_path_factory):
    return tmp_path_factory.mktemp("kernels")


@pytest.fixture(autouse=True)
def _cache(session_cache, monkeypatch):
    """Kernels of these tests go to the session's folder, by objects."""
    monkeypatch.setenv("NNJIT_CACHE", str(session_cache))
    monkeypatch.delenv("NNJIT_LOADER", raising=False)


@pytest.fixture
def forget(monkeypatch):
    """Make this process forget what it has loaded; again with each call."""

    def do():
        _kept.append(cpu._registry)
        monkeypatch.setattr(cpu, "_registry", cpu._Registry())

    do()
    yield do
    _kept.append(cpu._registry)


@pytest.fixture
def start(session_cache):
    """Start a Python process on `code`; environment entries by keyword."""

    def do(code, **environment):
        path = os.pathsep.join([str(ROOT), str(Path(__file__).parent)])
        given = {**os.environ, "NNJIT_CACHE": str(session_cache), "PYTHONPATH": path, **environment}
        return subprocess.Popen(
            [sys.executable, "-c", code],
            env=given,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return do


@pytest.fixture
def python(start):
    """Run `code` in a process of its own; its output."""

    def do(code, **environment):
        process = start(code, **environment)
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        return out

    return do
