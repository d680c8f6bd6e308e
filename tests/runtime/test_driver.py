"""Chunk limits, threads, counters, concurrent callers, forks, the end of the process."""

import os
import threading
from dataclasses import replace

import numpy as np
import pytest
from small_kernels import make_source

from nnjit.errors import NnjitError
from nnjit.runtime import cpu, driver
from nnjit.runtime import threads as pool_module
from nnjit.runtime.buffers import aligned
from nnjit.runtime.driver import Call, Program, run
from nnjit.runtime.python import chunk_limits

SETUP = """
import numpy as np
from small_kernels import scale
from nnjit.runtime import cpu, driver
from nnjit.runtime.driver import Call, Program, run
source = scale()
address = cpu.load([source]).addresses[source.key]
x, y = np.arange(1000, dtype=np.float32), np.zeros(1000, np.float32)
words = [1, x.ctypes.data, y.ctypes.data]
program = Program.build([Call(address, 1000, words, chunks=8)] * 20, (x, y))
"""


@pytest.fixture(scope="module")
def marks(session_cache):
    """Address of a kernel that notes for each index the limits of its chunk and the thread."""
    body = [
        "for i in range(lo, hi):",
        "    out[4 * i] += 1",
        "    out[4 * i + 1] = lo",
        "    out[4 * i + 2] = hi",
        "    out[4 * i + 3] = tid",
    ]
    os.environ["NNJIT_CACHE"] = str(session_cache)
    source = make_source("marks", [], [("out", "int64")], body)
    return cpu.load([source]).addresses[source.key]


@pytest.mark.parametrize("threads", [1, 2, 3, 7])
@pytest.mark.parametrize("serial", [False, True])
def test_each_index_runs_once_within_the_limits_that_the_row_fixes(marks, threads, serial):
    cases = [
        (trip, chunks, align)
        for trip in (0, 1, 2, 3, 7, 8, 9, 64, 101)
        for chunks in (1, 2, 3, 8, 64, 256)
        for align in (0, 1, 4, 8)
    ]
    outs = [np.zeros((trip, 4), np.int64) for trip, _, _ in cases]
    program = Program.build([
        Call(marks, trip, [out.ctypes.data], chunks, serial, align)
        for (trip, chunks, align), out in zip(cases, outs, strict=True)
    ])  # fmt: skip
    run(program, threads)
    for case, out in zip(cases, outs, strict=True):
        expected = [(1, lo, hi) for lo, hi in chunk_limits(*case) for _ in range(lo, hi)]
        assert [tuple(row) for row in out[:, :3]] == expected, case
        assert len(out) == 0 or (out[:, 3].min() >= 0 and out[:, 3].max() < threads)


def test_results_are_the_same_bits_for_any_number_of_threads(kernel):
    body = [
        "for i in range(lo, hi):",
        "    s = f4(0)",
        "    for j in range(n):",
        "        s += x[i * n + j]",
        "    y[i] = s",
        "if lo < hi:",
        "    y[lo] += f4(hi - lo)",
    ]
    source = kernel("row_sums", ["n"], [("x", "float32"), ("y", "float32")], body)
    address = cpu.load([source]).addresses[source.key]
    x = np.random.default_rng(0).standard_normal((37, 101)).astype(np.float32)
    results = set()
    for threads in (1, 2, 3, 5):
        y = np.zeros(37, np.float32)
        words = [101, x.ctypes.data, y.ctypes.data]
        program = Program.build([Call(address, 37, words, chunks=6)], (x, y))
        for _ in range(50):
            run(program, threads)
            results.add(y.tobytes())
    assert len(results) == 1
    limits = dict(chunk_limits(37, 6))
    extra = np.array([limits[i] - i if i in limits else 0 for i in range(37)])
    np.testing.assert_allclose(y, x.sum(1, dtype=np.float64) + extra, rtol=1e-5)


@pytest.mark.parametrize("count", [1, 3, 4, 5, 41])
def test_any_number_of_words_arrives_in_order(kernel, count):
    names = [f"s{i}" for i in range(count)]
    body = [f"out[{i}] = s{i}" for i in range(count)]
    body = [f"out[{i}] = {name}" for i, name in enumerate(names[:-1])] + [f"out[{count}] = lo"]
    source = kernel(f"words_{count}", names[:-1], [("out", "int64")], body)
    address = cpu.load([source]).addresses[source.key]
    out = np.full(count + 1, -1, np.int64)
    values = [7 * i - 3 for i in range(count - 1)]
    run(Program.build([Call(address, 1, [*values, out.ctypes.data])]))
    assert out.tolist() == [*values, -1, 0]


def test_rows_run_in_order(kernel):
    source = kernel("step", ["k"], [("a", "int64")], ["a[0] = a[0] * 3 + k"])
    address = cpu.load([source]).addresses[source.key]
    a = np.zeros(1, np.int64)
    run(Program.build([Call(address, 1, [k, a.ctypes.data]) for k in range(20)]), 2)
    expected = 0
    for k in range(20):
        expected = expected * 3 + k
    assert a[0] == expected


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("align", [1, 4])
def test_a_stage_begins_when_all_chunks_of_the_one_before_have_ended(kernel, threads, align):
    body = [
        "for index in range(lo, hi):",
        "    stage, i = index // 9, index % 9",
        "    total = stage * i",
        "    for j in range(9):",
        "        total += a[9 * stage + j]",
        "    a[9 * stage + 9 + i] = total & 0xffff",
    ]
    source = kernel("staged", [], [("a", "int64")], body)
    address = cpu.load([source]).addresses[source.key]
    stages, a = 300, np.ones(9 * 301, np.int64)
    call = Call(address, 9 * stages, [a.ctypes.data], chunks=5, align=align, stages=stages)
    counters = np.zeros((1, 2 + threads), np.int64)
    run(Program.build([call]), threads, counters)
    want = np.ones(9 * 301, np.int64)
    for stage in range(stages):
        total = want[9 * stage : 9 * stage + 9].sum() + stage * np.arange(9)
        want[9 * stage + 9 : 9 * stage + 18] = total & 0xFFFF
    assert np.array_equal(a, want)
    chunks = min(5, -(-9 // align))
    assert counters[0, 1] == 1
    assert counters[0, 2:].sum() == (chunks if threads == 1 else chunks * stages)
    with pytest.raises(ValueError, match="2700 is no multiple of its 7 stages"):
        Program.build([Call(address, 2700, [a.ctypes.data], stages=7)])


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_a_chain_takes_a_unit_through_all_its_rows_before_the_next(kernel, threads):
    """Each row reads what the row before has written for its unit, and notes the thread; rows of a
    chain may have other trips, as 3 and 1 indices a unit here.
    """
    wide = ["for i in range(lo, hi):", "    b[i] = a[i] + 1", "    who[i] = tid"]
    narrow = [
        "for i in range(lo, hi):",
        "    c[i] = b[3 * i] + b[3 * i + 1] + b[3 * i + 2]",
        "    same[i] = who[3 * i] == tid and who[3 * i + 2] == tid",
    ]
    pairs = [("a", "int64"), ("b", "int64"), ("who", "int64")]
    last = [("b", "int64"), ("who", "int64"), ("c", "int64"), ("same", "int64")]
    sources = kernel("chained_wide", [], pairs, wide), kernel("chained_narrow", [], last, narrow)
    found = cpu.load(list(sources)).addresses
    units, a = 301, np.arange(3 * 301)
    b, who, c, same = (np.zeros(n, np.int64) for n in (903, 903, 301, 301))
    first = Call(found[sources[0].key], 903, [x.ctypes.data for x in (a, b, who)], 16, align=6)
    second = Call(found[sources[1].key], units, [x.ctypes.data for x in (b, who, c, same)], align=2)
    alone = Call(found[sources[0].key], 903, [x.ctypes.data for x in (c, a, who)], 4)
    program = Program.build([replace(first, links=1), second])
    counters = np.zeros((2, 2 + threads), np.int64)
    for _ in range(3):
        run(program, threads, counters)
    assert np.array_equal(c, 3 + a.reshape(-1, 3).sum(1))
    assert same.all()
    assert counters[:, 1].tolist() == [3, 3]
    assert counters[:, 2:].sum(1).tolist() == [48, 48]
    assert (counters[:, 0] > 0).all()
    for wrong in ([replace(first, links=2), second], [replace(first, links=1), alone]):
        with pytest.raises(ValueError, match="row 0: no chain of"):
            Program.build(wrong)


def test_counters_add_up_time_calls_and_the_chunks_of_each_thread(marks):
    out = np.zeros((4000, 4), np.int64)
    calls = [
        Call(marks, 4000, [out.ctypes.data], chunks=16),
        Call(marks, 4000, [out.ctypes.data], chunks=3, serial=True),
        Call(marks, 0, [out.ctypes.data], chunks=16),
    ]
    program = Program.build(calls)
    counters = np.zeros((3, 2 + 3), np.int64)
    for _ in range(4):
        run(program, 3, counters)
    assert counters[:, 1].tolist() == [4, 4, 4]
    assert counters[:, 2:].sum(1).tolist() == [64, 12, 0]
    assert counters[1, 2] == 12
    assert (counters[:2, 0] > 0).all()
    assert counters[:, 0].sum() < 60e9
    alone = np.zeros((3, 3), np.int64)
    run(program, 1, alone)
    assert alone[:, 2].tolist() == [16, 3, 0]


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        (0, 0, "address 0"),
        (2, -1, "trip -1"),
        (3, 0, "chunks 0"),
        (3, 257, "chunks 257"),
        (5, 65, "number of words 65"),
        (6, -1, "align -1"),
    ],
)
def test_a_row_that_would_crash_is_refused(marks, column, value, words):
    rows = Program.build([Call(marks, 1, [0])] * 2).rows.copy()
    rows[1, column] = value
    with pytest.raises(ValueError, match=f"row 1: {words}"):
        Program(rows)


@pytest.mark.parametrize("rows", [np.zeros((2, 7), np.int64), np.zeros((2, 8), np.int32)])
def test_a_table_of_another_form_is_refused(rows):
    with pytest.raises(ValueError, match="rows"):
        Program(rows)


def test_wrong_counters_and_thread_numbers_are_refused(marks):
    program = Program.build([Call(marks, 0, [0])])
    with pytest.raises(ValueError, match=r"counters: expected int64 of shape \(1, 4\)"):
        run(program, 2, np.zeros((1, 3), np.int64))
    for threads in (0, 65):
        with pytest.raises((ValueError, NnjitError), match="threads"):
            run(program, threads)


def test_callers_in_several_python_threads_get_their_own_results(scaled):
    source = scaled(3.0)
    address = cpu.load([source]).addresses[source.key]
    wrong = []

    def call(number):
        x, y = np.arange(513, dtype=np.float32), np.zeros(513, np.float32)
        words = [number, x.ctypes.data, y.ctypes.data]
        program = Program.build([Call(address, 513, words, chunks=9)] * 30, (x, y))
        for _ in range(200):
            y[:] = 0
            run(program, 3)
            if not np.array_equal(y, 3 * x + number):
                wrong.append(number)

    callers = [threading.Thread(target=call, args=(n,)) for n in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not wrong


def test_parked_threads_are_woken_and_never_lost(marks):
    """Programs at moments when threads are just parking; a lost wake-up would hang or skip."""
    import time

    out = np.zeros((64, 4), np.int64)
    program = Program.build([Call(marks, 64, [out.ctypes.data], chunks=64)] * 3)
    for i in range(300):
        run(program, 4)
        time.sleep(0.00001 * (i % 100))
    assert (out[:, 0] == 900).all()


def test_a_forked_child_has_threads_of_its_own(python):
    code = (
        SETUP
        + """
import os
run(program, 3)
child = os.fork()
if child == 0:
    y[:] = 0
    run(program, 3)
    from nnjit.runtime import threads
    good = (y == 2 * x + 1).all() and threads._pool.size == 3
    os._exit(0 if good else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
run(program, 3)
print("ok")
"""
    )
    assert python(code) == "ok\n"


@pytest.mark.parametrize("busy", [False, True])
def test_the_process_ends_cleanly_after_and_during_programs(python, busy):
    """`busy`: a daemon thread runs programs while the process ends; atexit functions may too."""
    code = (
        SETUP
        + f"""
import atexit, threading
def last():
    y[:] = 0
    run(program, 4)
    print(bool((y == 2 * x + 1).all()), flush=True)
atexit.register(last)
def forever():
    z = np.zeros(1000, np.float32)
    words = [1, x.ctypes.data, z.ctypes.data]
    other = Program.build([Call(address, 1000, words, chunks=8)] * 50, (x, z))
    while True:
        run(other, 4)
if {busy}:
    threading.Thread(target=forever, daemon=True).start()
run(program, 4)
"""
    )
    assert python(code) == "True\n"


def test_the_control_block_is_what_the_driver_expects():
    from nnjit.runtime import atomics, interpreter

    for name in ("RUN", "SERVE", "TICKS", "CLOSE", "ACQUIRE", "RELEASE", "YIELD", "SLOTS"):
        assert getattr(interpreter, name) == getattr(pool_module, name), name
    for name in ("TABLE", "TRIP", "CHUNKS", "FLAGS", "WORDS", "ALIGN"):
        assert getattr(interpreter, name) == 8 * getattr(driver, name), name
    assert atomics.MAX_WORDS == driver.MAX_WORDS
    assert interpreter.ROW == 8 * driver.COLUMNS
    assert interpreter.CLAIMS + 8 * pool_module.MAX_CHUNKS == pool_module.CONTROL_BYTES


@pytest.mark.parametrize("nbytes", [0, 1, 63, 4096, 1 << 20])
def test_aligned_memory_is_zero_and_on_a_64_byte_boundary(nbytes):
    memory = aligned(nbytes)
    assert memory.shape == (nbytes,)
    assert memory.dtype == np.uint8
    assert nbytes == 0 or memory.ctypes.data % 64 == 0
    assert not memory.any()
