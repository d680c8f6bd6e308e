"""TOML text: the line of every key, errors with lines, and --set."""

from __future__ import annotations

import tomllib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnjit.errors import ConfigError
from nnjit.runconfig.tomlfile import assign, parse_set, positions, read_toml

TEXT = '''# comment with = and [brackets]
name = "a # b"
[data] # x
source = """
multi ] [
key = 3
"""
split.kind = 'x'
"quoted.key" = 1
[model]
input_shape = [8, # h
 8,
 1]
[[model.layers]]
type = "Conv2D"
[[model.layers]]
type = "Dense"
[model.layers.sub]
a = {b = 1, c = [
  {d = 4},
  {e = 5}]}
[train]
when = 1979-05-27 07:32:00
'''

LINES = {
    ("name",): 2,
    ("data",): 3,
    ("data", "source"): 4,
    ("data", "split", "kind"): 8,
    ("data", "quoted.key"): 9,
    ("model", "input_shape", 0): 11,
    ("model", "input_shape", 2): 13,
    ("model", "layers", 0): 14,
    ("model", "layers", 0, "type"): 15,
    ("model", "layers", 1, "type"): 17,
    ("model", "layers", 1, "sub", "a", "c", 1, "e"): 21,
    ("train", "when"): 23,
}


def test_every_key_has_its_line():
    found = positions(TEXT)
    assert {k: found.get(k) for k in LINES} == LINES


def paths(value, at=()):
    if isinstance(value, dict | list):
        for k, v in value.items() if isinstance(value, dict) else enumerate(value):
            yield (*at, k)
            yield from paths(v, (*at, k))


def test_positions_and_values_have_the_same_keys():
    assert set(positions(TEXT)) == set(paths(tomllib.loads(TEXT)))


KEYS = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=6)
VALUES = st.recursive(
    st.none().map(lambda _: 1)
    | st.booleans()
    | st.integers(-9, 9)
    | KEYS
    | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None, database=None)
@given(st.dictionaries(KEYS, VALUES, max_size=4))
def test_any_document_is_walked_to_its_end(values):
    import tomli_w

    for multiline in (False, True):
        text = tomli_w.dumps(values, multiline_strings=multiline)
        assert set(positions(text)) == set(paths(tomllib.loads(text)))


def test_broken_text_names_the_line(tmp_path):
    file = tmp_path / "c.toml"
    file.write_text('name = "x"\nepochs = = 3\n')
    with pytest.raises(ConfigError, match=r"c\.toml:2: not TOML: "):
        read_toml(file)


@pytest.mark.parametrize(
    ("content", "message"), [(None, "no such file"), (b"\xff\xfe", "not UTF-8 text")]
)
def test_unreadable_files_are_named(tmp_path, content, message):
    file = tmp_path / "c.toml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError, match=rf"c\.toml: {message}"):
        read_toml(file)


@pytest.mark.parametrize(
    ("text", "path", "value"),
    [
        ("train.epochs=5", ("train", "epochs"), 5),
        ("train.optimizer=sgd", ("train", "optimizer"), "sgd"),
        ("model.layers.0.kernel_size=[3, 5]", ("model", "layers", 0, "kernel_size"), [3, 5]),
        ('name="a b"', ("name",), "a b"),
        ("train.shuffle=false", ("train", "shuffle"), False),
        ("data.source=/some/where.npz", ("data", "source"), "/some/where.npz"),
    ],
)
def test_set_takes_toml_values_and_bare_words(text, path, value):
    assert parse_set(text) == (path, value)


@pytest.mark.parametrize("text", ["train.epochs", "=3", "a..b=1", "a=[1", "a=two words"])
def test_set_refuses_what_it_cannot_read(text):
    with pytest.raises(ConfigError, match="--set"):
        parse_set(text)


def test_assign_goes_into_tables_and_lists():
    values = {"layers": [{"units": 1}], "optimizer": "adam"}
    assign(values, ("layers", 0, "units"), 2, "--set")
    assign(values, ("optimizer", "learning_rate"), 0.1, "--set")
    assign(values, ("new", "key"), 3, "--set")
    assert values == {
        "layers": [{"units": 2}],
        "optimizer": {"name": "adam", "learning_rate": 0.1},
        "new": {"key": 3},
    }


def test_assign_refuses_an_entry_that_does_not_exist():
    with pytest.raises(ConfigError, match="layers has entries 0 to 0, not 3"):
        assign({"layers": [{}]}, ("layers", 3, "units"), 2, "--set x")
