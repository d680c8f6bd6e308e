"""evaluate, predict, and single batches: walks over rows that leave the weights as they are (but
train_on_batch).
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from time import perf_counter
from typing import Any

import numpy as np

from nnjit.errors import ArgumentError
from nnjit.graph import Node
from nnjit.layers.calls import tree_map
from nnjit.training.callbacks import Callback, CallbackList
from nnjit.training.entrance import labelled_batch, one_batch
from nnjit.training.feeds import Feed, feed
from nnjit.training.progress import level, metrics_text, rate_text


def check_counts(least: int, **options: Any) -> None:
    """ArgumentError unless each option is None or a whole number from `least`."""
    for name, value in options.items():
        whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
        if value is not None and (not whole or value < least):
            raise ArgumentError(f"{name}={value!r}: expected a whole number from {least}")


def evaluate(
    model: Any,
    x: Any,
    y: Any,
    batch_size: int,
    verbose: Any,
    sample_weight: Any,
    steps: int | None,
    callbacks: Sequence[Callback] | None,
) -> dict[str, float]:
    """See `Model.evaluate`."""
    check_counts(1, batch_size=batch_size, steps=steps)
    shown = level(verbose)
    model.need_compiled("evaluate")
    data = feed(model, x, y, sample_weight)
    calls = CallbackList(callbacks or [], model, {"verbose": verbose})
    began = perf_counter()
    logs = run_test(model, data, batch_size, steps, calls)
    if shown:
        rows = len(data) if steps is None else min(len(data), steps * batch_size)
        rate = rate_text(perf_counter() - began, -(-rows // batch_size), rows)
        print(f"{rate} - {metrics_text(logs)}", flush=True)
    return logs


def run_test(
    model: Any, data: Feed, batch_size: int, steps: int | None, calls: CallbackList
) -> dict[str, float]:
    """Loss and metrics over the data. The metrics of a running epoch are put back afterwards."""
    compiled = model.compiled
    execute = model.executable("test", data.labels, data.weight).run
    batches = data.batches(batch_size)
    variables = compiled.metric_variables()
    before = [v.numpy() for v in variables]
    compiled.reset()
    calls.call("on_test_begin", None)
    begins, ends = calls.wants("on_test_batch_begin"), calls.wants("on_test_batch_end")
    for step, _, batch in batches.epoch():
        if steps is not None and step >= steps:
            break
        if begins:
            calls.call("on_test_batch_begin", step, None)
        execute(batch)
        if ends:
            calls.call("on_test_batch_end", step, compiled.results())
    logs = compiled.results()
    calls.call("on_test_end", logs)
    for v, value in zip(variables, before, strict=True):
        v._array[...] = value
    return logs


def predict(
    model: Any,
    x: Any,
    batch_size: int,
    verbose: Any,
    steps: int | None,
    callbacks: Sequence[Callback] | None,
) -> Any:
    """See `Model.predict`."""
    check_counts(1, batch_size=batch_size, steps=steps)
    shown = level(verbose) if verbose != "auto" else 0
    data = feed(model, x, training=False)
    if callbacks is None and not shown and len(data) <= batch_size:
        return _alone(model, data.whole())
    calls = CallbackList(callbacks or [], model, {})
    executable = model.executable("predict")
    began = perf_counter()
    batches = data.batches(batch_size)
    rows = len(data) if steps is None else min(len(data), steps * batch_size)
    results: dict[str, np.ndarray] = {}
    calls.call("on_predict_begin", None)
    for step, count, batch in batches.epoch():
        if steps is not None and step >= steps:
            break
        calls.call("on_predict_batch_begin", step, None)
        with executable.lock:  # results are views until the next run, maybe by another thread
            for name, value in executable.run(batch).items():
                if name not in results:
                    results[name] = np.empty((rows, *value.shape[1:]), value.dtype)
                results[name][step * batch_size : step * batch_size + count] = value
        calls.call("on_predict_batch_end", step, None)
    calls.call("on_predict_end", None)
    if shown:
        print(rate_text(perf_counter() - began, -(-rows // batch_size), rows), flush=True)
    arrays = iter(results.values())
    return tree_map(lambda v: next(arrays) if isinstance(v, Node) else v, model.output)


def predict_on_batch(model: Any, x: Any) -> Any:
    """See `Model.predict_on_batch`."""
    given = x if isinstance(x, list | tuple) else (x,)
    step = model.session.found("predict")
    found = None if step is None else step.again(given)
    if found is not None:
        return _outputs(model, found)
    batch = one_batch(model, x)
    out = _alone(model, batch)
    if len(batch) == len(given) and all(map(operator.is_, batch.values(), given)):
        model.executable("predict").remember(batch)
    return out


def _alone(model: Any, batch: Mapping[str, np.ndarray]) -> Any:
    """The outputs for rows that are one batch: the quick way, for those who wait for an answer."""
    step = model.executable("predict")
    with step.lock:
        found = [np.array(a) for a in step.run(batch).values()]
    return _outputs(model, found)


def _outputs(model: Any, found: Sequence[np.ndarray]) -> Any:
    """The arrays in the structure of the model's outputs."""
    output = model.output
    if isinstance(output, Node):
        return found[0]
    arrays = iter(found)
    return tree_map(lambda v: next(arrays) if isinstance(v, Node) else v, output)


def on_batch(
    model: Any,
    step: str,
    x: Any,
    y: Any,
    sample_weight: Any = None,
    class_weight: Mapping[int, float] | None = None,
) -> dict[str, float]:
    """One "train" or "test" step on these rows, and the metrics of these rows alone."""
    compiled = model.need_compiled(f"{step}_on_batch")
    if sample_weight is None and class_weight is None:
        executable, batch = labelled_batch(model, compiled, step, x, y)
    else:
        data = feed(model, x, y, sample_weight, class_weight)
        executable, batch = model.executable(step, data.labels, data.weight), data.whole()
    compiled.reset()
    executable.run(batch)
    return compiled.results()
