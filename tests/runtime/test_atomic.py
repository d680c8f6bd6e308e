"""Atomic writes: whole content or the old one, no leftovers."""

import os
import time

import pytest

from nnjit import atomic


@pytest.mark.parametrize("durable", [True, False])
def test_a_write_replaces_the_whole_file_and_makes_its_folder(tmp_path, durable):
    path = tmp_path / "a" / "b" / "file.bin"
    atomic.write_atomic(path, b"first", durable=durable)
    atomic.write_atomic(path, b"second", durable=durable)
    assert path.read_bytes() == b"second"
    assert os.listdir(path.parent) == ["file.bin"]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, step):
    path = tmp_path / "file.bin"
    path.write_bytes(b"old")

    def fail(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(OSError, match="No space left"):
        atomic.write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file.bin"]


def test_sweep_removes_old_leftovers_only(tmp_path):
    old, young = tmp_path / ".x.1.0.partial", tmp_path / ".x.2.0.partial"
    others = [tmp_path / "x.partial", tmp_path / ".hidden", tmp_path / "x.py"]
    for path in (old, young, *others):
        path.write_bytes(b"")
    hours_ago = time.time() - 7200
    for path in (old, *others):
        os.utime(path, (hours_ago, hours_ago))
    assert atomic.sweep(tmp_path) == 1
    assert not old.exists()
    assert young.exists()
    assert all(path.exists() for path in others)
    assert atomic.sweep(tmp_path, older_than=0) == 1
    assert atomic.sweep(tmp_path / "absent") == 0
