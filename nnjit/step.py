"""The three steps of a model as Graphs: train (forward, loss, gradients, updates), test, and
predict.

A whole training step is one Graph. Its updates hold parameters, optimizer slots, running
statistics, metrics and the random counter, so nothing is left to do between two steps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any

import numpy as np

from nnjit import ops
from nnjit.autodiff import gradients
from nnjit.compiled import Compiled, Output
from nnjit.graph import Graph, Node, Scope, constant, enter, extent_node, input_node, scoped, walk
from nnjit.layers.calls import tree_map
from nnjit.precision import with_policy
from nnjit.spec import Spec

WEIGHT = "sample_weight"


def input_keys(model: Any) -> list[str]:
    """The names of the model's inputs in its steps: "x", or their own names where there are
    several.
    """
    return ["x"] if len(model.inputs) == 1 else model.input_names


def predict_step(model: Any) -> Graph:
    """Outputs by name ("y" if there is one), layers as in inference; stateful ones keep state."""
    scope = Scope(training=False, random=model.session.random.node)
    outputs = _forward(model, scope)
    names = ["y"] if len(outputs) == 1 else model.output_names
    policy = model.compiled.dtype_policy if model.compiled else "float32"
    return with_policy(
        Graph("predict", dict(zip(names, outputs, strict=True)), scope.updates), policy
    )


def train_step(
    model: Any, compiled: Compiled, labels: Mapping[str, Spec], weight: Spec | None
) -> Graph:
    """One step of training; the output "loss" is the batch's loss before the update."""
    random = model.session.random
    scope = Scope(training=True, random=random.node)
    loss = _loss(model, compiled, scope, labels, weight)
    with enter(scope):
        variables = compiled.trainable
        with scoped("optimizer"):
            found = gradients(loss, [v.node for v in variables]) if variables else []
            compiled.optimizer.updates(variables, found)
        if any(n is random.node for n in walk([loss, *scope.updates.values()])):
            step = constant(np.array([0, 1], np.int64))
            scope.update(random.node, random.node + step)
    return with_policy(Graph("train", {"loss": loss}, scope.updates), compiled.dtype_policy)


def test_step(
    model: Any, compiled: Compiled, labels: Mapping[str, Spec], weight: Spec | None
) -> Graph:
    """Loss and metrics without training; stateful layers keep state."""
    scope = Scope(training=False, random=model.session.random.node)
    loss = _loss(model, compiled, scope, labels, weight)
    return with_policy(Graph("test", {"loss": loss}, scope.updates), compiled.dtype_policy)


def _forward(model: Any, scope: Scope) -> list[Node]:
    keys = iter(input_keys(model))
    inputs = tree_map(lambda n: input_node(next(keys), n.spec), model.input)
    return model.forward(inputs, scope)


def _loss(
    model: Any, compiled: Compiled, scope: Scope, labels: Mapping[str, Spec], weight: Spec | None
) -> Node:
    """The total loss; metrics go into the scope's updates."""
    outputs = _forward(model, scope)
    weights = None if weight is None else input_node(WEIGHT, weight)
    terms: list[Node] = []
    with enter(scope):
        for o, pred in zip(compiled.outputs, outputs, strict=True):
            if o.loss is not None or o.metrics or o.weighted:
                terms += _terms(o, pred, input_node(o.key, labels[o.key]), weights)
        with scoped("loss"):
            terms += [ops.cast(x, terms[0].dtype) for x in scope.losses]
            total = reduce(lambda a, b: a + b, terms)
        with scoped("metrics"):
            compiled.tracker.update(total, _batch(outputs[0]))
    return total


def _terms(o: Output, pred: Node, y: Node, weights: Node | None) -> Sequence[Node]:
    """The loss of one output, or nothing if it has none; its metrics are updated."""
    found: list[Node] = []
    if o.loss is not None:
        with scoped("loss"):
            loss = o.loss(y, pred, weights)
            found = [loss * o.loss_weight if o.loss_weight != 1 else loss]
    with scoped("metrics"):
        if found and o.tracker is not None:
            o.tracker.update(loss, _batch(pred))
        for m in o.metrics:
            m.update(y, pred)
        for m in o.weighted:
            m.update(y, pred, weights)
    return found


def _batch(output: Node) -> Node:
    return extent_node(output.shape[0], "float64")
