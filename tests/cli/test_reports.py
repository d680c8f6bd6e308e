"""inspect, profile, doctor, help: what they show, and that --json is complete."""

from __future__ import annotations

import json
import re

import pytest

from nnjit.cli.main import VERBS
from tests.cli.conftest import SMALL


@pytest.fixture
def config(tmp_path):
    file = tmp_path / "c.toml"
    file.write_text(SMALL)
    return file


@pytest.mark.parametrize(
    ("stage", "expected"),
    [
        ("summary", ["dense (Dense)", "(None, 8)", "547"]),
        ("graph", ["graph train:", "[dense_1]", "update dense/kernel", "output loss"]),
        ("plan", ["program train:", "batch = 16", "work arena"]),
        ("source", ["# signature: void(", "def matmul", "for "]),
    ],
)
def test_every_stage_of_a_configuration_can_be_seen(stage, expected, config, invoke):
    done = invoke("inspect", config, "--stage", stage, "--batch-size", 16)
    assert done.exit_code == 0, done.stderr
    for text in expected:
        assert text in done.stdout


@pytest.mark.parametrize("step", ["train", "evaluate", "predict"])
def test_inspect_gives_json_for_a_run(step, small_run, invoke):
    options = ["--step", step, "--stage", "plan", "--json"]
    found = json.loads(invoke("inspect", small_run, *options).stdout)
    assert found["step"] == step
    assert found["work_bytes"] > 0
    flops = sum(x["flops"] for x in found["launches"])
    products = 2 * 32 * (64 * 8 + 8 * 3)  # forward; the gradients of the kernels are as many
    assert flops >= products * (2 if step == "train" else 1)


def test_frozen_layers_have_no_backward_kernels(small_run, tmp_path, invoke):
    file = tmp_path / "f.toml"
    file.write_text('device = "interpret"\n[data]\nclasses = [5, 6, 7]\n[train]\nepochs = 1\n')
    plans = {}
    for name, options in (("free", []), ("frozen", ["--freeze", "dense"])):
        done = invoke("finetune", small_run, file, "--run-dir", tmp_path / name, *options)
        assert done.exit_code == 0, done.stderr
        text = invoke("inspect", tmp_path / name, "--stage", "plan", "--json").stdout
        plans[name] = [x["kernel"] for x in json.loads(text)["launches"] if "dense" in x["layers"]]
    assert len(plans["frozen"]) < len(plans["free"])
    # the gradient of a kernel is a product with the transposed input
    assert not any("TN" in kernel for kernel in plans["frozen"])
    assert any("TN" in kernel for kernel in plans["free"])


def test_profile_accounts_for_every_launch(config, tmp_path, invoke):
    target = tmp_path / "trace.json"
    done = invoke("profile", config, "--steps", 3, "--json", "--trace", target)
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["extents"] == {"batch": 64}
    assert found["best_ms"] <= found["step_ms"]
    assert sum(x["share"] for x in found["launches"]) == pytest.approx(1)
    for x in found["launches"]:
        assert x["milliseconds"] > 0
        assert x["gflops"] == pytest.approx(x["flops"] / x["milliseconds"] / 1e6)
        roof = max(
            x["flops"] / found["machine"]["gflops"], x["nbytes"] / found["machine"]["bandwidth"]
        )
        assert x["roof"] == pytest.approx(roof / x["milliseconds"] / 1e6)
    events = json.loads(target.read_text())["traceEvents"]
    assert [e["name"] for e in events] == [x["kernel"] for x in found["launches"]]
    starts = [e["ts"] for e in events]
    assert starts == sorted(starts)


def test_profile_is_a_table_for_people(config, invoke):
    text = invoke("profile", config, "--steps", 2, "--step", "predict", "--batch-size", 5).stdout
    assert text.splitlines()[0].split() == [
        "layer", "kernel", "calls", "ms", "share", "GFLOP/s", "GB/s", "of", "roof"
    ]  # fmt: skip
    assert "predict step, batch 5: " in text
    assert "ms undisturbed (median of 2" in text
    assert "this machine: " in text


def test_doctor_tests_the_compiler_and_reports_facts(invoke):
    done = invoke("doctor", "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["self_test"]["ok"]
    assert found["self_test"]["difference"] < 1e-5
    assert found["machine"]["gflops_core"] > 0
    assert set(found["cache"]) == {"path", "kernels", "bytes", "writable"}
    text = invoke("doctor").stdout
    for word in ("python", "cpu", "threads", "cache", "loader", "passed", "GFLOP/s"):
        assert word in text


def test_doctor_fails_where_results_differ(invoke, monkeypatch):
    from nnjit.profiling import selftest

    monkeypatch.setattr(selftest, "TOLERANCE", 0.0)
    done = invoke("doctor")
    assert done.exit_code == 1
    assert re.search(r"^self-test +FAILED", done.stdout, re.M)


def test_doctor_says_that_the_cache_cannot_be_written(tmp_path, nnjit_process):
    import os

    (tmp_path / "file").touch()
    folder = str(tmp_path / "file" / "cache")
    done = nnjit_process("doctor", env={**os.environ, "NNJIT_CACHE": folder})
    assert done.returncode == 1
    assert re.search(r"^cache +.*cannot be written: set NNJIT_CACHE", done.stdout, re.M)
    assert re.search(r"^self-test +failed: ", done.stdout, re.M)
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(verb, invoke):
    done = invoke(verb, "--help")
    assert done.exit_code == 0
    assert "--debug" in done.stdout
    assert verb in invoke("--help").stdout
    if verb not in ("train", "finetune"):
        assert "--json" in done.stdout


def test_version_and_no_color(invoke, monkeypatch):
    import nnjit

    assert invoke("--version").stdout == f"nnjit {nnjit.__version__}\n"
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[" not in invoke("--help").output
