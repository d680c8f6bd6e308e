"""Loading: keys, hits and misses, damaged entries, other processes, errors that name the kernel."""

import ctypes
import json
import shutil

import numpy as np
import pytest
from small_kernels import make_source, scale

from nnjit.errors import CacheError, CompileError
from nnjit.runtime import build, cache, cpu, inprocess, objects, worker
from nnjit.runtime.python import PythonKernel, PythonLaunch, run_python


def call(address, n=1):
    """y of a `scale` kernel for x = 0..9."""
    x, y = np.arange(10, dtype=np.float32), np.zeros(10, np.float32)
    kind = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 4, ctypes.c_void_p, ctypes.c_void_p)
    kind(address)(0, 10, 0, n, x.ctypes.data, y.ctypes.data)
    return y.tolist()


def scaled_by(factor, n=1):
    return [factor * i + n for i in range(10)]


def test_equal_sources_share_a_key_and_any_difference_makes_another(monkeypatch):
    source = scale()
    assert scale().key == source.key
    assert len(source.key) == 32
    others = [
        scale(3.0),
        scale(name="other"),
        cache.KernelSource(source.name, "void(int64, int64)", source.text),
    ]
    keys = {source.key, *(other.key for other in others)}
    monkeypatch.setenv("NNJIT_VECTOR_BITS", "128")
    keys.add(scale().key)
    monkeypatch.setenv("NNJIT_VECTOR_BITS", "256")
    assert len({*keys, scale().key}) == 6


def test_a_changed_helper_module_changes_the_key(monkeypatch):
    head = "from nnjit.kernels.target import lanes\n"
    using = cache.KernelSource("a", "void(int64)", head)
    apart = cache.KernelSource("a", "void(int64)", "")
    assert cache.helper_modules(using.text) == {"kernels.target"}
    before = using.key, apart.key
    monkeypatch.setattr(cache, "file_hash", lambda name: "changed")
    after = [cache.KernelSource("a", "void(int64)", text).key for text in (head, "")]
    assert after[0] != before[0]
    assert after[1] == before[1]


def test_helper_modules_are_found_through_one_another():
    assert cache.helper_modules(cache.driver_source().text) == {
        "runtime.atomics", "runtime.frontend", "kernels.target",
    }  # fmt: skip
    text = "from nnjit.kernels import template, nothing\nimport nnjit.kernels.absent\n"
    assert cache.helper_modules("x = nnjit.kernels.target.lanes") == {"kernels.target"}
    assert cache.helper_modules(text) == {"kernels.template", "kernels.target"}


def test_a_kernel_is_compiled_once_then_hit_then_resident(forget, tmp_path, monkeypatch):
    monkeypatch.setenv("NNJIT_CACHE", str(tmp_path / "new" / "folder"))
    sources = [scale(f) for f in (2.0, 3.0, 2.0)]
    steps = []
    first = cpu.load(sources, lambda *step: steps.append(step))
    assert sorted(first.report.misses) == [("driver", "new")] + [("scale", "new")] * 2
    assert [step[:2] for step in steps] == [(1, 3), (2, 3), (3, 3)]
    assert {step[2] for step in steps} == {"driver", "scale"}
    assert first.report.compile_seconds > 0
    assert first.report.loader == "object"
    assert cpu.compiled_count() == 3
    again = cpu.load(sources)
    assert (again.report.resident, again.report.hits, again.report.misses) == (3, 0, [])
    forget()
    warm = cpu.load(sources, lambda *step: pytest.fail("nothing to compile"))
    assert (warm.report.resident, warm.report.hits, warm.report.misses) == (0, 3, [])
    assert cpu.compiled_count() == 0
    for loaded in (first, again, warm):
        assert call(loaded.addresses[sources[0].key]) == scaled_by(2)
        assert call(loaded.addresses[sources[1].key], 5) == scaled_by(3, 5)
    assert sources[0].path.read_text() == sources[0].text
    assert sources[0].object_path.stem == f"scale-{sources[0].key[:12]}"


def damage(entry, other):
    """The ways in which an entry can be wrong: name -> (bytes, words of the reason)."""
    flipped = bytearray(entry)
    flipped[-100] ^= 1
    return {
        "empty": (b"", "empty"),
        "short": (entry[:20], "not an object"),
        "truncated": (entry[:-1], "checksum"),
        "flipped": (bytes(flipped), "checksum"),
        "text": (b"hello, I am no object of yours, but rather long" * 9, "not an object"),
        "other format": (entry[:8] + b"\7\0\0\0" + entry[12:], "format 7"),
        "another kernel's": (other, "another kernel"),
    }


def test_damaged_entries_are_compiled_again_and_reported(forget):
    cpu.load([scale()])
    entry = scale().object_path.read_bytes()
    cases = damage(entry, cache.driver_source().object_path.read_bytes())
    sources = []
    for number, (data, _) in enumerate(cases.values()):
        sources.append(scale(10.0 + number))
        sources[-1].object_path.write_bytes(data)
    forget()
    loaded = cpu.load(sources)
    reasons = [reason for name, reason in loaded.report.misses if name == "scale"]
    for (kind, (_, words)), reason in zip(cases.items(), reasons, strict=True):
        assert reason.startswith("corrupt: "), kind
        assert words in reason, kind
    for number, source in enumerate(sources):
        assert call(loaded.addresses[source.key]) == scaled_by(10 + number)
    forget()
    assert cpu.load(sources).report.misses == []


def test_a_miss_says_what_changed(forget):
    cpu.load([scale()])
    entry = cache.read_entry(scale())
    old = {**entry.meta["environment"], "numba": "0.1", "cpu": "z80"}
    cases = {
        "moved": ({**entry.meta, "environment": old}, "version: numba, cpu"),
        "edited": ({**entry.meta, "text": "0"}, "changed"),
    }
    for name, (meta, reason) in cases.items():
        source = scale(name=name)
        if name == "moved":
            meta["text"] = cache.digest(source.text)
        path = source.object_path.with_name(f"{name}-000000000000.obj")
        path.write_bytes(objects.encode(objects.Entry(meta, entry.code)))
        assert cache.miss_reason(source) == reason
    assert cache.miss_reason(scale(name="unheard_of")) == "new"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (["y[0] = undefined_thing"], ["undefined_thing"]),
        (["x = (("], ["line 7", "SyntaxError"]),
        (["import os", "y[0] = os.getpid()"], ["TypingError|NumbaError|Unsupported"]),
    ],
)
def test_a_kernel_that_cannot_be_compiled_is_named(body, words):
    source = make_source("broken", [], [("y", "float32")], body)
    with pytest.raises(CompileError, match=r"^kernel broken \(") as caught:
        cpu.load([source])
    assert str(source.path) in str(caught.value)
    for word in words:
        assert any(part in str(caught.value) for part in word.split("|"))


def test_a_worker_that_dies_is_reported_with_its_last_words():
    source = cache.KernelSource(
        "deadly", "void(int64)", "import os\nos.write(2, b'bye')\nos._exit(3)"
    )
    with pytest.raises(CompileError, match=r"kernel deadly .*ended with code 3\nbye"):
        cpu.load([source])


@pytest.mark.parametrize("signature", ["void", "void(int64, list)", "void(*nothing)", "import os"])
def test_a_wrong_signature_is_an_error(signature):
    with pytest.raises((ValueError, AttributeError, TypeError)):
        worker.parse_signature(signature)


def test_inspect_gives_llvm_and_assembly_and_publishes_nothing():
    source = scale(77.0)
    llvm, assembly = build.inspect(source)
    assert f"@{source.entry}(" in llvm
    assert source.entry in assembly
    assert not source.object_path.exists()
    with pytest.raises(CompileError, match="kernel broken"):
        build.inspect(make_source("broken", [], [], ["nothing_known()"]))


def test_a_relative_cache_folder_is_used_where_it_is(forget, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NNJIT_CACHE", "here")
    assert cpu.load([scale()]).report.hits == 0
    assert len(list((tmp_path / "here").glob("*.obj"))) == 2
    assert not (tmp_path / "here" / "here").exists()


def test_settings_of_numba_and_python_do_not_reach_the_code(forget, monkeypatch, tmp_path):
    cpu.load([scale()])
    before = cache.read_entry(scale()).code
    monkeypatch.setenv("NNJIT_CACHE", str(tmp_path))
    for name, value in (
        ("NUMBA_OPT", "0"),
        ("NUMBA_DISABLE_JIT", "1"),
        ("NUMBA_BOUNDSCHECK", "1"),
        ("PYTHONWARNINGS", "error"),
        ("PYTHONINSPECT", "1"),
        ("PYTHONHASHSEED", "7"),
    ):
        monkeypatch.setenv(name, value)
    forget()
    cpu.load([scale()])
    assert cache.read_entry(scale()).code == before


def test_the_summary_names_each_miss(forget):
    report = cpu.LoadReport(3, 1, [("dense", "new")], 0.52, 2, notes=["because"])
    assert report.summary() == (
        "kernels: 5 (3 cached, 1 loaded before, 1 compiled in 0.5 s by 2 workers), loader object\n"
        "  because\n  dense: new"
    )


def test_the_users_own_numba_functions_work_beside_ours(python):
    """Kernels bind Numba's helper names where Numba is absent; Numba must still get its own."""
    code = """
from small_kernels import scale
from nnjit.runtime import cpu
cpu.load([scale()])
import numba
@numba.njit
def f(x):
    if x > 1:
        raise ValueError("too much")
    return x
print(f(1))
try:
    f(2)
except ValueError as error:
    print(error)
"""
    assert python(code) == "1\ntoo much\n"


def test_an_interrupt_while_compiling_leaves_no_process(monkeypatch):
    started = []
    real = build._Worker

    def note():
        started.append(real())
        return started[-1]

    monkeypatch.setattr(build, "_Worker", note)

    def interrupt(*step):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cpu.load([scale(f) for f in (20.0, 21.0, 22.0, 23.0)], interrupt)
    assert started
    assert all(member.process.returncode is not None for member in started)


def test_a_folder_that_cannot_be_written_is_named(tmp_path, monkeypatch, forget):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("NNJIT_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(CacheError, match="NNJIT_CACHE") as caught:
        cpu.load([scale()])
    assert str(tmp_path / "file" / "cache") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_read_only_folder_is_enough_when_nothing_is_missing(forget, monkeypatch):
    cpu.load([scale()])
    forget()

    def refuse(*args, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(cache, "write_atomic", refuse)
    assert cpu.load([scale()]).report.misses == []
    with pytest.raises(CacheError, match="Permission denied; set NNJIT_CACHE"):
        cpu.load([scale(30.0)])


def test_an_unknown_symbol_is_refused_before_it_can_crash():
    meta = {"name": "k", "entry": "k", "undefined": ["no_such_function"]}
    with pytest.raises(CompileError, match="kernel k calls no_such_function"):
        objects.link([objects.Entry(meta, b"")])


def test_undefined_symbols_come_from_the_object(forget):
    loaded = cpu.load([scale()])
    assert loaded.report.loader == "object"
    entry = cache.read_entry(scale())
    assert entry.meta["undefined"] == objects.undefined_symbols(entry.code)
    assert scale().entry not in entry.meta["undefined"]
    with pytest.raises(ValueError, match="ELF"):
        objects.undefined_symbols(b"MZ" + entry.code[2:])


def test_two_processes_may_compile_the_same_kernels_at_once(start, tmp_path):
    code = """
from small_kernels import scale
from nnjit.runtime import cpu
from test_load import call
sources = [scale(f) for f in (2.0, 3.0)]
loaded = cpu.load(sources)
print([call(loaded.addresses[s.key])[9] for s in sources], cpu.compiled_count())
"""
    processes = [start(code, NNJIT_CACHE=str(tmp_path)) for _ in range(2)]
    outputs = [process.communicate(timeout=120) for process in processes]
    assert [out for out, _ in outputs] == ["[19.0, 28.0] 3\n"] * 2, outputs
    assert not list(tmp_path.glob(".*"))


def test_a_warm_process_imports_no_numba_and_compiles_nothing(python):
    code = """
import sys
from small_kernels import scale
from nnjit.runtime import cpu
from test_load import call
source = scale()
assert call(cpu.load([source]).addresses[source.key])[9] == 19
print(cpu.compiled_count(), "numba" in sys.modules)
"""
    python(code)
    assert python(code) == "0 False\n"


def test_a_worker_makes_objects_but_no_machine_code_of_its_own(python):
    code = """
import sys
from small_kernels import scale
from nnjit.runtime import worker
worker.prepare()
source = scale()
made = worker.compile_kernel(source.text, "scale.py", source.name, source.signature)
module, machine = worker.finished(made, source.entry)
address = made.library.get_pointer_to_function(made.fndesc.llvm_func_name)
print(address, machine.emit_object(module)[1:4], "scipy.linalg" in sys.modules)
"""
    assert python(code) == "0 b'ELF' False\n"


NUMBA = """
import json, sys
import nnjit.kernels.target as target
from small_kernels import scale, make_source
from nnjit.runtime import cpu, driver
from test_load import call
sources = [scale(), make_source("sums", [], [("x", "float32")], [
    "for i in range(lo, hi):", "    x[i] += f4(1) / f4(i + 3)"])]
loaded = cpu.load(sources)
assert call(loaded.addresses[sources[0].key])[9] == 19
import numpy as np
x = np.zeros(1000, np.float32)
address = loaded.addresses[sources[1].key]
program = driver.Program.build([driver.Call(address, 1000, [x.ctypes.data], 7)] * 9)
driver.run(program, 3)
assert not target.jitting
print(json.dumps([loaded.report.loader, loaded.report.misses, x.tobytes().hex()]))
"""


def test_the_numba_loader_gives_the_same_results_and_repairs_its_cache(python, tmp_path):
    by_objects = json.loads(python(NUMBA))
    folder = str(tmp_path)

    def by_numba():
        return json.loads(python(NUMBA, NNJIT_LOADER="numba", NNJIT_CACHE=folder))

    first = by_numba()
    assert (by_objects[0], first[0]) == ("object", "numba")
    assert first[2] == by_objects[2]
    assert [reason for _, reason in first[1]] == ["new"] * 3
    kept = sorted((tmp_path / "numba" / "__pycache__").glob("*.nb?"))
    assert len(kept) == 6
    index, data = kept[0], kept[3]
    index.write_bytes(index.read_bytes()[:7])
    data.write_bytes(b"")
    damaged = by_numba()
    assert damaged[2] == by_objects[2]
    assert [reason for _, reason in damaged[1]] == ["corrupt: removed"] * 2
    assert by_numba()[1] == []


def test_where_objects_are_not_proven_numba_loads_and_says_so(python, tmp_path):
    code = """
import logging, sys
logging.basicConfig(stream=sys.stdout, format="%(message)s")
from small_kernels import scale
from nnjit.runtime import cpu, objects, worker, build
def unproven(*args):
    raise objects.Unproven("no CFunc._library")
build.compile_missing = unproven
source = scale()
for _ in range(2):
    report = cpu.load([source]).report
    print(report.loader, report.notes)
    cpu._registry.addresses.pop(source.key)
"""
    lines = python(code, NNJIT_CACHE=str(tmp_path)).splitlines()
    assert "no CFunc._library" in lines[0]
    assert [line.split()[0] for line in lines[1:]] == ["numba", "numba"]
    assert all("no CFunc._library" in line for line in lines[1:])


def test_the_object_path_is_used_only_where_it_is_proven(monkeypatch):
    assert objects.unsupported() is None
    monkeypatch.setattr(objects.platform, "machine", lambda: "riscv64")
    assert "riscv64" in objects.unsupported()
    monkeypatch.setattr(objects.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(objects.sys, "platform", "darwin")
    assert "darwin" in objects.unsupported()


def test_jitted_helpers_do_not_replace_the_plain_ones():
    import nnjit.kernels as package
    import nnjit.kernels.template as plain

    with inprocess.jitted_helpers():
        import nnjit.kernels.template as jitted

        assert jitted is not plain
    assert package.template is plain
    import nnjit.kernels.template as after

    assert after is plain


def test_the_python_device_runs_the_cached_file_with_the_same_results(forget, caplog):
    source = scale(2.5)
    kernel = PythonKernel.load(source)
    assert kernel.path == source.path
    assert kernel.function.__code__.co_filename == str(source.path)
    x, y = np.arange(10, dtype=np.float32), np.zeros(10, np.float32)
    run_python([PythonLaunch(kernel, 10, [1], [x, y], chunks=3, align=4)])
    assert y.tolist() == call(cpu.load([source]).addresses[source.key])
    assert not caplog.records
    source.path.write_text(source.text.replace("2.5", "4.5"))
    edited = PythonKernel.load(source)
    run_python([PythonLaunch(edited, 10, [1], [x, y])])
    assert y.tolist() == scaled_by(4.5)
    assert "was edited" in caplog.text
    source.path.unlink()
    assert PythonKernel.load(source).path.read_text() == source.text


def test_a_copied_cache_folder_works(python, session_cache, tmp_path):
    cpu.load([scale()])
    folder = tmp_path / "copy"
    shutil.copytree(session_cache, folder)
    code = """
from small_kernels import scale
from nnjit.runtime import cpu
print(cpu.load([scale()]).report.misses)
"""
    assert python(code, NNJIT_CACHE=str(folder)) == "[]\n"


@pytest.mark.parametrize("wanted", [True, False])
def test_a_driver_begun_early_is_used_or_not_in_the_way(forget, tmp_path, monkeypatch, wanted):
    monkeypatch.setenv("NNJIT_CACHE", str(tmp_path))
    source, driver = scale(7.0), cache.driver_source()
    build.start_early(4)
    try:
        build.compile_missing([driver, source] if wanted else [source], None)
    finally:
        build.dismiss()
    assert source.object_path.is_file()
    assert driver.object_path.is_file() or not wanted
    loaded = cpu.load([source])
    assert len(loaded.report.misses) <= (not wanted)  # the driver alone, if it was not finished
    assert call(loaded.addresses[source.key]) == scaled_by(7)
