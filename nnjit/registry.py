"""Names and configurations of layers, losses, optimizers and their like.

A Configurable remembers the arguments that it was made with, so `get_config` and `from_config` need
no code per class, and a misspelt keyword is answered with the nearest one. A Registry finds one by
name, configuration or class.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from nnjit.errors import ArgumentError, lookup, nearest

REGISTRIES: dict[str, Registry] = {}

# What a registered function may be used as; registries that are imported later get it too.
FUNCTION_KINDS = ("activation", "loss", "metric")
_functions: list[Callable] = []


def snake_case(name: str) -> str:
    """'MaxPooling2D' -> 'max_pooling2d', 'LeakyReLU' -> 'leaky_re_lu': the rule Keras names layers
    by.
    """
    name = re.sub(r"\W+", "", name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


_keywords: dict[type, frozenset[str]] = {}  # a model asks for each of its layers


def keywords(cls: type) -> frozenset[str]:
    """The keyword arguments that cls takes; those of its bases too where its __init__ passes
    **kwargs on.
    """
    if cls in _keywords:
        return _keywords[cls]
    names: set[str] = set()
    for base in cls.__mro__:
        if "__init__" not in vars(base) or base is object:
            continue
        given = list(inspect.signature(vars(base)["__init__"]).parameters.values())[1:]
        names |= {p.name for p in given if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
        if not any(p.kind == p.VAR_KEYWORD for p in given):
            break
    return _keywords.setdefault(cls, frozenset(names))


class Configurable:
    """Something made from JSON-able arguments. `get_config` gives them back."""

    kind: ClassVar[str] = ""
    _given: tuple[tuple, dict[str, Any]]

    def __new__(cls, *args: Any, **kwargs: Any):
        names = keywords(cls)
        for name in kwargs:
            if name not in names:
                raise ArgumentError(
                    f"{cls.__name__}: unknown argument {name!r}{nearest(name, names)}"
                )
        self = super().__new__(cls)
        object.__setattr__(self, "_given", (args, kwargs))
        return self

    def get_config(self) -> dict[str, Any]:
        """The arguments as JSON-able values, defaults included."""
        args, kwargs = self._given
        if type(self).__init__ is object.__init__:
            return {}
        bound = inspect.signature(type(self).__init__).bind(self, *args, **kwargs)
        bound.apply_defaults()
        values = dict(list(bound.arguments.items())[1:])
        for p in bound.signature.parameters.values():
            if p.kind == p.VAR_KEYWORD:
                values.update(values.pop(p.name))
        return {k: to_config(v, f"{type(self).__name__}.{k}") for k, v in values.items()}

    @classmethod
    def from_config(cls, config: dict[str, Any]):
        """An object of this class with the arguments that `get_config` gave."""
        return cls(**{k: from_config(v) for k, v in config.items()})

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


def serialize(item: Configurable) -> dict[str, Any]:
    """{"class_name", "kind", "config"}: what `Registry.get` and `from_config` make it from."""
    return {"class_name": type(item).__name__, "kind": item.kind, "config": item.get_config()}


def to_config(value: Any, where: str = "configuration") -> Any:
    """value with objects replaced by their configurations, arrays by lists and registered functions
    by names.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, list | tuple):
        return [to_config(v, where) for v in value]
    if isinstance(value, dict):
        return {k: to_config(v, where) for k, v in value.items()}
    if isinstance(value, Configurable):
        return serialize(value)
    for registry in REGISTRIES.values():
        for name, item in registry.items.items():
            if item is value:
                return name
    raise ArgumentError(
        f"{where}: {value!r} cannot be saved; mark the class or function with @nnjit.register"
    )


def from_config(value: Any) -> Any:
    """The opposite of `to_config`."""
    if isinstance(value, list):
        return [from_config(v) for v in value]
    if isinstance(value, dict):
        if set(value) == {"class_name", "kind", "config"}:
            return lookup("kind", value["kind"], REGISTRIES).get(value)
        return {k: from_config(v) for k, v in value.items()}
    return value


class Registry:
    """Classes and functions of one kind by name: the class name, its snake case, and aliases."""

    def __init__(self, kind: str):
        self.kind = kind
        self.items: dict[str, Any] = {}
        REGISTRIES[kind] = self
        for function in _functions if kind in FUNCTION_KINDS else ():
            self.add(function)

    def add(self, item: Any, *aliases: str) -> Any:
        """Make item known under its own name and the aliases."""
        for name in (item.__name__, snake_case(item.__name__), *aliases):
            self.items[name] = item
        return item

    def named(self, *aliases: str) -> Callable[[Any], Any]:
        """A decorator that adds."""
        return lambda item: self.add(item, *aliases)

    def get(self, given: Any) -> Any:
        """The object that a name, a configuration, a class or an object stands for. None stays
        None.
        """
        if given is None:
            return None
        if isinstance(given, str):
            given = lookup(self.kind, given, self.items)
        elif isinstance(given, dict):
            if "class_name" not in given:
                raise ArgumentError(
                    f"{self.kind}: a configuration needs the key 'class_name', got {sorted(given)}"
                )
            cls = lookup(self.kind, given["class_name"], self.items)
            return cls.from_config(given.get("config", {}))
        if isinstance(given, type):
            return given()
        if isinstance(given, Configurable) and given.kind != self.kind:
            raise ArgumentError(f"expected a {self.kind}, got the {given.kind} {given!r}")
        if not callable(given) and not isinstance(given, Configurable):
            raise ArgumentError(
                f"expected the name, configuration or object of a {self.kind}, got {given!r}"
            )
        return given


def register(item: Any) -> Any:
    """Decorator: make a layer, loss, metric, optimizer … class, or a function, known by its name,
    so that models that use it can be saved, loaded and asked for by name. Functions become
    activations, losses and metrics.
    """
    if isinstance(item, type) and issubclass(item, Configurable) and item.kind in REGISTRIES:
        return REGISTRIES[item.kind].add(item)
    if isinstance(item, type) or not callable(item):
        raise ArgumentError(
            f"register: expected a subclass of Layer, Loss, Metric … or a function, got {item!r}"
        )
    _functions.append(item)
    for kind in FUNCTION_KINDS:
        if kind in REGISTRIES:
            REGISTRIES[kind].add(item)
    return item
