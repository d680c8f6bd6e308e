"""Plans on disk, beside the kernels: a process that builds a graph which was compiled before reads
its Plan instead of compiling it.

A Plan's key stands for the graph as it was built, the places of its leaves in the store, every
setting that changes code, the machine, and nnjit's own files (name, size and time, as Python does
for byte code). What is damaged is compiled again, with a warning. NNJIT_PLANS=0 keeps none;
NNJIT_CHECK and NNJIT_DEBUG from 3 compile anew, since they show or check the compiler's work.
"""

from __future__ import annotations

import contextlib
import functools
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from nnjit import config
from nnjit.atomic import write_atomic
from nnjit.compiler import stored_plan
from nnjit.compiler.plan import Plan
from nnjit.compiler.plan_key import Unkeyed, graph_text
from nnjit.graph import Graph, Node
from nnjit.runtime import cache, objects

PACKAGE = Path(config.__file__).parent
#: settings that say where, when and how often something is done, not what code is made
APART = ("CACHE", "THREADS", "SEED", "DEVICE", "LOADER", "PLANS", "DEBUG", "CHECK")

_started = time.time_ns()  # of this process, as good as

Layout = Mapping[str, tuple[int, int]]


def plan_of(graph: Graph, layout: Layout, starting: Callable[[], None] | None = None) -> Plan:
    """The Plan of a graph, from its file where there is one, else compiled and kept. starting: is
    called where a file was looked for and there is none: kernels will be missing too.
    """
    key = key_of(graph, layout)
    if not key:
        return compile_graph(graph, layout)
    path = _path(graph.name, key, "plan")
    found = _read(path, key, graph, layout)
    if found is None:
        if starting is not None:
            starting()
        found = compile_graph(graph, layout)
        if _write(path, key, found):
            found = replace(found, key=key)
    return found


def key_of(graph: Graph, layout: Layout) -> str:
    """32 hex digits for all that a Plan depends on; "" where none is kept."""
    if not config.plans() or config.check() or config.debug() >= 3:
        return ""
    try:
        return cache.digest("\n".join([graph_text(graph, layout), settings(), sources()]))
    except Unkeyed:
        return ""


def reason_whole(graph: Graph, find: Callable[[], str]) -> str:
    """Why a step has no slices, "" if it has: what `find` says, which takes as long as all else of
    a warm start, or said for this graph before.
    """
    key = key_of(graph, {})
    path = _path(graph.name, key, "whole")
    with contextlib.suppress(OSError, ValueError, LookupError):
        if key:
            return objects.decode(path.read_bytes(), key).meta["reason"]
    reason = find()
    if key and reason and not _edited():
        with contextlib.suppress(OSError):
            blob = objects.encode(objects.Entry({"key": key, "reason": reason}, b""))
            write_atomic(path, blob, durable=False)
    return reason


def image_path(plan: Plan) -> Path | None:
    """Where the machine code of a Plan is kept in one piece; None for one that has no file."""
    return _path(plan.name, plan.key, "image") if plan.key else None


def _path(name: str, key: str, kind: str) -> Path:
    return config.cache_dir() / f"{name}-{key[:12]}.{kind}"


def compile_graph(graph: Graph, layout: Layout) -> Plan:
    from nnjit.compiler import pipeline  # the whole compiler, which a warm start does not need

    return pipeline.compile_graph(graph, layout)


def settings() -> str:
    """Environment variables that change code, versions and CPU, as text."""
    apart = {f"NNJIT_{name}" for name in APART}
    given = {k: v for k, v in os.environ.items() if k.startswith("NNJIT_") and k not in apart}
    return repr((sorted(given.items()), sorted(cache.host().items())))


@functools.cache
def sources() -> str:
    """A hash of nnjit's own files, as they were when this process first asked."""
    return cache.digest(repr(files()))


def files() -> list[tuple[str, int, int]]:
    """Name, bytes and time (nanoseconds) of every file of nnjit, sorted."""
    found = []
    folders = [""]
    while folders:
        folder = folders.pop()
        for entry in os.scandir(PACKAGE / folder):
            name = f"{folder}/{entry.name}"
            if name.endswith(".py"):
                stat = entry.stat()
                found.append((name, stat.st_size, stat.st_mtime_ns))
            elif entry.name != "__pycache__" and entry.is_dir():
                folders.append(name.lstrip("/"))
    return sorted(found)


def _read(path: Path, key: str, graph: Graph, layout: Layout) -> Plan | None:
    """The Plan in a file; None where there is none that is sound, with a warning if it is not."""
    try:
        entry = objects.decode(path.read_bytes(), key)
        plan = stored_plan.decode(entry.meta["plan"], entry.code, lambda: again(), key)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, LookupError, TypeError) as error:
        import logging

        log = logging.getLogger("nnjit")
        log.warning("%s cannot be used (%s): the step is compiled anew", path, error)
        return None

    def again() -> tuple[Graph, Mapping[Node, object]]:
        """The graph after all passes and this Plan's buffers of its Nodes."""
        fresh = compile_graph(graph, layout)
        own = stored_plan.same_places(fresh.launches, plan.launches)
        return fresh.graph, {n: own.get(b, b) for n, b in fresh.buffers.items()}

    return plan


def _write(path: Path, key: str, plan: Plan) -> bool:
    """Keep a Plan; whether that was done. Where a file of nnjit was edited since this process
    began, the Plan may not be what the file makes, and is not kept; nor where the folder cannot be
    written.
    """
    if _edited():
        return False
    meta, data = stored_plan.encode(plan)
    blob = objects.encode(objects.Entry({"key": key, "plan": meta}, data))
    try:
        write_atomic(path, blob, durable=False)
    except OSError:
        return False
    return True


def _edited() -> bool:
    """Was a file of nnjit changed since this process began?"""
    return max(time for _, _, time in files()) >= _started
