"""Feeds: what users give as x, y and weights, checked once and laid out as the inputs of a step.

Arrays stay as they are (no copy, no cast of the whole); casting happens batch by batch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nnjit import losses
from nnjit.compiled import Output
from nnjit.data.batches import Batches
from nnjit.data.check import (
    as_array,
    check_binary,
    check_finite,
    check_labels,
    check_lengths,
    check_rows,
    warn_nonfinite,
)
from nnjit.errors import ArgumentError, DataError, nearest
from nnjit.layers.calls import tree_map
from nnjit.spec import Dim, Spec, shape_text
from nnjit.step import WEIGHT, input_keys


@dataclass
class Feed:
    """Arrays by graph input with the dtypes they are cast to; Specs of labels and weights."""

    arrays: dict[str, np.ndarray]
    dtypes: dict[str, str]
    labels: dict[str, Spec]
    weight: Spec | None = None

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values())))

    def part(self, low: int, high: int) -> Feed:
        """Rows low … high - 1."""
        cut = {k: a[low:high] for k, a in self.arrays.items()}
        return Feed(cut, self.dtypes, self.labels, self.weight)

    def whole(self) -> dict[str, np.ndarray]:
        """All rows as one batch: contiguous, cast; what fits already is not copied."""
        return {k: np.ascontiguousarray(a, self.dtypes[k]) for k, a in self.arrays.items()}

    def batches(self, batch_size: int, shuffle: bool = False, seed: int = 0) -> Batches:
        return Batches(self.arrays, self.dtypes, batch_size, shuffle, seed)


def feed(
    model: Any,
    x: Any,
    y: Any = None,
    sample_weight: Any = None,
    class_weight: Mapping[int, float] | None = None,
    training: bool = True,
    where: str = "",
    warn: bool = True,
) -> Feed:
    """Checked arrays for the model's steps; an unbuilt model is built for them.

    training: labels are needed. where: what messages call the data, "validation_data: ". warn: of
    NaN and infinity in x, which takes a look at every value.
    """
    if x is None:
        raise DataError(f"{where}x is missing")
    arrays = inputs(model, x, where)
    dtypes = {k: n.dtype for k, n in zip(arrays, model.inputs, strict=True)}
    if warn:
        for name, a in arrays.items():
            warn_nonfinite(a, f"{where}{name}")
    result = Feed(arrays, dtypes, {})
    if training:
        compiled = model.need_compiled("fit or evaluate")
        targets = _targets(model, compiled, y, where)
        for o, array in targets:
            dtype = o.label_dtype(array.dtype)
            result.arrays[o.key], result.dtypes[o.key] = array, dtype
            result.labels[o.key] = Spec(_opened(array.shape, o.pred.dims), dtype)
            check_values(o, array, f"{where}{o.key}")
        weight = _weights(sample_weight, class_weight, targets, where)
        if weight is not None:
            result.arrays[WEIGHT], result.dtypes[WEIGHT] = weight, "float32"
            shape = _opened(weight.shape, model.outputs[0].shape)
            whole = (1 if n == 1 else d for n, d in zip(weight.shape[1:], shape[1:], strict=True))
            result.weight = Spec((shape[0], *whole), "float32")
    check_lengths({f"{where}{k}": a for k, a in result.arrays.items()})
    return result


def check_values(output: Output, labels: np.ndarray, name: str) -> None:
    """DataError where labels hold what the output's loss cannot take."""
    if output.classes is not None:
        check_labels(labels, output.classes, name)
    else:
        check_finite(labels, name)
        if isinstance(output.loss, losses.BinaryCrossentropy):
            check_binary(labels, name)


# -------------------------------------------------------------------------------------------- x
def inputs(model: Any, x: Any, where: str = "") -> dict[str, np.ndarray]:
    """The arrays of the model's inputs by graph input; builds the model if its shapes were open."""
    if model._symbolic is None:
        _build(model, x, where)
    keys, nodes = input_keys(model), model.inputs
    given = _in_order(x, keys, model, where)
    found = {}
    for key, node, value in zip(keys, nodes, given, strict=True):
        name = f"{where}{key}"
        array = as_array(value, name)
        if array.ndim == 1 and node.rank == 2 and node.shape[1] == 1:
            array = array[:, None]
        check_rows(array, node.spec, name)
        found[key] = array
    return found


def _in_order(x: Any, keys: Sequence[str], model: Any, where: str) -> list[Any]:
    names = list(model.input) if isinstance(model.input, dict) else model.input_names
    if isinstance(x, Mapping):
        for name in x:
            if name not in names:
                raise DataError(f"{where}x: the model has no input {name!r}{nearest(name, names)}")
        missing = [n for n in names if n not in x]
        if missing:
            raise DataError(f"{where}x: nothing is given for the input {missing[0]!r}")
        return [x[name] for name in names]
    if len(keys) == 1:
        alone = isinstance(x, list | tuple) and len(x) == 1 and isinstance(x[0], np.ndarray)
        return [x[0] if alone and x[0].ndim == model.inputs[0].rank else x]
    if not isinstance(x, list | tuple) or len(x) != len(keys):
        count = len(x) if isinstance(x, list | tuple) else 1
        raise DataError(
            f"{where}x: {count} array(s) for {len(keys)} inputs: {', '.join(names)}; "
            "give a list in this order or a dict"
        )
    return list(x)


def _build(model: Any, x: Any, where: str) -> None:
    """Structure for a model that has none yet, from the data's shapes and kinds."""

    def spec(value: Any) -> Spec:
        array = as_array(value, f"{where}x")
        floats = array.dtype.kind == "f" or array.dtype == np.uint8 or model.input_dtype == "int32"
        return Spec((None, *array.shape[1:]), model.input_dtype if floats else _int_dtype(model))

    several = isinstance(x, list | tuple) and any(isinstance(v, np.ndarray) for v in x)
    if isinstance(x, Mapping) or (several and len(x) > 1):
        model.build_from(tree_map(spec, dict(x) if isinstance(x, Mapping) else list(x)))
    else:
        model.build_from(spec(x[0] if several and np.ndim(x[0]) > 1 else x))


def _int_dtype(model: Any) -> str:
    """Whole numbers stay whole for a model with its own call(); a chain has a dtype."""
    from nnjit.models import Sequential

    return model.input_dtype if isinstance(model, Sequential) else "int32"


# -------------------------------------------------------------------------------------------- y
def _targets(model: Any, compiled: Any, y: Any, where: str) -> list[tuple[Output, np.ndarray]]:
    """The outputs that have labels, with them."""
    names = model.output_names
    found_losses = compiled.loss_objects()
    if isinstance(y, Mapping):
        for name in y:
            if name not in names:
                raise DataError(f"{where}y: the model has no output {name!r}{nearest(name, names)}")
        given = [y.get(name) for name in names]
    elif len(names) == 1:
        given = [y]
    elif isinstance(y, list | tuple) and len(y) == len(names):
        given = list(y)
    else:
        raise DataError(
            f"{where}y: expected {len(names)} arrays, for the outputs {', '.join(names)}; "
            "give a list in this order or a dict"
        )
    arrays = []
    for name, loss, value in zip(names, found_losses, given, strict=True):
        label = f"{where}y" if len(names) == 1 else f"{where}y[{name!r}]"
        if value is None and loss is not None:
            raise DataError(f"{label} is missing: the loss {loss.name!r} needs labels")
        arrays.append(None if value is None else as_array(value, label))
    specs = [
        None if a is None else Spec(_opened(a.shape, n.shape), _spec_dtype(a))
        for a, n in zip(arrays, model.outputs, strict=True)
    ]
    outputs = compiled.resolve(specs if all(specs) else None)
    found = []
    for o, a in zip(outputs, arrays, strict=True):
        if a is not None and (o.loss is not None or o.metrics or o.weighted):
            _check_label_shape(o, a, where)
            found.append((o, a))
    return found


def _opened(shape: Sequence[int], output: Sequence[Dim]) -> tuple[Dim, ...]:
    """shape with the batch axis, and every axis that is open in the output, as it is there."""
    found = zip(shape[1:], (*output[1:], *shape[len(output) :]), strict=False)
    return (output[0], *(n if isinstance(d, int) else d for n, d in found))


def _spec_dtype(array: np.ndarray) -> str:
    return "float32" if array.dtype.kind == "f" else "int32"


def _check_label_shape(o: Output, array: np.ndarray, where: str) -> None:
    """Labels of class numbers have one axis less than the output; the message says what fits."""
    if o.classes is None or not array.ndim:
        return
    rank = o.pred.rank
    if array.ndim == rank - 1 or (array.ndim == rank and array.shape[-1] == 1):
        return
    hint = ""
    if array.ndim == rank and array.shape[-1] == o.classes:
        hint = "; these look one-hot: use the loss categorical_crossentropy"
    raise DataError(
        f"{where}{o.key}: expected one class number per row of the output "
        f"{shape_text(o.pred.dims)}, got labels of shape {shape_text(array.shape)}{hint}"
    )


# -------------------------------------------------------------------------------------- weights
def _weights(
    sample_weight: Any,
    class_weight: Mapping[int, float] | None,
    targets: Sequence[tuple[Output, np.ndarray]],
    where: str,
) -> np.ndarray | None:
    """Weights per sample from sample_weight, class_weight, or their product."""
    weight = None
    if sample_weight is not None:
        weight = as_array(sample_weight, f"{where}sample_weight")
        check_finite(weight, f"{where}sample_weight")
    if class_weight is None:
        return weight
    if len(targets) != 1:
        raise ArgumentError("class_weight: works for models with one output; use sample_weight")
    ((output, y),) = targets
    several = y.ndim > 1 and y.shape[-1] > 1
    if y.ndim > 2 or (several and output.classes is not None):
        raise ArgumentError("class_weight: works for one class per sample; use sample_weight")
    labels = y.argmax(axis=-1) if several else y.reshape(len(y))
    table = _class_table(class_weight, y.shape[-1] if several else output.classes)
    classes = np.unique(labels)
    by_class = np.array([table.get(float(c), 1.0) for c in classes], np.float32)
    own = by_class[np.searchsorted(classes, labels)]
    return own if weight is None else weight.reshape(len(weight)) * own


def _class_table(given: Any, classes: int | None) -> dict[float, float]:
    """class_weight as numbers; ArgumentError says what is none, or no class."""
    if not isinstance(given, Mapping):
        raise ArgumentError(f"class_weight={given!r}: expected a dict from class to weight")
    try:
        table = {float(k): float(v) for k, v in given.items()}
    except (TypeError, ValueError):
        raise ArgumentError(
            f"class_weight={given!r}: expected class numbers and weights, like {{0: 1.0, 1: 2.5}}"
        ) from None
    if not all(math.isfinite(v) and v >= 0 for v in table.values()):
        raise ArgumentError(f"class_weight={given!r}: expected finite weights from 0")
    for k in table:
        if classes is not None and k not in range(classes):
            raise ArgumentError(f"class_weight: no class {k:g}; there are 0 to {classes - 1}")
    return table
