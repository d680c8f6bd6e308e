"""Names and arguments in a configuration against nnjit's registries: layers, optimizer, loss, ….

In: the raw values of a configuration, right or wrong. Out: (path, message, given) of each problem.
A table's arguments are those of the class itself, so a configuration can say what Python can.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import Any

from nnjit.errors import NnjitError, lookup, nearest
from nnjit.registry import REGISTRIES, keywords
from nnjit.runconfig.tomlfile import Path_
from nnjit.runconfig.words import shown

# These modules fill the registries when they are imported.
FILLED_BY = ("layers", "losses", "metrics", "optimizers")

# Callbacks whose arguments a configuration can hold; early stopping and checkpoints have own keys.
CALLBACKS = {
    "ReduceLROnPlateau": "nnjit.training.callbacks",
    "TerminateOnNaN": "nnjit.training.callbacks",
    "CSVLogger": "nnjit.training.loggers",
}

# The kind of object that an argument takes, by the last word of the argument's name.
INNER = {
    "initializer": "initializer",
    "regularizer": "regularizer",
    "constraint": "constraint",
    "activation": "activation",
    "rate": "schedule",
    "layer": "layer",
}

Found = Iterator[tuple[Path_, str, str]]


def registry(kind: str) -> dict[str, Any]:
    """name -> class or function of a kind."""
    if kind == "callback":
        return {name: getattr(import_module(where), name) for name, where in CALLBACKS.items()}
    for module in FILLED_BY:
        import_module(f"nnjit.{module}")
    items = REGISTRIES[kind].items
    if kind == "metric":  # "accuracy": which one it is depends on the model's output
        return items | dict.fromkeys(import_module("nnjit.metrics").CHOICES)
    return items


def class_names(items: dict[str, Any]) -> list[str]:
    """The names that a configuration shows: of classes in capitals, of functions as they are."""
    return sorted({item.__name__ for item in items.values() if item is not None})


def arguments(table: dict[str, Any], key: str) -> dict[str, Any]:
    """Python's arguments for a table: lists are tuples, tables {type = …} are objects."""
    return {k: _argument(k, v) for k, v in table.items() if k != key}


def _argument(name: str, value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_argument(name, v) for v in value)
    kind = INNER.get(name.rpartition("_")[2])
    if isinstance(value, dict) and "type" in value and kind is not None:
        return make(kind, value)
    return value


def make(kind: str, table: dict[str, Any], key: str = "type") -> Any:
    """The object of a table {key = name, arguments}."""
    return lookup(kind, table[key], registry(kind))(**arguments(table, key))


def _table(kind: str, path: Path_, table: Any, key: str) -> Found:
    """Problems of one table {key = name, arguments}: its name, its keys, a refused value."""
    if not isinstance(table, dict):
        yield path, "expected a table", shown(table)
        return
    if not isinstance(table.get(key), str):
        yield path, f"expected the key {key} = '...' naming a {kind}", shown(table.get(key, {}))
        return
    name, items = table[key], registry(kind)
    if name not in items:
        yield (*path, key), f"unknown {kind}{nearest(name, class_names(items))}", shown(name)
        return
    cls = items[name]
    if not isinstance(cls, type):
        if len(table) > 1:
            yield path, f"the {kind} {name!r} takes no arguments", ""
        return
    known = keywords(cls)
    unknown = [k for k in table if k != key and k not in known]
    for k in unknown:
        yield (*path, k), f"{cls.__name__} has no such argument{nearest(k, known)}", shown(table[k])
    if not unknown:
        try:
            make(kind, table, key)
        except (NnjitError, TypeError, ValueError) as e:
            yield path, str(e), ""


def _named(kind: str, path: Path_, value: Any) -> Found:
    """Problems of a name, or of a table with the key "name"."""
    if isinstance(value, dict):
        if isinstance(value.get("name"), str):
            yield from _table(kind, path, value, "name")
    elif isinstance(value, str) and value not in registry(kind):
        yield path, f"unknown {kind}{nearest(value, registry(kind))}", shown(value)


def check(values: dict[str, Any]) -> Found:
    """Every unknown name, unknown argument and refused value in [model] and [train].

    Values of the wrong TOML type are left to the schema.
    """
    model, train = values.get("model"), values.get("train", {})
    layers = model.get("layers") if isinstance(model, dict) else None
    for i, table in enumerate(layers if isinstance(layers, list) else []):
        if isinstance(table, dict):
            yield from _table("layer", ("model", "layers", i), table, "type")
    if not isinstance(train, dict):
        return
    for kind in ("optimizer", "loss"):
        if kind in train:
            yield from _named(kind, ("train", kind), train[kind])
    metrics = train.get("metrics")
    for i, metric in enumerate(metrics if isinstance(metrics, list) else []):
        yield from _named("metric", ("train", "metrics", i), metric)
    callbacks = train.get("callbacks")
    for i, table in enumerate(callbacks if isinstance(callbacks, list) else []):
        if isinstance(table, dict):
            yield from _table("callback", ("train", "callbacks", i), table, "type")
