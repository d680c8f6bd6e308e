"""The machine's limits: measured once, kept, measured again when what is kept cannot be used."""

from __future__ import annotations

import json

import pytest

from nnjit import config
from nnjit.profiling import machine as module
from nnjit.profiling.machine import Machine, machine, measure
from nnjit.profiling.report import bytes_text, table


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setitem(config._set, "cache", str(tmp_path))
    return tmp_path / "machine.json"


def counted(monkeypatch) -> list[int]:
    calls: list[int] = []

    def fake() -> Machine:
        calls.append(1)
        return Machine(100.0, 50.0, 20.0, 2)

    monkeypatch.setattr(module, "measure", fake)
    return calls


def test_limits_are_measured_once(cache, monkeypatch):
    calls = counted(monkeypatch)
    assert machine() == machine() == Machine(100.0, 50.0, 20.0, 2)
    assert len(calls) == 1


@pytest.mark.parametrize("content", ["", "{", "[]", '{"key": 1}', '{"key": "x", "machine": {}}'])
def test_a_file_that_cannot_be_used_is_measured_anew(content, cache, monkeypatch):
    calls = counted(monkeypatch)
    cache.write_text(content)
    assert machine().gflops == 100.0
    assert len(calls) == 1
    assert json.loads(cache.read_text())["machine"]["bandwidth"] == 20.0


def test_other_threads_are_another_machine(cache, monkeypatch):
    calls = counted(monkeypatch)
    for threads in (1, 2, 2):
        monkeypatch.setitem(config._set, "threads", threads)
        machine()
    assert len(calls) == 2


def test_a_measurement_is_plausible():
    found = measure()
    assert 0 < found.gflops_core <= 1000
    assert 0.1 < found.bandwidth < 5000
    assert found.threads == config.threads()


def test_the_roof_is_the_tighter_limit():
    m = Machine(gflops=100.0, gflops_core=50.0, bandwidth=20.0, threads=2)
    assert m.roof(1e11, 1) == pytest.approx(1.0)
    assert m.roof(1, 4e10) == pytest.approx(2.0)


def test_tables_align_and_bytes_have_units():
    text = table(["name", "ms"], [["a", 1.5], ["longer", None]]).splitlines()
    assert text == ["name      ms", "------------", "a       1.50", "longer     -"]
    assert [bytes_text(n) for n in (12, 2048, 3 << 20)] == ["12 B", "2.0 KiB", "3.0 MiB"]
