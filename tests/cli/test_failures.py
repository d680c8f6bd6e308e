"""What goes wrong is one line on stderr, exit code 2, and leaves nothing half-written."""

from __future__ import annotations

import numpy as np
import pytest

from tests.cli.conftest import SMALL


def good_config(tmp_path):
    file = tmp_path / "c.toml"
    file.write_text(SMALL)
    return file


def bad_key(tmp_path, run):
    file = tmp_path / "c.toml"
    file.write_text(SMALL.replace("epochs", "epoch"))
    return ["train", file, "--run-dir", tmp_path / "new"], "unknown key; did you mean 'epochs'?"


def bad_label(tmp_path, run):
    np.savez(tmp_path / "d.npz", x=np.zeros((50, 8, 8), np.float32), y=np.arange(50) % 7)
    file = tmp_path / "c.toml"
    file.write_text(SMALL.replace('"digits"\nclasses = [0, 1, 2]', '"d.npz"'))
    return ["train", file, "--run-dir", tmp_path / "new"], "labels go from 0 to 2"


def missing_class(tmp_path, run):
    file = tmp_path / "c.toml"
    file.write_text(SMALL.replace("[0, 1, 2]", "[0, 1, 12]"))
    return ["train", file, "--run-dir", tmp_path / "new"], "no row has label 12"


def missing_config(tmp_path, run):
    return ["train", tmp_path / "none.toml"], "none.toml: no such file"


def config_is_a_folder(tmp_path, run):
    return ["train", tmp_path], "is a directory"


def full_run_folder(tmp_path, run):
    folder = tmp_path / "full"
    folder.mkdir()
    (folder / "kept.txt").write_text("mine")
    return ["train", good_config(tmp_path), "--run-dir", folder], "not empty"


def run_folder_is_a_file(tmp_path, run):
    (tmp_path / "file").write_text("mine")
    return ["train", good_config(tmp_path), "--run-dir", tmp_path / "file"], "is a file"


def run_folder_below_a_file(tmp_path, run):
    (tmp_path / "file").write_text("mine")
    where = tmp_path / "file" / "run"
    return ["train", good_config(tmp_path), "--run-dir", where], "not a directory"


def resume_without_folder(tmp_path, run):
    return ["train", good_config(tmp_path), "--resume"], "--resume: needs --run-dir"


def unknown_set(tmp_path, run):
    command = ["train", good_config(tmp_path), "--set", "train.epoch=3"]
    return command, "--set train.epoch=3: train.epoch = 3: unknown key; did you mean 'epochs'?"


def unknown_device(tmp_path, run):
    return ["train", good_config(tmp_path), "--device", "gpu"], '--device: device = "gpu"'


def wrong_shape(tmp_path, run):
    file = tmp_path / "c.toml"
    file.write_text(SMALL.replace("[model]", "[model]\ninput_shape = [7, 7]"))
    return ["train", file, "--run-dir", tmp_path / "new"], "model.input_shape = [7, 7]"


def missing_run(tmp_path, run):
    return ["evaluate", tmp_path / "none"], "none: no such run folder"


def not_a_run(tmp_path, run):
    return ["evaluate", tmp_path], "not a run folder"


def unknown_part(tmp_path, run):
    return ["evaluate", run, "--data", "tset"], "'tset'"


def missing_input(tmp_path, run):
    command = ["predict", run, "--input", tmp_path / "x.npy", "--output", tmp_path / "y.npy"]
    return command, "x.npy: no such file"


def wrong_output(tmp_path, run):
    np.save(tmp_path / "x.npy", np.zeros((2, 8, 8)))
    command = ["predict", run, "--input", tmp_path / "x.npy", "--output", tmp_path / "y.txt"]
    return command, "--output"


def wrong_samples(tmp_path, run):
    np.save(tmp_path / "x.npy", np.zeros((2, 7, 7)))
    command = ["predict", run, "--input", tmp_path / "x.npy", "--output", tmp_path / "y.npy"]
    return command, "expected shape (samples, 8, 8, 1), got (2, 7, 7)"


def pickled_input(tmp_path, run):
    np.save(tmp_path / "x.npy", np.array([{}], object), allow_pickle=True)
    command = ["predict", run, "--input", tmp_path / "x.npy", "--output", tmp_path / "y.npy"]
    return command, "x.npy: not a readable NumPy file"


def freeze_nothing(tmp_path, run):
    file = tmp_path / "f.toml"
    file.write_text("[data]\nclasses = [5, 6, 7]\n")
    command = ["finetune", run, file, "--freeze", "conv*", "--run-dir", tmp_path / "new"]
    return command, "model.freeze: no layer matches 'conv*'"


def finetune_with_layers(tmp_path, run):
    return ["finetune", run, good_config(tmp_path)], "expected one of"


CASES = [
    bad_key, bad_label, missing_class, missing_config, config_is_a_folder, full_run_folder,
    run_folder_is_a_file, run_folder_below_a_file, resume_without_folder, unknown_set,
    unknown_device, wrong_shape, missing_run, not_a_run, unknown_part, missing_input, wrong_output,
    wrong_samples, pickled_input, freeze_nothing, finetune_with_layers,
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.__name__)
def test_one_line_and_nothing_written(case, tmp_path, small_run, invoke, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments, message = case(tmp_path, small_run)
    before = sorted(tmp_path.rglob("*"))
    result = invoke(*arguments)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert result.stderr.startswith("Error: ")
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("damage", ["truncated", "flipped", "text"])
def test_a_damaged_model_is_named(damage, tmp_path, small_run, invoke):
    import shutil

    run = tmp_path / "run"
    shutil.copytree(small_run, run)
    data = bytearray((run / "model.nnjit").read_bytes())
    if damage == "truncated":
        data = data[:-100]
    elif damage == "flipped":
        data[len(data) // 2] ^= 4
    else:
        data = bytearray(b"hello")
    (run / "model.nnjit").write_bytes(data)
    result = invoke("evaluate", run)
    assert result.exit_code == 2
    assert "model.nnjit" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_debug_shows_the_traceback(tmp_path, invoke):
    for arguments in (["--debug", "train", "none.toml"], ["train", "none.toml", "--debug"]):
        result = invoke(*arguments)
        assert result.exit_code == 2
        assert "Traceback (most recent call last)" in result.stderr
        assert result.stderr.splitlines()[-1] == "Error: none.toml: no such file"


def test_a_misspelt_verb_is_answered_with_the_nearest(invoke):
    result = invoke("trian")
    assert result.exit_code == 2
    assert "did you mean 'train'?" in result.stderr


def test_a_bug_is_exit_code_1(invoke, monkeypatch):
    from nnjit.runconfig import reading

    def broken(*_, **__):
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(reading, "read_config", broken)
    result = invoke("train", "c.toml")
    assert result.exit_code == 1
    assert "ZeroDivisionError: oops (a bug; --debug shows where)" in result.stderr
    assert "Traceback" not in result.stderr


def test_an_interrupt_is_exit_code_130(invoke, monkeypatch):
    from nnjit.runconfig import reading

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(reading, "read_config", interrupted)
    result = invoke("train", "c.toml")
    assert result.exit_code == 130
    assert result.stderr.strip() == "interrupted"
