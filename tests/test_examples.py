"""The examples run as their comments say."""

from __future__ import annotations

import json
import re
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from nnjit.cli.main import cli

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


def report(*arguments) -> dict:
    done = CliRunner().invoke(cli, [*map(str, arguments), "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def write_idx(folder: Path) -> None:
    """Squares of two sizes at random places, in MNIST's format."""
    rng = np.random.default_rng(0)
    for part, rows in (("train", 256), ("t10k", 64)):
        images, labels = np.zeros((rows, 28, 28), np.uint8), rng.integers(0, 2, rows)
        for image, label in zip(images, labels, strict=True):
            at, size = rng.integers(2, 12, 2), 4 + 9 * label
            image[at[0] : at[0] + size, at[1] : at[1] + size] = 255
        head = struct.pack(">HBBIII", 0, 8, 3, rows, 28, 28)
        (folder / f"{part}-images-idx3-ubyte").write_bytes(head + images.tobytes())
        head = struct.pack(">HBBI", 0, 8, 1, rows)
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(head + labels.astype(np.uint8).tobytes())


def test_digits_cnn_reads_98_percent_of_unseen_digits(tmp_path):
    found = report("train", EXAMPLES / "digits_cnn.toml", "--run-dir", tmp_path / "run")
    assert found["part"] == "test"
    assert found["held_out"]["accuracy"] >= 0.98


def test_digits_mlp(tmp_path):
    found = report("train", EXAMPLES / "digits_mlp.toml", "--run-dir", tmp_path / "run")
    assert found["held_out"]["accuracy"] >= 0.95


def test_finetuning_from_0to4_to_5to9(tmp_path):
    base, tuned = tmp_path / "base", tmp_path / "tuned"
    report("train", EXAMPLES / "digits_0to4.toml", "--run-dir", base)
    options = ["--freeze", "conv*", "--head", 5, "--run-dir", tuned]
    found = report("finetune", base, EXAMPLES / "finetune_digits.toml", *options)
    assert found["held_out"]["accuracy"] >= 0.95


def test_mnist_cnn_as_configuration_and_as_script(tmp_path):
    write_idx(tmp_path)
    sets = ["--set", f"data.source={tmp_path}", "--set", "train.epochs=4"]
    run = tmp_path / "run"
    found = report("train", EXAMPLES / "mnist_cnn.toml", *sets, "--run-dir", run)
    assert found["samples"] == 64
    assert found["held_out"]["accuracy"] > 0.9
    script = [sys.executable, str(EXAMPLES / "mnist_cnn.py"), "--data", str(tmp_path)]
    done = subprocess.run([*script, "--epochs", "4"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    accuracy = re.search(r"test loss [\d.]+, test accuracy ([\d.]+)$", done.stdout, re.M).group(1)
    assert float(accuracy) > 0.9


@pytest.mark.parametrize("name", sorted(p.name for p in EXAMPLES.glob("*.py")))
def test_scripts_explain_themselves(name):
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), "--help"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0
    assert "--data" in done.stdout
