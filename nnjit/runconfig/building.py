"""[model] and [train] to a model: made, frozen, compiled."""

from __future__ import annotations

import runpy
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from nnjit import config as settings
from nnjit.errors import ConfigError, nearest
from nnjit.layers import Dense, Input
from nnjit.models import Model, Sequential
from nnjit.runconfig import tables
from nnjit.runconfig.folder import RunFolder, is_run
from nnjit.runconfig.schema import Config
from nnjit.saving import load_model


def build_model(config: Config, sample_shape: tuple[int, ...]) -> Model:
    """The model of [model], built for samples of this shape, frozen as asked, not compiled."""
    with settings.seeded(config.seed):
        model = _make(config, sample_shape)
    freeze(model, config.model.freeze)
    return model


def _make(config: Config, sample_shape: tuple[int, ...]) -> Model:
    spec = config.model
    if spec.layers is not None:
        layers = [tables.make("layer", table) for table in spec.layers]
        return Sequential([Input(shape=sample_shape), *layers], name=config.name)
    if spec.builder is not None:
        return _call_builder(spec.builder, spec.arguments)
    model = load_base(str(spec.base))
    if spec.head is None:
        return model
    return with_head(model, spec.head, sample_shape, config.name)


def _call_builder(builder: str, arguments: dict[str, Any]) -> Model:
    """What the user's function returns; errors of its own code keep their traceback (--debug)."""
    file, name = builder.rsplit(":", 1)
    found = runpy.run_path(file)
    if not callable(found.get(name)):
        functions = [k for k, v in found.items() if callable(v) and not k.startswith("_")]
        raise ConfigError(f"{file}: no function {name!r}{nearest(name, functions)}")
    model = found[name](**arguments)
    if not isinstance(model, Model):
        raise ConfigError(f"{builder} returned a {type(model).__name__}; expected a nnjit model")
    return model


def load_base(base: str) -> Model:
    """The model of a run folder or of a model file."""
    return load_model(RunFolder(Path(base)).model if is_run(base) else base, compile=False)


def with_head(model: Model, outputs: int, sample_shape: tuple[int, ...], name: str) -> Model:
    """The Sequential with its last Dense layer replaced by a new one of so many outputs."""
    if not isinstance(model, Sequential):
        raise ConfigError("model.head: needs a Sequential model; this one is a graph of layers")
    layers = list(model.layers)
    dense = [i for i, layer in enumerate(layers) if isinstance(layer, Dense)]
    if not dense:
        raise ConfigError("model.head: the model has no Dense layer to replace")
    last = dense[-1]
    own = layers[last].get_config()
    layers[last] = Dense.from_config({**own, "units": outputs, "name": "head"})
    return Sequential([Input(shape=sample_shape), *layers], name=name)


def freeze(model: Model, patterns: list[str]) -> None:
    """Layers whose names match a pattern get no gradients, so no backward kernels."""
    for pattern in patterns:
        found = [layer for layer in model.layers if fnmatch(layer.name, pattern)]
        if not found:
            names = [layer.name for layer in model.layers]
            raise ConfigError(
                f"model.freeze: no layer matches {pattern!r}{nearest(pattern, names)}"
            )
        for layer in found:
            layer.trainable = False


def compile_model(model: Model, config: Config) -> None:
    """model.compile with what [train] asks for."""
    train = config.train
    model.compile(
        optimizer=_object("optimizer", train.optimizer),
        loss=_object("loss", train.loss),
        metrics=[_object("metric", m) for m in train.metrics],
        device=config.device,
        dtype_policy=train.dtype_policy,
        batch_slices=train.batch_slices,
    )


def _object(kind: str, given: str | dict[str, Any]) -> Any:
    if isinstance(given, str) or len(given) == 1:
        return given if isinstance(given, str) else given["name"]
    return tables.make(kind, given, "name")
