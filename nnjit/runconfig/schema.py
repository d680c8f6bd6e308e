"""What may stand in a configuration, and the value of everything that is left out.

Names of layers, losses and the like are plain text here: `reading` checks them against nnjit's own
tables, so a new layer needs no line in this file.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from nnjit import config
from nnjit.precision import POLICIES

MAX_SEED = 2**63 - 1
STEPS = re.compile(r"([1-9]\d*) steps?")

Positive = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, le=MAX_SEED)]


class Section(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, protected_namespaces=())


def _amount(value: Any) -> int | float:
    whole = isinstance(value, int) and not isinstance(value, bool) and value >= 0
    if not whole and not (isinstance(value, float) and 0 <= value < 1):
        raise ValueError("expected a fraction from 0 up to 1, or a whole number of rows")
    return value


def _every(value: Any) -> str:
    if value != "epoch" and not (isinstance(value, str) and STEPS.fullmatch(value)):
        raise ValueError("expected 'epoch', or text such as '200 steps'")
    return value


def _slices(value: Any) -> int | str:
    whole = isinstance(value, int) and not isinstance(value, bool) and value >= 1
    if value != "auto" and not whole:
        raise ValueError("expected 'auto' or a whole number from 1")
    return value


def _named(value: Any) -> str | dict[str, Any]:
    if not isinstance(value, str | dict):
        raise ValueError("expected a name, or a table with a name and arguments")
    if isinstance(value, dict) and not isinstance(value.get("name"), str):
        raise ValueError("expected the key name = '...' beside its arguments")
    return value


Amount = Annotated[Any, AfterValidator(_amount)]  # 100 rows and 0.1 of them are told apart by type
Every = Annotated[Any, AfterValidator(_every)]
Slices = Annotated[Any, AfterValidator(_slices)]
Named = Annotated[Any, AfterValidator(_named)]


class Data(Section):
    """[data]: where samples come from and how they are cut.

    source: "digits", a path of an .npz file, or a folder with MNIST's IDX files; relative to the
    configuration file. x, y: keys in the .npz. classes: keep these labels only, as 0, 1, … in this
    order. channels: give images (N, H, W) a channel axis; None: yes for images, no for .npz.
    """

    source: str = "digits"
    x: str | None = None
    y: str | None = None
    classes: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=2)] | None = None
    channels: bool | None = None
    scaling: Literal["none", "unit", "standard"] = "unit"
    split: Literal["random", "stratified", "fixed"] = "random"
    validation: Amount = 0.1
    test: Amount | None = None
    seed: Seed | None = None

    @model_validator(mode="after")
    def _each_class_once(self) -> Data:
        if self.classes and len(set(self.classes)) < len(self.classes):
            raise ValueError("classes: a class is given twice")
        return self


class Model(Section):
    """[model]: one of layers, builder and base.

    layers: in order, each {type = …, arguments}. builder: "file.py:function", which returns a model
    that is not compiled; arguments are given to it by name. base: a run folder or a model file to
    train on; head: give it a new last Dense layer with this many outputs. freeze: layers whose
    names match a pattern ("conv*") are not trained. input_shape: of one sample; the data's.
    """

    layers: Annotated[list[dict[str, Any]], Field(min_length=1)] | None = None
    builder: str | None = None
    arguments: dict[str, Any] = {}
    base: str | None = None
    head: Positive | None = None
    freeze: list[str] = []
    input_shape: list[Positive] | None = None

    @model_validator(mode="after")
    def _one_of_three(self) -> Model:
        if sum(v is not None for v in (self.layers, self.builder, self.base)) != 1:
            raise ValueError(
                "expected one of [[model.layers]], builder = 'file.py:function' and base"
            )
        if self.arguments and not self.builder:
            raise ValueError("arguments go with builder = 'file.py:function' only")
        if self.head and not self.base:
            raise ValueError("head goes with base only")
        if self.builder and not re.fullmatch(r".+\.py:[A-Za-z_]\w*", self.builder):
            raise ValueError(f"builder = {self.builder!r}: expected 'file.py:function'")
        return self


class EarlyStopping(Section):
    """[train.early_stopping]: stop after `patience` epochs without an improvement of `monitor`."""

    monitor: str = "val_loss"
    patience: Annotated[int, Field(ge=0)] = 3
    min_delta: Annotated[float, Field(ge=0)] = 0.0
    mode: Literal["auto", "min", "max"] = "auto"
    restore_best_weights: bool = True


class Train(Section):
    """[train]: how long, with what, and what is kept.

    optimizer, loss, each of metrics: a name, or {name = …, arguments}. checkpoint_every: "epoch",
    or "200 steps" (and each epoch's end). keep: how many checkpoints stay. monitor: decides which
    epoch is the best; val_loss, or loss where nothing is held for validation. dtype_policy:
    "mixed_bfloat16" rounds the operands of products and convolutions to bfloat16. batch_slices: in
    how many slices a step runs its batch, or "auto".
    """

    epochs: Positive = 10
    batch_size: Positive = 32
    optimizer: Named = "adam"
    loss: Named = "sparse_categorical_crossentropy"
    metrics: list[Named] = ["accuracy"]
    shuffle: bool = True
    early_stopping: EarlyStopping | None = None
    callbacks: list[dict[str, Any]] = []
    checkpoint_every: Every = "epoch"
    keep: Positive = 3
    monitor: str | None = None
    dtype_policy: Literal[POLICIES] = "float32"  # type: ignore[valid-type]
    batch_slices: Slices = "auto"

    def save_freq(self) -> str | int:
        """ "epoch", or a number of steps."""
        found = STEPS.fullmatch(self.checkpoint_every)
        return int(found.group(1)) if found else "epoch"


class Config(Section):
    """A whole run."""

    name: Annotated[str, Field(pattern=r"^[\w.-]+$")] = "run"
    seed: Seed = Field(default_factory=config.seed)
    device: Literal[config.DEVICES] = Field(default_factory=config.device)  # type: ignore[valid-type]
    data: Data = Data()
    model: Model
    train: Train = Train()
