"""Configuration file and `--set` to a checked Config: every wrong value at once, with its line."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from nnjit.errors import ConfigError, nearest
from nnjit.runconfig import tables
from nnjit.runconfig.schema import Config, Train
from nnjit.runconfig.tomlfile import Lines, Path_, assign, parse_set, read_toml
from nnjit.runconfig.words import shown, wording


@dataclass(frozen=True)
class Problem:
    """One wrong value: its path, what is wrong, and what was given ('' for nothing)."""

    path: Path_
    message: str
    given: str = ""


@dataclass(frozen=True)
class Source:
    """A configuration's values and where each came from."""

    file: Path
    values: dict[str, Any]
    lines: Lines
    options: dict[Path_, str]  # path -> the option of the command line that set it

    def where(self, path: Path_) -> str:
        """'digits.toml:7', or the option that gave the value; else the place of its parent."""
        for size in range(len(path), 0, -1):
            if path[:size] in self.options:
                return self.options[path[:size]]
            if path[:size] in self.lines:
                return f"{self.file}:{self.lines[path[:size]]}"
        return str(self.file)

    def error(self, problems: Iterable[Problem]) -> ConfigError:
        """One line a problem, in the order of the file."""
        texts = []
        for p in sorted(problems, key=lambda p: self._order(p.path)):
            name = ".".join(map(str, p.path))
            given = f" = {p.given}" if p.given else ""
            texts.append(f"{self.where(p.path)}: {name}{given}: {p.message}")
        return ConfigError("\n".join(dict.fromkeys(texts)))

    def _order(self, path: Path_) -> int:
        return next(
            (self.lines[path[:n]] for n in range(len(path), 0, -1) if path[:n] in self.lines), 0
        )


def read_config(
    file: str | Path,
    sets: Sequence[str] = (),
    options: Sequence[tuple[str, Path_, Any]] = (),
    must_exist: bool = True,
) -> tuple[Config, Source]:
    """The checked configuration of a TOML file.

    sets: texts "a.b=c". options: (name, path, value) of other options that change a value.
    Relative data.source, model.builder and model.base become absolute, from the file's folder (from
    the current one where an option gave them); must_exist=False does not look whether they are
    there. ConfigError has one line for every wrong value.
    """
    path = Path(file)
    values, lines = read_toml(path)
    origin: dict[Path_, str] = {}
    changes = [(f"--set {s}", *parse_set(s)) for s in sets] + list(options)
    for where, key, value in changes:
        _fill_name(values, key)
        assign(values, key, value, where)
        origin[key] = where
    source = Source(path, values, lines, origin)
    problems: list[Problem] = []
    config = None
    try:
        config = Config.model_validate(values)
    except ValidationError as e:
        problems += [Problem(*wording(error)) for error in e.errors()]
    problems += [Problem(*p) for p in tables.check(values)]
    if problems or config is None:
        raise source.error(problems)
    return _absolute(config, source, must_exist), source


def _fill_name(values: dict[str, Any], path: Path_) -> None:
    """Before train.optimizer.learning_rate is set, say which optimizer that is: the default one."""
    if len(path) > 2 and path[:2] in (("train", "optimizer"), ("train", "loss")):
        train = values.setdefault("train", {})
        if isinstance(train, dict):
            train.setdefault(path[1], Train.model_fields[str(path[1])].default)


def _absolute(config: Config, source: Source, must_exist: bool) -> Config:
    """The paths in a configuration made absolute; ConfigError where there is no such file."""
    problems: list[Problem] = []

    def resolve(path: Path_, given: str) -> str:
        base = Path() if path in source.options else source.file.parent
        place = (base / Path(given).expanduser()).resolve()
        if must_exist and not place.exists():
            near = nearest(given, ["digits"]) if path == ("data", "source") else ""
            hint = near if "did you mean" in near else ""
            message = f"no such file or folder: {place}{hint}"
            problems.append(Problem(path, message, shown(given)))
        return str(place)

    data, model = config.data, config.model
    if data.source != "digits":
        data = data.model_copy(update={"source": resolve(("data", "source"), data.source)})
    if model.builder:
        file, function = model.builder.rsplit(":", 1)
        place = resolve(("model", "builder"), file)
        model = model.model_copy(update={"builder": f"{place}:{function}"})
    if model.base:
        model = model.model_copy(update={"base": resolve(("model", "base"), model.base)})
    if problems:
        raise source.error(problems)
    return config.model_copy(update={"data": data, "model": model})
