"""Model files: architecture, weights, and the state of training in one `.nnjit` file.

Architecture and compile arguments are JSON, arrays are safetensors, a checksum covers the whole
(see `container`). Loading runs no code from the file: classes are looked up by name among nnjit's
own, those marked with `nnjit.register`, and `custom_objects`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from nnjit import __version__
from nnjit.container import read_container, write_container
from nnjit.errors import ArgumentError, ModelFileError, NnjitError, lookup
from nnjit.layers.base import REGISTRY as LAYERS
from nnjit.models import Model
from nnjit.registry import REGISTRIES, Configurable, serialize

MODEL = b"NNJITMF1"
WEIGHTS = b"NNJITWT1"


# ------------------------------------------------------------------------------------ model files
def save_model(model: Any, path: str | os.PathLike, include_optimizer: bool = True) -> None:
    """Write the model to one file, atomically; the old file stays if anything fails."""
    if not model.built:
        raise ArgumentError(f"{model.name}: not built yet, so there are no weights to save")
    tensors = {f"weight/{i}": w for i, w in enumerate(model.get_weights())}
    header: dict[str, Any] = {
        "nnjit": __version__,
        "model": serialize(model),
        "weights": [w.name for w in model.weights],
        "seed": model.seed,
        "random": model.session.random.numpy().tolist(),
    }
    compiled = model.compiled
    if compiled is not None and include_optimizer:
        header["compile"] = compiled.get_config()
        slots = compiled.optimizer_variables()
        header["optimizer"] = [v.name for v in slots]
        tensors.update({f"optimizer/{i}": v.numpy() for i, v in enumerate(slots)})
    write_container(path, MODEL, header, tensors)


def load_model(
    path: str | os.PathLike,
    custom_objects: Mapping[str, Any] | None = None,
    compile: bool = True,
    device: str | None = None,
) -> Any:
    """The model in a file, ready to predict, and to train on as if it had never been saved.

    custom_objects: your own classes and functions by name. compile=False leaves loss and optimizer
    out. device: where it runs; default NNJIT_DEVICE.
    """
    header, tensors = read_container(path, MODEL, "model file")
    try:
        with known(custom_objects or {}):
            model = LAYERS.get(header["model"])
            if not isinstance(model, Model):
                raise ModelFileError(f"holds a {type(model).__name__}, not a model")
            _set(model, header, tensors)
            model.session.device = device
            if compile and "compile" in header:
                model.compile_from_config(header["compile"], device)
                slots = model.need_compiled("loading").optimizer_variables()
                _assign(slots, [tensors[f"optimizer/{i}"] for i in range(len(header["optimizer"]))])
    except (KeyError, TypeError, IndexError, AttributeError) as e:
        raise ModelFileError(f"{path}: the model cannot be made from the file: {e!r}") from e
    except NnjitError as e:
        hint = (
            "; give your own classes by custom_objects={name: class}" if "unknown" in str(e) else ""
        )
        raise ModelFileError(f"{path}: {e}{hint}") from e
    return model


def _set(model: Any, header: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> None:
    model.seed = header["seed"]
    _assign(model.weights, [tensors[f"weight/{i}"] for i in range(len(header["weights"]))])
    model.session.random.assign(np.array(header["random"], np.int64))


def _assign(variables: list, arrays: list[np.ndarray]) -> None:
    if len(variables) != len(arrays):
        raise ModelFileError(f"holds {len(arrays)} arrays for {len(variables)} variables")
    for v, array in zip(variables, arrays, strict=True):
        v.assign(array)


def clone_model(model: Any) -> Any:
    """A model of the same architecture with new weights, not compiled; own classes need no
    registration. A model with its own `call` is made anew from its `get_config`.
    """
    if not isinstance(model, Model):
        raise ArgumentError(f"clone_model: expected a model, got {model!r}")
    classes: dict[str, Any] = {}
    layers: list[Any] = [model]
    for layer in layers:
        classes[type(layer).__name__] = type(layer)
        layers += layer.sublayers
    with known(classes):
        clone = LAYERS.get(serialize(model))
    clone.session.device = model.session.device
    return clone


def save_weights(model: Any, path: str | os.PathLike) -> None:
    """Write the weights alone."""
    tensors = {f"weight/{i}": w for i, w in enumerate(model.get_weights())}
    names = [w.name for w in model.weights]
    write_container(path, WEIGHTS, {"nnjit": __version__, "weights": names}, tensors)


def load_weights(model: Any, path: str | os.PathLike) -> None:
    """Weights from such a file, or from a model file, into a model of the same architecture."""
    try:
        header, tensors = read_container(path, WEIGHTS, "weights file")
    except ModelFileError:
        if not _begins_with(path, MODEL):
            raise
        header, tensors = read_container(path, MODEL, "model file")
    arrays = [tensors[f"weight/{i}"] for i in range(len(header["weights"]))]
    try:
        model.set_weights(arrays)
    except NnjitError as e:
        raise ModelFileError(f"{path}: not of this model: {e}") from None


def _begins_with(path: str | os.PathLike, magic: bytes) -> bool:
    try:
        with open(path, "rb") as file:
            return file.read(len(magic)) == magic
    except OSError:
        return False


@contextmanager
def known(custom_objects: Mapping[str, Any]) -> Iterator[None]:
    """Have these names in the registries for a while."""
    before = {kind: dict(r.items) for kind, r in REGISTRIES.items()}
    try:
        for name, item in custom_objects.items():
            own = isinstance(item, type) and issubclass(item, Configurable)
            for kind in [item.kind] if own else ["activation", "loss", "metric"]:
                lookup("kind", kind, REGISTRIES).items[name] = item
        yield
    finally:
        for kind, items in before.items():
            REGISTRIES[kind].items = items
