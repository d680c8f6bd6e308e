"""train, resume, finetune, evaluate, predict: what they write and print."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib

import numpy as np
import pytest

from tests.cli.conftest import SMALL, lines

FILES = {
    "config.toml", "preparation.json", "versions.json", "metrics.jsonl", "log.txt", "checkpoints",
    "model.nnjit", "best.nnjit",
}  # fmt: skip


@pytest.fixture
def config(tmp_path):
    file = tmp_path / "c.toml"
    file.write_text(SMALL)
    return file


def test_a_run_folder_holds_everything(small_run):
    assert {p.name for p in small_run.iterdir()} == FILES
    kept = tomllib.loads((small_run / "config.toml").read_text())
    assert kept["seed"] == 0
    assert kept["train"]["batch_size"] == 64
    assert kept["train"]["metrics"] == ["accuracy"]
    assert kept["model"]["input_shape"] == [8, 8, 1]
    found = lines(small_run / "metrics.jsonl")
    assert [m["epoch"] for m in found] == [0, 1, 2]
    assert set(found[0]) >= {"loss", "accuracy", "val_loss", "val_accuracy"}
    versions = json.loads((small_run / "versions.json").read_text())
    assert versions["packages"]["numpy"] == np.__version__
    assert versions["seed"] == 0
    assert len(list((small_run / "checkpoints").iterdir())) == 3
    assert "epoch 3: loss" in (small_run / "log.txt").read_text()


def test_train_says_where_the_run_is_and_how_good(config, tmp_path, invoke, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = invoke("train", config, "--set", "train.epochs=1")
    assert result.exit_code == 0, result.stderr
    assert re.search(
        r"^held-out \(test, \d+ samples\): loss [\d.]+, accuracy [\d.]+$", result.stdout, re.M
    )
    folder = re.search(r"^run folder: (runs/small-\d{8}-\d{6})$", result.stdout, re.M).group(1)
    assert (tmp_path / folder / "model.nnjit").is_file()


def test_json_is_all_of_stdout(config, tmp_path, invoke):
    result = invoke(
        "train", config, "--json", "--run-dir", tmp_path / "r", "--set", "train.epochs=1"
    )
    report = json.loads(result.stdout)
    assert report["folder"] == str(tmp_path / "r")
    assert report["part"] == "test"
    assert set(report["held_out"]) == {"loss", "accuracy"}
    assert "Epoch 1/1" in result.stderr


def test_the_same_seed_gives_the_same_model(config, small_run, tmp_path, invoke):
    for name, seed in (("same", 0), ("other", 1)):
        done = invoke("train", config, "--run-dir", tmp_path / name, "--seed", seed)
        assert done.exit_code == 0, done.stderr
    model = (small_run / "model.nnjit").read_bytes()
    assert (tmp_path / "same" / "model.nnjit").read_bytes() == model
    assert (tmp_path / "other" / "model.nnjit").read_bytes() != model


def test_early_stopping_and_callbacks_come_from_the_configuration(config, tmp_path, invoke):
    with open(config, "a") as file:
        file.write(
            "early_stopping = { monitor = 'val_loss', patience = 0, min_delta = 9.0 }\n"
            f"callbacks = [{{ type = 'CSVLogger', filename = '{tmp_path / 'log.csv'}' }}]\n"
        )
    done = invoke("train", config, "--run-dir", tmp_path / "r", "--set", "train.epochs=9", "--json")
    assert json.loads(done.stdout)["epochs"] == 2
    assert len((tmp_path / "log.csv").read_text().splitlines()) == 3


def test_a_builder_makes_the_model(tmp_path, invoke):
    (tmp_path / "net.py").write_text(
        "import nnjit\n"
        "from nnjit.layers import Dense, Flatten, Input\n"
        "def build(units):\n"
        "    x = Input(shape=(8, 8, 1))\n"
        "    y = Dense(3, activation='softmax')(Dense(units, activation='relu')(Flatten()(x)))\n"
        "    return nnjit.Model(x, y)\n"
    )
    head, tail = SMALL.split("[model]")[0], SMALL[SMALL.index("[train]") :]
    model = '[model]\nbuilder = "net.py:build"\narguments = { units = 5 }\n\n'
    (tmp_path / "c.toml").write_text(head + model + tail)
    done = invoke(
        "train", tmp_path / "c.toml", "--run-dir", tmp_path / "r", "--set", "train.epochs=1"
    )
    assert done.exit_code == 0, done.stderr
    assert invoke("evaluate", tmp_path / "r").exit_code == 0
    text = (tmp_path / "c.toml").read_text().replace("py:build", "py:biuld")
    (tmp_path / "c.toml").write_text(text)
    wrong = invoke("train", tmp_path / "c.toml")
    assert "no function 'biuld'; did you mean 'build'?" in wrong.stderr


def killed(command: list[str], when) -> None:
    """Start a process group and end it by SIGKILL as soon as when() is true."""
    process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL)
    limit = time.monotonic() + 60
    while not when() and process.poll() is None and time.monotonic() < limit:
        time.sleep(0.002)
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.mark.parametrize("on", ["interpret", "cpu"])
def test_a_killed_run_resumes_to_the_same_bits(on, config, tmp_path, invoke):
    sets = ["--set", "train.epochs=12", "--set", "train.checkpoint_every='2 steps'"]
    sets += ["--device", on]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert invoke("train", config, "--run-dir", whole, *sets).exit_code == 0
    command = [sys.executable, "-m", "nnjit", "train", str(config), "--run-dir", str(cut), *sets]
    ended = cut / "metrics.jsonl"
    for epochs in (1, 4):  # killed twice, the second time while it resumes
        killed(
            command if epochs == 1 else [*command, "--resume"],
            lambda n=epochs: ended.exists() and len(ended.read_bytes().splitlines()) >= n,
        )
        assert not (cut / "model.nnjit").exists(), "the run ended before it was killed"
    with open(ended, "a") as file:
        file.write('{"epoch": 7, "lo')  # as a crash in the middle of a line would leave it
    result = invoke("train", cut, "--resume")
    assert result.exit_code == 0, result.stderr
    assert lines(ended) == lines(whole / "metrics.jsonl")
    assert (cut / "model.nnjit").read_bytes() == (whole / "model.nnjit").read_bytes()
    assert (cut / "best.nnjit").read_bytes() == (whole / "best.nnjit").read_bytes()


def test_resume_trains_on_for_more_epochs(config, small_run, tmp_path, invoke):
    run = tmp_path / "run"
    shutil.copytree(small_run, run)
    more = ["--resume", "--json", "--set", "train.epochs=5"]
    done = invoke("train", config, "--run-dir", run, *more)
    assert json.loads(done.stdout)["epochs"] == 5, done.stderr
    assert len(lines(run / "metrics.jsonl")) == 5


def test_resume_refuses_another_configuration(config, small_run, tmp_path, invoke):
    run = tmp_path / "run"
    shutil.copytree(small_run, run)
    done = invoke("train", config, "--run-dir", run, "--resume", "--set", "train.batch_size=32")
    assert done.exit_code == 2
    assert "was started with train.batch_size = 64, now it is 32" in done.stderr


def test_resume_takes_the_checkpoint_before_a_damaged_one(config, small_run, tmp_path, invoke):
    run = tmp_path / "run"
    shutil.copytree(small_run, run)
    newest = max((run / "checkpoints").iterdir())
    newest.write_bytes(newest.read_bytes()[:-1])
    done = invoke("train", config, "--run-dir", run, "--resume")
    assert done.exit_code == 0, done.stderr
    assert newest.name in done.stderr
    assert (run / "model.nnjit").read_bytes() == (small_run / "model.nnjit").read_bytes()


def test_finetune_freezes_layers_and_replaces_the_head(small_run, tmp_path, invoke):
    file = tmp_path / "f.toml"
    file.write_text(
        'name = "tuned"\ndevice = "interpret"\n[data]\nclasses = [5, 6, 7, 8]\ntest = 0.2\n'
        "[train]\nepochs = 2\n"
    )
    run = tmp_path / "run"
    options = ["--freeze", "dense", "--head", 4, "--lr", 0.01, "--run-dir", run]
    done = invoke("finetune", small_run, file, *options)
    assert done.exit_code == 0, done.stderr
    from nnjit.saving import load_model

    before, after = load_model(small_run / "model.nnjit"), load_model(run / "model.nnjit")
    kernel = before.get_layer("dense").get_weights()[0]
    assert np.array_equal(kernel, after.get_layer("dense").get_weights()[0])
    assert after.get_layer("head").get_weights()[0].shape == (8, 4)
    kept = tomllib.loads((run / "config.toml").read_text())
    assert kept["train"]["optimizer"] == {"name": "adam", "learning_rate": 0.01}
    # a frozen layer has no gradient: nothing of the step that trains names it but its forward
    plan = invoke("inspect", run, "--stage", "graph").stdout
    assert "update dense/kernel" not in plan
    assert "update head/kernel" in plan
    again = invoke("finetune", small_run, file, *options, "--resume")
    assert again.exit_code == 0, again.stderr


def test_evaluate_reports_a_part(small_run, invoke):
    report = json.loads(invoke("evaluate", small_run, "--data", "train", "--json").stdout)
    assert report["part"] == "train"
    assert report["samples"] > 300
    assert report["accuracy"] > 0.9
    text = invoke("evaluate", small_run).stdout
    assert re.fullmatch(r"test \(\d+ samples\): loss [\d.]+, accuracy [\d.]+\n", text)
    assert invoke("evaluate", small_run, "--best").exit_code == 0


def test_a_run_folder_may_move(small_run, tmp_path, invoke):
    config = tmp_path / "f.toml"
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "d.npz", x=rng.random((60, 8, 8)), y=np.arange(60) % 3)
    config.write_text(
        'device = "interpret"\n[data]\nsource = "d.npz"\nchannels = true\n[train]\nepochs = 1\n'
    )
    done = invoke("finetune", small_run, config, "--run-dir", tmp_path / "a")
    assert done.exit_code == 0, done.stderr
    (tmp_path / "a").rename(tmp_path / "b")
    (tmp_path / "d.npz").rename(tmp_path / "x.npz")
    command = ["--input", tmp_path / "x.npz", "--output", tmp_path / "y.npy"]
    assert invoke("predict", tmp_path / "b", *command).exit_code == 0
    gone = invoke("evaluate", tmp_path / "b")
    assert gone.exit_code == 2
    assert "d.npz: no such file" in gone.stderr


@pytest.mark.parametrize("suffix", ["npy", "npz", "csv"])
def test_predict_reads_raw_samples_and_writes_outputs(suffix, small_run, tmp_path, invoke):
    from nnjit.data.datasets import digits

    x, y = digits()
    rows = np.flatnonzero(y < 3)[:40]
    np.savez(tmp_path / "x.npz", x=x[rows])
    target = tmp_path / f"out.{suffix}"
    done = invoke("predict", small_run, "--input", tmp_path / "x.npz", "--output", target)
    assert done.exit_code == 0, done.stderr
    if suffix == "csv":
        table = [t.split(",") for t in target.read_text().splitlines()]
        assert table[0] == ["class", "0", "1", "2"]
        classes = np.array([int(row[0]) for row in table[1:]])
        values = np.array([[float(v) for v in row[1:]] for row in table[1:]])
    else:
        values = np.load(target) if suffix == "npy" else np.load(target)["predictions"]
        classes = values.argmax(axis=1)
    assert values.shape == (40, 3)
    np.testing.assert_allclose(values.sum(axis=1), 1, rtol=1e-5)
    assert (classes == y[rows]).mean() > 0.8


def test_a_run_as_a_user_starts_it(config, tmp_path, nnjit_process):
    done = nnjit_process("train", config, "--run-dir", "r", "--set", "train.epochs=1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "run folder: r" in done.stdout
    wrong = nnjit_process("train", "none.toml", cwd=tmp_path)
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr == "Error: none.toml: no such file\n"
    closed = subprocess.run(
        f"{sys.executable} -m nnjit --help | head -c 1",
        shell=True,
        capture_output=True,
        check=False,
    )
    assert closed.stderr == b""


def test_an_interrupt_ends_with_130(config, tmp_path):
    command = [
        sys.executable,
        "-m",
        "nnjit",
        "train",
        str(config),
        "--run-dir",
        str(tmp_path / "r"),
    ]
    process = subprocess.Popen(
        [*command, "--set", "train.epochs=100000"], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, start_new_session=True,
        # a test run in the background ignores interrupts, and so would its children
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    assert process.stdout is not None
    try:
        process.stdout.readline()  # the first epoch
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert errors.splitlines() == [
        f"continue with: nnjit train {tmp_path / 'r'} --resume",
        "interrupted",
    ]
