"""The same bits after 50 steps for any number of threads, in another run and another process."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from nnjit import config
from nnjit.compiler.pipeline import compile_graph, source
from nnjit.runtime.executable import build
from tests.compiler.drive import feed
from tests.compiler.networks import NETWORKS, cnn

ROOT = Path(__file__).resolve().parents[2]
STEPS, BATCH = 50, 48


@pytest.fixture
def threads():
    """Sets the number of threads; back to what it was afterwards."""
    before = config.threads()
    yield config.set_threads
    config.set_threads(before)


def trained() -> str:
    """A digest of all leaves after 50 steps, and of every loss on the way."""
    net = cnn(dropout=True)
    store = net.store()
    executable = build(net.graph(), store, "cpu")
    assert any(row.chunks > 1 for row in executable.rows({"batch": BATCH})), "nothing is parallel"
    digest = hashlib.sha256()
    for step in range(STEPS):
        out = executable.run(feed(net.graph(), {"batch": BATCH - step % 3}, seed=step))
        digest.update(out["loss"].tobytes())
    for name in sorted(store.arrays):
        digest.update(name.encode() + store.arrays[name].tobytes())
    assert np.isfinite(out["loss"])
    assert store.arrays["seed"][1] == STEPS
    return digest.hexdigest()


def test_the_number_of_threads_does_not_change_a_bit(threads):
    found = []
    for n in (1, 2, 3, 1):
        threads(n)
        found.append(trained())
    assert len(set(found)) == 1


def in_another_process(code: str) -> str:
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=300,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "123"}, check=False,
    )  # fmt: skip
    assert out.returncode == 0, out.stderr
    return out.stdout.strip()


def test_another_process_computes_the_same_bits():
    code = "from tests.compiler.test_determinism import trained; print(trained())"
    assert in_another_process(code) == trained()


def emitted() -> str:
    """A digest of all that the compiler writes for the networks: source, order, places."""
    digest = hashlib.sha256()
    for make in NETWORKS.values():
        net = make()
        plan = compile_graph(net.graph(), net.store().layout)
        a = plan.arrange({"batch": 32})
        digest.update(source(plan).encode())
        for launch in plan.launches:
            places = [(b.name, a.offsets.get(b)) for b in launch.buffers]
            digest.update(repr((launch.template.name, places, launch.scopes)).encode())
    return digest.hexdigest()


def test_the_compiler_writes_the_same_in_every_process():
    code = "from tests.compiler.test_determinism import emitted; print(emitted())"
    assert in_another_process(code) == emitted() == emitted()
