"""A run folder or a configuration to a compiled model, for verbs that look inside."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nnjit.models import Model
from nnjit.runconfig.building import build_model, compile_model
from nnjit.runconfig.data import PARTS, prepare_data
from nnjit.runconfig.folder import RunFolder, is_run
from nnjit.runconfig.reading import read_config
from nnjit.runconfig.run import open_run
from nnjit.runconfig.schema import Config
from nnjit.training.feeds import feed

STEPS = {"train": "train", "evaluate": "test", "predict": "predict"}


@dataclass(frozen=True, eq=False)
class Subject:
    """A model with its configuration, compiled and with weights, not yet run."""

    config: Config
    model: Model

    def executable(self, step: str) -> Any:
        """The step "train", "evaluate" or "predict"."""
        return self.model.executable(STEPS[step])

    def step_on_data(self, step: str, size: int) -> tuple[Any, dict[str, np.ndarray]]:
        """The step, and its inputs: the first rows of the training data, over again if too few."""
        x, y = prepare_data(self.config).part(PARTS[0])
        rows = np.arange(size) % len(x)
        labels = None if y is None or step == "predict" else y[rows]
        data = feed(self.model, x[rows], labels, training=step != "predict")
        inputs = {k: np.ascontiguousarray(a, data.dtypes[k]) for k, a in data.arrays.items()}
        return self.model.executable(STEPS[step], data.labels or None), inputs


def open_subject(path: str, device: str | None) -> Subject:
    """The model of a run folder, or a new one as a configuration file says."""
    folder = RunFolder(Path(path))
    if folder.model.is_file() and is_run(path):
        opened = open_run(path, device=device)
        return Subject(opened.config, opened.model)
    options = [("--device", ("device",), device)] if device else []
    config, _ = read_config(folder.config if is_run(path) else path, (), options)
    shape = config.model.input_shape or prepare_data(config).preparation.sample_shape
    model = build_model(config, tuple(shape))
    compile_model(model, config)
    return Subject(config, model)
