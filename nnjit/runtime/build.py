"""Compiling what the cache lacks: a team of worker processes, one per core, that pull jobs."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from nnjit import config
from nnjit.errors import CacheError, CompileError
from nnjit.runtime import cache, objects, worker

#: Python's own settings that a worker shares with this process
_PYTHON = ("PYTHONHOME", "PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX")


def compile_missing(
    sources: Sequence[cache.KernelSource], progress: Callable[[int, int, str], None] | None
) -> int:
    """Compile `sources` into the cache; the number of workers used.

    progress(done, total, name) is called in this thread after each kernel. Raises CompileError,
    which names the kernel and its file; `objects.Unproven` where this Numba lacks what the object
    path needs; CacheError.
    """
    jobs = deque(_job(source) for source in sorted(sources, key=lambda s: -len(s.text)))
    team = _team(worker_count(len(sources)))
    results: queue.SimpleQueue[tuple[worker.Job, dict]] = queue.SimpleQueue()
    feeders = [
        threading.Thread(target=_feed, args=(w, _begun(w, jobs), jobs, results), daemon=True)
        for w in team
    ]
    try:
        for feeder in feeders:
            feeder.start()
        for done in range(1, len(sources) + 1):
            job, reply = results.get()
            _check(job, reply)
            if progress is not None:
                progress(done, len(sources), job["name"])
    finally:
        jobs.clear()
        for member in team:
            member.stop()
        for feeder in feeders:
            feeder.join()
        for member in team:
            member.log.close()
    return len(team)


_spare: list[_Worker] = []  # started before it was known what they are for
_hiring = threading.Lock()


def start_early(kernels: int) -> None:
    """Start workers for about so many kernels: they import Numba while the step is still being
    compiled to sources, and the first one compiles the driver, where the cache lacks it. `dismiss`
    those that were not needed.
    """
    folder, driver = config.cache_dir(), cache.driver_source()
    # a folder that cannot be made or written is told of later
    with contextlib.suppress(OSError, CacheError), _hiring:
        folder.mkdir(parents=True, exist_ok=True)
        while kernels and len(_spare) < worker_count(kernels):
            _spare.append(_Worker())
        if kernels and not _spare[0].job and not driver.object_path.exists():
            _spare[0].begin(_job(driver))


def dismiss() -> None:
    """End the workers that wait for work."""
    with _hiring:
        waiting = _spare[:]
        _spare.clear()
    for member in waiting:
        member.stop()
        member.log.close()


def _team(count: int) -> list[_Worker]:
    """So many workers, those that wait first."""
    with _hiring:
        team = _spare[:count]
        del _spare[:count]
    return team + [_Worker() for _ in range(count - len(team))]


def inspect(source: cache.KernelSource) -> tuple[str, str]:
    """LLVM code and assembly of a kernel, compiled anew. Raises like `compile_missing`."""
    job = _job(source)
    job["inspect"] = True
    member = _Worker()
    try:
        reply = member.ask(job)
    finally:
        member.stop()
        member.log.close()
    _check(job, reply)
    return reply["llvm"], reply["assembly"]


def worker_count(kernels: int) -> int:
    """Workers for so many kernels: starting one costs as much as compiling a few (0.5 s)."""
    return max(1, min(config.cores(), (kernels + 1) // 2, config.MAX_THREADS))


def _job(source: cache.KernelSource) -> worker.Job:
    meta = {
        "key": source.key,
        "entry": source.entry,
        "name": source.name,
        "text": cache.digest(source.text),
        "environment": cache.environment(),
    }
    return {
        "name": source.name,
        "entry": source.entry,
        "signature": source.signature,
        "text": source.text,
        "path": str(cache.write_source(source).absolute()),
        "object": str(source.object_path.absolute()),
        "meta": meta,
        "inspect": False,
    }


def _begun(member: _Worker, jobs: deque) -> worker.Job | None:
    """The job that this worker has begun already, out of the others."""
    if member.job not in jobs:
        return None
    jobs.remove(member.job)
    return member.job


def _feed(
    member: _Worker, begun: worker.Job | None, jobs: deque, results: queue.SimpleQueue
) -> None:
    """Give a worker one job after the other, first what it has begun; every job that is taken gets
    a result.
    """
    if begun is not None:
        results.put((begun, member.ask(begun)))
    while True:
        try:
            job = jobs.popleft()
        except IndexError:
            return
        results.put((job, member.ask(job)))


def _check(job: worker.Job, reply: dict) -> None:
    if "seconds" in reply or "llvm" in reply:
        return
    if "unproven" in reply:
        raise objects.Unproven(reply["unproven"])
    if "unwritable" in reply:
        raise CacheError(f"cannot write {job['object']}: {reply['unwritable']}; set NNJIT_CACHE")
    raise CompileError(f"kernel {job['name']} ({job['path']}): {reply['error']}")


class _Worker:
    """One compile process and its pipes."""

    job: worker.Job | None = None  # begun, not yet asked for

    def __init__(self) -> None:
        self.log = tempfile.TemporaryFile()  # noqa: SIM115  closed by compile_missing
        self.process = subprocess.Popen(
            [sys.executable, "-m", "nnjit.runtime.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            env=_environment(),
            cwd=config.cache_dir(),
        )

    def begin(self, job: worker.Job) -> None:
        """Give the worker a job; `ask` for its answer."""
        assert self.process.stdin is not None
        self.job = job
        with contextlib.suppress(OSError, ValueError):  # a dead worker, or one that was stopped
            self.process.stdin.write(json.dumps(job).encode() + b"\n")
            self.process.stdin.flush()

    def ask(self, job: worker.Job) -> dict:
        """The worker's answer to a job; where the worker died, an error with its last words."""
        assert self.process.stdout is not None
        with contextlib.suppress(OSError, ValueError):
            if self.job != job:
                if self.job:  # begun, and not wanted after all
                    self.process.stdout.readline()
                self.begin(job)
            self.job = None
            if line := self.process.stdout.readline():
                return json.loads(line)
        code = self.process.wait()
        self.log.seek(0)
        words = self.log.read().decode(errors="replace").strip()[-2000:]
        return {"error": f"the compile worker ended with code {code}\n{words}".strip()}

    def stop(self) -> None:
        """End the process at once: what it has published is whole, the rest is not wanted."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):
                pipe.close()  # type: ignore[union-attr]


def _environment() -> dict[str, str]:
    """The worker's environment, in which a kernel compiles to the same code everywhere.

    No NUMBA_* (they change code and are not in the key), a fixed hash seed, this very nnjit first
    on the path.
    """
    kept = {
        name: value
        for name, value in os.environ.items()
        if name in _PYTHON or not name.startswith(("NUMBA_", "PYTHON"))
    }
    path = [str(Path(config.__file__).parent.parent)]
    path += filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    fixed = {"NUMBA_DISABLE_INTEL_SVML": "1", "PYTHONHASHSEED": "0", "PYTHONSAFEPATH": "1"}
    return {**kept, **fixed, "PYTHONPATH": os.pathsep.join(map(os.path.abspath, path))}
