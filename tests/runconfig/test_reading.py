"""Configurations: every wrong value at once, with its line; filled-in values; paths."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from nnjit.errors import ConfigError
from nnjit.runconfig.reading import read_config

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
GOOD = """\
name = "small"
seed = 3
device = "interpret"

[data]
source = "digits"

[model]
layers = [{ type = "Flatten" }, { type = "Dense", units = 10, activation = "softmax" }]

[train]
epochs = 2
"""


def write(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "c.toml"
    file.write_text(text)
    return file


def refused(file: Path, *sets: str) -> list[str]:
    """The lines of the error, without the folder."""
    with pytest.raises(ConfigError) as caught:
        read_config(file, sets)
    return str(caught.value).replace(f"{file.parent}/", "").splitlines()


def test_left_out_values_are_filled_in(tmp_path):
    config, _ = read_config(write(tmp_path, GOOD))
    assert (config.name, config.seed, config.device) == ("small", 3, "interpret")
    assert (config.train.epochs, config.train.batch_size, config.train.optimizer) == (2, 32, "adam")
    assert (config.data.split, config.data.validation, config.train.keep) == ("random", 0.1, 3)


CASES = [
    ("seed = 3", "sede = 3", "c.toml:2: sede = 3: unknown key; did you mean 'seed'?"),
    ("seed = 3", "seed = -3", "c.toml:2: seed = -3: expected at least 0"),
    ("seed = 3", "seed = 3.5", "c.toml:2: seed = 3.5: expected a whole number"),
    ("interpret", "interpert", "c.toml:3: device = \"interpert\": not one of its values; did you"),
    ('"digits"', '"digts"', "c.toml:6: data.source = \"digts\": no such file or folder"),
    ('"digits"', '"digits"\nscaling = "unti"', "c.toml:7: data.scaling = \"unti\": not one of"),
    ('"digits"', '"digits"\ntest = 1.5', "c.toml:7: data.test = 1.5: expected a fraction"),
    ('"digits"', '"digits"\nclasses = [1, 1]', "c.toml:5: data: classes: a class is given twice"),
    ("Flatten", "Flaten", "c.toml:9: model.layers.0.type = \"Flaten\": unknown layer; did you"),
    ("units", "unist", "c.toml:9: model.layers.1.unist = 10: Dense has no such argument; did"),
    ("units = 10", "units = -1", "c.toml:9: model.layers.1"),
    ("softmax", "sofmax", "c.toml:9: model.layers.1: "),
    ("[model]", '[model]\nbuilder = "x.py:f"', "c.toml:8: model: expected one of"),
    ("epochs = 2", 'epochs = "ten"', "c.toml:12: train.epochs = \"ten\": expected a whole number"),
    ("epochs = 2", "epoch = 2", "c.toml:12: train.epoch = 2: unknown key; did you mean 'epochs'?"),
    ("epochs = 2", 'optimizer = "adamm"', "c.toml:12: train.optimizer = \"adamm\": unknown"),
    (
        "epochs = 2",
        'optimizer = { name = "adam", learning_rat = 1 }',
        "c.toml:12: train.optimizer.learning_rat = 1: Adam has no such argument; did you mean "
        "'learning_rate'?",
    ),
    ("epochs = 2", 'loss = "msee"', "c.toml:12: train.loss = \"msee\": unknown loss"),
    ("epochs = 2", 'metrics = ["acuracy"]', "c.toml:12: train.metrics.0 = \"acuracy\": unknown"),
    ("epochs = 2", 'checkpoint_every = "3 parsecs"', "c.toml:12: train.checkpoint_every = "),
    ("epochs = 2", "batch_slices = 0", "c.toml:12: train.batch_slices = 0: expected 'auto' or a"),
    (
        "epochs = 2",
        "[train.early_stopping]\npatiance = 3",
        "c.toml:13: train.early_stopping.patiance = 3: unknown key; did you mean 'patience'?",
    ),
    (
        "epochs = 2",
        '[[train.callbacks]]\ntype = "ReduceLR"',
        'c.toml:13: train.callbacks.0.type = "ReduceLR": unknown callback; did you mean',
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new", "message"), CASES, ids=[c[1].split("\n")[-1] for c in CASES]
)
def test_a_wrong_value_is_one_line_with_file_and_line(tmp_path, old, new, message):
    assert old in GOOD
    lines = refused(write(tmp_path, GOOD.replace(old, new, 1)))
    assert len(lines) == 1
    assert lines[0].startswith(message)


def test_all_wrong_values_come_at_once_in_the_order_of_the_file(tmp_path):
    text = (
        GOOD.replace("seed", "sede").replace("Flatten", "Flaten").replace("epochs = 2", "keep = 0")
    )
    lines = refused(write(tmp_path, text))
    assert [re.match(r"c\.toml:(\d+): ", t).group(1) for t in lines] == ["2", "9", "12"]


def test_layers_in_tables_have_their_own_lines(tmp_path):
    text = '[[model.layers]]\ntype = "Flatten"\n\n[[model.layers]]\ntype = "Dense"\nunist = 3\n'
    assert refused(write(tmp_path, text))[0].startswith("c.toml:6: model.layers.1.unist")


def test_set_changes_values(tmp_path):
    sets = [
        "train.epochs=7",
        "train.optimizer.learning_rate=0.5",
        "model.layers.1.units=4",
        "name=x",
    ]
    config, _ = read_config(write(tmp_path, GOOD), sets)
    assert (config.train.epochs, config.name) == (7, "x")
    assert config.train.optimizer == {"name": "adam", "learning_rate": 0.5}
    assert config.model.layers[1]["units"] == 4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "train.epoch=5",
            "--set train.epoch=5: train.epoch = 5: unknown key; did you mean 'epochs'",
        ),
        ("train.epochs=0", "--set train.epochs=0: train.epochs = 0: expected at least 1"),
        (
            "model.layers.1.unit=5",
            "--set model.layers.1.unit=5: model.layers.1.unit = 5: Dense has no",
        ),
        ("model.layers.7.units=5", "--set model.layers.7.units=5: model.layers has entries 0 to 1"),
        ("seed.x=1", "--set seed.x=1: seed is 3, which has no keys"),
    ],
)
def test_set_is_checked_like_the_file_and_named(tmp_path, text, message):
    assert refused(write(tmp_path, GOOD), text)[0].startswith(message)


def test_a_missing_model_is_named(tmp_path):
    assert refused(write(tmp_path, 'name = "x"\n')) == ["c.toml: model: missing"]


def test_paths_start_at_the_folder_of_the_file(tmp_path):
    (tmp_path / "d.npz").touch()
    config, _ = read_config(write(tmp_path, GOOD.replace('"digits"', '"d.npz"')))
    assert config.data.source == str(tmp_path / "d.npz")


@pytest.mark.parametrize("name", sorted(p.name for p in EXAMPLES.glob("*.toml")))
def test_the_examples_are_right(name, tmp_path):
    options = []
    if name.startswith("finetune"):
        options = [("MODEL", ("model", "base"), str(tmp_path))]
    if name.startswith("mnist"):
        options = [("--set", ("data", "source"), str(tmp_path))]
    config, _ = read_config(EXAMPLES / name, (), options)
    assert config.train.epochs >= 1
