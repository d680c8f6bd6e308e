"""What is compiled, and when: once for all batch sizes, once for equal layers, never in a second
process.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from nnjit.runtime import cpu
from nnjit.runtime.executable import build
from tests.compiler.drive import feed
from tests.compiler.networks import cnn, mlp

ROOT = Path(__file__).resolve().parents[2]


def test_another_batch_size_compiles_nothing():
    net = cnn(dropout=True)
    executable = build(net.graph(), net.store(), "cpu")
    executable.run(feed(net.graph(), {"batch": 4}))
    before = cpu.compiled_count()
    for batch in (1, 7, 32, 33, 1000):
        loss = executable.run(feed(net.graph(), {"batch": batch}))["loss"]
        assert loss.shape == ()
    assert cpu.compiled_count() == before


def test_equal_layers_share_their_kernels():
    two, three = (build(mlp(u).graph(), mlp(u).store(), "python") for u in ((20, 20), (20, 20, 20)))
    assert len(two.plan().launches) < len(three.plan().launches)
    assert {k.key for k in two.kernels} == {k.key for k in three.kernels}


def test_names_of_layers_do_not_matter():
    def keys(prefix: str) -> list[str]:
        from nnjit import ops
        from nnjit.graph import input_node
        from nnjit.spec import Spec
        from tests.compiler.networks import Net

        net = Net()
        h = net.dense(f"{prefix}_a", input_node("x", Spec(("batch", 6))), 7, ops.tanh)
        net.adam(net.classify(net.dense(f"{prefix}_b", h, 10)))
        return [k.key for k in build(net.graph(), net.store(), "python").kernels]

    assert keys("encoder") == keys("decoder")


# what a warm start has no use for: each costs milliseconds
LATE = (
    "numba", "scipy", "subprocess", "logging", "concurrent.futures", "nnjit.runtime.build",
    "nnjit.compiler.cpu.scan", "nnjit.compiler.cpu.attention", "nnjit.data.sources",
)  # fmt: skip
CODE = f"""
import sys, json
from nnjit.runtime.executable import build
from tests.compiler.networks import cnn
from tests.compiler.drive import feed
net = cnn(dropout=True)
executable = build(net.graph(), net.store(), "cpu")
executable.run(feed(net.graph(), dict(batch=4)))
print(json.dumps(dict(misses=executable.report.misses, hits=executable.report.hits,
                      late=[m for m in {LATE!r} if m in sys.modules])))
"""


def test_a_second_process_compiles_nothing_and_imports_only_what_it_needs():
    net = cnn(dropout=True)
    build(net.graph(), net.store(), "cpu")
    out = subprocess.run(
        [sys.executable, "-c", CODE], capture_output=True, text=True, cwd=ROOT, timeout=120,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False,
    )  # fmt: skip
    assert out.returncode == 0, out.stderr
    import json

    found = json.loads(out.stdout)
    assert found["misses"] == []
    assert found["hits"] > 10
    assert found["late"] == []
