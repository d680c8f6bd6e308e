"""A small configuration, and the command as users run it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from nnjit.cli.main import cli

SMALL = """\
name = "small"
device = "interpret"

[data]
source = "digits"
classes = [0, 1, 2]
test = 0.2

[model]
layers = [
    { type = "Flatten" },
    { type = "Dense", units = 8, activation = "relu" },
    { type = "Dropout", rate = 0.2 },
    { type = "Dense", units = 3, activation = "softmax" },
]

[train]
epochs = 3
batch_size = 64
optimizer = { name = "adam", learning_rate = 0.01 }
"""


@pytest.fixture
def invoke():
    """invoke("train", …) -> click's result."""
    return lambda *arguments: CliRunner().invoke(cli, [str(a) for a in arguments])


@pytest.fixture
def nnjit_process():
    """nnjit_process("train", …) -> a finished subprocess of the real command."""

    def run(*arguments, **options):
        command = [sys.executable, "-m", "nnjit", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=False, **options)

    return run


@pytest.fixture(scope="session")
def small_run(tmp_path_factory) -> Path:
    """A finished run of SMALL."""
    folder = tmp_path_factory.mktemp("runs")
    config = folder / "small.toml"
    config.write_text(SMALL)
    result = CliRunner().invoke(
        cli, ["train", str(config), "--run-dir", str(folder / "small"), "--json"]
    )
    assert result.exit_code == 0, result.output
    return folder / "small"


def lines(path: Path) -> list[dict]:
    return [json.loads(t) for t in path.read_text().splitlines()]


def is_root() -> bool:
    return hasattr(os, "geteuid") and os.geteuid() == 0
