"""Runs a layer's graph with the interpreter: what the tests of layers share."""

import numpy as np

from nnjit.autodiff import gradients
from nnjit.graph import Graph, Scope, enter, input_node, interpret, state_node
from nnjit.layers import Input, trace
from nnjit.spec import Spec


def values_of(variables):
    return {v.name: v.numpy() for v in variables}


def apply(layer, *arrays, training=False, cotangent=None, dtype="float32"):
    """(output, gradients by name, updates by name) of a layer called on inputs of open batch size.

    Gradients are those of sum(output * cotangent) for 'x0', 'x1', … and every trainable weight.
    """
    inputs = [Input(a.shape[1:], dtype=a.dtype.name, name=f"x{i}") for i, a in enumerate(arrays)]
    symbolic = layer(inputs[0] if len(inputs) == 1 else inputs)
    rng = state_node("random", Spec((2,), "int64"))
    scope = Scope(training=training, random=rng)
    (out,) = trace([symbolic], {}, scope)
    outputs = {"y": out}
    values = {f"x{i}": a for i, a in enumerate(arrays)} | values_of(layer.weights)
    if cotangent is not None:
        wrt = [x for x in inputs if x.dtype.startswith("float")]
        wrt += [v.node for v in layer.trainable_weights]
        with enter(scope):
            dy = input_node("dy", out.spec)
            for node, g in zip(wrt, gradients(out, wrt, dy), strict=True):
                outputs[f"grad/{node.name}"] = g
        values["dy"] = cotangent
    values["random"] = np.array([7, 0], np.int64)
    found, updates = interpret(Graph("test", outputs, scope.updates), values)
    grads = {k[5:]: v for k, v in found.items() if k.startswith("grad/")}
    return found["y"], grads, updates
