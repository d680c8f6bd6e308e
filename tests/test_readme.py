"""The README's Python and its command lines do what it says."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
SHELL = [
    line.split("#")[0].strip()
    for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    for line in block.splitlines()
]
NNJIT = [line for line in SHELL if line.startswith("nnjit ")]


def run(command: list[str], folder: Path) -> str:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1"}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("code", PYTHON, ids=range(len(PYTHON)))
def test_python_runs(code, tmp_path):
    assert run([sys.executable, "-c", code], tmp_path)


@pytest.mark.slow
def test_command_lines_run_in_order(tmp_path):
    """All nnjit commands, one after the other, as they stand; training is cut to three epochs."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    assert len(NNJIT) >= 6
    for line in NNJIT:
        words = shlex.split(line)[1:]
        if words[0] in ("train", "finetune"):
            words += ["--set", "train.epochs=3"]
        out = run([sys.executable, "-m", "nnjit", *words], tmp_path)
        assert out.strip(), line
    assert (tmp_path / "runs" / "second" / "model.nnjit").exists()


def test_make_has_the_two_commands():
    for target in ("run", "test"):
        done = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert f"make {target}" in README
