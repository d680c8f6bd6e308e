"""The threads that help the driver: Python threads that live inside compiled code.

They hold no interpreter lock, spin for a moment after a program and then park on a lock of
CPython's C API, which needs no interpreter lock either. Waking them costs the caller a few
microseconds and never waits for Python. One pool per process, grown when a program asks for more
threads, never shrunk (a parked thread costs nothing), fresh in a forked child, ended before the
interpreter is.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import sys
import threading
from collections.abc import Callable

from nnjit import config
from nnjit.runtime.buffers import aligned

#: jobs, and offsets of the control block in bytes, as in interpreter.py (a test compares them)
RUN, SERVE, TICKS, CLOSE = 0, 1, 2, 3
ACQUIRE, RELEASE, YIELD, SLOTS = 144, 152, 160, 192
MAX_CHUNKS = 256
CONTROL_BYTES = SLOTS + 64 * config.MAX_THREADS + 8 * MAX_CHUNKS

#: pauses (0.2 to 1 ms) of an idle thread before it parks: the next step should find it awake
PATIENCE = 20_000

Drive = Callable[..., int]  # seven whole numbers, as int or as c_int64


class Pool:
    """Up to 64 threads (the caller is number 0) around one control block."""

    def __init__(self, drive: Drive) -> None:
        self._drive = drive
        self._memory = aligned(CONTROL_BYTES)
        self.control: int = self._memory.ctypes.data
        self._words = self._memory.view("int64")
        self._threads: list[threading.Thread] = []
        self._growing = threading.Lock()
        self._closed = False
        for offset, address in zip((ACQUIRE, RELEASE, YIELD), _functions(), strict=True):
            self._words[offset // 8] = address

    @property
    def size(self) -> int:
        """Threads that can work on a program, the caller included."""
        return len(self._threads) + 1

    def grow(self, size: int) -> int:
        """Start threads until there are `size`; how many may be used (1 after `close`)."""
        with self._growing:
            while self.size < size and not self._closed:
                tid = self.size
                slot = (SLOTS + 64 * tid) // 8
                self._words[slot + 1] = _new_lock()
                thread = threading.Thread(
                    target=self._drive,
                    args=(SERVE, self.control, tid, PATIENCE, 0, 0, 0),
                    name=f"nnjit-{tid}",
                    daemon=True,
                )
                thread.start()
                self._threads.append(thread)
        return 1 if self._closed else min(size, self.size)

    def close(self) -> None:
        """Join the threads, after the program that is running; later ones run on their caller."""
        with self._growing:
            if self._closed:
                return
            self._closed = True
            self._drive(CLOSE, self.control, self.size, 0, 0, 0, 0)
            for thread in self._threads:
                thread.join()


def _functions() -> tuple[int, int, int]:
    """Addresses of: take a lock, give it back, offer the core to others."""
    api = ctypes.pythonapi
    if sys.platform == "win32":
        give_way = ctypes.windll.kernel32.SwitchToThread
    else:
        give_way = ctypes.CDLL(None).sched_yield

    def address(function) -> int:
        return ctypes.cast(function, ctypes.c_void_p).value or 0

    take, give = address(api.PyThread_acquire_lock), address(api.PyThread_release_lock)
    return take, give, address(give_way)


def _new_lock() -> int:
    """A lock of CPython's C API, taken: the next to take it waits for a release. Never freed."""
    api = ctypes.pythonapi
    allocate, acquire = api.PyThread_allocate_lock, api.PyThread_acquire_lock
    allocate.restype, allocate.argtypes = ctypes.c_void_p, []
    acquire.argtypes = [ctypes.c_void_p, ctypes.c_int]
    lock = allocate()
    if not lock:
        raise MemoryError("PyThread_allocate_lock")
    acquire(lock, 1)
    return lock


_pool: Pool | None = None
_making = threading.Lock()


def pool(drive: Drive) -> Pool:
    """This process's pool."""
    global _pool
    if _pool is None:
        with _making:
            if _pool is None:
                _pool = Pool(drive)
    return _pool


def close() -> None:
    """End the pool's threads; runs before the interpreter ends."""
    if _pool is not None:
        _pool.close()


def _forked() -> None:
    """In a forked child, where the threads are not: the next program starts a pool of its own."""
    global _pool, _making
    _pool, _making = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
# before the interpreter is torn down, as concurrent.futures does; plain atexit comes later
getattr(threading, "_register_atexit", atexit.register)(close)
