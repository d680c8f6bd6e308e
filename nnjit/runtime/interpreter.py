"""The driver: one compiled function that walks a table of launches; cached like a kernel.

This file is the source text of that kernel; `driver.py` describes the table and `threads.py` the
control block.

Fork-join: the calling thread walks the rows. For a parallel row it publishes a sequence number and
one claim word per chunk (2*seq: open, 2*seq + 1: taken). Threads that are awake claim chunks, each
from its own part on; the caller waits only for chunks that somebody started, so a thread that is
parked or descheduled costs nothing but its help. Who runs a chunk never decides its limits.
A row of several stages is opened once for each, so that no chunk of a stage begins before the last
one of the stage before it has ended; on one thread it is one call. A chain is a row with links:
who claims a chunk runs all rows of the chain on one unit of it, then on the next, so that what one
row writes for some samples is in this core's cache when the next row reads it.

Memory is addressed by integers: no arrays, no exceptions, no calls into Python's runtime. min(),
max() and // would bring Numba's exception code along.
"""

# mypy: ignore-errors

from numba import njit, types

from nnjit.runtime import frontend
from nnjit.runtime.atomics import (
    add,
    call_address,
    call_table,
    divide,
    load,
    pause,
    peek,
    publish,
    store,
    swap_if,
    ticks,
)

# what the driver can be asked to do
RUN, SERVE, TICKS, CLOSE = 0, 1, 2, 3

# words of a row, in bytes
FUNCTION, TABLE, TRIP, CHUNKS, FLAGS, WORDS, ALIGN, STAGES = 0, 8, 16, 24, 32, 40, 48, 56
ROW = 64
SERIAL, LINK = 1, 256

# words of the control block, in bytes; see threads.py
SEQ, OPEN_ROW, OPEN_CHUNKS, THREADS, COUNTS, OPEN_STAGE, STRIDE = 0, 8, 16, 24, 32, 40, 48
DONE = 64
BUSY, QUIT, ACQUIRE, RELEASE, YIELD = 128, 136, 144, 152, 160
SLOTS = 192  # per thread 64 bytes: parked (0 or 1), lock
CLAIMS = 192 + 64 * 64

PATIENCE = 20000  # pauses before a waiting caller offers its core


def helper(function):
    """A jitted function of this file; all arguments are int64, constants too: so it is compiled
    once, and optimized as a part of the driver only.
    """
    options = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True, "error_model": "numpy"}
    words = (types.int64,) * function.__code__.co_argcount
    short = frontend.short_pipeline()
    with frontend.unfinished():
        return njit(words, _nrt=False, pipeline_class=short, **options)(function)


@helper
def call_kernel(row, lo, hi, tid):
    """Call a row's kernel with the words of its table."""
    call_table(load(row + FUNCTION), load(row + TABLE), load(row + WORDS), lo, hi, tid)


@helper
def span(row):
    """Indices of a stage of a row."""
    trip, stages = load(row + TRIP), load(row + STAGES)
    return divide(trip, stages) if stages > 1 else trip


@helper
def chunk_count(row):
    """Chunks of a stage: as many as the row says, at most one per unit of `align` indices."""
    trip, align, chunks = span(row), load(row + ALIGN), load(row + CHUNKS)
    units = trip if align <= 1 else divide(trip + align - 1, align)
    return chunks if chunks < units else units


@helper
def links(row):
    """Rows that follow in this row's chain."""
    return divide(load(row + FLAGS), LINK)


@helper
def run_units(row, chunk, chunks, tid, line, stride):
    """The units of a chunk one by one: `align` indices of each row of the chain, in order.

    line: 0, or the counters of the chain's first row; all threads add to the ticks of each row.
    """
    align, last = load(row + ALIGN), row + ROW * links(row)
    units = divide(load(row + TRIP) + align - 1, align)
    unit = divide(units * chunk, chunks)
    end = divide(units * (chunk + 1), chunks)
    while unit < end:
        member, ticking = row, line
        while member <= last:
            start = ticks() if line else 0
            lo, trip = unit * load(member + ALIGN), load(member + TRIP)
            hi = lo + load(member + ALIGN)
            call_kernel(member, lo, hi if hi < trip else trip, tid)
            if line:
                add(ticking, ticks() - start)
                ticking += 8 * stride
            member += ROW
        unit += 1


@helper
def run_chunk(row, stage, chunk, chunks, tid, line, stride):
    """Chunk c of n covers the units of its stage, or chain, from units*c/n to units*(c + 1)/n."""
    if links(row):
        run_units(row, chunk, chunks, tid, line, stride)
        return
    trip, align = span(row), load(row + ALIGN)
    align, first = align if align > 1 else 1, stage * trip
    units = divide(trip + align - 1, align)
    lo = divide(units * chunk, chunks) * align
    hi = divide(units * (chunk + 1), chunks) * align
    call_kernel(row, first + lo, first + (hi if hi < trip else trip), tid)


@helper
def share_out(line, stride, rows, spent):
    """The counters of a chain's rows: of the ticks spent, what each row took of the threads' time,
    and the calls and chunks of the first row.
    """
    total = 0
    for k in range(rows):
        total += load(line + 8 * stride * k)
    for k in range(rows):
        own = line + 8 * stride * k
        store(own, int(float(spent) * (float(load(own)) / float(total if total else 1))))
        store(own + 8, 1)
        for word in range(2, stride):
            store(own + 8 * word, load(line + 8 * word))


@helper
def help_out(control, seq, tid):
    """Run chunks of the open row until none is left, starting at this thread's part.

    A successful claim keeps the row open: its caller waits for the chunk. A claim after the row
    closed fails, because the words then hold another sequence number.
    """
    threads = peek(control + THREADS)
    if tid >= threads:
        return
    chunks = peek(control + OPEN_CHUNKS)
    first = divide(chunks * tid, threads)
    for step in range(chunks):
        chunk = first + step
        if chunk >= chunks:
            chunk -= chunks
        word = control + CLAIMS + 8 * chunk
        if peek(word) == 2 * seq and swap_if(word, 2 * seq, 2 * seq + 1):
            line, stride = load(control + COUNTS), load(control + STRIDE)
            row, stage = load(control + OPEN_ROW), load(control + OPEN_STAGE)
            run_chunk(row, stage, chunk, chunks, tid, line, stride)
            if line:
                store(line + 16 + 8 * tid, load(line + 16 + 8 * tid) + 1)
            add(control + DONE, 1)


@helper
def wake(control, threads):
    """Release the parked threads among 1..threads-1."""
    for tid in range(1, threads):
        slot = control + SLOTS + 64 * tid
        if peek(slot) and swap_if(slot, 1, 0):
            call_address(load(control + RELEASE), load(slot + 8), 0)


@helper
def run_parallel(control, row, stage, chunks, line, stride):
    """Open a stage of a row, or a chain, to all threads, help, wait."""
    seq = load(control + SEQ) + 1
    store(control + DONE, 0)
    store(control + OPEN_ROW, row)
    store(control + OPEN_STAGE, stage)
    publish(control + OPEN_CHUNKS, chunks)
    store(control + COUNTS, line)
    store(control + STRIDE, stride)
    for chunk in range(chunks):
        publish(control + CLAIMS + 8 * chunk, 2 * seq)
    publish(control + SEQ, seq)
    help_out(control, seq, 0)
    waited = 0
    while peek(control + DONE) != chunks:
        pause()
        waited += 1
        if waited > PATIENCE:
            call_address(load(control + YIELD), 0, 0)


@helper
def walk(control, program, rows, threads, counts, stride):
    """Run the rows in order.

    counts: 0, or per row `stride` words, 0 at first: ticks, calls, chunks run by thread 0, 1, ...
    """
    awake = 0
    start = 0
    index = 0
    while index < rows:
        row = program + ROW * index
        chunks, chained = chunk_count(row), links(row)
        line = 0
        if counts:
            line = counts + 8 * stride * index
            start = ticks()
        stages = load(row + STAGES)
        if threads == 1 or chunks < 2 or (load(row + FLAGS) & SERIAL):
            if stages > 1:
                call_kernel(row, 0, load(row + TRIP), 0)
            else:
                for chunk in range(chunks):
                    run_chunk(row, 0, chunk, chunks, 0, line, stride)
            if counts:
                store(line + 16, load(line + 16) + chunks)
        else:
            if not awake:
                wake(control, threads)
                awake = 1
            stage = 0
            while stage == 0 or stage < stages:
                run_parallel(control, row, stage, chunks, line, stride)
                stage += 1
        if counts:
            if chained:
                share_out(line, stride, chained + 1, ticks() - start)
            else:
                store(line, load(line) + ticks() - start)
                store(line + 8, load(line + 8) + 1)
        index += 1 + chained


@helper
def run(control, program, rows, threads, counts, stride):
    """Run a program; 1, or 0 where the threads were at work for another caller and this one did it
    alone."""
    if threads == 1 or not swap_if(control + BUSY, 0, 1):
        walk(control, program, rows, 1, counts, stride)
        return 0
    publish(control + THREADS, threads)
    walk(control, program, rows, threads, counts, stride)
    publish(control + BUSY, 0)
    return 1


@helper
def wanted(control, tid):
    """Whether a thread must stay awake: its help may be asked for any moment, or it is to end."""
    if peek(control + QUIT):
        return 1
    if peek(control + BUSY) and tid < peek(control + THREADS):
        return 1
    return 0


@helper
def serve(control, tid, patience):
    """A pool thread's life: help, spin, park. It never holds the interpreter lock.

    It says that it is parked before it looks a last time: either it sees the caller's BUSY, or the
    caller sees it parked and releases its lock. Whoever turns the parked word back decides whether
    the lock is taken.
    """
    slot = control + SLOTS + 64 * tid
    seen = 0
    idle = 0
    while not peek(control + QUIT):
        seq = peek(control + SEQ)
        if seq != seen:
            seen = seq
            idle = 0
            help_out(control, seq, tid)
            continue
        pause()
        idle += 1
        if idle < patience:
            continue
        idle = 0
        if wanted(control, tid):
            call_address(load(control + YIELD), 0, 0)
            continue
        swap_if(slot, 0, 1)
        if not (wanted(control, tid) and swap_if(slot, 1, 0)):
            call_address(load(control + ACQUIRE), load(slot + 8), 1)


@helper
def close(control, threads):
    """Wait for a running program, then end all threads; BUSY stays, so that later programs run
    alone."""
    while not swap_if(control + BUSY, 0, 1):
        call_address(load(control + YIELD), 0, 0)
    swap_if(control + QUIT, 0, 1)
    wake(control, threads)


def driver(job, control, a, b, c, d, e):
    """The entry: RUN(program, rows, threads, counts, stride), SERVE(tid, patience), TICKS(),
    CLOSE(threads)."""
    if job == RUN:
        return run(control, a, b, c, d, e)
    if job == SERVE:
        serve(control, a, b)
    elif job == TICKS:
        return ticks()
    elif job == CLOSE:
        close(control, a)
    return 0
