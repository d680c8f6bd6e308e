"""The emitted source of small networks is what the golden files hold, and reads well.

After a change that is meant: python -m tests.compiler.regenerate_golden
"""

from __future__ import annotations

import ast
import difflib
import re

import pytest

from nnjit.compiler.pipeline import compile_graph
from nnjit.kernels.template import render
from tests.compiler.networks import NETWORKS
from tests.compiler.regenerate_golden import FOLDER, VECTOR_BITS, emitted
from tests.ops.table import ROWS

networks = pytest.mark.parametrize("name", NETWORKS)
SPARE = re.compile(r"\(\((?:[^()]|\([^()]*\))*\)\)")  # ((...)): parentheses around parentheses
TEMPLATES = ("matmul", "conv2d", "pack", "max_pool", "avg_pool", "depthwise", "sum_32")


@pytest.fixture(autouse=True)
def _width(monkeypatch):
    monkeypatch.setenv("NNJIT_VECTOR_BITS", VECTOR_BITS)


@networks
def test_emitted_source_is_the_golden_one(name):
    want = (FOLDER / f"{name}.py.txt").read_text(encoding="utf-8")
    got = emitted(name)
    if got != want:
        lines = difflib.unified_diff(
            want.splitlines(), got.splitlines(), "golden", "now", "", "", 2
        )
        pytest.fail(
            f"the source of {name} has changed; where that is meant, run "
            "python -m tests.compiler.regenerate_golden\n" + "\n".join([*lines][:60])
        )


def kernels(name: str) -> list[str]:
    net = NETWORKS[name]()
    plan = compile_graph(net.graph(), net.store().layout)
    return [render(launch.template) for launch in plan.launches]


@networks
def test_kernels_read_well(name):
    for text in kernels(name):
        check_style(text)


def check_style(text: str) -> None:
    """Lines of at most 100 columns but for the signature, no spare parentheses, a docstring."""
    for line in text.splitlines()[1:]:
        assert len(line) <= 100, line
        assert not SPARE.search(line), line
    module = ast.parse(text)
    assert ast.get_docstring(module)
    (function,) = [s for s in module.body if isinstance(s, ast.FunctionDef)]
    used = {n.id for n in ast.walk(function) if isinstance(n, ast.Name)}
    for statement in module.body:
        if isinstance(statement, ast.ImportFrom) and not statement.module.startswith("nnjit"):
            names = {a.asname or a.name for a in statement.names}
            assert names <= used, f"{names - used} imported for nothing"


def test_loops_of_every_op_read_well():
    """All kernels but those of the hand-written templates."""
    seen = set()
    for row in ROWS:
        for launch in compile_graph(row.graph("float32", backward=row.grad)).launches:
            if not launch.template.name.startswith(TEMPLATES):
                seen.add(render(launch.template))
    for text in seen:
        check_style(text)


@networks
def test_no_layer_has_its_name_in_a_kernel(name):
    net = NETWORKS[name]()
    plan = compile_graph(net.graph(), net.store().layout)
    layers = {v.name.split("/")[0] for v in net.variables}
    for launch in plan.launches:
        assert not any(layer in render(launch.template) for layer in layers), launch.template.name


def test_names_say_what_is_computed():
    def names(name: str) -> list[str]:
        net = NETWORKS[name]()
        plan = compile_graph(net.graph(), net.store().layout)
        return [launch.template.name for launch in plan.launches]

    assert "adam_update_f4" in names("mlp")
    assert "sgd_update_f4" in names("softmax")
    assert any(n.startswith("matmul_bias_relu_batch_20_32") for n in names("mlp"))
    assert any("softmax" in n for n in names("softmax"))
    assert any("dropout" in n for n in names("cnn"))
