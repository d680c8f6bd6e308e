"""A peer process: builds one workload, then times blocks of steps when told to.

Each peer is a process of its own on as many cores as it may have threads (whoever counts cores
finds the right number), so that nobody's idle threads spin while another is measured. It says
{"ready": true} or {"failed": why}, then answers {"time": n} with the seconds of n steps and
{"losses": n} with the losses of the first n steps. Usage:
python -m bench.peer TASK PEER WORKLOAD THREADS BATCH; TASK is train or predict, BATCH 0 the usual.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

WARM_UP_STEPS = 3  # whatever compiles at first calls has done so
# peer: its module, and what else its functions are given
MODULES: dict[str, tuple[str, dict[str, Any]]] = {
    "nnjit": ("bench.models_nnjit", {}),
    "fit": ("bench.models_nnjit", {}),
    "torch": ("bench.models_torch", {}),
    "compile": ("bench.models_torch", {"compiled": True}),
    "jax": ("bench.models_jax", {}),
    "onnx": ("bench.models_onnx", {}),
}


def occupy(threads: int) -> None:
    """Keep this process to so many cores, before anything counts them."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < threads:
        raise ValueError(f"{threads} threads on {len(cores)} cores")
    os.sched_setaffinity(0, cores[-threads:])


def timed(step: Callable[[int], Any], n: int) -> list[float]:
    """Seconds of each of n steps."""
    seconds = []
    for i in range(n):
        start = time.perf_counter()
        step(i)
        seconds.append(time.perf_counter() - start)
    return seconds


def prepare(task: str, peer: str, workload: str, threads: int, batch: int) -> dict[str, Callable]:
    """What this peer can be asked for, each a function of a number of steps."""
    from bench.workloads import WORKLOADS

    module, options = MODULES[peer]
    work = WORKLOADS[workload].of_batch(batch) if batch else WORKLOADS[workload]
    models = importlib.import_module(module)
    if task == "predict":
        predict = models.predictor(work, threads, **options)
        return {"time": lambda n: timed(predict, n)}
    if peer == "fit":
        return {"time": models.fit_block(work, threads)}
    trainer = models.trainer(work, threads, **options)

    def block(n: int) -> list[float]:
        trainer.reset()
        return timed(trainer.step, n)

    def losses(n: int) -> list[float]:
        trainer.reset()
        return [float(trainer.step(i)) for i in range(n)]

    return {"time": block, "losses": losses}


def main(task: str, peer: str, workload: str, threads: int, batch: int) -> None:
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print is no answer
    try:
        occupy(threads)
        able = prepare(task, peer, workload, threads, batch)
        able["time"](WARM_UP_STEPS)
        print(json.dumps({"ready": True}), file=answers)
        for line in sys.stdin:
            ((what, n),) = json.loads(line).items()
            print(json.dumps(able[what](n)), file=answers)
    except Exception as error:  # a failing peer is a result: the others go on
        lines = [*str(error).strip().splitlines(), ""]
        print(json.dumps({"failed": f"{type(error).__name__}: {lines[0]}"}), file=answers)


if __name__ == "__main__":
    main(*sys.argv[1:4], int(sys.argv[4]), int(sys.argv[5]))
